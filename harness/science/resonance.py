"""Resonance, the paper's ranking statistic (section 2.4), and the distinctive experts that stand on top of a ranking.

An activation map is [layers, experts]: how often each routed expert was among the layer's top-k over the tokens of
one prompt. The mean map of a class, minus the mean map of the other prompts, says which experts are seen more often
when the class occurs. It does not say that they cause it: that is for the controls and the causal scan to show.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mote.harness.preconditions import STATES, DataError, check_maps, other_classes

TIE_TOLERANCE: Final = 1e-12
"""Scores closer than this share of the largest score are one score: means of counts differ by rounding alone."""


class ExpertScore(NamedTuple):
    """One expert of a ranking: `layer` as the model numbers it, `rank` from 1, equal for equal scores (1, 2, 2, 4)."""

    layer: int
    expert: int
    score: float
    rank: int


def class_means(maps: NDArray[Any], labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return the mean activation map of each label present, in sorted order of the labels.

    `maps` is [prompts, layers, experts], `labels` one label a prompt; each mean is [layers, experts] in the unit of
    `maps` (activations a prompt). Integer maps are summed exactly, so equal means are equal bit for bit.
    Paper section 2.4, steps 2 and 3. Raises `DataError` when shapes and labels do not fit.
    """
    check_maps(maps, labels)
    names = np.asarray(labels, dtype=object)
    return {name: _mean(maps, names == name) for name in sorted(set(labels))}


def resonance(
    maps: NDArray[Any],
    labels: Sequence[str],
    target: str,
    *,
    ignore: Collection[str] = STATES,
    others: Literal["prompts", "classes"] = "prompts",
) -> NDArray[np.float64]:
    """Return the resonance map [layers, experts] of the class `target`: its mean map minus that of the other prompts.

    Prompts whose label is in `ignore` count on neither side: the class of a truncated, degenerate or unscored answer
    is unknown, so it may be the target's. (`target` itself is never ignored.) The paper writes "the averaged
    activations of all other classes"; `others="prompts"` averages over all prompts of the other classes (default),
    `others="classes"` averages their class means, each class with the same weight.

    Paper section 2.4, step 4. Raises `DataError` that names the class and the labels present when the target or
    everything beside it is empty.
    """
    check_maps(maps, labels)
    rest = other_classes(target, labels, ignore)
    names = np.asarray(labels, dtype=object)
    ours = _mean(maps, names == target)
    if others == "classes":
        theirs = np.stack([_mean(maps, names == name) for name in rest])
        return np.asarray(ours - theirs.mean(axis=0), dtype=np.float64)
    return ours - _mean(maps, np.isin(names, rest))


def distinctive_experts(ranking: NDArray[Any], k: int, layers: Sequence[int]) -> list[ExpertScore]:
    """Return the `k` experts with the highest scores of `ranking` [layers, experts], best first.

    `layers` gives the model's number of each row of `ranking`. Equal scores (to a relative `TIE_TOLERANCE`) share a
    rank and are taken in the order of layer, then expert: the result never depends on rounding or on the sort.
    `tied_at_cut` tells whether that order decided who came in.

    Only experts with a positive score are distinctive of a class; where there are fewer than `k`, this raises
    `DataError` with their number rather than fill up with experts that are seen less in the class than elsewhere.
    """
    keys, order = _ranked(ranking, layers)
    if not 1 <= k <= keys.size:
        raise DataError(f"k must lie between 1 and the {keys.size} experts of the ranking, not {k}.")
    positive = int(np.count_nonzero(keys > 0))
    if positive < k:
        raise DataError(
            f"Only {positive} experts have a positive score, fewer than the {k} asked for; use k={positive} or less."
        )
    ranks = ranks_of(ranking).ravel()
    experts = ranking.shape[1]
    numbers = [(int(layers[i // experts]), int(i % experts), i) for i in order[:k]]
    flat = np.asarray(ranking, dtype=np.float64).ravel()
    return [ExpertScore(layer, expert, float(flat[i]), int(ranks[i])) for layer, expert, i in numbers]


def ranks_of(ranking: NDArray[Any]) -> NDArray[np.int64]:
    """Return the rank of each score, 1 for the highest, equal scores sharing the best rank (1, 2, 2, 4)."""
    keys = _keys(ranking)
    ascending = np.sort(keys)
    above = keys.size - np.searchsorted(ascending, keys, side="right")
    return (above + 1).astype(np.int64).reshape(np.shape(ranking))


def tied_at_cut(ranking: NDArray[Any], k: int) -> list[tuple[int, int]]:
    """Return the (row, expert) left out of the top `k` although their score equals that of the last one taken."""
    rows = range(np.shape(ranking)[0])
    keys, order = _ranked(ranking, rows)
    if not 1 <= k <= keys.size:
        raise DataError(f"k must lie between 1 and the {keys.size} experts of the ranking, not {k}.")
    experts = ranking.shape[1]
    last = keys[order[k - 1]]
    return [(int(i // experts), int(i % experts)) for i in order[k:] if keys[i] == last]


def _mean(maps: NDArray[Any], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the chosen prompts, layer by layer; integers are summed as int64: equal totals give equal means."""
    exact = np.int64 if np.issubdtype(maps.dtype, np.integer) else np.float64
    rows = np.flatnonzero(chosen)
    totals = [maps[rows, layer, :].sum(axis=0, dtype=exact) for layer in range(maps.shape[1])]
    return np.asarray(np.stack(totals) / rows.size, dtype=np.float64)


def _keys(ranking: NDArray[Any]) -> NDArray[np.float64]:
    """Scores on a grid of `TIE_TOLERANCE`, so that comparing them is the same as comparing scores but for rounding."""
    flat = np.asarray(ranking, dtype=np.float64).ravel()
    if np.ndim(ranking) != 2:
        raise DataError(f"A ranking must have the shape [layers, experts], not {list(np.shape(ranking))}.")
    if not np.isfinite(flat).all():
        raise DataError("The ranking holds scores that are not finite; a ranking needs a number for every expert.")
    largest = float(np.abs(flat).max(initial=0.0))
    return np.rint(flat / (largest * TIE_TOLERANCE)) if largest > 0 else np.zeros_like(flat)


def _ranked(ranking: NDArray[Any], layers: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The comparison keys, flat, and the flat indices from best to worst, ties by layer number, then expert."""
    keys = _keys(ranking)
    rows, experts = ranking.shape
    if len(layers) != rows:
        raise DataError(f"The ranking has {rows} layers but {len(layers)} layer numbers were given.")
    layer_of = np.repeat(np.asarray(layers, dtype=np.int64), experts)
    expert_of = np.tile(np.arange(experts), rows)
    return keys, np.lexsort((expert_of, layer_of, -keys))
