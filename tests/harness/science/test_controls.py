from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mote.harness.preconditions import DataError
from mote.harness.science.controls import KINDS, ControlKind, Expert, frequency_gap, random_experts

LAYERS = (1, 2, 4)
EXPERTS = 12
FREQUENCY = np.random.default_rng(0).gamma(1.0, 1.0, (3, EXPERTS))
TUNED: list[Expert] = [(1, 3), (1, 5), (4, 0), (4, 11)]


@given(
    st.sampled_from(KINDS),
    st.sets(st.tuples(st.sampled_from(LAYERS), st.integers(0, EXPERTS - 1)), min_size=1, max_size=6),
    st.integers(0, 10_000),
)
@settings(deadline=None)
def test_every_set_is_a_fair_match(kind: ControlKind, experts: set[Expert], seed: int) -> None:
    tuned = sorted(experts)
    for drawn in random_experts(kind, tuned, FREQUENCY, LAYERS, 5, seed):
        assert len(drawn) == len(set(drawn)) == len(tuned)
        assert not set(drawn) & set(tuned)
        assert all(layer in LAYERS and 0 <= expert < EXPERTS for layer, expert in drawn)
        if kind != "uniform":
            assert Counter(layer for layer, _ in drawn) == Counter(layer for layer, _ in tuned)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_sets_and_all_distinct(kind: ControlKind) -> None:
    sets = random_experts(kind, TUNED, FREQUENCY, LAYERS, 20, 7)
    assert sets == random_experts(kind, TUNED, FREQUENCY, LAYERS, 20, np.random.default_rng(7))
    assert sets != random_experts(kind, TUNED, FREQUENCY, LAYERS, 20, 8)
    assert len({tuple(drawn) for drawn in sets}) == 20
    assert all(drawn == sorted(drawn) for drawn in sets)


def test_uniform_takes_each_free_expert_with_the_same_chance() -> None:
    sets = random_experts("uniform", TUNED, FREQUENCY, LAYERS, 3000, 1)
    counts = Counter(expert for drawn in sets for expert in drawn)
    free = [(layer, e) for layer in LAYERS for e in range(EXPERTS) if (layer, e) not in TUNED]
    assert stats.chisquare([counts[expert] for expert in free]).pvalue > 0.001


def test_a_small_model_gives_all_the_sets_it_has_and_then_repeats() -> None:
    frequency = np.ones((1, 5))
    sets = random_experts("layers", [(0, 0), (0, 1)], frequency, [0], 6, 0)
    possible = {tuple((0, e) for e in pair) for pair in combinations([2, 3, 4], 2)}
    assert {tuple(drawn) for drawn in sets} == possible
    assert len(sets) == 6


def test_frequency_control_chooses_among_the_nearest() -> None:
    frequency = np.array([[10.0, 9.0, 8.5, 1.0, 2.0, 3.0, 4.0, 5.0]])
    for drawn in random_experts("frequency", [(0, 0)], frequency, [0], 2, 0, near=2):
        assert drawn in ([(0, 1)], [(0, 2)])
    firsts = [
        drawn[0][1]
        for seed in range(40)
        for drawn in random_experts("frequency", [(0, 0)], frequency, [0], 1, seed, near=2)
    ]
    assert set(firsts) == {1, 2}


def test_no_tuned_expert_always_has_the_first_choice() -> None:
    # The two tuned ones (7 and 3) share their nearest neighbour, 5; who comes second takes 9.5 or 0.
    frequency = np.array([[7.0, 3.0, 5.0, 9.5, 0.0]])
    drawn = [
        tuple(random_experts("frequency", [(0, 0), (0, 1)], frequency, [0], 1, seed, near=1)[0]) for seed in range(30)
    ]
    assert set(drawn) == {((0, 2), (0, 3)), ((0, 2), (0, 4))}


def test_frequency_control_is_nearer_than_the_same_layers_alone() -> None:
    frequency = np.random.default_rng(5).gamma(0.5, 4.0, (3, 64))
    busiest = [(LAYERS[row], int(np.argsort(frequency[row])[-3])) for row in range(3)]
    gaps = {
        kind: np.mean(
            [
                abs(frequency_gap(busiest, drawn, frequency, LAYERS))
                for drawn in random_experts(kind, busiest, frequency, LAYERS, 50, 0)
            ]
        )
        for kind in KINDS
    }
    assert gaps["frequency"] < gaps["layers"] / 2
    assert frequency_gap([(1, 0)], [(1, 1)], np.array([[3.0, 1.0]]), [1]) == 2.0


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        ([], "no tuned experts"),
        ([(3, 0)], r"Layer 3 of expert \(3, 0\) is no MoE layer; the nearest one is 2"),
        ([(1, 12)], "Expert 12 of layer 1 does not exist; experts are 0 to 11"),
        ([(1, 0), (1, 0)], r"\(1, 0\) is listed twice"),
        ([(1, e) for e in range(7)], "Layer 1 has 7 tuned experts of 12"),
    ],
)
def test_names_what_does_not_fit(tuned: list[Expert], message: str) -> None:
    with pytest.raises(DataError, match=message):
        random_experts("layers", tuned, FREQUENCY, LAYERS, 2, 0)


def test_names_wrong_arguments() -> None:
    with pytest.raises(DataError, match="Did you mean 'uniform'"):
        random_experts(cast(ControlKind, "unifrom"), TUNED, FREQUENCY, LAYERS, 2, 0)
    with pytest.raises(DataError, match="leave only 16 others"):
        random_experts("uniform", [(1, e) for e in range(20)], np.ones((1, 36)), [1], 2, 0)
    with pytest.raises(DataError, match="shape"):
        random_experts("uniform", TUNED, FREQUENCY[:2], LAYERS, 2, 0)
    with pytest.raises(DataError, match="not finite"):
        random_experts("frequency", TUNED, FREQUENCY * np.nan, LAYERS, 2, 0)
    with pytest.raises(DataError, match="At least one set"):
        random_experts("uniform", TUNED, FREQUENCY, LAYERS, 0, 0)
