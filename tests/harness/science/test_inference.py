from __future__ import annotations

import math
from itertools import product
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mote.harness.preconditions import DataError
from mote.harness.science.inference import (
    Alternative,
    against_controls,
    clopper_pearson,
    cluster_rate_interval,
    cluster_sign_test,
    holm,
    mcnemar_exact,
    percentile_within,
    permutation_p,
    rate,
    stuart_maxwell,
)

STUART_VISION = [[1520, 266, 124, 66], [234, 1512, 432, 78], [117, 362, 1772, 205], [36, 82, 179, 492]]
"""Unaided distance vision of 7,477 women, right eye by left eye (Stuart 1955)."""

DARWIN_MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Height of cross- minus self-fertilised plants, eighths of an inch (Fisher 1935, The Design of Experiments, 17)."""


def test_clopper_pearson_is_rs_binom_test() -> None:
    # R: binom.test(682, 682 + 243, p = 3/4), the example of its help page (Conover 1971).
    assert clopper_pearson(682, 925) == pytest.approx((0.7076683, 0.7654066), abs=5e-8)


@given(
    st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95, 0.99])
)
@settings(deadline=None)
def test_clopper_pearson_inverts_the_binomial_tails(case: tuple[int, int], level: float) -> None:
    count, total = case
    low, high = clopper_pearson(count, total, level)
    tail = (1 - level) / 2
    # By definition the lower bound gives `count` or more, the upper bound `count` or less, the chance of one tail.
    assert low == 0.0 if count == 0 else stats.binom.sf(count - 1, total, low) == pytest.approx(tail, rel=1e-6)
    assert high == 1.0 if count == total else stats.binom.cdf(count, total, high) == pytest.approx(tail, rel=1e-6)


def test_a_share_of_nothing_is_no_share() -> None:
    nothing = rate(0, 0)
    assert math.isnan(nothing.share)
    assert (nothing.low, nothing.high) == (0.0, 1.0)
    assert rate(3, 12).share == 0.25
    with pytest.raises(DataError, match="not 5 of 4"):
        clopper_pearson(5, 4)
    with pytest.raises(DataError, match=r"between 0 and 1, for instance 0.95, not 95"):
        clopper_pearson(1, 4, 95)


def test_permutation_p_by_hand() -> None:
    null = [0.0, 0.1, 0.1, 0.2, 0.3, 0.3, 0.4, 0.5, 0.6]
    assert permutation_p(0.5, null) == pytest.approx((1 + 2) / 10)  # ties count as extreme
    assert permutation_p(0.7, null) == pytest.approx(1 / 10)  # never 0
    assert permutation_p(0.1, null, "less") == pytest.approx((1 + 3) / 10)
    assert permutation_p(0.6, null, "two-sided") == pytest.approx(2 * 2 / 10)
    assert permutation_p(0.3, null, "two-sided") == 1.0
    with pytest.raises(DataError, match="'greater', 'less' or 'two-sided', not 'bigger'"):
        permutation_p(0.1, null, cast(Alternative, "bigger"))
    with pytest.raises(DataError, match="null distribution is empty"):
        permutation_p(0.1, [])
    with pytest.raises(DataError, match="not finite"):
        permutation_p(math.nan, null)


def test_an_effect_beside_its_controls() -> None:
    null = [0.0, 0.1, 0.1, 0.2]
    found = against_controls(0.4, null)
    assert found.mean == pytest.approx(0.1)
    assert found.difference == pytest.approx(0.3)
    assert found.ratio == pytest.approx(4.0)
    assert found.standardised == pytest.approx(0.3 / math.sqrt((0.01 + 0.01) / 3))
    assert found.percentile == 100.0
    middle = against_controls(0.4, null, level=0.5)
    assert (middle.low, middle.high) == pytest.approx((0.075, 0.125))
    assert found.p == pytest.approx(1 / 5)
    assert percentile_within(0.1, null) == 50.0  # one below, two equal, one above
    still = against_controls(0.4, [0.0, 0.0])
    assert math.isnan(still.ratio)
    assert math.isnan(still.standardised)


def test_mcnemar_exact_is_r_exact2x2() -> None:
    # R: exact2x2::mcnemar.exact(matrix(c(21, 9, 2, 12), 2, 2)), its vignette: b = 2, c = 9, p-value = 0.06543.
    assert mcnemar_exact(2, 9).p == pytest.approx(0.06543, abs=5e-6)
    assert mcnemar_exact(9, 2) == mcnemar_exact(2, 9)
    assert mcnemar_exact(0, 0).p == 1.0
    with pytest.raises(DataError, match="negative"):
        mcnemar_exact(-1, 2)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_mcnemar_exact_counts_subsets(b: int, c: int) -> None:
    n = b + c
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1))
    assert mcnemar_exact(b, c).p == pytest.approx(min(1.0, 2 * tail / 2**n))


def test_stuart_maxwell_is_stuarts_example() -> None:
    # Stuart (1955): chi-square 11.96 with 3 degrees of freedom; R (DescTools::StuartMaxwellTest): 11.957, p 0.007533.
    found = stuart_maxwell(STUART_VISION)
    assert found.statistic == pytest.approx(11.957, abs=5e-4)
    assert found.df == 3
    assert found.p == pytest.approx(0.007533, abs=5e-7)


@given(st.lists(st.integers(1, 40), min_size=9, max_size=9))
@settings(deadline=None)
def test_stuart_maxwell_is_statsmodels_where_that_can_compute_it(cells: list[int]) -> None:
    from statsmodels.stats.contingency_tables import SquareTable  # type: ignore[import-untyped]

    table = np.array(cells).reshape(3, 3)
    theirs = SquareTable(table, shift_zeros=False).homogeneity(method="stuart_maxwell")
    ours = stuart_maxwell(table)
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9, abs=1e-9)
    assert ours.df == theirs.df
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-9)


def test_stuart_maxwell_with_classes_that_nothing_enters_or_leaves() -> None:
    padded: Any = np.zeros((6, 6))
    padded[np.ix_([0, 2, 3, 5], [0, 2, 3, 5])] = STUART_VISION
    padded[1, 1] = 30
    assert stuart_maxwell(padded) == pytest.approx(stuart_maxwell(STUART_VISION))
    assert stuart_maxwell(np.diag([3, 4, 5])) == (0.0, 0, 1.0)
    # For one class against another it is McNemar's chi-square (b - c)^2 / (b + c).
    assert stuart_maxwell([[9, 7], [2, 5]]).statistic == pytest.approx((7 - 2) ** 2 / 9)
    # Two pairs of classes that exchange prompts only within the pair: the sum of two such tests.
    two = np.zeros((4, 4))
    two[0, 1], two[1, 0], two[2, 3], two[3, 2] = 7, 2, 1, 6
    assert stuart_maxwell(two).statistic == pytest.approx(25 / 9 + 25 / 7)
    assert stuart_maxwell(two).df == 2
    with pytest.raises(DataError, match="square"):
        stuart_maxwell([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(DataError, match="counts"):
        stuart_maxwell([[1, -2], [4, 5]])


def test_holm_is_the_worked_example() -> None:
    # Wikipedia, "Holm-Bonferroni method", Example; R: p.adjust(c(.01, .04, .03, .005), "holm").
    adjusted = holm({"H1": 0.01, "H2": 0.04, "H3": 0.03, "H4": 0.005})
    assert adjusted == pytest.approx({"H1": 0.03, "H2": 0.06, "H3": 0.06, "H4": 0.02})
    assert holm({}) == {}
    with pytest.raises(DataError, match="between 0 and 1"):
        holm({"a": 1.2})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(deadline=None, max_examples=10)  # statsmodels collects garbage at every call
def test_holm_by_its_definition(p_values: list[float]) -> None:
    ordered = sorted(range(len(p_values)), key=lambda i: p_values[i])
    running, expected = 0.0, {}
    for step, i in enumerate(ordered):
        running = max(running, min(1.0, (len(p_values) - step) * p_values[i]))
        expected[i] = running
    assert holm(dict(enumerate(p_values))) == pytest.approx(expected)


def test_sign_test_is_fishers_randomisation_of_darwins_maize() -> None:
    # Fisher (1935), section 21: in 863 of the 32,768 arrangements the total is as great, counted on both sides 1,726.
    assert cluster_sign_test(DARWIN_MAIZE, range(15)).p == pytest.approx(1726 / 32768)
    assert cluster_sign_test(DARWIN_MAIZE, range(15), alternative="greater").p == pytest.approx(863 / 32768)
    assert cluster_sign_test(DARWIN_MAIZE, range(15)).statistic == 314


@given(st.integers(0, 8), st.integers(0, 8))
@settings(deadline=None)
def test_sign_test_of_single_prompts_is_mcnemars(flips: int, reverse: int) -> None:
    differences = [1] * flips + [-1] * reverse + [0] * 3
    assert cluster_sign_test(differences, range(len(differences))).p == pytest.approx(mcnemar_exact(flips, reverse).p)


def test_sign_test_draws_where_there_are_too_many_to_enumerate() -> None:
    differences = [1] * 20 + [-1] * 8
    drawn = cluster_sign_test(differences, range(28), draws=20_000, seed=1).p
    assert drawn == pytest.approx(mcnemar_exact(20, 8).p, abs=0.003)
    assert drawn == cluster_sign_test(differences, range(28), draws=20_000, seed=1).p
    # No draw of 99 is as extreme as forty flips one way; p is then one in a hundred, never nothing.
    assert cluster_sign_test([1] * 40, range(40), draws=99).p == 0.01


def test_clusters_that_agree_are_one_observation() -> None:
    # Twenty flips in a single place are one piece of evidence, not twenty.
    assert cluster_sign_test([1] * 20, ["Beijing"] * 20).p == 1.0
    assert mcnemar_exact(20, 0).p < 1e-5


def test_cluster_bootstrap_against_every_resample() -> None:
    values, clusters = [1, 1, 1, 0, 0, 0, 1, 0], ["a", "a", "a", "b", "b", "c", "c", "c"]
    sums, sizes = {"a": 3, "b": 0, "c": 1}, {"a": 3, "b": 2, "c": 3}
    every = [sum(sums[g] for g in pick) / sum(sizes[g] for g in pick) for pick in product("abc", repeat=3)]
    alpha = stats.norm.cdf(math.sqrt(3 / 2) * stats.t.ppf(0.2, 2))
    expected = np.quantile(np.repeat(every, 1000), [alpha, 1 - alpha])
    found = cluster_rate_interval(values, clusters, level=0.6, draws=40_000, seed=0)
    assert found == pytest.approx(tuple(expected), abs=0.01)
    with pytest.raises(DataError, match="at least two clusters"):
        cluster_rate_interval([1, 0], ["a", "a"])
    with pytest.raises(DataError, match="2 values but 1 clusters"):
        cluster_rate_interval([1, 0], ["a"])


def test_clustered_answers_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.integers(0, 2, 20), 15)
    alone = clopper_pearson(int(values.sum()), values.size)
    clustered = cluster_rate_interval(values, [int(i) for i in np.repeat(np.arange(20), 15)])
    assert clustered.high - clustered.low > 2.5 * (alone.high - alone.low)
