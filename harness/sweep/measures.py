"""What a child is measured by: shares of classes, right answers, broken ones and tokens, from the stored rows.

Intervals are Korn-Graubard's over the prompts' units where they have some, else exact (Clopper-Pearson, which takes
prompts as independent).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from mote.harness.preconditions import STATES
from mote.harness.science.clustered import korn_graubard
from mote.harness.science.inference import rate
from mote.harness.science.splits import units_of
from mote.harness.sweep.schema import BASE, SCORE, ScorePart

BROKEN: Final = "broken"
"""The measure of answers that have a state instead of a class: cut off, degenerate, not to be scored."""


class Measured(NamedTuple):
    """A share of the answers of one child under one profile, with its 95% interval."""

    share: float
    low: float
    high: float
    answers: int


def read_rows(frame: pd.DataFrame, score: ScorePart | None) -> tuple[pd.DataFrame, str | None]:
    """Return a sweep's rows with ``right`` (NaN without a score) and ``unit``, and what the unit is called."""
    attributes = [json.loads(text) for text in frame["attributes"]]
    named, units = units_of(dict(zip(frame["prompt_id"].map(str), attributes, strict=True)))
    found = frame.assign(unit=[str(units.get(str(key), key)) for key in frame["prompt_id"]])
    if score is None:
        return found.assign(right=np.nan), named
    right = [
        is_right(str(answer), str(one.get(score.attribute)), score)
        for answer, one in zip(frame["answer"], attributes, strict=True)
    ]
    return found.assign(right=np.asarray(right, dtype=float)), named


def is_right(answer: str, expected: str, score: ScorePart) -> bool:
    """Return whether an answer is right by a sweep's score."""
    answer, expected = answer.strip(), expected.strip()
    return answer == expected if score.match == "exact" else expected in answer


def hits(rows: pd.DataFrame, measure: str) -> pd.Series[float]:
    """Return 1 or 0 for each row by a measure: a class, ``broken``, or ``score``."""
    if measure == SCORE:
        return rows["right"].astype(float)
    if measure == BROKEN:
        return rows["label"].isin(STATES).astype(float)
    return (rows["label"] == measure).astype(float)


def measured(rows: pd.DataFrame, measure: str, *, clustered: bool) -> Measured:
    """Return the share of one child's answers that a measure counts."""
    values = hits(rows, measure)
    if clustered:
        units: list[Hashable] = list(rows["unit"])
        share = korn_graubard(values.to_numpy(), units)
        return Measured(share.share, share.low, share.high, len(rows))
    exact = rate(int(values.sum()), len(rows))
    return Measured(exact.share, exact.low, exact.high, len(rows))


def curve(rows: pd.DataFrame, subset: str, measure: str, profile: str = "") -> dict[float, float]:
    """Return proportion -> share of a measure for one subset, the base at 0 among them."""
    own = rows[rows["subset"].isin((subset, "")) & (rows["profile"] == profile)]
    values = own.assign(hit=hits(own, measure))
    return {float(p): float(share) for p, share in values.groupby("proportion")["hit"].mean().items()}  # type: ignore[arg-type]


def subsets_of(rows: pd.DataFrame, order: Sequence[str]) -> list[str]:
    """Return the subsets of which there are children, in the recipe's order."""
    there = set(rows["subset"]) - {""}
    return [name for name in order if name in there]


def table(rows: pd.DataFrame, measures: Sequence[str], order: Sequence[str], *, clustered: bool) -> pd.DataFrame:
    """Return one row for each child, profile and measure, and one for the tokens of each, in the recipe's order."""
    found: list[dict[str, Any]] = []
    keys = ["subset", "proportion", "child", "profile"]
    for (subset, proportion, child, profile), own in rows.groupby(keys, sort=True):
        first = {"subset": subset or BASE, "proportion": proportion, "child": child, "profile": profile}
        for measure in measures:
            found.append({**first, "measure": measure, **measured(own, measure, clustered=clustered)._asdict()})
        for name in ("generated_tokens", "reasoning_tokens", "answer_tokens"):
            values = own[name].astype(float)
            found.append({**first, "measure": name, "share": float(values.mean()), "answers": int(values.count())})
    table = pd.DataFrame(found).rename(columns={"share": "value"})
    # Stable: proportions and profiles stay in the order in which groupby has them.
    places = {name: at for at, name in enumerate((BASE, *order))}
    return table.sort_values("subset", key=lambda column: column.map(places), kind="stable").reset_index(drop=True)
