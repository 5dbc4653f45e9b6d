"""Greedy pruning's table in a run's store: what was pruned under which settings, and what became of each round.

The answers under the candidates lie with all others (``store.answers``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from mote.harness.files import canonical_json, digest_of
from mote.harness.store.run import RunStore

COLUMNS: Final = (
    *("round", "left", "effect", "dropped", "floor", "keep", "experts"),
    *("measured_hits", "measured_total", "measured_share", "whole_hits"),
)


def add_pruning(store: RunStore, settings: Mapping[str, Any], rounds: pd.DataFrame) -> None:
    """Store a pruning that is done, as the one that was asked for last."""
    digest = digest_of(dict(settings))
    with store.transaction():
        last = store.db.execute("select digest from prunings order by pruning_id desc limit 1").fetchone()
        if last is None or last[0] != digest:
            store.db.execute(
                "insert into prunings (digest, settings, rounds) values (?, ?, ?)",
                (digest, canonical_json(dict(settings)), canonical_json(rounds.to_dict("records"))),
            )


def read_pruning(store: RunStore) -> pd.DataFrame:
    """Return the rounds of the pruning that was asked for last, one row a round (``COLUMNS``); empty without one.

    ``effect`` is the flip share on the prompts that chose the experts; the columns of ``measured`` are the flips of
    the profile that is left, and ``whole_hits`` those of all its experts, on prompts that took no part.
    """
    found = store.db.execute("select rounds from prunings order by pruning_id desc limit 1").fetchone()
    return pd.DataFrame([] if found is None else json.loads(found[0]), columns=COLUMNS)
