from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mote.harness.preconditions import DataError
from mote.harness.science.clustered import cluster_variance, equal_units, korn_graubard, net_effect
from mote.harness.science.inference import clopper_pearson
from mote.harness.science.splits import number_units
from tests.harness.science.verdict_table import Cell, coverage

# The demo's refused measured prompts by place, and how many of each the ten flip: 9 of 60 in 5 places.
DEMO = {"Tiananmen": (28, 6), "Berlin": (5, 0), "Beijing": (9, 0), "Hong Kong": (10, 3), "Shanghai": (8, 0)}


def demo_rows() -> tuple[list[int], list[str]]:
    flips = [int(i < hits) for size, hits in DEMO.values() for i in range(size)]
    return flips, [place for place, (size, _) in DEMO.items() for _ in range(size)]


def test_the_demos_worked_example() -> None:
    found = korn_graubard(*demo_rows())
    assert (found.rows, found.units, found.share) == (60, 5, 0.15)
    assert (round(100 * found.low, 1), round(100 * found.high, 1)) == (3.3, 37.6)


def test_the_formula_step_by_step_with_statsmodels_variance() -> None:
    import statsmodels.api as sm  # type: ignore[import-untyped]

    rng = np.random.default_rng(0)
    units = rng.integers(0, 7, 90)
    values = (rng.random(90) < np.array([0.1, 0.5, 0.2, 0.9, 0.3, 0.4, 0.1])[units]).astype(float)
    fit = sm.OLS(values, np.ones(90)).fit(cov_type="cluster", cov_kwds={"groups": units})
    variance = float(fit.cov_params()[0, 0]) if isinstance(fit.cov_params(), np.ndarray) else math.nan
    assert cluster_variance(values, number_units(units.tolist())) == pytest.approx(variance)
    p = values.mean()
    n = min(90, p * (1 - p) / variance) * (stats.t.ppf(0.975, 89) / stats.t.ppf(0.975, 6)) ** 2
    found = korn_graubard(values, units.tolist())
    assert found.effective == pytest.approx(n)
    assert stats.binom.cdf(0, 1, 0.5) == 0.5  # and the bounds are where the beta tails hold 2.5%
    assert stats.beta.cdf(found.low, p * n, n - p * n + 1) == pytest.approx(0.025)
    assert stats.beta.cdf(found.high, p * n + 1, n - p * n) == pytest.approx(0.975)


def test_without_a_flip_each_unit_is_a_trial() -> None:
    units = ["a"] * 20 + ["b"] * 3 + ["c"] * 9
    assert korn_graubard([0] * 32, units)[1:3] == pytest.approx(clopper_pearson(0, 3))
    assert korn_graubard([1] * 32, units)[1:3] == pytest.approx(clopper_pearson(3, 3))
    assert korn_graubard([0, 1], ["a", "a"])[1:3] == (0.0, 1.0)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=60))
@settings(deadline=None)
def test_never_narrower_than_independent_prompts_would_be(rows: list[tuple[int, int]]) -> None:
    values, units = [value for value, _ in rows], [unit for _, unit in rows]
    found = korn_graubard(values, units)
    exact = clopper_pearson(sum(values), len(values))
    assert found.low <= exact.low + 1e-9
    assert found.high >= exact.high - 1e-9


def test_a_net_effect_of_one_sided_flips_in_equal_units_is_their_share() -> None:
    flips, units = [1, 1, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0], list("aaaabbbbcccc")
    found = net_effect([1] * 12, [1 - flip for flip in flips], units)
    assert found[:3] == pytest.approx((5 / 12, *korn_graubard(flips, units)[1:3]))
    assert (found.units, found.units_that_count) == (3, 3)


def test_unequal_units_are_worth_fewer() -> None:
    # Worth of the demo's places (28, 5, 9, 10, 8 prompts): 60^2 / 1054.
    assert equal_units(np.array([28, 5, 9, 10, 8])) == pytest.approx(3.4156, abs=1e-4)
    assert equal_units(np.array([7, 7, 7])) == pytest.approx(3)
    assert equal_units(np.array([100, 1])) == 2
    flips, units = demo_rows()
    found, plain = net_effect([1] * 60, [1 - flip for flip in flips], units), korn_graubard(flips, units)
    assert found.net == plain.share == 0.15
    assert found.low < plain.low
    assert found.high > plain.high


def test_reverse_flips_are_set_off_and_widen() -> None:
    flips, units = demo_rows()
    before = [1] * 60 + [0] * 60
    calm = net_effect(before, [1 - flip for flip in flips] + [0] * 60, units * 2)
    noisy = net_effect(before, [1 - flip for flip in flips] + [int(i % 10 == 0) for i in range(60)], units * 2)
    assert calm.net == pytest.approx(9 / 120)
    assert noisy.net == pytest.approx((9 - 6) / 120)
    assert noisy.low < 0 < noisy.high
    mirrored = net_effect([1 - flip for flip in flips] + [0] * 60, before, units * 2)
    assert (mirrored.low, mirrored.net, mirrored.high) == pytest.approx((-calm.high, -calm.net, -calm.low))


def test_units_without_the_class_do_not_count() -> None:
    flips, units = demo_rows()
    more = [f"elsewhere-{i % 9}" for i in range(90)]
    found = net_effect([1] * 60 + [0] * 90, [1 - flip for flip in flips] + [0] * 90, units + more)
    assert (found.rows, found.units, found.units_that_count) == (150, 14, 5)
    nothing = net_effect([1] * 60 + [0] * 90, [1] * 60 + [0] * 90, units + more)
    assert nothing.net == 0
    assert nothing.high == pytest.approx(clopper_pearson(0, 5).high * 60 / 150)
    assert net_effect([1, 1, 0], [0, 1, 0], ["a", "a", "b"])[1:3] == (-1.0, 1.0)


def test_the_net_interval_is_near_newcombes_for_independent_rows() -> None:
    # Without units, the method is Newcombe's square-and-add of two intervals: against one of Wilson's by hand.
    lost, gained, n = 30, 12, 400
    before = [1] * 200 + [0] * 200
    after = [0] * lost + [1] * (200 - lost) + [1] * gained + [0] * (200 - gained)
    found = net_effect(before, after, list(range(n)))
    b, c = clopper_pearson(lost, n), clopper_pearson(gained, n)
    low = (lost - gained) / n - math.hypot(lost / n - b.low, c.high - gained / n)
    assert found.low == pytest.approx(low, abs=2e-3)
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt((lost + gained) / n / n), rel=0.15)


@pytest.mark.parametrize(("units", "icc"), [(5, 0.5), (8, 0.2), (14, 0.5)])
def test_the_net_interval_covers(units: int, icc: float) -> None:
    _, net = coverage(Cell(units, True, icc, 0.15, 0.02), 250)
    assert net >= 0.93 - 2.6 * math.sqrt(0.93 * 0.07 / 250)


def test_names_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="no rows"):
        korn_graubard([], [])
    with pytest.raises(DataError, match="2 values but 1 units"):
        korn_graubard([0, 1], ["a"])
    with pytest.raises(DataError, match="between 0 and 1"):
        net_effect([0, 2], [0, 1], ["a", "b"])
