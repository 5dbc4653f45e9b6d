"""Detectors: rankings of experts by how differently a class uses them, beside the paper's resonance.

All look at the same maps and answer the same question in another unit; each is an array [layers, experts] in which a
higher score means "more in the class", 0 no difference. None says that an expert causes anything.

=========================  ============================================================================================
resonance                  mean map of the class minus mean map of the others (paper 2.4), activations a prompt
resonance_per_token        the same of length-normalised maps: a class of longer prompts gains nothing by length
risk_difference            share of the class's tokens that chose the expert, minus that of the others' tokens
                           (the statistic of SteerMoE, arXiv 2509.09660)
log_odds                   log-odds ratio with an informative Dirichlet prior, in standard errors (Monroe, Colaresi and
                           Quinn 2008): rare experts are shrunk instead of ranked first
smd                        standardised mean difference (Cohen's d, pooled): the difference in units of its noise
auc                        chance that a prompt of the class has the higher count than another prompt, ties half,
                           minus 0.5 (Mann-Whitney)
router_weight_resonance    resonance of summed router weights instead of counts
pair_signs                 where prompts are paired: share of pairs in which the class's prompt has more, minus of less
=========================  ============================================================================================
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mote.harness.errors import nearest
from mote.harness.preconditions import STATES, DataError, check_maps, other_classes
from mote.harness.science.maps import Contrast, contrast, per_token
from mote.harness.science.resonance import TIE_TOLERANCE, ranks_of, resonance

PRIOR_COUNTS_AN_EXPERT: Final = 10.0
"""Weight of the log-odds prior: as if each expert had been chosen ten times in each group, shared out as the pooled
choices are. Small beside the thousands of choices of a busy expert, large beside an expert seen twice."""

SPREAD_FLOOR: Final = 0.05
"""No standardised difference is taken over less than this share of the experts' median spread: an expert chosen by
one token in a thousand prompts would otherwise be divided by almost nothing and win."""


def risk_difference(groups: Contrast) -> NDArray[np.float64]:
    """Return the activation rate a token in the class minus that in the others, between -1 and 1."""
    ours, others = groups.ours, groups.others
    return np.asarray(ours.total / ours.tokens - others.total / others.tokens, dtype=np.float64)


def log_odds(groups: Contrast, prior: float = PRIOR_COUNTS_AN_EXPERT) -> NDArray[np.float64]:
    """Return the z-score of the log-odds ratio with an informative Dirichlet prior, layer by layer.

    The choices of a layer are a text whose words are its experts. `prior` is the prior's count for each expert on
    average. Tokens of a prompt are not independent, so the z-scores rank; they are not tests. An expert that no token
    chose scores 0.
    """
    if prior <= 0:
        raise DataError(f"The prior needs a positive count for each expert, not {prior}.")
    ours, others = (np.asarray(side.total, dtype=np.float64) for side in (groups.ours, groups.others))
    pooled = ours + others
    alpha = prior * pooled.shape[1] * pooled / np.maximum(pooled.sum(axis=1, keepdims=True), 1.0)
    seen = pooled > 0
    sides = []
    for counts in (ours, others):
        mine = np.where(seen, counts + alpha, 1.0)
        rest = (counts + alpha).sum(axis=1, keepdims=True) - np.where(seen, counts + alpha, 0.0)
        # An expert that takes all choices of its layer in both groups has no odds; the guard makes it 0 below.
        sides.append((mine, np.where(rest > 0, rest, 1.0)))
    (mine, rest), (theirs, their_rest) = sides
    z = (np.log(mine / rest) - np.log(theirs / their_rest)) / np.sqrt(1.0 / mine + 1.0 / theirs)
    return np.where(seen, z, 0.0)


def standardised_mean_difference(groups: Contrast, floor: float = SPREAD_FLOOR) -> NDArray[np.float64]:
    """Return Cohen's d of the counts a prompt: difference of means by the pooled standard deviation between prompts.

    Spreads below `floor` times the median positive spread are raised to it (0 raises none; an expert without any
    spread and with different means then has no finite score, which raises `DataError`).
    """
    ours, others = groups.ours, groups.others
    degrees = ours.prompts + others.prompts - 2
    if degrees < 1:
        raise DataError("A standardised difference needs at least three prompts.")
    variance = ((ours.prompts - 1) * ours.variance + (others.prompts - 1) * others.variance) / degrees
    spread = np.sqrt(variance)
    if (spread > 0).any():
        spread = np.maximum(spread, floor * np.median(spread[spread > 0]))
    difference = ours.mean - others.mean
    if (spread[difference != 0] == 0).any():
        raise DataError("An expert differs between the classes without any spread; a floor above 0 gives it a score.")
    scores: NDArray[np.float64] = np.divide(difference, spread, out=np.zeros_like(difference), where=spread > 0)
    return scores


def auc(
    maps: NDArray[Any], labels: Sequence[str], target: str, *, ignore: Collection[str] = STATES
) -> NDArray[np.float64]:
    """Return for each expert the area under the ROC curve of its count as a score for the class, 0 to 1, ties half."""
    ours, others = sides(labels, target, ignore)
    check_maps(maps, labels)
    kept = np.concatenate([maps[ours], maps[others]])
    n, m = int(ours.sum()), int(others.sum())
    # Layer by layer: ranking doubles the memory of what it ranks.
    sums = np.stack([stats.rankdata(kept[:, layer], axis=0)[:n].sum(axis=0) for layer in range(maps.shape[1])])
    return np.asarray((sums - n * (n + 1) / 2) / (n * m), dtype=np.float64)


def rankings(
    maps: NDArray[Any],
    labels: Sequence[str],
    target: str,
    tokens: Sequence[int] | NDArray[Any],
    *,
    weights: NDArray[Any] | None = None,
    ignore: Collection[str] = STATES,
) -> dict[str, NDArray[np.float64]]:
    """Return every ranking of the table above by its name; `router_weight_resonance` where `weights` are given.

    `maps` are counts [prompts, layers, experts] of one role, `tokens` the tokens each map counts, `weights` the
    summed router weights in the shape of `maps`.
    """
    check_maps(maps, labels)
    if weights is not None and np.shape(weights) != maps.shape:
        raise DataError(f"The weight maps have the shape {list(np.shape(weights))}, the maps {list(maps.shape)}.")
    groups = contrast(maps, labels, target, tokens, ignore=ignore)
    found = {
        "resonance": resonance(maps, labels, target, ignore=ignore),
        "resonance_per_token": resonance(per_token(maps, tokens), labels, target, ignore=ignore),
        "risk_difference": risk_difference(groups),
        "log_odds": log_odds(groups),
        "smd": standardised_mean_difference(groups),
        "auc": auc(maps, labels, target, ignore=ignore) - 0.5,
    }
    if weights is not None:
        found["router_weight_resonance"] = resonance(weights, labels, target, ignore=ignore)
    return found


def signs_within_pairs(
    maps: NDArray[Any], ours: Sequence[bool] | NDArray[np.bool_], pairs: Sequence[Hashable]
) -> NDArray[np.float64]:
    """Return for each expert the share of pairs in which it is seen more in the target's prompts, minus that of less.

    `maps` [prompts, layers, experts] are in any unit, `ours` says which prompts are of the target's side, `pairs` to
    which pair each belongs; a pair with several prompts of a side goes by their mean. Of [layers, experts], between -1
    and 1: the statistic of a sign test, which no single pair can carry. Raises `DataError` for shapes that do not fit
    and for a pair that lacks a side.
    """
    check_maps(maps, [""] * len(pairs))
    sides = np.asarray(ours, dtype=np.bool_)
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, pair in enumerate(pairs):
        rows[pair].append(row)
    total = np.zeros(maps.shape[1:], dtype=np.float64)
    for pair, at in rows.items():
        mine, theirs = [row for row in at if sides[row]], [row for row in at if not sides[row]]
        if not mine or not theirs:
            raise DataError(f"The pair {pair} has prompts of one side alone.")
        difference = maps[mine].mean(axis=0, dtype=np.float64) - maps[theirs].mean(axis=0, dtype=np.float64)
        # Shares of tokens that are alike but for rounding are no difference.
        total += np.where(np.abs(difference) > TIE_TOLERANCE, np.sign(difference), 0.0)
    return np.asarray(total / len(rows), dtype=np.float64)


def compare_rankings(rankings_: Mapping[str, NDArray[Any]], k: int) -> pd.DataFrame:
    """Set rankings side by side: one row for each pair, with rank correlation and shared experts of the top `k`.

    Columns: first, second, experts (scored by both; nan marks an expert without a score, as in a causal scan behind
    a pre-filter), spearman, shared (experts in both top k), chance (how many of the top k two unrelated rankings
    share on average).
    """
    rows = []
    for first, second in combinations(rankings_, 2):
        a, b = (np.asarray(rankings_[name], dtype=np.float64) for name in (first, second))
        if a.shape != b.shape:
            raise DataError(f"The rankings '{first}' and '{second}' are of different models: {a.shape} and {b.shape}.")
        both = np.isfinite(a) & np.isfinite(b)
        scored = int(both.sum())
        if scored < max(k, 3):
            raise DataError(f"'{first}' and '{second}' share {scored} scored experts, too few to compare the top {k}.")
        a, b = a[both][None], b[both][None]
        varies = min(np.ptp(a), np.ptp(b)) > 0
        # Ties at the cut are decided as everywhere, by layer and expert.
        tops = [set(np.lexsort((np.arange(scored), ranks_of(side)[0]))[:k].tolist()) for side in (a, b)]
        rho = float(stats.spearmanr(a[0], b[0]).statistic) if varies else float("nan")
        rows.append((first, second, scored, rho, len(tops[0] & tops[1]), k * k / scored))
    return pd.DataFrame(rows, columns=["first", "second", "experts", "spearman", "shared", "chance"])


Detector = Callable[[NDArray[Any], Sequence[str], NDArray[np.int64]], NDArray[np.float64]]
"""A ranking from maps, labels and token counts, for `stability.bootstrap_ranking`."""


def detector(name: str, target: str, *, ignore: Collection[str] = STATES) -> Detector:
    """Return the detector of that name for one class. Raises `DataError` with the nearest name for an unknown one."""
    by_contrast: dict[str, Callable[[Contrast], NDArray[np.float64]]] = {
        "risk_difference": risk_difference,
        "log_odds": log_odds,
        "smd": standardised_mean_difference,
    }
    if name in by_contrast:
        return lambda maps, labels, tokens: by_contrast[name](contrast(maps, labels, target, tokens, ignore=ignore))
    by_maps: dict[str, Detector] = {
        "resonance": lambda maps, labels, tokens: resonance(maps, labels, target, ignore=ignore),
        "resonance_per_token": lambda maps, labels, tokens: resonance(
            per_token(maps, tokens), labels, target, ignore=ignore
        ),
        "auc": lambda maps, labels, tokens: auc(maps, labels, target, ignore=ignore) - 0.5,
    }
    if name not in by_maps:
        raise DataError(f"There is no detector '{name}'.{nearest(name, [*by_contrast, *by_maps])}")
    return by_maps[name]


def sides(
    labels: Sequence[str], target: str, ignore: Collection[str] = STATES
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which prompts are of the class and which of the other classes; ignored labels are of neither."""
    rest = other_classes(target, labels, ignore)
    names = np.asarray(labels, dtype=object)
    return np.asarray(names == target, dtype=np.bool_), np.isin(names, rest)
