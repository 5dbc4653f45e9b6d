"""Transition matrices: what became of each prompt's label under a profile (the paper's Figures 8 to 10 and 12).

Rows are the labels before, columns the labels after, the same prompts in both. An answer that was cut off, came
apart or could not be scored is a state of its own (`STATES`): suppressing experts also breaks text, and broken text
counted as an answer would be the greatest "success" of all. So it never counts as a flip, and never leaves the
denominator either.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.errors import nearest
from mote.harness.preconditions import STATES, DataError
from mote.harness.science.inference import Interval, Rate, Significance, cluster_rate_interval, cluster_sign_test, rate
from mote.judges import REFUSED


class FlipRates(NamedTuple):
    """What a profile did to one class; every rate with numerator, denominator and exact interval.

    `flips`: of the prompts that had the target, those that now have an answer class. `reverse`: of the prompts that
    had an answer class, those that now have the target. `broken`: of the prompts that had the target, those that are
    now truncated, degenerate or unscored; `broken_others` the same of the answer classes. `unusable`: prompts that
    had no class before; they are in no rate.
    """

    target: str
    flips: Rate
    reverse: Rate
    broken: Rate
    broken_others: Rate
    unusable: int


def transition_matrix(before: pd.Series[str], after: pd.Series[str], classes: Sequence[str]) -> pd.DataFrame:
    """Count the transitions from the labels `before` (rows) to the labels `after` (columns).

    Both are indexed by prompt id, or by (prompt id, seed) for several samples a prompt, in any order, each pair once.
    All `classes` are rows and columns, in their order, followed by `STATES`, also where nothing falls on them.
    Raises `DataError` when the prompts differ, an index repeats, or a label is neither a class nor a state.
    """
    names = [*classes, *(state for state in STATES if state not in classes)]
    if len(set(names)) != len(names):
        raise DataError(f"The classes {list(classes)} name one class twice.")
    before, after = _paired(before, after)
    for side, labels in (("before", before), ("after", after)):
        _check_labels(labels, names, side)
    place = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (before.map(place).to_numpy(dtype=np.int64), after.map(place).to_numpy(dtype=np.int64)), 1)
    return pd.DataFrame(counts, index=pd.Index(names, name="before"), columns=pd.Index(names, name="after"))


def flip_rates(matrix: pd.DataFrame, target: str = REFUSED, level: float = 0.95) -> FlipRates:
    """Return flips, reverse flips and broken answers of the class `target`, with exact Clopper-Pearson intervals.

    The intervals take the prompts as independent; where they share a place or subject, or have several samples, give
    `clustered_flips` beside them. Raises `DataError` when `matrix` is no transition matrix or lacks `target`.
    """
    names = [str(name) for name in matrix.index]
    if names != [str(name) for name in matrix.columns]:
        raise DataError("A transition matrix has the same labels as rows and columns, in the same order.")
    answers = _answers(names, target)
    states = [name for name in names if name in STATES]
    count = matrix.to_numpy(dtype=np.int64)
    at = {name: i for i, name in enumerate(names)}

    def cells(rows: Sequence[str], columns: Sequence[str]) -> int:
        return int(count[np.ix_([at[row] for row in rows], [at[column] for column in columns])].sum())

    return FlipRates(
        target=target,
        flips=rate(cells([target], answers), cells([target], names), level),
        reverse=rate(cells(answers, [target]), cells(answers, names), level),
        broken=rate(cells([target], states), cells([target], names), level),
        broken_others=rate(cells(answers, states), cells(answers, names), level),
        unusable=cells(states, names),
    )


def row_shares(matrix: pd.DataFrame) -> pd.DataFrame:
    """Return each row of a transition matrix as shares of its sum; a row without prompts is nan."""
    totals = matrix.sum(axis="columns").astype("float64")
    return matrix.div(totals.where(totals > 0), axis="index")


class ClusteredFlips(NamedTuple):
    """Flip rates with intervals that resample whole clusters, and the paired test over clusters (None: too few)."""

    flips: float
    flips_interval: Interval | None
    reverse: float
    reverse_interval: Interval | None
    test: Significance
    clusters: int


def clustered_flips(
    before: pd.Series[str],
    after: pd.Series[str],
    clusters: pd.Series[Any],
    classes: Sequence[str],
    target: str = REFUSED,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> ClusteredFlips:
    """Return the flip rates of paired labels whose prompts are not independent of each other.

    `clusters` gives for each entry of `before` the unit that is independent: the place, the subject, or, for
    several samples of one prompt, the prompt. Numerators and denominators are those of `flip_rates`; the intervals are
    those of `cluster_rate_interval` (None where fewer than two clusters have the class), the test is
    `cluster_sign_test` on flips against reverse flips.
    """
    names = [*classes, *(state for state in STATES if state not in classes)]
    answers = _answers(names, target)
    before, after = _paired(before, after)
    for side, labels in (("before", before), ("after", after)):
        _check_labels(labels, names, side)
    if not before.index.isin(clusters.index).all() or not clusters.index.is_unique:
        raise DataError("The clusters must name one cluster for each prompt of the labels.")
    unit = clusters.reindex(before.index)
    if unit.isna().any():
        raise DataError(f"Prompt {unit.index[unit.isna()][0]!r} has no cluster.")
    flipped = (before == target) & after.isin(answers)
    reversed_ = before.isin(answers) & (after == target)
    sides = []
    for hit, base in ((flipped, before == target), (reversed_, before.isin(answers))):
        values, groups = hit[base].to_numpy(dtype=np.float64), list(unit[base])
        enough = len(set(groups)) >= 2
        interval = cluster_rate_interval(values, groups, level, seed=seed) if enough else None
        sides.append((float(values.mean()) if values.size else float("nan"), interval))
    change: NDArray[np.float64] = flipped.to_numpy(dtype=np.float64) - reversed_.to_numpy(dtype=np.float64)
    test = cluster_sign_test(change, list(unit), seed=seed)
    return ClusteredFlips(*sides[0], *sides[1], test, int(unit.nunique()))


def _answers(names: Sequence[str], target: str) -> list[str]:
    classes = [name for name in names if name not in STATES]
    if target not in classes:
        raise DataError(f"'{target}' is no class of the transition matrix.{nearest(target, classes)}")
    return [name for name in classes if name != target]


def _paired(before: pd.Series[str], after: pd.Series[str]) -> tuple[pd.Series[str], pd.Series[str]]:
    for side, labels in (("before", before), ("after", after)):
        if not labels.index.is_unique:
            twice = labels.index[labels.index.duplicated()][0]
            raise DataError(
                f"Prompt {twice!r} occurs twice in the labels {side}; index several samples by (prompt, seed)."
            )
    alone: list[tuple[str, Hashable, int]] = []
    for side, mine, other in (("before", before, after), ("after", after, before)):
        lonely = mine.index.difference(other.index, sort=False)
        if len(lonely):
            alone.append((side, lonely[0], len(lonely)))
    if alone:
        said = "; ".join(f"{n} only {side}, for instance {name!r}" for side, name, n in alone)
        raise DataError(f"A transition needs the same prompts before and after: {said}.")
    return before, after.reindex(before.index)


def _check_labels(labels: pd.Series[str], names: Sequence[str], side: str) -> None:
    missing = labels.isna()
    if missing.any():
        raise DataError(
            f"Prompt {labels.index[missing][0]!r} has no label {side}; one that could not be scored is UNSCORED."
        )
    unknown = ~labels.isin(names)
    if unknown.any():
        wrong = str(labels[unknown].iloc[0])
        where = labels.index[unknown][0]
        raise DataError(
            f"'{wrong}' of prompt {where!r} ({side}) is neither a class nor a state.{nearest(wrong, names)}"
        )
