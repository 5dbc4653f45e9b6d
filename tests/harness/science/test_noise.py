from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mote.harness.preconditions import DataError
from mote.harness.science.inference import cluster_sign_test, mcnemar_exact
from mote.harness.science.noise import noise_floor


def enumerated(runs: np.ndarray[tuple[int, int], np.dtype[np.int64]], units: list[int]) -> float:
    """The p-value by its definition: every exchange of runs within units, one by one."""
    names = sorted(set(units))
    left = [[int(sum(1 - run[i] for i in range(len(units)) if units[i] == g)) for run in runs] for g in names]
    observed = sum(unit[0] for unit in left)
    sums = [
        sum(unit[pick] for unit, pick in zip(left, picks, strict=True))
        for picks in product(*[range(len(runs))] * len(names))
    ]
    return float(np.mean([total >= observed for total in sums]))


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 5))
@settings(deadline=None, max_examples=50)
def test_the_convolution_is_the_enumeration(seed: int, retests: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    units = rng.integers(0, groups, 14).tolist()
    runs = (rng.random((retests + 1, 14)) < 0.7).astype(np.int64)
    assert noise_floor(runs[0], runs[1:], units).p == pytest.approx(enumerated(runs, units))


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_with_one_retest_it_is_the_sign_test_of_clusters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = rng.integers(0, 6, 20).tolist()
    ours, retest = (rng.random((2, 20)) < 0.6).astype(float)
    expected = cluster_sign_test(retest - ours, units, alternative="greater").p
    assert noise_floor(ours, retest[None], units).p == pytest.approx(expected)


def test_single_prompts_and_one_retest_are_mcnemars() -> None:
    ours, retest = [0] * 9 + [1] * 51, [1] * 9 + [0] * 2 + [1] * 49
    # One-sided, half of the two-sided test's p: 9 against 2.
    assert noise_floor(ours, [retest], list(range(60))).p == pytest.approx(mcnemar_exact(9, 2).p / 2)


def test_what_so_few_units_can_show() -> None:
    ours, retests = np.zeros(10), np.ones((3, 10))
    found = noise_floor(ours, retests, [i // 2 for i in range(10)])
    assert found.p == found.least_p == pytest.approx(4**-5)
    assert (found.units, found.tuned, found.retests) == (5, 0.0, (1.0, 1.0, 1.0))
    assert noise_floor(ours, retests, [i // 5 for i in range(10)]).p == pytest.approx(1 / 16)
    assert noise_floor(ours, np.zeros((3, 10)), list(range(10))).p == 1.0


def test_size_with_five_units_and_power() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(5), [28, 5, 9, 10, 8])
    below, above = 0, 0
    for _ in range(600):
        # Of a unit's prompts, all share a draw of the run: as alike as can be.
        rate = rng.beta(0.3, 3.0, (1, 5))
        runs = rng.random((4, 60)) >= rng.beta(5 * rate, 5 * (1 - rate), (4, 5))[:, units]
        below += noise_floor(runs[0], runs[1:], units.tolist()).p <= 0.05
        tuned = rng.random(60) >= 0.25
        above += noise_floor(tuned, rng.random((3, 60)) >= 0.05, units.tolist()).p <= 0.05
    assert below / 600 <= 0.05 + 2.6 * (0.05 * 0.95 / 600) ** 0.5
    assert above / 600 >= 0.8


def test_names_what_does_not_fit() -> None:
    with pytest.raises(DataError, match=r"\[retests, 2 prompts\], not \[0\]"):
        noise_floor([1, 0], [], ["a", "b"])
    with pytest.raises(DataError, match="1 where one has the class"):
        noise_floor([0.5, 0], [[1, 0]], ["a", "b"])
    with pytest.raises(DataError, match="2 prompts but 1 units"):
        noise_floor([1, 0], [[1, 0]], ["a"])
