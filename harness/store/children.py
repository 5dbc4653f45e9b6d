"""The children of a sweep: models merged from parents, whose answers lie in a run's tables.

A sweep's profile is of one child: it is named ``CHILD``, or ``CHILD/PROFILE`` where the child is asked under edits. The
view ``child_generations`` names child and profile of every generation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from mote.harness.files import canonical_json
from mote.harness.store.run import RunStore


class ChildRow(NamedTuple):
    """A child: what of the parents is taken over at which proportion, the digest of its weights, and its recipe."""

    child: str
    subset: str
    proportion: float
    weights: str
    recipe: Mapping[str, Any]


class Untokenised(NamedTuple):
    """A generation whose parts were not counted yet."""

    generation_id: int
    reasoning: str
    answer: str


def add_child(store: RunStore, row: ChildRow) -> None:
    """Store a child."""
    with store.transaction():
        store.db.execute(
            "insert into children (child, subset, proportion, weights, recipe) values (?, ?, ?, ?, ?)",
            (row.child, row.subset, row.proportion, row.weights, canonical_json(dict(row.recipe))),
        )


def children(store: RunStore) -> dict[str, ChildRow]:
    """Return the stored children by name."""
    cursor = store.db.execute("select child, subset, proportion, weights, recipe from children order by child")
    return {row[0]: ChildRow(row[0], row[1], row[2], row[3], json.loads(row[4])) for row in cursor}


def last_child(store: RunStore) -> ChildRow | None:
    """Return the child that was answered last; None before any was."""
    query = "select child from child_generations order by generation_id desc limit 1"
    found = store.db.execute(query).fetchone()
    return None if found is None else children(store)[found[0]]


def untokenised(store: RunStore) -> list[Untokenised]:
    """Return the generations whose reasoning and answer were not counted in tokens yet."""
    cursor = store.db.execute(
        "select generation_id, reasoning, answer from generations"
        " where generation_id not in (select generation_id from part_tokens) order by generation_id"
    )
    return [Untokenised(*row) for row in cursor]


def add_part_tokens(store: RunStore, counts: Mapping[int, tuple[int, int]]) -> None:
    """Store the tokens of reasoning and answer by generation id."""
    with store.transaction():
        store.db.executemany(
            "insert into part_tokens (generation_id, reasoning, answer) values (?, ?, ?)",
            [(number, *both) for number, both in counts.items()],
        )


def sweep_frame(store: RunStore, judge: str) -> pd.DataFrame:
    """Return one row a generation: child, subset, proportion, profile ('' for none), prompt, label, tokens, text.

    ``label`` is NaN where the judge has not labelled, the tokens of parts where they were not counted.
    """
    query = (
        "select c.child, c.subset, c.proportion, c.under as profile, c.prompt_id, p.position, p.attributes, c.answer,"
        " c.generated_tokens, t.reasoning as reasoning_tokens, t.answer as answer_tokens, l.label"
        " from child_generations c join prompts p using (prompt_id)"
        " left join part_tokens t using (generation_id)"
        " left join labels l on l.generation_id = c.generation_id and l.judge = ?"
        " order by c.subset, c.proportion, c.under, p.position"
    )
    return pd.read_sql(query, store.db, params=(judge,))
