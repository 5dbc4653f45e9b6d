"""Greedy pruning's tables in a run's store: every candidate's answers, written once, and what became of the rounds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd

from mote.harness.files import canonical_json, digest_of
from mote.harness.sqlite import Transaction, connect

_TABLES: Final = """
create table if not exists prunings (
    pruning_id integer primary key,
    digest text not null unique,       -- sha256 of the settings
    settings text not null,            -- JSON: experts, keep, judge, target, prompts
    rounds text                        -- JSON, when it is done: one entry a round, and what was measured after
);
create table if not exists prune_answers (
    pruning_id integer not null references prunings,
    profile_digest text not null,      -- of the receipt
    prompt_id text not null references prompts,
    seed integer not null,
    raw text not null,
    finish_reason text,
    label text not null,
    tokens_edited integer not null,    -- of the receipt
    primary key (pruning_id, profile_digest, prompt_id)
) without rowid;
"""
COLUMNS: Final = (
    *("round", "left", "effect", "dropped", "floor", "keep", "experts"),
    *("measured_hits", "measured_total", "measured_share"),
)


class PruneAnswer(NamedTuple):
    """One answer under one candidate, with the label that it was given."""

    profile_digest: str
    prompt_id: str
    seed: int
    raw: str
    finish_reason: str | None
    label: str
    tokens_edited: int


class PruneStore:
    """One pruning of a run, through a connection of its own; the run's lock must be held elsewhere."""

    def __init__(self, store: Path, settings: Mapping[str, Any]) -> None:
        self._db = connect(store, read_only=False)
        self._db.executescript(_TABLES)
        digest = digest_of(dict(settings))
        self._db.execute(
            "insert into prunings (digest, settings) values (?, ?) on conflict (digest) do nothing",
            (digest, canonical_json(dict(settings))),
        )
        (self._id,) = self._db.execute("select pruning_id from prunings where digest = ?", (digest,)).fetchone()

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def labels(self) -> dict[tuple[str, str], str]:
        """Return (profile digest, prompt id) -> label of all that is there."""
        query = "select profile_digest, prompt_id, label from prune_answers where pruning_id = ?"
        return {(digest, prompt): label for digest, prompt, label in self._db.execute(query, (self._id,))}

    def add(self, answers: Iterable[PruneAnswer]) -> None:
        """Store answers in one transaction."""
        with Transaction(self._db):
            self._db.executemany(
                "insert into prune_answers values (?, ?, ?, ?, ?, ?, ?, ?)", [(self._id, *row) for row in answers]
            )

    def finish(self, rounds: pd.DataFrame) -> None:
        """Store the rounds of a pruning that is done."""
        text = canonical_json(rounds.to_dict("records"))
        self._db.execute("update prunings set rounds = ? where pruning_id = ?", (text, self._id))


def read_pruning(store: Path) -> pd.DataFrame:
    """Return the rounds of the last pruning of a run that is done, one row a round (``COLUMNS``); empty without one."""
    with closing(connect(store, read_only=True)) as db:
        if not db.execute("select 1 from sqlite_master where name = 'prunings'").fetchone():
            return pd.DataFrame(columns=COLUMNS)
        found = db.execute(
            "select rounds from prunings where rounds is not null order by pruning_id desc limit 1"
        ).fetchone()
    return pd.DataFrame([] if found is None else json.loads(found[0]), columns=COLUMNS)
