"""Greedy pruning's table in a run's store: what was pruned under which settings, and what became of each round.

The answers under the candidates lie with those under the tops of rankings (``store.answers``), known by the profile's
digest: what one of the two has asked, the other need not ask again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pandas as pd

from mote.harness.files import canonical_json, digest_of
from mote.harness.store.sqlite import connect

_TABLE: Final = """
create table if not exists prunings (
    pruning_id integer primary key,
    digest text not null unique,       -- sha256 of the settings
    settings text not null,            -- JSON: experts, keep, target, judge
    rounds text not null               -- JSON: one entry a round (COLUMNS), written when it is done
);
"""
COLUMNS: Final = (
    *("round", "left", "effect", "dropped", "floor", "keep", "experts"),
    *("measured_hits", "measured_total", "measured_share", "whole_hits"),
)


def add_pruning(store: Path, settings: Mapping[str, Any], rounds: pd.DataFrame) -> None:
    """Store a pruning that is done; one with the same settings is already there, and the same."""
    values = (digest_of(dict(settings)), canonical_json(dict(settings)), canonical_json(rounds.to_dict("records")))
    with closing(connect(store, read_only=False)) as db:
        db.executescript(_TABLE)
        db.execute("insert or ignore into prunings (digest, settings, rounds) values (?, ?, ?)", values)


def read_pruning(store: Path) -> pd.DataFrame:
    """Return the rounds of a run's last pruning, one row a round (``COLUMNS``); empty without one.

    ``effect`` is the flip share on the prompts that chose the experts; the columns of ``measured`` are the flips of
    the profile that is left, and ``whole_hits`` those of all its experts, on prompts that took no part.
    """
    with closing(connect(store, read_only=True)) as db:
        if not db.execute("select 1 from sqlite_master where name = 'prunings'").fetchone():
            return pd.DataFrame(columns=COLUMNS)
        found = db.execute("select rounds from prunings order by pruning_id desc limit 1").fetchone()
    return pd.DataFrame([] if found is None else json.loads(found[0]), columns=COLUMNS)
