"""Side effects with a unit: equivalence within a margin (TOST), and the divergence of a model from the untouched one.

"Not significantly different" is what any study finds that is small enough. An equivalence test turns the burden round:
the change is shown to be smaller than a margin that was fixed before (Schuirmann 1987).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from mote.harness.preconditions import DataError, check_level
from mote.harness.science.clustered import cluster_variance, net_effect
from mote.harness.science.splits import number_units


class Equivalence(NamedTuple):
    """Whether a change lies within the margin: `p` of the two one-sided tests, and the interval of 1 - 2 alpha.

    `change` is after minus before. `equivalent` where p <= alpha, which is where the interval lies within the margin.
    """

    change: float
    low: float
    high: float
    margin: float
    p: float
    equivalent: bool
    rows: int
    units: int


class Divergence(NamedTuple):
    """KL(untouched || edited) a token, in nats, with its interval; `tokens` of `units` units."""

    kl: float
    low: float
    high: float
    tokens: int
    units: int


def equivalent_scores(
    before: ArrayLike, after: ArrayLike, margin: float, units: Sequence[Hashable] | None = None, alpha: float = 0.05
) -> Equivalence:
    """Return the paired equivalence test of scores (a judge's marks, a benchmark's metric), clustered where units say.

    Two one-sided t-tests of the mean difference, with the cluster-robust variance over units and G - 1 degrees of
    freedom; with each row a unit of its own this is the paired test. Where all differences are the same number, the
    variance is 0 and says nothing: the p-value is then 1 unless that number is below the margin in every one of at
    least as many units as a sign test needs. Raises `DataError` for fewer than two units.
    """
    _check_margin(margin, alpha)
    change = np.asarray(after, dtype=np.float64).ravel() - np.asarray(before, dtype=np.float64).ravel()
    if change.size == 0 or not np.isfinite(change).all():
        raise DataError("An equivalence test needs finite scores before and after, at least one pair.")
    at = np.arange(change.size) if units is None else number_units(units)
    if at.size != change.size:
        raise DataError(f"There are {change.size} pairs but {at.size} units; give one unit a pair.")
    groups = int(at.max()) + 1
    if groups < 2:
        raise DataError("An equivalence test needs at least two units.")
    mean, error = float(change.mean()), math.sqrt(cluster_variance(change, at))
    if error <= 1e-12 * max(1.0, abs(mean)):
        # Every unit lies within the margin: under a change of the margin's size half of them would not.
        p = 0.5**groups if abs(mean) < margin else 1.0
        return Equivalence(mean, mean, mean, margin, p, p <= alpha, change.size, groups)
    half = float(stats.t.ppf(1 - alpha, groups - 1)) * error
    p = float(stats.t.cdf((abs(mean) - margin) / error, groups - 1))
    return Equivalence(mean, mean - half, mean + half, margin, p, p <= alpha, change.size, groups)


def equivalent_shares(
    before: ArrayLike, after: ArrayLike, margin: float, units: Sequence[Hashable], alpha: float = 0.05
) -> Equivalence:
    """Return the paired equivalence test of a class's share ("the others stay"), clustered.

    By inclusion of the 1 - 2 alpha interval of `clustered.net_effect` in the margin, which holds with few units and
    few changes, where a t-test does not (with no change at all its interval has no width). p is the smallest alpha at
    which the interval would lie within.
    """
    _check_margin(margin, alpha)
    found = net_effect(before, after, units, 1 - 2 * alpha)

    def inside(at: float) -> bool:
        tried = net_effect(before, after, units, 1 - 2 * at)
        return -margin < tried.low and tried.high < margin

    least, most = 1e-6, 0.499999
    p = 1.0
    if inside(most):
        while most - least > 1e-6:
            middle = math.sqrt(least * most)
            least, most = (least, middle) if inside(middle) else (middle, most)
            if most / least < 1.001:
                break
        p = most
    return Equivalence(-found.net, -found.high, -found.low, margin, p, inside(alpha), found.rows, found.units)


def divergence(
    untouched: Sequence[ArrayLike],
    edited: Sequence[ArrayLike],
    units: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Divergence:
    """Return KL(untouched || edited) a token from texts that the untouched model sampled.

    `untouched` and `edited` hold for each text the log-probabilities of its own tokens under either model, teacher
    forced, natural logs. The mean of their difference over tokens sampled from the untouched model estimates the
    divergence without bias; no other log-probabilities are needed. It is that of the distributions the text was sampled
    from: give log-probabilities at the sampling temperature (and without truncation by top-p or top-k, under which a
    token may have none). The estimate may be below 0 by chance, the divergence can't be. The interval is of the ratio
    of sums, by its cluster-robust variance over units (default: each text) and G - 1 degrees of freedom.
    """
    check_level(level)
    if len(untouched) != len(edited) or len(untouched) < 2:
        raise DataError(f"A divergence needs two texts or more on both sides, not {len(untouched)} and {len(edited)}.")
    falls, tokens = [], []
    for at, (ours, theirs) in enumerate(zip(untouched, edited, strict=True)):
        a, b = np.asarray(ours, dtype=np.float64).ravel(), np.asarray(theirs, dtype=np.float64).ravel()
        if a.size != b.size or a.size == 0:
            raise DataError(f"Text {at} has {a.size} tokens untouched and {b.size} edited; they are the same text's.")
        if not (np.isfinite(a).all() and np.isfinite(b).all()) or (a > 1e-6).any() or (b > 1e-6).any():
            raise DataError(f"Text {at} has a log-probability that is not finite or above 0.")
        falls.append(float((a - b).sum()))
        tokens.append(a.size)
    groups_of = np.arange(len(falls)) if units is None else number_units(units)
    if groups_of.size != len(falls):
        raise DataError(f"There are {len(falls)} texts but {groups_of.size} units; give one unit a text.")
    total, groups = sum(tokens), int(groups_of.max()) + 1
    if groups < 2:
        raise DataError("A divergence's interval needs at least two units.")
    kl = sum(falls) / total
    residual = np.bincount(groups_of, weights=np.array(falls) - kl * np.array(tokens))
    error = math.sqrt(groups / (groups - 1) * float(residual @ residual)) / total
    half = float(stats.t.ppf((1 + level) / 2, groups - 1)) * error
    return Divergence(kl, kl - half, kl + half, total, groups)


def _check_margin(margin: float, alpha: float) -> None:
    if not margin > 0:
        raise DataError(f"A margin of equivalence is above 0, not {margin}.")
    if not 0 < alpha < 0.5:
        raise DataError(f"alpha lies between 0 and 0.5, for instance 0.05, not {alpha}.")
