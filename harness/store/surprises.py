"""How surprising the untouched model finds texts in their contexts: a table of a run's store, a row a text and prompt.

Who asked does not matter: an answer of the study and the same text under a ranking's experts are one row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from typing import Any, NamedTuple

from mote.harness.science.controls import BASELINE
from mote.harness.store.generations import text_id
from mote.harness.store.run import RunStore
from mote.judges import Measured
from mote.judges.surprise import Improbable

Key = tuple[str, str]
"""A prompt's id and the raw text of an answer to it."""


def add_surprises(store: RunStore, rows: Iterable[tuple[Key, Measured | None]]) -> None:
    """Store measurements, all or none; None stands for a text that did not fit the model's context."""
    with closing(store.db.cursor()) as cursor, store.transaction():
        for (prompt, raw), found in rows:
            lowest = [[round(one.logprob, 4), one.start, one.end] for one in found.lowest] if found else []
            cursor.execute(
                "insert into surprise_rows (prompt, raw, tokens, surprise, lowest)"
                " values ((select position from prompts where prompt_id = ?), ?, ?, ?, ?)",
                (
                    *(prompt, text_id(cursor, raw)),
                    *(found.tokens if found else 0, found.surprise if found else None, json.dumps(lowest)),
                ),
            )


def read_surprises(store: RunStore) -> dict[Key, Measured | None]:
    """Return every measurement of a run, None where the text did not fit the model's context."""
    rows = store.db.execute("select prompt_id, raw, tokens, surprise, lowest from surprises")
    return {
        (prompt, raw): None
        if surprise is None
        else Measured(tokens, surprise, tuple(Improbable(*one) for one in json.loads(lowest)))
        for prompt, raw, tokens, surprise, lowest in rows
    }


class TextLabel(NamedTuple):
    """A generation with the label of its text: the class, and the evidence for it."""

    generation_id: int
    prompt_id: str
    raw: str
    label: str
    evidence: list[dict[str, Any]]


def unjudged(store: RunStore, judge: str, other: str) -> list[TextLabel]:
    """Return what a judge has labelled and another has not, in the order in which it was generated."""
    rows = store.db.execute(
        "select g.generation_id, g.prompt_id, g.raw, l.label, l.evidence from generations g"
        " join labels l on l.generation_id = g.generation_id and l.judge = ?"
        " where g.generation_id not in (select generation_id from labels where judge = ?) order by g.generation_id",
        (judge, other),
    )
    return [TextLabel(*(number, prompt, raw, label), json.loads(why)) for number, prompt, raw, label, why in rows]


def baseline_texts(store: RunStore, judge: str) -> list[tuple[str, str, str]]:
    """Return (prompt id, raw text, label by a judge) of the baseline's answers."""
    return store.db.execute(
        "select g.prompt_id, g.raw, l.label from generations g"
        " join labels l on l.generation_id = g.generation_id and l.judge = ? where g.profile = ?",
        (judge, BASELINE),
    ).fetchall()
