"""Intervals and tests for changes of labels: exact where counts are small, by permutation or bootstrap elsewhere.

Every number a report prints beside a flip rate comes from here. Formulas are taken from scipy and statsmodels where
they have them; what is added is the refusal of data they would answer with nan, and names for the results.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]
from statsmodels.stats.proportion import proportion_confint  # type: ignore[import-untyped]

from mote.harness.preconditions import DataError, check_level

Alternative = Literal["greater", "less", "two-sided"]
K = TypeVar("K", bound=Hashable)

TIE: Final = 1e-9
"""Effects nearer than this (relative to the observed one, where that is above 1) are equal."""

ENUMERATED: Final = 10_000
"""Up to how many compositions of clusters a bootstrap lists instead of drawing (8 clusters have 6,435)."""


class Interval(NamedTuple):
    """A confidence interval from `low` to `high`."""

    low: float
    high: float


class Rate(NamedTuple):
    """`hits` of `total` with the exact interval of its share; a share of nothing is nan, between 0 and 1."""

    hits: int
    total: int
    share: float
    low: float
    high: float


class Significance(NamedTuple):
    """A test's statistic, its degrees of freedom (0 for exact and permutation tests) and its p-value."""

    statistic: float
    df: int
    p: float


class Null(NamedTuple):
    """An effect among those of its random controls (see `against_controls`)."""

    observed: float
    controls: int
    mean: float
    low: float
    high: float
    difference: float
    ratio: float
    standardised: float
    percentile: float
    p: float


def clopper_pearson(count: int, total: int, level: float = 0.95) -> Interval:
    """Return the exact (Clopper-Pearson) interval of the share `count` of `total`; (0, 1) where `total` is 0.

    It covers at least at `level` for every true share, so it is conservative for small counts.
    """
    check_level(level)
    if total < 0 or not 0 <= count <= total:
        raise DataError(f"A share needs a count between 0 and its total, not {count} of {total}.")
    if total == 0:
        return Interval(0.0, 1.0)
    low, high = proportion_confint(count, total, alpha=1.0 - level, method="beta")
    # scipy's beta quantile with a parameter of 0 is nan in some versions; the bounds there are known.
    return Interval(0.0 if count == 0 else float(low), 1.0 if count == total else float(high))


def rate(hits: int, total: int, level: float = 0.95) -> Rate:
    """Return `hits` of `total` as a `Rate` with its Clopper-Pearson interval."""
    low, high = clopper_pearson(hits, total, level)
    return Rate(int(hits), int(total), hits / total if total else math.nan, low, high)


def permutation_p(observed: float, null: ArrayLike, alternative: Alternative = "greater") -> float:
    """Return the permutation p-value (1 + number at least as extreme) / (n + 1) of `observed` among `null`.

    With n controls no p-value is below 1 / (n + 1): twenty controls cannot show more than 0.048. Two-sided doubles
    the smaller side, up to 1. Phipson & Smyth (2010) give the reason for the two ones. Values that differ by rounding
    alone (a billionth) are equal: the same sums in another order must not be counted as below.
    """
    values = _finite(null, "null distribution")
    _finite([observed], "observed effect")
    slack = TIE * max(1.0, abs(observed))
    above = (1 + int(np.count_nonzero(values >= observed - slack))) / (values.size + 1)
    below = (1 + int(np.count_nonzero(values <= observed + slack))) / (values.size + 1)
    if alternative == "greater":
        return above
    if alternative == "less":
        return below
    if alternative == "two-sided":
        return min(1.0, 2 * min(above, below))
    raise DataError(f"The alternative must be 'greater', 'less' or 'two-sided', not '{alternative}'.")


def percentile_within(observed: float, null: ArrayLike) -> float:
    """Return the percentile (0 to 100) of `observed` within `null`: those below, and half of those equal."""
    values = _finite(null, "null distribution")
    _finite([observed], "observed effect")
    return float(stats.percentileofscore(values, observed, kind="mean"))


def against_controls(
    observed: float, null: ArrayLike, alternative: Alternative = "greater", level: float = 0.95
) -> Null:
    """Set an effect beside the effects of its random controls.

    Returns the controls' number, mean and central range of `level` (their quantiles, not an interval of the mean);
    the effect over the mean control as difference, ratio (nan where the mean is 0) and in standard deviations of the
    controls (nan where they do not vary or are fewer than two); percentile and permutation p-value.
    """
    check_level(level)
    values = _finite(null, "null distribution")
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Null(
        observed=float(observed),
        controls=int(values.size),
        mean=mean,
        low=float(low),
        high=float(high),
        difference=float(observed - mean),
        ratio=float(observed / mean) if mean else math.nan,
        standardised=float((observed - mean) / spread) if spread > 0 else math.nan,
        percentile=percentile_within(observed, values),
        p=permutation_p(observed, values, alternative),
    )


