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
from mote.harness.science.controls import (
    KINDS,
    MASS_TOLERANCE,
    ControlKind,
    Expert,
    frequency_gap,
    possible_sets,
    random_experts,
)

LAYERS = (1, 2, 4)
EXPERTS = 12
FREQUENCY = np.random.default_rng(0).gamma(1.0, 1.0, (3, EXPERTS))
TUNED: list[Expert] = [(1, 3), (1, 5), (4, 0), (4, 11)]


@given(
    st.sampled_from(KINDS),
    st.sets(st.tuples(st.sampled_from(LAYERS), st.integers(0, EXPERTS - 1)), min_size=1, max_size=6),
    st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=30)
def test_every_set_is_a_fair_match(kind: str, experts: set[Expert], seed: int) -> None:
    tuned = sorted(experts)
    for drawn in random_experts(cast(ControlKind, kind), tuned, FREQUENCY, LAYERS, 5, seed):
        assert len(drawn) == len(set(drawn))
        assert drawn != tuned
        assert all(layer in LAYERS and 0 <= expert < EXPERTS for layer, expert in drawn)
        if kind == "mass":
            assert {layer for layer, _ in drawn} <= {layer for layer, _ in tuned}
            continue
        assert len(drawn) == len(tuned)
        if kind != "uniform":
            assert Counter(layer for layer, _ in drawn) == Counter(layer for layer, _ in tuned)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_sets_and_all_distinct(kind: ControlKind) -> None:
    sets = random_experts(kind, TUNED, FREQUENCY, LAYERS, 20, 7)
    assert sets == random_experts(kind, TUNED, FREQUENCY, LAYERS, 20, np.random.default_rng(7))
    assert sets != random_experts(kind, TUNED, FREQUENCY, LAYERS, 20, 8)
    assert len({tuple(drawn) for drawn in sets}) == 20
    assert all(drawn == sorted(drawn) for drawn in sets)


def test_uniform_takes_each_expert_with_the_same_chance() -> None:
    sets = random_experts("uniform", TUNED, FREQUENCY, LAYERS, 3000, 1)
    counts = Counter(expert for drawn in sets for expert in drawn)
    every = [(layer, e) for layer in LAYERS for e in range(EXPERTS)]
    assert stats.chisquare([counts[expert] for expert in every]).pvalue > 0.001


@pytest.mark.parametrize(("experts", "k"), [(5, 2), (8, 4)])
def test_a_small_model_gives_all_the_sets_it_has_and_no_more(experts: int, k: int) -> None:
    tuned: list[Expert] = [(0, e) for e in range(k)]
    sets = random_experts("layers", tuned, np.ones((1, experts)), [0], 200, 0)
    possible = {tuple((0, e) for e in some) for some in combinations(range(experts), k)} - {tuple(tuned)}
    assert {tuple(drawn) for drawn in sets} == possible
    assert len(sets) == len(possible) == possible_sets("layers", tuned, experts, [0])


def test_possible_sets_of_a_narrow_model() -> None:
    # Mixtral-like, 32 layers of 8 experts, ten tuned in ten layers: 8^10 - 1 sets of the same layers.
    tuned: list[Expert] = [(layer, 0) for layer in range(10)]
    assert possible_sets("layers", tuned, 8, range(32)) == 8**10 - 1
    assert possible_sets("uniform", [(0, 0), (0, 1)], 2, [0, 1]) == 6 - 1


def test_mass_controls_are_chosen_as_often_in_sum() -> None:
    mass = np.random.default_rng(3).gamma(0.7, 4.0, (4, 64))
    layers = (1, 2, 3, 9)
    busiest = [(layers[row], int(e)) for row in range(4) for e in np.argsort(mass[row])[-3:]]
    wanted = sum(mass[layers.index(layer), e] for layer, e in busiest)
    sets = random_experts("mass", busiest, mass, layers, 100, 0)
    sums = np.array([sum(mass[layers.index(layer), e] for layer, e in drawn) for drawn in sets])
    assert np.abs(sums / wanted - 1).max() <= MASS_TOLERANCE
    assert abs(sums.mean() / wanted - 1) < 0.01  # tight, and to neither side
    assert min(len(drawn) for drawn in sets) > len(busiest)  # it takes more of those that are less busy
    for row, layer in enumerate(layers):
        ours = sum(mass[row, e] for at, e in busiest if at == layer)
        theirs = np.mean([sum(mass[row, e] for at, e in drawn if at == layer) for drawn in sets])
        assert theirs == pytest.approx(ours, rel=0.1)


