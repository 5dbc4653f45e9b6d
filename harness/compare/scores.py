"""Did tuning hurt? The paired difference of a scored task: the same documents before and after, metric by metric.

Right-or-wrong metrics get McNemar's exact test and the interval of Agresti and Min (2005); other numbers a paired
bootstrap and a sign-flip permutation test. Pure functions on frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mote.harness.preconditions import DataError, check_level
from mote.harness.science.equivalence import Equivalence, equivalent_scores, equivalent_shares
from mote.harness.science.inference import Interval, cluster_rate_interval, cluster_sign_test, mcnemar_exact

COLUMNS = (
    "metric",
    "filter",
    "pairs",
    "before",
    "after",
    "difference",
    "low",
    "high",
    "up",
    "down",
    "p",
    "test",
    "interval",
)


EQUIVALENCE = ("margin", "equivalent", "equivalence_p")


class Difference(NamedTuple):
    """A metric before and after; ``up`` and ``down`` count the documents whose value rose and fell."""

    pairs: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    up: int
    down: int
    p: float
    test: str
    interval: str


def paired_scores(
    before: pd.DataFrame, after: pd.DataFrame, level: float = 0.95, margin: float | None = None
) -> pd.DataFrame:
    """Return one row for each metric and filter that both sides have, over the documents that both have.

    With a ``margin``, in the metric's own unit, the columns margin, equivalent (whether the change is shown to be
    smaller, at alpha 0.05) and equivalence_p are there too.

    Both frames have the columns key, metric, filter and value, each (key, metric, filter) once. A metric with a value
    that isn't finite on a side is compared on the other documents.
    """
    on = ["key", "metric", "filter"]
    for side, frame in (("before", before), ("after", after)):
        if frame.duplicated(on).any():
            first = frame[frame.duplicated(on)].iloc[0]
            raise DataError(f"The metric '{first['metric']}' of '{first['key']}' occurs twice {side}.")
    both = before.merge(after, on=on, suffixes=("_before", "_after"))
    both = both.astype({"value_before": np.float64, "value_after": np.float64})
    both = both[np.isfinite(both["value_before"]) & np.isfinite(both["value_after"])]
    rows: list[dict[str, Any]] = []
    for (metric, filter_name), some in both.groupby(["metric", "filter"], sort=False):
        left = some["value_before"].to_numpy(dtype=np.float64)
        right = some["value_after"].to_numpy(dtype=np.float64)
        row = {"metric": metric, "filter": filter_name, **paired_difference(left, right, level)._asdict()}
        if margin is not None:
            test = equivalent_shares if _right_or_wrong(left, right) else equivalent_scores
            row |= within(left, right, margin, range(left.size), test)
        rows.append(row)
    return pd.DataFrame(rows, columns=[*COLUMNS, *(() if margin is None else EQUIVALENCE)])


def within(
    before: ArrayLike, after: ArrayLike, margin: float, units: Sequence[Hashable], test: Callable[..., Equivalence]
) -> dict[str, Any]:
    """Return margin, equivalent and equivalence_p of paired values by a test of ``science.equivalence``.

    ``units`` gives each pair's; fewer than two show nothing, and the p is nan.
    """
    if len(set(units)) < 2:
        return dict(zip(EQUIVALENCE, (margin, False, math.nan), strict=True))
    found = test(before, after, margin, units)
    return dict(zip(EQUIVALENCE, (margin, found.equivalent, found.p), strict=True))


def _right_or_wrong(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    return bool(np.isin(before, (0.0, 1.0)).all() and np.isin(after, (0.0, 1.0)).all())


def paired_difference(before: NDArray[np.float64], after: NDArray[np.float64], level: float = 0.95) -> Difference:
    """Return the difference of the means of paired values, with its interval and test.

    Raises DataError when the two are empty, or not of one length.
    """
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise DataError(f"A paired difference needs two equally long lists, not {before.size} and {after.size} values.")
    change = after - before
    up, down = int(np.count_nonzero(change > 0)), int(np.count_nonzero(change < 0))
    if _right_or_wrong(before, after):
        interval = agresti_min(up, down, before.size, level)
        p, test, kind = mcnemar_exact(up, down).p, "McNemar, exact", "Agresti-Min"
    else:
        units = list(range(before.size))
        interval = cluster_rate_interval(change, units, level) if before.size > 1 else Interval(math.nan, math.nan)
        p, test, kind = cluster_sign_test(change, units).p, "sign-flip permutation", "paired bootstrap"
    return Difference(
        pairs=int(before.size),
        before=float(before.mean()),
        after=float(after.mean()),
        difference=float(change.mean()),
        low=interval.low,
        high=interval.high,
        up=up,
        down=down,
        p=p,
        test=test,
        interval=kind,
    )


def agresti_min(up: int, down: int, pairs: int, level: float = 0.95) -> Interval:
    """Return the interval of the difference of two paired proportions, (up - down) / pairs.

    Wald's interval after half a pair is added to each of the four cells; unlike Wald's it is not (0, 0) where nothing
    changed, and it covers well for small samples. Agresti and Min, Statistics in Medicine 24 (2005), 729-740.
    """
    check_level(level)
    if min(up, down) < 0 or up + down > pairs or pairs < 1:
        raise DataError(f"Of {pairs} pairs, {up} rose and {down} fell: these are no counts of pairs.")
    b, c, n = up + 0.5, down + 0.5, pairs + 2
    centre = (b - c) / n
    spread = math.sqrt(b + c - (b - c) ** 2 / n) / n
    z = float(stats.norm.ppf(0.5 + level / 2))
    return Interval(max(-1.0, centre - z * spread), min(1.0, centre + z * spread))
