"""Examples: which answers a report shows before and after, chosen by a rule that never looks at the text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from typing import Any, Final, NamedTuple

import pandas as pd

from mote.harness.preconditions import STATES
from mote.harness.science.controls import BASELINE
from mote.harness.store.questions import last_question


class Side(NamedTuple):
    """An answer of an example: its label, the raw text, and the evidence for the label as (rule, start, end)."""

    label: str
    raw: str
    evidence: tuple[tuple[str, int, int], ...]


class Example(NamedTuple):
    """A prompt before and after a profile; ``pick`` is the kind of transition that the rule chose it for."""

    prompt_id: str
    question: str
    profile: str
    pick: str
    before: Side
    after: Side


PICKS: Final = {"flip": 2, "stay": 1, "reverse": 1, "broken": 1, "other": 1}
"""Kinds of transition in the order they are shown, and how many prompts of each pair of labels: the target left,
kept, or entered; text broken; any other change."""


def choose_examples(
    frame: pd.DataFrame, paired: pd.DataFrame, tuned: str | None, target: str, view: str
) -> tuple[Example, ...]:
    """Take of each transition of the tuned profile the prompts whose ids have the smallest sha256.

    The rule is blind to the text: what is shown was not chosen by its looks.
    """
    rows = paired[(paired["profile"] == tuned) & (paired["view"] == view)]
    if rows.empty:
        return ()
    rows = rows.assign(
        order=[hashlib.sha256(str(key).encode()).hexdigest() for key in rows["prompt_id"]],
        pick=[_pick(b, a, target) for b, a in zip(rows["before"], rows["after"], strict=True)],
    ).sort_values("order")
    place = rows.groupby(["before", "after"], sort=False).cumcount()
    chosen = rows[place < rows["pick"].map(PICKS).fillna(0)]
    chosen = chosen.sort_values("pick", key=lambda picks: picks.map(list(PICKS).index), kind="stable")
    texts = {
        (row["profile"], row["prompt_id"]): row
        for row in frame[
            frame["profile"].isin([BASELINE, tuned]) & frame["prompt_id"].isin(chosen["prompt_id"])
        ].to_dict("records")
    }
    return tuple(
        Example(
            prompt_id=str(key),
            question=last_question(json.loads(texts[BASELINE, key]["messages"])),
            profile=str(tuned),
            pick=str(pick),
            before=_side(texts[BASELINE, key]),
            after=_side(texts[tuned, key]),
        )
        for key, pick in zip(chosen["prompt_id"], chosen["pick"], strict=True)
    )


def _side(row: Mapping[Hashable, Any]) -> Side:
    spans = [(str(entry["rule"]), int(entry["start"]), int(entry["end"])) for entry in json.loads(row["evidence"])]
    return Side(str(row["label"]), str(row["raw"]), tuple(spans))


def _pick(before: str, after: str, target: str) -> str:
    if before in STATES:
        return ""
    if after in STATES:
        return "broken"
    if before == after:
        return "stay" if before == target else ""
    if before == target:
        return "flip"
    return "reverse" if after == target else "other"
