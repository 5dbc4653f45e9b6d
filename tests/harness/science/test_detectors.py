from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]
from statsmodels.stats.meta_analysis import effectsize_smd  # type: ignore[import-untyped]

from mote.harness.preconditions import DataError
from mote.harness.science.detectors import (
    auc,
    compare_rankings,
    detector,
    log_odds,
    rankings,
    risk_difference,
    signs_within_pairs,
    standardised_mean_difference,
)
from mote.harness.science.maps import activation_map, contrast
from mote.harness.science.resonance import resonance

REFUSED, ALIGNED, REASONED = "0-REFUSED", "1-ALIGNED", "2-REASONED"
LAYERS, EXPERTS, TOP_K = 2, 6, 2

Routed = tuple[list[NDArray[np.int64]], NDArray[np.int32], list[str], list[int]]


def routed(seed: int, prompts: int = 14) -> Routed:
    """What the tokens of each prompt chose, and the maps, labels and token counts that follow from it."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 9, prompts).tolist()
    chosen = [np.argsort(rng.random((n, LAYERS, EXPERTS)) * rng.random(EXPERTS), axis=2)[:, :, :TOP_K] for n in tokens]
    labels = [REFUSED, REFUSED, ALIGNED, ALIGNED, *rng.choice([REFUSED, ALIGNED, REASONED], prompts - 4).tolist()]
    return chosen, np.stack([activation_map(c, EXPERTS) for c in chosen]), labels, tokens


def weighted(chosen: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum router weights where `activation_map` counts choices."""
    sums = np.zeros((LAYERS, EXPERTS))
    for (token, layer, slot), weight in np.ndenumerate(weights):
        sums[layer, chosen[token, layer, slot]] += weight
    return sums


seeds = st.integers(0, 10_000)


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_risk_difference_is_that_of_the_single_tokens(seed: int) -> None:
    chosen, maps, labels, tokens = routed(seed)
    found = risk_difference(contrast(maps, labels, REFUSED, tokens))
    for layer in range(LAYERS):
        for expert in range(EXPERTS):
            hits: dict[bool, list[bool]] = {True: [], False: []}
            for c, label in zip(chosen, labels, strict=True):
                hits[label == REFUSED] += [expert in token[layer] for token in c]
            expected = np.mean(hits[True]) - np.mean(hits[False])
            assert found[layer, expert] == pytest.approx(expected, abs=1e-12)


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_log_odds_is_the_formula_of_monroe_et_al(seed: int) -> None:
    _, maps, labels, tokens = routed(seed)
    found = log_odds(contrast(maps, labels, REFUSED, tokens), prior=3.0)
    is_ours = np.array(labels) == REFUSED
    for layer in range(LAYERS):
        ours, others = maps[is_ours, layer].sum(axis=0).tolist(), maps[~is_ours, layer].sum(axis=0).tolist()
        n_i, n_j = sum(ours), sum(others)
        alpha_0 = 3.0 * EXPERTS
        for expert, (y_i, y_j) in enumerate(zip(ours, others, strict=True)):
            alpha = alpha_0 * (y_i + y_j) / (n_i + n_j)
            if alpha == 0:
                assert found[layer, expert] == 0
                continue
            # Monroe, Colaresi and Quinn (2008), equations 16, 18 and 22.
            delta = math.log((y_i + alpha) / (n_i + alpha_0 - y_i - alpha)) - math.log(
                (y_j + alpha) / (n_j + alpha_0 - y_j - alpha)
            )
            assert found[layer, expert] == pytest.approx(delta / math.sqrt(1 / (y_i + alpha) + 1 / (y_j + alpha)))


def test_log_odds_shrinks_what_is_rarely_seen() -> None:
    # Expert 0: 2 choices against 0. Expert 1: 200 against 100. The raw odds ratio of the first is infinite.
    maps = np.array([[[2, 200, 298]], [[0, 100, 400]]], dtype=np.int32)
    scores = log_odds(contrast(maps, [REFUSED, ALIGNED], REFUSED, [500, 500]))
    assert 0 < scores[0, 0] < scores[0, 1]
    only = np.array([[[5, 0]], [[5, 0]]], dtype=np.int32)
    assert log_odds(contrast(only, [REFUSED, ALIGNED], REFUSED, [5, 5])).tolist() == [[0.0, 0.0]]
    with pytest.raises(DataError, match="positive count"):
        log_odds(contrast(maps, [REFUSED, ALIGNED], REFUSED, [500, 500]), prior=0)


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_smd_is_statsmodels_without_its_small_sample_factor(seed: int) -> None:
    _, maps, labels, tokens = routed(seed)
    found = standardised_mean_difference(contrast(maps, labels, REFUSED, tokens), floor=1e-6)
    is_ours = np.array(labels) == REFUSED
    ours, others = maps[is_ours], maps[~is_ours]
    theirs, _ = effectsize_smd(
        ours.mean(axis=0),
        ours.std(axis=0, ddof=1),
        len(ours),
        others.mean(axis=0),
        others.std(axis=0, ddof=1),
        len(others),
    )
    # statsmodels gives Hedges' g, which is Cohen's d times 1 - 3 / (4 N - 9).
    d = theirs / (1 - 3 / (4 * len(maps) - 9))
    kept = np.isfinite(d)
    assert found[kept] == pytest.approx(d[kept], rel=1e-9, abs=1e-9)