def test_mass_controls_draw_in_proportion_to_mass() -> None:
    # One expert is wanted of each draw (all have nearly the tuned one's mass): its chance is its share of the mass.
    mass = np.array([[10.0, 10.4, 9.6, 10.2, 9.8, 0.0]])
    first = [random_experts("mass", [(0, 0)], mass, [0], 1, seed)[0] for seed in range(400)]
    counts = Counter(drawn[0][1] for drawn in first)
    assert all(len(drawn) == 1 for drawn in first)
    assert set(counts) == {1, 2, 3, 4}  # never the tuned set itself, never an expert that is never chosen
    assert stats.chisquare([counts[e] for e in (1, 2, 3, 4)], 400 * mass[0, 1:5] / mass[0, 1:5].sum()).pvalue > 0.001


def test_mass_controls_of_narrow_layers_carry_over_what_a_layer_misses() -> None:
    mass = np.random.default_rng(0).gamma(2.0, 3.0, (32, 8))
    tuned: list[Expert] = [(layer, int(np.argmax(mass[layer]))) for layer in range(0, 30, 3)]
    wanted = sum(mass[layer, e] for layer, e in tuned)
    for drawn in random_experts("mass", tuned, mass, range(32), 50, 0):
        assert abs(sum(mass[layer, e] for layer, e in drawn) / wanted - 1) <= MASS_TOLERANCE


def test_mass_controls_need_mass() -> None:
    with pytest.raises(DataError, match="never chosen by these prompts"):
        random_experts("mass", TUNED, FREQUENCY * 0, LAYERS, 2, 0)
    with pytest.raises(DataError, match="negative values"):
        random_experts("mass", TUNED, -FREQUENCY, LAYERS, 2, 0)
    assert len(random_experts("layers", TUNED, FREQUENCY * 0, LAYERS, 2, 0)) == 2


def test_frequency_control_chooses_among_the_nearest() -> None:
    frequency = np.array([[10.0, 9.0, 8.5, 1.0, 2.0, 3.0, 4.0, 5.0]])
    for drawn in random_experts("frequency", [(0, 0)], frequency, [0], 2, 0, near=3):
        assert drawn in ([(0, 1)], [(0, 2)])
    firsts = [
        drawn[0][1]
        for seed in range(40)
        for drawn in random_experts("frequency", [(0, 0)], frequency, [0], 1, seed, near=3)
    ]
    assert set(firsts) == {1, 2}


def test_no_tuned_expert_always_has_the_first_choice() -> None:
    # The two tuned ones (7 and 5.1) are each other's neighbour, and share a third (6).
    frequency = np.array([[7.0, 5.1, 6.0, 0.0]])
    drawn = {
        tuple(random_experts("frequency", [(0, 0), (0, 1)], frequency, [0], 1, seed, near=2)[0]) for seed in range(40)
    }
    assert drawn == {((0, 0), (0, 2)), ((0, 1), (0, 2))}


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
        ([(1, e) for e in range(12)], "12 tuned experts are all that a 'layers' control could draw"),
    ],
)
def test_names_what_does_not_fit(tuned: list[Expert], message: str) -> None:
    with pytest.raises(DataError, match=message):
        random_experts("layers", tuned, FREQUENCY, LAYERS, 2, 0)


def test_names_wrong_arguments() -> None:
    with pytest.raises(DataError, match="Did you mean 'uniform'"):
        random_experts(cast(ControlKind, "unifrom"), TUNED, FREQUENCY, LAYERS, 2, 0)
    with pytest.raises(DataError, match="all that a 'frequency' control could draw"):
        random_experts("frequency", [(1, e) for e in range(12)], FREQUENCY, LAYERS, 2, 0)
    with pytest.raises(DataError, match="36 tuned experts are all"):
        random_experts("uniform", [(1, e) for e in range(36)], np.ones((1, 36)), [1], 2, 0)
    with pytest.raises(DataError, match="shape"):
        random_experts("uniform", TUNED, FREQUENCY[:2], LAYERS, 2, 0)
    with pytest.raises(DataError, match="not finite"):
        random_experts("frequency", TUNED, FREQUENCY * np.nan, LAYERS, 2, 0)
    with pytest.raises(DataError, match="At least one set"):
        random_experts("uniform", TUNED, FREQUENCY, LAYERS, 0, 0)