def mcnemar_exact(flips: int, reverse: int) -> Significance:
    """Return the exact two-sided McNemar test of `flips` one way against `reverse` the other way.

    Under the null each changed prompt is as likely to change one way as the other: a binomial test with 1/2. It asks
    for one answer a prompt; with several samples, or prompts that share a place, use `cluster_sign_test`. The
    statistic is the smaller count. No change at all gives p = 1.
    """
    if flips < 0 or reverse < 0:
        raise DataError(f"Counts of flips cannot be negative: {flips} and {reverse}.")
    changed = flips + reverse
    p = float(stats.binomtest(int(flips), int(changed), 0.5).pvalue) if changed else 1.0
    return Significance(float(min(flips, reverse)), 0, p)


def stuart_maxwell(matrix: ArrayLike) -> Significance:
    """Return the Stuart-Maxwell test that a square table of paired labels has the same margins before and after.

    Classes in which nothing changes in sum because nothing enters or leaves carry no information and are dropped, as
    they make the covariance singular; if none is left, p = 1. The chi-square law is asymptotic: with fewer than
    about ten changed prompts prefer `mcnemar_exact` of the class of interest. Stuart (1955), Maxwell (1970).
    """
    table = np.asarray(matrix, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or table.size == 0:
        raise DataError(f"The Stuart-Maxwell test needs a square table, not one of shape {list(table.shape)}.")
    if not np.isfinite(table).all() or (table < 0).any():
        raise DataError("The Stuart-Maxwell test needs counts: finite and not negative.")
    change = table + table.T
    np.fill_diagonal(change, 0.0)
    statistic, df = 0.0, 0
    # Classes between which nothing moves form blocks; each block's last class follows from its others.
    for block in _blocks(change > 0):
        if len(block) == 1:
            continue
        part = table[np.ix_(block, block)]
        moved = part + part.T
        difference = (part.sum(axis=1) - part.sum(axis=0))[:-1]
        covariance = -moved
        np.fill_diagonal(covariance, moved.sum(axis=1) - np.diag(moved))
        statistic += float(difference @ np.linalg.solve(covariance[:-1, :-1], difference))
        df += len(block) - 1
    return Significance(statistic, df, float(stats.chi2.sf(statistic, df)) if df else 1.0)


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Return the p-values of one family of comparisons adjusted by Holm's step-down method, under the same names."""
    names = list(p_values)
    values = _finite([p_values[name] for name in names], "p-values") if names else np.zeros(0)
    if ((values < 0) | (values > 1)).any():
        raise DataError("p-values lie between 0 and 1.")
    adjusted = multipletests(values, method="holm")[1] if names else values
    return {name: float(p) for name, p in zip(names, adjusted, strict=True)}


def cluster_rate_interval(
    successes: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Return a bootstrap interval of the mean of `successes` (0 or 1, or any number) that resamples whole clusters.

    For prompts that share a place or a subject, or several samples of one prompt: their answers are not independent,
    and the exact interval is too narrow. Clusters are drawn with replacement, the ratio of their pooled sums is
    taken, and the quantiles are widened by the t-distribution of clusters minus one degrees of freedom (the
    "expanded percentile" interval of Hesterberg 2015, which mends the bootstrap's narrowness with few clusters).
    Up to `ENUMERATED` compositions of clusters are listed with their chances, which leaves no simulation error; else
    `draws` are taken. Where all clusters agree there is nothing to draw anew: shares of 0 or 1 are then bounded as
    with one trial a cluster (as in Korn & Graubard 1998), any other number raises no bound and has no width.
    With fewer than about ten clusters no method is good (`clustered.korn_graubard` holds better, for shares); with
    fewer than two this raises `DataError`.
    """
    check_level(level)
    sums, sizes = _by_cluster(successes, clusters)
    groups = sums.size
    if groups < 2:
        raise DataError("A cluster bootstrap needs at least two clusters.")
    if (sums == 0).all() or (sums == sizes).all():
        return clopper_pearson(groups if sums.any() else 0, groups, level)
    times, chances = resamples(groups, draws, seed)
    means = (times @ sums) / (times @ sizes)
    low, high = weighted_quantiles(means[:, None], chances, expanded_quantiles(groups, level))[:, 0]
    return Interval(float(low), float(high))


def resamples(groups: int, draws: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return how often each of `groups` is in each bootstrap sample, [samples, groups], and each sample's chance.

    All compositions with their multinomial chances where there are at most `ENUMERATED` and not many more than
    `draws`; else `draws` random ones, equally likely.
    """
    every = math.comb(2 * groups - 1, groups)
    if every > min(ENUMERATED, 10 * draws):
        times = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=draws)
        return times.astype(np.int64), np.full(draws, 1 / draws)
    # Stars and bars: each choice of groups - 1 bars among 2 groups - 1 places is one composition.
    bars = np.array(list(combinations(range(2 * groups - 1), groups - 1)), dtype=np.int64)
    edges = np.concatenate([np.full((every, 1), -1), bars, np.full((every, 1), 2 * groups - 1)], axis=1)
    times = np.diff(edges, axis=1) - 1
    logs = special.gammaln(groups + 1) - special.gammaln(times + 1).sum(axis=1) - groups * math.log(groups)
    return times, np.exp(logs)


def weighted_quantiles(
    values: NDArray[np.float64], chances: NDArray[np.float64], quantiles: Sequence[float]
) -> NDArray[np.float64]:
    """Return quantiles over the first axis of `values` [samples, columns], each with its chance, [quantiles, columns].

    Equal chances give numpy's (linear) quantiles; unequal ones the smallest value whose chance of not being exceeded
    reaches the quantile.
    """
    if np.ptp(chances) <= 1e-15:
        return np.asarray(np.quantile(values, quantiles, axis=0))
    order = np.argsort(values, axis=0, kind="stable")
    ranked = np.take_along_axis(values, order, axis=0)
    reached = np.cumsum(chances[order], axis=0)
    at = [(reached < quantile * reached[-1] - 1e-12).sum(axis=0) for quantile in quantiles]
    rows = np.minimum(np.stack(at), values.shape[0] - 1)
    return np.take_along_axis(ranked, rows, axis=0)


def expanded_quantiles(n: int, level: float) -> tuple[float, float]:
    """Return the bootstrap quantiles of a `level` interval from `n` units, widened for small n (Hesterberg 2015)."""
    widened = math.sqrt(n / (n - 1)) * float(stats.t.ppf((1 - level) / 2, n - 1))
    alpha = float(stats.norm.cdf(widened))
    return alpha, 1.0 - alpha


def cluster_sign_test(
    differences: ArrayLike,
    clusters: Sequence[Hashable],
    draws: int = 10_000,
    seed: int = 0,
    alternative: Alternative = "two-sided",
) -> Significance:
    """Test whether paired changes sum to zero when whole clusters may change their sign (a paired permutation test).

    `differences` are +1 for a flip, -1 for a reverse flip, 0 else (or any paired difference); under the null before
    and after are exchangeable within each cluster. With one prompt a cluster this is McNemar's exact test. All signs
    are enumerated where at most 16 clusters changed; else `draws` random ones are taken and p is as in
    `permutation_p`. The statistic is the sum of the differences.
    """
    sums, _ = _by_cluster(differences, clusters)
    changed = sums[sums != 0]
    total = float(sums.sum())
    if changed.size == 0:
        return Significance(0.0, 0, 1.0)
    exact = changed.size <= 16
    if exact:
        signs = 1 - 2 * ((np.arange(2**changed.size)[:, None] >> np.arange(changed.size)) & 1)
    else:
        signs = np.random.default_rng(seed).choice(np.array([-1, 1], dtype=np.int8), size=(draws, changed.size))
    null = np.round(signs @ changed, 9)
    if alternative == "two-sided":
        total_, null = abs(total), np.abs(null)
    else:
        total_ = total if alternative == "greater" else -total
        null = null if alternative == "greater" else -null
    hits = int(np.count_nonzero(null >= round(total_, 9)))
    return Significance(total, 0, hits / null.size if exact else (1 + hits) / (null.size + 1))


def _by_cluster(values: ArrayLike, clusters: Sequence[Hashable]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of values of each cluster."""
    numbers = _finite(values, "values")
    if numbers.size != len(clusters):
        raise DataError(f"There are {numbers.size} values but {len(clusters)} clusters; give one cluster a value.")
    index: dict[Hashable, int] = {}
    at = np.array([index.setdefault(cluster, len(index)) for cluster in clusters])
    sums = np.bincount(at, weights=numbers).astype(np.float64)
    return sums, np.bincount(at).astype(np.float64)


def _blocks(linked: NDArray[np.bool_]) -> list[list[int]]:
    """The connected components of an undirected graph given as a symmetric matrix."""
    left = set(range(linked.shape[0]))
    blocks = []
    while left:
        block: set[int] = set()
        todo = [min(left)]
        while todo:
            node = todo.pop()
            if node not in block:
                block.add(node)
                todo += [int(other) for other in np.flatnonzero(linked[node])]
        left -= block
        blocks.append(sorted(block))
    return blocks


def _finite(values: Any, what: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size == 0:
        raise DataError(f"The {what} is empty.")
    if not np.isfinite(array).all():
        raise DataError(f"The {what} holds a value that is not finite.")
    return array
