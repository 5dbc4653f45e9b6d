"""Two models under the same edits: whether an edit's effect differs between them, beyond what another seed does.

The effect of an edit on a prompt, with one seed: whether the answer is a flip under the edit, less whether it is one
untouched with the same seed (1, 0 or -1). Both models answer the same prompts with the same seeds.

The test by seeds. Where both models answer a prompt by one law, the runs of a unit (one a model and seed) could change
places. So in each unit the names of the two models are dealt anew over its 2 x R runs, in all units independently, and
p is the share of these C(2R, R)^G deals in which the models differ in sum by at least as much, either way. Exact, by
convolution over units. With one seed each it is the sign test of clusters. Models that share seeds differ less than the
deals do, which makes the test cautious. As in ``noise``, prompts are held fixed: the interval, over units, says what
holds of further ones.

The test by sets. Where the edited experts are nothing special, the difference of their effects is one among those of
random sets matched to them: p is the rank of its size. A model that is brittle everywhere is so under random sets.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mote.harness.preconditions import DataError, check_level
from mote.harness.science.clustered import cluster_variance, equal_units
from mote.harness.science.inference import Interval, holm, permutation_p
from mote.harness.science.splits import number_units
from mote.harness.science.verdict import ALPHA

MOST_SEEDS: Final = 5
"""The most seeds: a unit's runs of two models can then be dealt in 252 ways."""

Said = Literal["changed", "as-random", "not-apart", "few", "unknown"]


class EffectDifference(NamedTuple):
    """The effect of one edit in both models, and ``difference``, the second's less the first's, with its interval.

    Shares of answers. ``p`` is that of the deals of seeds, ``least_p`` the smallest that these units and seeds allow.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    least_p: float
    prompts: int
    units: int
    seeds: int


class Ruling(NamedTuple):
    """What is said of an edit: ``p`` is the larger of both tests' (nan where one is missing), ``p_holm`` corrected."""

    said: Said
    p: float
    p_holm: float


def effect_difference(
    first: ArrayLike, second: ArrayLike, units: Sequence[Hashable], level: float = 0.95
) -> EffectDifference:
    """Return by how much an edit's effect differs between two models.

    ``first`` and ``second`` are effects [seeds, prompts], each -1, 0 or 1, of the same prompts and seeds; ``units``
    gives each prompt's unit, or the prompt itself where they are independent. The interval is Student's on the
    cluster-robust variance of prompts' differences, with the degrees of freedom of ``equal_units``; one unit bounds
    nothing (-2 to 2). Raises `DataError` for effects of another kind or shape.
    """
    check_level(level)
    ours, theirs = (_effects(one, len(units)) for one in (first, second))
    if ours.shape != theirs.shape:
        raise DataError(f"The models have effects of other shapes: {list(ours.shape)} and {list(theirs.shape)}.")
    at = number_units(units)
    p, least = exchange_between(_by_unit(ours, at), _by_unit(theirs, at))
    each = (theirs - ours).mean(axis=0)
    low, high = _interval(each, at, level)
    return EffectDifference(
        float(ours.mean()), float(theirs.mean()), float(each.mean()), low, high, p, least,
        len(units), int(at.max()) + 1, ours.shape[0],
    )  # fmt: skip


def exchange_between(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[float, float]:
    """Return the two-sided p of the deals of two models' runs [units, seeds], and the least p that they allow."""
    law: NDArray[np.float64] = np.ones(1)
    below = 0  # the least sum that the second model can be dealt
    for ours, theirs in zip(first, second, strict=True):
        runs = np.concatenate([ours, theirs])
        sums = np.array([runs[list(dealt)].sum() for dealt in combinations(range(runs.size), theirs.size)])
        law = np.asarray(np.convolve(law, np.bincount(sums - sums.min()) / sums.size), dtype=np.float64)
        below += int(sums.min())
    total, observed = int(first.sum() + second.sum()), int(second.sum() - first.sum())
    apart = np.abs(2 * (np.arange(law.size) + below) - total)
    possible = law > 0
    most = int(apart[possible].max())
    # To twelve digits: sums of a law's parts miss 1 by rounding.
    return round(float(law[apart >= abs(observed)].sum()), 12), round(float(law[apart >= most].sum()), 12)


def among_sets(difference: float, of_sets: Sequence[float]) -> tuple[float, float]:
    """Return the p of a difference by its size among those of random sets, and the least p so many sets can give.

    Both nan without sets.
    """
    if not of_sets:
        return math.nan, math.nan
    return permutation_p(abs(difference), np.abs(of_sets)), 1 / (1 + len(of_sets))


def rule(
    by_seeds: Sequence[tuple[float, float]], by_sets: Sequence[tuple[float, float]], alpha: float = ALPHA
) -> list[Ruling]:
    """Return what is said of each edit, from the (p, least p) of both tests.

    ``changed`` needs both tests, so the larger p counts, corrected by Holm over the edits. ``as-random``: the seeds
    don't explain the difference, and random sets differ as much. ``few``: a test that fails could not have held.
    ``unknown``: the seeds don't explain it, and no random sets were asked. Else ``not-apart``.
    """
    larger = [max(seeds, sets) if not math.isnan(sets) else math.nan for (seeds, _), (sets, _) in
              zip(by_seeds, by_sets, strict=True)]  # fmt: skip
    adjusted = holm({at: p for at, p in enumerate(larger) if not math.isnan(p)})
    return [
        Ruling(
            _said(seeds, sets, adjusted.get(at, math.nan), len(adjusted), alpha), larger[at], adjusted.get(at, math.nan)
        )
        for at, (seeds, sets) in enumerate(zip(by_seeds, by_sets, strict=True))
    ]


def _said(seeds: tuple[float, float], sets: tuple[float, float], p_holm: float, family: int, alpha: float) -> Said:
    if p_holm <= alpha:
        return "changed"
    if seeds[0] > alpha:
        # Where no run differs from any other there is nothing to tell apart, however few they are.
        return "few" if alpha < seeds[1] < 1 else "not-apart"
    if math.isnan(sets[0]):
        return "unknown"
    if sets[0] > alpha:
        return "few" if sets[1] > alpha else "as-random"
    return "few" if max(seeds[1], sets[1]) * family > alpha else "not-apart"


def _effects(values: ArrayLike, prompts: int) -> NDArray[np.int64]:
    found = np.asarray(values)
    if found.ndim != 2 or found.shape[1] != prompts or found.size == 0:
        raise DataError(f"Effects have the shape [seeds, {prompts} prompts], not {list(found.shape)}.")
    if found.shape[0] > MOST_SEEDS:
        raise DataError(f"At most {MOST_SEEDS} seeds can be dealt, not {found.shape[0]}.")
    if not np.isin(found, (-1, 0, 1)).all():
        raise DataError("Effects on a prompt are -1, 0 or 1.")
    return found.astype(np.int64)


def _by_unit(effects: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros((int(at.max()) + 1, effects.shape[0]), dtype=np.int64)
    np.add.at(sums, at, effects.T)
    return sums


def _interval(each: NDArray[np.float64], at: NDArray[np.int64], level: float) -> Interval:
    sizes = np.bincount(at)
    if sizes.size < 2:
        return Interval(-2.0, 2.0)
    reach = float(stats.t.ppf((1 + level) / 2, equal_units(sizes) - 1)) * math.sqrt(cluster_variance(each, at))
    mean = float(each.mean())
    return Interval(max(-2.0, mean - reach), min(2.0, mean + reach))
