"""Group testing: the effect of each expert from random masks of many, with a stated false discovery rate.

A scan of one expert at a time costs a pass for each expert. Here every pass switches off a random mask, each expert
with the same small probability (the share) whatever the others do; one mask tells of all of its experts at once. A
lasso finds the experts that explain the falls; each expert's effect is then read from what the others leave over.

The masks are our own draws, so their law is known and no model of the falls has to be right. For an expert without a
part in the behaviour, the column of masks that was applied is one of many that might have been: ``p`` is how often
dummy columns of the same law, which were not applied, do as well (the conditional randomisation test of Candès,
Fan, Janson and Lv, "Panning for Gold", 2018; with the other experts' part taken away first: Liu, Katsevich, Janson and
Ramdas, "Fast and powerful conditional randomization testing via distillation", 2022). Benjamini and Hochberg's rule
over these p-values holds the false discovery rate.

Two experts that stand in for each other hide from a scan of single ones, as each alone changes nothing. Masks that
hold both fall further than their experts add up to: ``pair_falls`` finds them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import Lasso  # type: ignore[import-untyped]
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

from mote.harness.preconditions import DataError

LEAST_MASKS: Final = 40
"""Fewer masks than these tell nothing of anything."""
LEAST_TOGETHER: Final = 2
"""In how many masks a pair of experts must have been to be told from the other pairs of a mask."""
_CHUNK: Final = 4_000_000
"""Draws of dummy masks at once, to bound the memory."""


class Masks(NamedTuple):
    """Random masks and what they did: `applied` [masks, experts], `falls` [masks], `share` of an expert in each.

    `groups` says for each mask what its fall may depend on whatever the mask: the prompt it was measured on.
    """

    applied: NDArray[np.bool_]
    falls: NDArray[np.float64]
    groups: Sequence[Hashable]
    share: float


class GroupEffects(NamedTuple):
    """Of each expert the effect, its p-value (greater than none) and the adjusted one; `left` is what none explains.

    `effect`, `p`, `q` [experts]; `left` [masks]. The experts with `q` up to a rate are discoveries at that false
    discovery rate.
    """

    effect: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]
    left: NDArray[np.float64]


def check_share(share: float) -> None:
    """Raise `DataError` for a share of experts that no useful mask has."""
    if not 0 < share <= 0.25:
        raise DataError(f"The share of experts in a mask lies above 0 and up to 0.25, not {share:g}.")


def draw_masks(rounds: int, prompts: int, experts: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Return masks [rounds, prompts, experts]: each expert is in each with probability `share`, independently.

    A round depends on the seed and its number alone: more rounds are the same ones and further ones.
    """
    check_share(share)
    drawn = [np.random.default_rng([seed, at]).random((prompts, experts)) < share for at in range(rounds)]
    return np.array(drawn, dtype=bool).reshape(rounds, prompts, experts)


def group_effects(masks: Masks, *, rate: float = 0.1, seed: int = 0) -> GroupEffects:
    """Return the effect of each expert from the masks that held it, and the p-value by masks that were not applied.

    The effect is the mean fall that the expert adds to a mask, with what a lasso gives to the other experts taken
    away. Where experts stand in for each other it is the part that the masks saw. The number of dummy masks follows
    from the number of experts and the `rate` at which discoveries are asked for. Raises `DataError` for fewer than
    forty masks, and for falls that are not finite.
    """
    n, experts = masks.applied.shape
    if masks.falls.shape != (n,) or len(masks.groups) != n:
        raise DataError(f"There are {n} masks, but {masks.falls.size} falls of {len(masks.groups)} prompts.")
    if n < LEAST_MASKS:
        raise DataError(f"A group scan needs at least {LEAST_MASKS} masks, not {n}: give it a larger budget.")
    if not np.isfinite(masks.falls).all():
        raise DataError("The falls of the masks must be finite.")
    check_share(masks.share)
    if not 0 < rate < 1:
        raise DataError(f"A false discovery rate lies between 0 and 1, not {rate:g}.")
    falls = _centred(masks.falls, masks.groups)
    columns = masks.applied.astype(np.float64) - masks.share
    model = _lasso(falls, columns, masks.share, experts)
    left = falls - columns @ model.coef_ - model.intercept_
    # An expert that the lasso left out has the same remainder as without it; the others' are fitted anew.
    sums = columns.T @ left
    remainders = {-1: left}
    for j in np.flatnonzero(model.coef_):
        without = columns.copy()
        without[:, j] = 0.0
        again = _lasso(falls, without, masks.share, experts)
        remainders[int(j)] = falls - without @ again.coef_ - again.intercept_
        sums[j] = columns[:, j] @ remainders[int(j)]
    p = _p_values(sums, remainders, masks.share, rate, seed)
    q = np.asarray(multipletests(p, method="fdr_bh")[1], dtype=np.float64)
    return GroupEffects(sums / (n * masks.share * (1 - masks.share)), p, q, left)


