"""Shares of prompts that come in units (places, subjects): intervals that hold with few units.

Prompts about one place are answered alike, so sixty prompts about five places tell less than sixty. `korn_graubard`
bounds one share, `net_effect` the change of a share between two runs of the same prompts.

Korn & Graubard (1998), Survey Methodology 24, 193-201; combined by the method of variance estimates recovery (Newcombe
1998, Statistics in Medicine 17, 2635-2650; Zou & Donner 2008, ibid. 27, 1693-1702).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mote.harness.preconditions import DataError, check_level
from mote.harness.science.inference import Interval
from mote.harness.science.splits import number_units


class ClusteredShare(NamedTuple):
    """A share with its Korn-Graubard interval; `effective` is n*, the independent trials that would tell as much."""

    share: float
    low: float
    high: float
    rows: int
    units: int
    effective: float


class NetEffect(NamedTuple):
    """By how much a class's share fell between two runs of the same prompts; positive where the class was left.

    `net` is `lost` (share of rows that left the class) minus `gained` (share that entered it). `units` are all units,
    `units_that_count` those in which the class occurs, before or after: the others can't tell anything about it.
    """

    net: float
    low: float
    high: float
    lost: float
    gained: float
    rows: int
    units: int
    units_that_count: int


def korn_graubard(values: ArrayLike, units: Sequence[Hashable], level: float = 0.95) -> ClusteredShare:
    """Return the share of `values` (0 or 1, or shares between) with its Korn-Graubard interval over `units`.

    Clopper-Pearson on n* = min(n, p (1 - p) / v) * (t(n - 1) / t(G - 1))^2 trials, where v is the cluster-robust
    variance of the share over the G units and t the quantile of Student's distribution at the level. Where the rows
    have none or all of the hits, v says nothing about how alike a unit's rows are, and the G units are G trials. One
    unit alone bounds nothing: (0, 1).
    """
    check_level(level)
    rows, at, groups = _rows(values, units)
    share = float(rows.mean())
    trials = _effective(rows, at, groups, level)
    low, high = _beta_bounds(share, trials, level) if groups > 1 else (0.0, 1.0)
    return ClusteredShare(share, low, high, rows.size, groups, trials)


def net_effect(before: ArrayLike, after: ArrayLike, units: Sequence[Hashable], level: float = 0.95) -> NetEffect:
    """Return the fall of a class's share from `before` to `after` (1 where a row has the class), with its interval.

    One row a prompt and seed; `units` gives each row's unit, or its prompt where prompts are independent. The rows that
    left the class and those that entered it are two shares, each with its Korn-Graubard interval over the units that
    count. Its degrees of freedom are those of `equal_units`: with a large unit among small ones the plain G - 1 are too
    many and the interval too narrow. The interval of the difference recovers its variance from those two, with their
    correlation over units where that is negative (a positive one would narrow it, and is not known well enough with few
    units). Where no row entered (or left) the class, its share is bounded with as many trials as the other's n*: rows
    that enter are taken to be as alike within a unit as rows that leave. Where neither occurs, each unit that counts is
    one trial. Where all rows have the class before, none can enter it.

    Fewer than two units that count bound nothing: (-1, 1).
    """
    check_level(level)
    first, at, groups = _rows(before, units)
    second, _, _ = _rows(after, units)
    fell = first - second
    lost, gained = np.maximum(fell, 0.0), np.maximum(-fell, 0.0)
    occurs = np.bincount(at, weights=first + second, minlength=groups) > 0
    count = int(occurs.sum())
    b, c = float(lost.mean()), float(gained.mean())
    net = b - c
    low, high = -1.0, 1.0
    if count > 1:
        bounds_b, bounds_c = _pair_bounds(lost, gained, at, occurs, level)
        if first.all():
            bounds_c = Interval(0.0, 0.0)
        alike = min(0.0, _correlation(lost, gained, at))
        down = _distance(b - bounds_b.low, bounds_c.high - c, alike)
        up = _distance(bounds_b.high - b, c - bounds_c.low, alike)
        low, high = max(-1.0, net - down), min(1.0, net + up)
    return NetEffect(net, low, high, b, c, fell.size, groups, count)


def _pair_bounds(
    lost: NDArray[np.float64],
    gained: NDArray[np.float64],
    at: NDArray[np.int64],
    occurs: NDArray[np.bool_],
    level: float,
) -> tuple[Interval, Interval]:
    sizes = np.bincount(at)[occurs]
    sides = (lost, gained)
    trials = [_effective(side, at, equal_units(sizes), level) if side.any() else math.nan for side in sides]
    known = [n for n in trials if not math.isnan(n)]
    if not known:
        # Units without the class can't gain or lose it in sight: the bound is for the share of the others' rows.
        inside = float(occurs[at].mean())
        bound = _beta_bounds(0.0, float(sizes.size), level)
        both = Interval(0.0, bound.high * inside)
        return both, both
    first, second = (
        _beta_bounds(float(side.mean()), known[0] if math.isnan(n) else n, level)
        for side, n in zip(sides, trials, strict=True)
    )
    return first, second


def equal_units(sizes: NDArray[np.int64]) -> float:
    """Return how many units of equal size these are worth: (sum of sizes)^2 / sum of squares, at least 2.

    The effective number of clusters of Carter, Schnepel & Steigerwald (2017), Review of Economics and Statistics 99,
    698-709, for rows that are wholly alike within a unit.
    """
    return max(2.0, float(sizes.sum()) ** 2 / float((sizes.astype(np.float64) ** 2).sum()))


def _effective(rows: NDArray[np.float64], at: NDArray[np.int64], groups: float, level: float) -> float:
    """Return n*, with `groups` for the degrees of freedom: units in which nothing can happen are no evidence."""
    n, share = rows.size, float(rows.mean())
    if groups < 2 or share <= 0.0 or share >= 1.0:
        return float(groups)
    variance = cluster_variance(rows, at)
    trials = min(float(n), share * (1 - share) / variance) if variance > 0 else float(n)
    quantile = (1 + level) / 2
    return trials * float(stats.t.ppf(quantile, n - 1) / stats.t.ppf(quantile, groups - 1)) ** 2


def cluster_variance(rows: NDArray[np.float64], at: NDArray[np.int64]) -> float:
    """Return the cluster-robust variance of the mean of `rows`, whose units are numbered by `at` from 0."""
    sums = np.bincount(at, weights=rows - rows.mean())
    groups = sums.size
    return float(groups / (groups - 1) * (sums @ sums) / rows.size**2) if groups > 1 else math.nan


def _beta_bounds(share: float, trials: float, level: float) -> Interval:
    """Clopper-Pearson for a number of trials that need not be whole."""
    hits, tail = share * trials, (1 - level) / 2
    low = float(stats.beta.ppf(tail, hits, trials - hits + 1)) if share > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, trials - hits)) if share < 1 else 1.0
    return Interval(low, high)


def _distance(one: float, other: float, correlation: float) -> float:
    return math.sqrt(one * one + other * other - 2 * correlation * one * other)


def _correlation(lost: NDArray[np.float64], gained: NDArray[np.float64], at: NDArray[np.int64]) -> float:
    a = np.bincount(at, weights=lost - lost.mean())
    b = np.bincount(at, weights=gained - gained.mean())
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else 0.0


def _rows(values: ArrayLike, units: Sequence[Hashable]) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    rows = np.asarray(values, dtype=np.float64).ravel()
    if rows.size == 0:
        raise DataError("There are no rows to take a share of.")
    if rows.size != len(units):
        raise DataError(f"There are {rows.size} values but {len(units)} units; give one unit a value.")
    if not (np.isfinite(rows).all() and (rows >= 0).all() and (rows <= 1).all()):
        raise DataError("Shares lie between 0 and 1.")
    at = number_units(units)
    return rows, at, int(at.max()) + 1
