"""Effects of two models: the exact deals against their definition, planted differences, and false alarms."""

from __future__ import annotations

import gc
import math
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mote.harness.preconditions import DataError
from mote.harness.science.inference import cluster_sign_test
from mote.harness.science.model_difference import among_sets, effect_difference, rule

PLACES = np.repeat(np.arange(5), [28, 5, 9, 10, 8])
UNITS: list[Any] = PLACES.tolist()


def enumerated(first: NDArray[np.int64], second: NDArray[np.int64], units: list[int]) -> float:
    """The p-value by its definition: every deal of the models' names, one by one."""
    seeds = len(first)
    runs = [*first.tolist(), *second.tolist()]
    of = {unit: [sum(run[i] for i, at in enumerate(units) if at == unit) for run in runs] for unit in set(units)}
    observed = sum(sum(sums[seeds:]) - sum(sums[:seeds]) for sums in of.values())
    deals = list(combinations(range(2 * seeds), seeds))
    reached = 0
    for deal in product(deals, repeat=len(of)):
        total = sum(
            sum(value if at in chosen else -value for at, value in enumerate(sums))
            for sums, chosen in zip(of.values(), deal, strict=True)
        )
        reached += abs(total) >= abs(observed)
    return float(reached / len(deals) ** len(of))


@given(st.integers(0, 10_000), st.integers(1, 2), st.integers(1, 4))
@settings(max_examples=40)
def test_the_convolution_is_the_enumeration(seed: int, seeds: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    units = rng.integers(0, groups, 12).tolist()
    first, second = rng.integers(-1, 2, (2, seeds, 12))
    found = effect_difference(first, second, units)
    assert found.p == pytest.approx(enumerated(first, second, units))
    assert found.least_p <= found.p + 1e-12
    assert found.difference == pytest.approx(second.mean() - first.mean())


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_with_one_seed_it_is_the_sign_test_of_clusters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = rng.integers(0, 6, 20).tolist()
    first, second = rng.integers(-1, 2, (2, 1, 20))
    expected = cluster_sign_test(second[0] - first[0], units).p
    assert effect_difference(first, second, units).p == pytest.approx(expected)


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=20)
def test_models_that_answer_alike_differ_in_nothing_and_names_do_not_matter(seed: int, seeds: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(-1, 2, (2, seeds, 60))
    same = effect_difference(first, first, UNITS)
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    there, back = effect_difference(first, second, UNITS), effect_difference(second, first, UNITS)
    assert there.p == pytest.approx(back.p)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_what_effects_have_to_be() -> None:
    with pytest.raises(DataError, match=r"\[seeds, 5 prompts\], not \[2, 4\]"):
        effect_difference(np.zeros((2, 4)), np.zeros((2, 4)), [1] * 5)
    with pytest.raises(DataError, match="other shapes"):
        effect_difference(np.zeros((2, 4)), np.zeros((3, 4)), [1] * 4)
    with pytest.raises(DataError, match="-1, 0 or 1"):
        effect_difference(np.full((2, 4), 0.5), np.zeros((2, 4)), [1] * 4)
    with pytest.raises(DataError, match="At most 5 seeds"):
        effect_difference(np.zeros((6, 4)), np.zeros((6, 4)), [1] * 4)
    one = effect_difference(np.zeros((2, 4)), np.ones((2, 4)), ["a"] * 4)
    assert (one.low, one.high, one.units) == (-2.0, 2.0, 1)


def world(rng: np.random.Generator, other: float, *, shared: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flips of 60 prompts in five uneven places under three seeds; each place has its own rate, in both models.

    ``other`` is what the second model's rate is multiplied by; ``shared``: both models draw the same numbers.
    """
    rate = rng.beta(1.5, 3.0, 5)[PLACES]
    draws = rng.random((2, 3, 60))
    if shared:
        draws[1] = draws[0]
    return (draws[0] < rate).astype(np.int64), (draws[1] < np.minimum(1.0, rate * other)).astype(np.int64)


@pytest.mark.parametrize("shared", [False, True])
def test_size_power_and_coverage_with_five_uneven_places(shared: bool) -> None:
    rng = np.random.default_rng(4)
    alarms = covered = seen = 0
    for _ in range(300):
        null = effect_difference(*world(rng, 1.0, shared=shared), UNITS)
        alarms += null.p <= 0.05
        covered += null.low <= 0.0 <= null.high
        seen += effect_difference(*world(rng, 0.3, shared=shared), UNITS).p <= 0.05
    # 5% and two standard errors of 300 worlds.
    assert alarms / 300 <= 0.075
    assert covered / 300 >= 0.92
    assert seen / 300 >= 0.9


def test_random_sets_that_differ_as_much_are_no_change_of_these_experts() -> None:
    (p, least) = among_sets(-0.3, [0.31, -0.02, 0.05])
    assert (p, least) == (2 / 4, 1 / 4)
    assert all(math.isnan(value) for value in among_sets(0.1, []))
    sure, unsure, brittle = (0.001, 0.0001), (0.4, 0.0001), (0.4, 0.025)
    (changed, same, all_over) = rule([sure, unsure, sure], [(0.001, 0.0005), (0.9, 0.0005), brittle])
    assert (changed.said, changed.p) == ("changed", 0.001)
    assert changed.p_holm == pytest.approx(0.003)
    assert same.said == "not-apart"
    assert all_over.said == "as-random"
    nan = (math.nan, math.nan)
    assert [one.said for one in rule([sure, unsure], [nan, nan])] == ["unknown", "not-apart"]
    assert rule([(0.06, 0.06)], [(0.01, 0.01)])[0].said == "few"
    assert rule([sure], [(0.25, 0.25)])[0].said == "few"
    # Both tests hold, and Holm's over two could not.
    assert [one.said for one in rule([sure, sure], [(0.04, 0.04), (0.04, 0.04)])] == ["few", "few"]


def test_of_edits_that_do_nothing_in_two_alike_models_one_is_called_changed_in_at_most_five_of_a_hundred(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # statsmodels collects all garbage at each correction: a minute of 200.
    monkeypatch.setattr(gc, "collect", lambda *_: 0)
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(200):
        by_seeds, by_sets = [], []
        for _ in range(2):
            found = effect_difference(*world(rng, 1.0, shared=False), UNITS)
            first, second = world(rng, 1.0, shared=False)
            drawn = rng.normal(0, 0.08, 39)
            by_seeds.append((found.p, found.least_p))
            by_sets.append(among_sets(float(second[0].mean() - first[0].mean()), drawn.tolist()))
        alarms += any(one.said == "changed" for one in rule(by_seeds, by_sets))
    assert alarms / 200 <= 0.05