def pair_falls(
    masks: Masks, left: NDArray[np.float64], *, top: int = 5, draws: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Return the pairs of experts whose masks fall furthest beyond what single experts explain, best first.

    `left` is [masks], as ``group_effects`` leaves it. Columns: first, second (places of the experts), masks (that held
    both), excess (mean of `left` over them), score (their sum over its standard error) and p: how often the largest
    score of all pairs is as large where `left` is dealt out anew among the masks of a prompt, so one p up to 0.05 in
    the table is a family-wise error of 0.05. Pairs that fewer than two masks held are not there.
    """
    held = sparse.csr_matrix(masks.applied.astype(np.float64))
    together = sparse.triu(held.T @ held, k=1).tocoo()
    # A single mask cannot tell which of its pairs it owes its fall to.
    enough = together.data >= LEAST_TOGETHER
    first, second, count = together.row[enough], together.col[enough], together.data[enough]
    if not count.size or float(np.std(left)) == 0.0:
        return pd.DataFrame(columns=["first", "second", "masks", "excess", "score", "p"])
    scale = np.sqrt(count) * float(np.std(left))
    sums = _pair_sums(held, left, first, second)
    score = sums / scale
    rng = np.random.default_rng(seed)
    places = pd.Series(range(len(left))).groupby(pd.factorize(np.array(masks.groups, dtype=object))[0]).indices
    largest = np.empty(draws)
    for draw in range(draws):
        dealt = left.copy()
        for at in places.values():
            dealt[at] = left[rng.permutation(at)]
        largest[draw] = (_pair_sums(held, dealt, first, second) / scale).max()
    best = np.lexsort((second, first, -score))[:top]
    p = (1 + (largest[None, :] >= score[best][:, None]).sum(axis=1)) / (draws + 1)
    return pd.DataFrame(
        {
            "first": first[best].astype(int),
            "second": second[best].astype(int),
            "masks": count[best].astype(int),
            "excess": sums[best] / count[best],
            "score": score[best],
            "p": p,
        }
    )


def _pair_sums(
    held: sparse.csr_matrix, values: NDArray[np.float64], first: NDArray[Any], second: NDArray[Any]
) -> NDArray[np.float64]:
    """Sum of the values over the masks that hold both experts of each pair."""
    weighted = (held.T @ sparse.csr_matrix(held.multiply(values[:, None]))).tocsr()
    return np.asarray(weighted[first, second], dtype=np.float64).ravel()


def _centred(falls: NDArray[np.float64], groups: Sequence[Hashable]) -> NDArray[np.float64]:
    series = pd.Series(falls)
    codes = pd.factorize(np.array(groups, dtype=object))[0]
    return np.asarray(series - series.groupby(codes).transform("mean"), dtype=np.float64)


def _lasso(falls: NDArray[np.float64], columns: NDArray[np.float64], share: float, experts: int) -> Lasso:
    # The penalty depends on the falls alone, never on the masks: chosen by cross-validation it would know the column
    # that is tested, and the p-values would not be exact.
    noise = float(np.std(falls)) * np.sqrt(share * (1 - share) * 2 * np.log(experts) / len(falls))
    return Lasso(alpha=max(noise, 1e-12), max_iter=5000, tol=1e-5).fit(columns, falls)


def _p_values(
    sums: NDArray[np.float64], remainders: dict[int, NDArray[np.float64]], share: float, rate: float, seed: int
) -> NDArray[np.float64]:
    """How often dummy columns do as well as each expert's own, with the remainder that its own was held against."""
    keys = list(remainders)
    stacked = np.stack([remainders[key] for key in keys], axis=1)
    n = stacked.shape[0]
    draws = int(np.ceil(4 * sums.size / rate))
    rng = np.random.default_rng(seed)
    row = {key: at for at, key in enumerate(keys)}
    which = np.array([row.get(j, 0) for j in range(sums.size)])
    as_well = np.zeros(sums.size)
    step = max(1, _CHUNK // n)
    for begin in range(0, draws, step):
        dummies = (rng.random((min(step, draws - begin), n)) < share) - share
        found = np.sort(dummies @ stacked, axis=0)
        for at in range(len(keys)):
            mine = which == at
            # Sums that differ by rounding alone are equal.
            bar = sums[mine] - 1e-9 * (1 + np.abs(sums[mine]))
            as_well[mine] += found.shape[0] - np.searchsorted(found[:, at], bar, side="left")
    return np.asarray((1 + as_well) / (1 + draws), dtype=np.float64)
