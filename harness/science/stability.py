"""How sure a ranking is: bootstrap over prompts, and what the best expert scores when labels mean nothing.

Two questions about a list of distinctive experts. Would other prompts of the same kind have given the same list?
(`bootstrap_ranking`: intervals of scores and ranks, how often an expert is in the top k.) And would shuffled labels
have given scores as high? (`shuffled_maxima`: the best of all experts by chance, against which each score is set.)
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mote.harness.preconditions import STATES, DataError, check_level, check_maps
from mote.harness.science.detectors import Detector, sides
from mote.harness.science.inference import expanded_quantiles, resamples, weighted_quantiles
from mote.harness.science.maps import check_tokens
from mote.harness.science.resonance import ranks_of, resonance

MOST_LISTED: Final = 500
"""Up to how many compositions of clusters are listed instead of drawn (5 clusters have 126, 6 have 462)."""


@dataclass(frozen=True)
class RankStability:
    """What the bootstrap says of a ranking; all arrays are [layers, experts].

    `score` is the ranking of the prompts at hand; `low` and `high` bound it, and `rank_low` (best) and `rank_high`
    (worst) its rank, at the level asked for. `in_top_k` is the share of draws in which the expert was in the top k.
    `overlap` is the mean share of the top k that a draw has in common with the prompts at hand.
    """

    k: int
    draws: int
    level: float
    score: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    rank: NDArray[np.int64]
    rank_low: NDArray[np.int64]
    rank_high: NDArray[np.int64]
    in_top_k: NDArray[np.float64]
    overlap: float


def bootstrap_ranking(
    maps: NDArray[Any],
    labels: Sequence[str],
    target: str,
    k: int,
    *,
    detector: Detector | None = None,
    tokens: Sequence[int] | NDArray[Any] | None = None,
    clusters: Sequence[Hashable] | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    ignore: Collection[str] = STATES,
) -> RankStability:
    """Draw prompts with replacement, within the class and within the others, and rank the experts anew each time.

    `detector` is the ranking (`detectors.detector` with the same `ignore`, which needs `tokens`); without one it is the
    resonance, computed for all draws at once. With `clusters` (the place or subject of each prompt) whole clusters are
    drawn instead; a draw without the class or without others is drawn again. Few clusters are not drawn but listed
    (`inference.resamples`: 5 have 126 compositions), and `RankStability.draws` is then their number. Intervals are
    percentile intervals, widened for few units as in `inference.cluster_rate_interval`. Memory: about 16 bytes for each
    draw and expert (0.24 GB for 1000 draws of 58 x 256).
    """
    check_maps(maps, labels)
    check_level(level)
    ours, others = sides(labels, target, ignore)
    if not 1 <= k <= maps[0].size:
        raise DataError(f"k must lie between 1 and the {maps[0].size} experts of the maps, not {k}.")
    if draws < 2:
        raise DataError(f"A bootstrap needs at least 2 draws, not {draws}.")
    if detector is not None and tokens is None:
        raise DataError("A detector of detection.py needs the tokens that each map counts.")
    picks, chances = _picks(ours, others, clusters, draws, seed)
    if detector is None:
        score = resonance(maps, labels, target, ignore=ignore)
        scores = _weighted_resonance(maps, picks, ours, others)
    else:
        counted = check_tokens(tokens if tokens is not None else [], maps.shape[0])
        kept = np.flatnonzero(ours | others)
        score = detector(maps[kept], [labels[i] for i in kept], counted[kept])
        scores = np.stack([_again(detector, maps, labels, counted, times) for times in picks])
    units = min(_units(ours, clusters), _units(others, clusters))
    bounds = expanded_quantiles(max(units, 2), level)
    ranks = np.stack([ranks_of(draw).astype(np.int32) for draw in scores])
    # Ties at the cut count by rank: an expert that shares the k-th rank is in the top k.
    rank = ranks_of(score)
    top = rank <= k
    inside = ranks <= k
    low, high = _quantiles(scores, chances, bounds)
    rank_low, rank_high = _rank_quantiles(ranks, chances, bounds)
    return RankStability(
        k=k,
        draws=chances.size,
        level=level,
        score=score,
        low=low,
        high=high,
        rank=rank,
        rank_low=rank_low.astype(np.int64),
        rank_high=rank_high.astype(np.int64),
        in_top_k=_mean_over(inside, chances),
        overlap=float(_mean_over(inside[:, top].mean(axis=1), chances)),
    )


def shuffled_maxima(
    maps: NDArray[Any],
    labels: Sequence[str],
    target: str,
    *,
    draws: int = 999,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
    ignore: Collection[str] = STATES,
) -> NDArray[np.float64]:
    """Return the highest resonance of any expert for each of `draws` shufflings of the labels, [draws].

    With `inference.permutation_p(score, maxima)`, which takes values equal up to rounding as ties, each expert gets a
    p-value that holds over all experts at once (Westfall and Young's maximum statistic). With `groups` (the place of
    each prompt) labels are shuffled within a group only: that asks whether the expert follows the class beyond the
    topic. Raises `DataError` when shuffling within groups changes nothing, because every group has one class.
    """
    check_maps(maps, labels)
    ours, others = sides(labels, target, ignore)
    kept = np.flatnonzero(ours | others)
    is_ours = ours[kept]
    if groups is not None and len(groups) != len(labels):
        raise DataError(f"There are {len(labels)} labels but {len(groups)} groups; give one group a label.")
    names = [groups[i] if groups is not None else None for i in kept]
    members = [np.flatnonzero([name == group for name in names]) for group in dict.fromkeys(names)]
    if not any(0 < is_ours[at].sum() < at.size for at in members):
        raise DataError(f"Every group is all '{target}' or all other: shuffling labels within groups changes nothing.")
    rng = np.random.default_rng(seed)
    shuffled = np.empty((draws, kept.size), dtype=bool)
    for draw in shuffled:
        for at in members:
            draw[at] = rng.permutation(is_ours[at])
    n = int(is_ours.sum())
    chosen = shuffled.astype(np.float64)
    best = np.full(draws, -np.inf)
    for flat in _pieces(maps, kept):
        sums, total = chosen @ flat, flat.sum(axis=0)
        best = np.maximum(best, (sums / n - (total - sums) / (kept.size - n)).max(axis=1))
    return best


def _picks(
    ours: NDArray[np.bool_],
    others: NDArray[np.bool_],
    clusters: Sequence[Hashable] | None,
    draws: int,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How often each prompt is in each draw [draws, prompts], and each draw's chance."""
    rng = np.random.default_rng(seed)
    times = np.zeros((draws, ours.size), dtype=np.int64)
    if clusters is None:
        for side in (np.flatnonzero(ours), np.flatnonzero(others)):
            times[:, side] = rng.multinomial(side.size, np.full(side.size, 1 / side.size), size=draws)
        return times, np.full(draws, 1 / draws)
    if len(clusters) != ours.size:
        raise DataError(f"There are {ours.size} maps but {len(clusters)} clusters; give one cluster a map.")
    kept = ours | others
    names = {cluster: at for at, cluster in enumerate(dict.fromkeys(clusters[i] for i in np.flatnonzero(kept)))}
    if len(names) < 2:
        raise DataError("A bootstrap over clusters needs at least two clusters.")
    at = np.array([names.get(cluster, 0) for cluster in clusters])
    if comb(2 * len(names) - 1, len(names)) <= MOST_LISTED:
        chosen, chances = resamples(len(names), MOST_LISTED, seed)
        times = np.where(kept, chosen[:, at], 0)
        usable = times[:, ours].any(axis=1) & times[:, others].any(axis=1)
        return times[usable], chances[usable] / chances[usable].sum()
    for draw in range(draws):
        # Both sides are there at hand, so a draw with both comes; a rare class may take some tries.
        while not (times[draw, ours].any() and times[draw, others].any()):
            picked = np.bincount(rng.choice(len(names), len(names)), minlength=len(names))
            times[draw] = np.where(kept, picked[at], 0)
    return times, np.full(draws, 1 / draws)