def test_smd_does_not_let_an_expert_win_by_having_no_spread() -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 20, (20, 1, 40)).astype(np.int32)
    labels = [REFUSED] * 10 + [ALIGNED] * 10
    maps[:, 0, 0] = [1] * 10 + [0] * 10
    groups = contrast(maps, labels, REFUSED, [20] * 20)
    plain = maps.std(axis=0).mean()
    assert 0 < standardised_mean_difference(groups)[0, 0] < 1 / (0.04 * plain)
    with pytest.raises(DataError, match="without any spread"):
        standardised_mean_difference(groups, floor=0)
    with pytest.raises(DataError, match="three prompts"):
        standardised_mean_difference(contrast(maps[9:11], labels[9:11], REFUSED, [20] * 2))


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_auc_is_sklearns(seed: int) -> None:
    _, maps, labels, _ = routed(seed)
    found = auc(maps, labels, REFUSED)
    for layer in range(LAYERS):
        for expert in range(EXPERTS):
            expected = roc_auc_score([label == REFUSED for label in labels], maps[:, layer, expert])
            assert found[layer, expert] == pytest.approx(expected)


def test_all_rankings_by_their_names() -> None:
    chosen, maps, labels, tokens = routed(3, prompts=30)
    rng = np.random.default_rng(0)
    weights = np.stack([weighted(c, rng.random(c.shape)) for c in chosen])
    found = rankings(maps, labels, REFUSED, tokens, weights=weights)
    assert list(found) == [
        "resonance",
        "resonance_per_token",
        "risk_difference",
        "log_odds",
        "smd",
        "auc",
        "router_weight_resonance",
    ]
    assert all(score.shape == (LAYERS, EXPERTS) for score in found.values())
    assert np.array_equal(found["resonance"], resonance(maps, labels, REFUSED))
    assert np.array_equal(found["router_weight_resonance"], resonance(weights, labels, REFUSED))
    assert found["resonance_per_token"] == pytest.approx(
        resonance(maps / np.array(tokens)[:, None, None], labels, REFUSED)
    )
    assert "router_weight_resonance" not in rankings(maps, labels, REFUSED, tokens)
    for name in ("resonance", "resonance_per_token", "risk_difference", "log_odds", "smd", "auc"):
        assert np.array_equal(detector(name, REFUSED)(maps, labels, np.array(tokens)), found[name])
    with pytest.raises(DataError, match="no detector 'reasonance'. Did you mean 'resonance'".replace(".", r"\.")):
        detector("reasonance", REFUSED)
    with pytest.raises(DataError, match="weight maps have the shape"):
        rankings(maps, labels, REFUSED, tokens, weights=weights[:, :1])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_signs_within_pairs_are_counted_pair_by_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [int(pair) for pair in rng.permutation(np.repeat(np.arange(6), 4))]
    seen: dict[int, int] = {}
    ours = []
    for pair in pairs:
        seen[pair] = seen.get(pair, 0) + 1
        ours.append(seen[pair] % 2 == 1)
    maps = rng.integers(0, 3, (24, 2, 3)).astype(np.int32)
    found = signs_within_pairs(maps, ours, pairs)
    for layer in range(2):
        for expert in range(3):
            total = 0
            for pair in range(6):
                mine = sum(int(maps[i, layer, expert]) for i in range(24) if pairs[i] == pair and ours[i])
                theirs = sum(int(maps[i, layer, expert]) for i in range(24) if pairs[i] == pair and not ours[i])
                total += (mine > theirs) - (mine < theirs)
            assert found[layer, expert] == pytest.approx(total / 6)
    with pytest.raises(DataError, match="The pair 9 has prompts of one side alone"):
        signs_within_pairs(maps, [True, *ours[1:]], [9, *pairs[1:]])


def test_labels_without_a_class_change_no_ranking() -> None:
    _, maps, labels, tokens = routed(4, prompts=20)
    noisy = np.concatenate([maps, maps[:3] * 0 + 1])
    with_states = [*labels, "TRUNCATED", "DEGENERATE", "UNSCORED"]
    plain, found = rankings(maps, labels, REFUSED, tokens), rankings(noisy, with_states, REFUSED, [*tokens, 9, 9, 9])
    for name, score in plain.items():
        assert np.array_equal(score, found[name]), name


def test_longer_prompts_alone_move_counts_but_not_rates() -> None:
    # Both classes choose alike, but the refused prompts are three times as long.
    rng = np.random.default_rng(1)
    tokens = [30] * 40 + [10] * 40
    maps = np.stack([rng.multinomial(n, [0.5, 0.3, 0.2], size=1) for n in tokens]).astype(np.int32)
    found = rankings(maps, [REFUSED] * 40 + [ALIGNED] * 40, REFUSED, tokens)
    assert found["resonance"].min() > 3
    assert found["auc"].min() > 0.3
    for name in ("resonance_per_token", "risk_difference"):
        assert np.abs(found[name]).max() < 0.05


def test_rankings_side_by_side() -> None:
    one = np.arange(20.0).reshape(4, 5)
    scan = np.where(one >= 10, one**2, np.nan)  # behind a pre-filter: half of the experts have no score
    table = compare_rankings({"resonance": one, "reverse": -one, "scan": scan}, k=4)
    rows = {(row.first, row.second): row for row in table.itertuples()}
    assert rows["resonance", "reverse"].spearman == pytest.approx(-1)
    assert rows["resonance", "reverse"].shared == 0
    assert rows["resonance", "reverse"].chance == pytest.approx(0.8)
    assert (rows["resonance", "scan"].experts, rows["resonance", "scan"].shared) == (10, 4)
    assert rows["resonance", "scan"].spearman == pytest.approx(1)
    assert math.isnan(compare_rankings({"a": one, "flat": one * 0}, k=2)["spearman"][0])
    with pytest.raises(DataError, match="different models"):
        compare_rankings({"a": one, "b": one[:2]}, k=2)
    with pytest.raises(DataError, match="share 10 scored experts, too few to compare the top 11"):
        compare_rankings({"a": one, "scan": scan}, k=11)
