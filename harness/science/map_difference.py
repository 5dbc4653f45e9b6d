"""Two models' maps of the same prompts: how far they correlate, and whether the same experts lead.

Two maps of one model on other prompts do not correlate perfectly either. So beside each figure stands what halves of
the prompts give: ``within`` is one model's map on a half against its own on the other half, ``between`` one model's on
a half against the other model's on the other half. Models that differ in nothing have the same of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mote.harness.preconditions import DataError
from mote.harness.science.resonance import ranks_of, resonance

DRAWS: Final = 50
ALL: Final = "all"
MAP_COLUMNS: Final = ["layer", "activations", "resonance", "within", "between"]
TOP_COLUMNS: Final = ["k", "shared", "chance", "p", "within", "between"]


class Mapped(NamedTuple):
    """One model's maps [prompts, layers, experts], and each prompt's side; ``target`` is the side that ranks."""

    maps: NDArray[Any]
    sides: Sequence[str]
    target: str

    def resonance(self, rows: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        """Return the resonance [layers, experts] of some prompts, all without ``rows``."""
        if rows is None:
            return resonance(self.maps, self.sides, self.target)
        return resonance(self.maps[rows], [self.sides[at] for at in rows], self.target)


def compare_maps(
    first: Mapped, second: Mapped, layers: Sequence[int], ks: Sequence[int], *, draws: int = DRAWS, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how both models' maps correlate (``MAP_COLUMNS``), and the leading experts they share (``TOP_COLUMNS``).

    Correlations are Pearson's, a row for each layer and one for ``all``: ``activations`` that of the mean maps,
    ``resonance`` that of the resonance maps on all prompts. nan where a map does not vary, and where a half has no
    prompt of a side. Of the top k by resonance, a row for each of ``ks``: ``shared``, ``chance`` as two unrelated
    rankings share on average, p the hypergeometric chance of sharing at least as many. ``within`` and ``between`` (see
    the module) are means over ``draws`` random halves of the prompts. Raises `DataError` for maps of other shapes.
    """
    _check(first, second, layers)
    whole = first.resonance(), second.resonance()
    halves = list(_halves(first, second, draws, seed))
    means = [one.maps.mean(axis=0, dtype=np.float64) for one in (first, second)]
    return _map_table(means, whole, halves, layers), _top_table(whole, halves, ks)


def _map_table(
    means: Sequence[NDArray[Any]], whole: Sequence[NDArray[Any]], halves: Sequence[_Four], layers: Sequence[int]
) -> pd.DataFrame:
    rows = []
    for name, at in [*((layer, slice(i, i + 1)) for i, layer in enumerate(layers)), (ALL, slice(None))]:
        within = [_pearson(a[at], b[at]) for four in halves for a, b in four.within]
        between = [_pearson(a[at], b[at]) for four in halves for a, b in four.between]
        pair = (_pearson(means[0][at], means[1][at]), _pearson(whole[0][at], whole[1][at]))
        rows.append((name, *pair, _mean(within), _mean(between)))
    return pd.DataFrame(rows, columns=MAP_COLUMNS)


def _top_table(whole: tuple[NDArray[Any], NDArray[Any]], halves: Sequence[_Four], ks: Sequence[int]) -> pd.DataFrame:
    ours, theirs = (_order(ranking) for ranking in whole)
    orders = [four.orders() for four in halves]
    size = whole[0].size
    rows = []
    for k in ks:
        shared = _shared(ours, theirs, k)
        within = [_shared(a, b, k) for four in orders for a, b in four.within]
        between = [_shared(a, b, k) for four in orders for a, b in four.between]
        p = float(stats.hypergeom.sf(shared - 1, size, k, k))
        rows.append((k, shared, k * k / size, p, _mean(within), _mean(between)))
    return pd.DataFrame(rows, columns=TOP_COLUMNS)


class _Four(NamedTuple):
    """The resonance of both models on both halves, or each one's experts from the first to the last."""

    first: tuple[NDArray[Any], NDArray[Any]]
    second: tuple[NDArray[Any], NDArray[Any]]

    @property
    def within(self) -> tuple[tuple[NDArray[Any], NDArray[Any]], ...]:
        return (self.first, self.second)

    @property
    def between(self) -> tuple[tuple[NDArray[Any], NDArray[Any]], ...]:
        return ((self.first[0], self.second[1]), (self.second[0], self.first[1]))

    def orders(self) -> _Four:
        """Return the experts of each, best first, ties by layer and expert."""
        return _Four((_order(self.first[0]), _order(self.first[1])), (_order(self.second[0]), _order(self.second[1])))


def _halves(first: Mapped, second: Mapped, draws: int, seed: int) -> Iterator[_Four]:
    rng = np.random.default_rng(seed)
    prompts = len(first.sides)
    for _ in range(draws):
        order = rng.permutation(prompts)
        parts = np.sort(order[: prompts // 2]), np.sort(order[prompts // 2 :])
        if all(_both_sides(one, part) for one in (first, second) for part in parts):
            yield _Four(
                (first.resonance(parts[0]), first.resonance(parts[1])),
                (second.resonance(parts[0]), second.resonance(parts[1])),
            )


def _both_sides(one: Mapped, rows: NDArray[np.intp]) -> bool:
    of = {one.sides[at] == one.target for at in rows}
    return len(of) == 2


def _check(first: Mapped, second: Mapped, layers: Sequence[int]) -> None:
    if first.maps.shape != second.maps.shape or first.maps.shape[1] != len(layers):
        raise DataError(
            f"Both models need maps of the same prompts, {len(layers)} layers and experts, not {list(first.maps.shape)}"
            f" and {list(second.maps.shape)}."
        )


def _order(ranking: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.argsort(ranks_of(ranking).ravel(), kind="stable")


def _shared(first: NDArray[np.intp], second: NDArray[np.intp], k: int) -> int:
    return len(set(first[:k].tolist()) & set(second[:k].tolist()))


def _pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _mean(values: Sequence[float]) -> float:
    return float(np.nanmean(values)) if len(values) and not np.isnan(values).all() else float("nan")