def _mean_over(values: NDArray[Any], chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over draws; of equally likely ones without weights, whose rounding would keep a sum of 1 below it."""
    equal = np.ptp(chances) <= 1e-15
    return np.asarray(values.mean(axis=0) if equal else np.average(values, axis=0, weights=chances))


def _quantiles(
    values: NDArray[Any], chances: NDArray[np.float64], bounds: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    flat = weighted_quantiles(values.reshape(values.shape[0], -1).astype(np.float64), chances, bounds)
    low, high = flat.reshape(2, *values.shape[1:])
    return low, high


def _rank_quantiles(
    ranks: NDArray[np.int32], chances: NDArray[np.float64], bounds: Sequence[float]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ranks are whole: of equally likely draws the nearest draw's, of listed ones `_quantiles` gives a draw's."""
    if np.ptp(chances) > 1e-15:
        return _quantiles(ranks, chances, bounds)
    low, high = np.quantile(ranks, bounds, axis=0, method="nearest")
    return low, high


def _weighted_resonance(
    maps: NDArray[Any], times: NDArray[np.int64], ours: NDArray[np.bool_], others: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The resonance of all draws by two matrix products a piece, [draws, layers, experts]."""
    means = []
    for side in (ours, others):
        weights = times[:, side].astype(np.float64)
        weights /= weights.sum(axis=1, keepdims=True)
        means.append(np.concatenate([weights @ flat for flat in _pieces(maps, np.flatnonzero(side))], axis=1))
    return np.asarray((means[0] - means[1]).reshape(-1, *maps.shape[1:]), dtype=np.float64)


def _pieces(maps: NDArray[Any], rows: NDArray[np.intp]) -> Iterator[NDArray[np.float64]]:
    """Yield the maps of some prompts as floats [rows, experts of some layers]: never a copy of all of them."""
    for layer in range(maps.shape[1]):
        yield maps[rows, layer, :].astype(np.float64)


def _again(
    detector: Detector,
    maps: NDArray[Any],
    labels: Sequence[str],
    tokens: NDArray[np.int64],
    times: NDArray[np.int64],
) -> NDArray[np.float64]:
    drawn = np.repeat(np.arange(times.size), times)
    return detector(maps[drawn], [labels[i] for i in drawn], tokens[drawn])


def _units(side: NDArray[np.bool_], clusters: Sequence[Hashable] | None) -> int:
    return int(side.sum()) if clusters is None else len({clusters[i] for i in np.flatnonzero(side)})
