from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mote.harness.preconditions import DataError
from mote.harness.science.power import Study, chance_of, even_units, least_effect, power, spread

DEMO_PLACES = (28, 5, 9, 10, 8)


@pytest.mark.parametrize(
    ("sizes", "icc", "expected"),
    [((60,), 0.0, (0.07, 0.41, 0.79, 0.96)), (DEMO_PLACES, 0.2, (0.19, 0.39, 0.60, 0.76))],
)
def test_with_the_demos_sets_at_hand_it_is_the_outside_checks(
    sizes: tuple[int, ...], icc: float, expected: tuple[float, ...]
) -> None:
    # Of the demo's 50 same-layer sets the second highest flips 9 of 60: ten flips are needed (FIELD, section 9).
    found = [chance_of(10, sizes, share, icc) for share in (0.10, 0.15, 0.20, 0.25)]
    assert found == pytest.approx(expected, abs=0.008)


def test_chance_of_against_drawing() -> None:
    rng = np.random.default_rng(0)
    rates = rng.beta(0.2 * 4, 0.8 * 4, (40_000, 5))
    drawn = rng.binomial(DEMO_PLACES, rates).sum(axis=1)
    assert chance_of(12, DEMO_PLACES, 0.2, 0.2) == pytest.approx((drawn >= 12).mean(), abs=0.01)
    assert chance_of(0, DEMO_PLACES, 0.2, 0.2) == pytest.approx(1.0)
    assert chance_of(61, DEMO_PLACES, 1.0, 0.2) == 0.0


def test_with_harmless_sets_the_controls_leg_is_one_flip() -> None:
    study = Study(even_units(30, 6), (50, 50), noise=0.0, nulls=((0.0,),))
    found = power(study, 0.05, simulations=4000)
    assert found.controls == pytest.approx(1 - 0.95**30, abs=3 * 0.0065)
    # Without noise the floor falls where flips lie in three of six units: 4^-3 <= 0.05 < 4^-2.
    unit = 1 - 0.95**5
    assert found.floor == pytest.approx(stats.binom.sf(2, 6, unit), abs=3 * 0.008)


def test_with_two_hundred_sets_from_one_law_it_is_the_law_of_ranks() -> None:
    # A tuned set that is one more random set is among the highest tenth of 19 + 1 in one of twenty.
    study = Study(even_units(200, 4), (19,), noise=0.0)
    shares = np.random.default_rng(1).beta(0.5, 19.5, 60)
    found = np.mean([power(study, share, simulations=60, seed=i).controls for i, share in enumerate(shares)])
    assert found <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / 60)


def test_more_prompts_more_units_and_less_alike_find_more() -> None:
    base: dict[str, Any] = {"sets": (50, 50), "noise": 0.03}
    small = power(Study(even_units(30, 5), **base), 0.2, simulations=600).power
    large = power(Study(even_units(120, 5), **base), 0.2, simulations=600).power
    alike = power(Study(even_units(120, 5), icc=0.3, **base), 0.2, simulations=600).power
    assert small < large
    assert alike < large
    assert power(Study(even_units(120, 5), **base), 0.2, simulations=600) == power(
        Study(even_units(120, 5), **base), 0.2, simulations=600
    )
    assert power(Study(even_units(9, 3), **base), 0.9).power == 0.0
    assert power(Study(even_units(60, 2), **base), 0.9).power == 0.0


def test_the_least_effect_is_found_with_the_wanted_chance() -> None:
    study = Study(even_units(60, 12), (50, 50), noise=0.03)
    share = least_effect(study, simulations=200)
    assert 0.1 < share < 0.4
    assert power(study, share, simulations=800).power == pytest.approx(0.8, abs=0.06)
    # Nine sets can't reach p = 0.05, whatever the effect.
    assert math.isnan(least_effect(study._replace(sets=(9,)), simulations=100))


def test_shares_seen_are_shrunk_by_their_own_noise() -> None:
    rng = np.random.default_rng(0)
    truth = rng.beta(0.5, 19.5, 4000)
    found = np.array(spread(rng.binomial(60, truth), (20, 40)))
    assert found.mean() == pytest.approx(truth.mean(), abs=0.003)
    assert found.std() == pytest.approx(truth.std(), rel=0.08)
    assert spread([3, 3, 3], (60,)) == pytest.approx((0.05, 0.05, 0.05))


def test_names_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="3 target prompts can't come in 4 units"):
        even_units(3, 4)
    study = Study(even_units(60, 5), (50,))
    with pytest.raises(DataError, match="Shares lie between 0 and 1"):
        power(study, 1.2)
    with pytest.raises(DataError, match="correlation within a unit"):
        power(study._replace(icc=1.0), 0.2)
    with pytest.raises(DataError, match=r"for instance 0\.8, not 80"):
        least_effect(study, 80)
    with pytest.raises(DataError, match="1 kinds of random sets have 2 laws"):
        power(study._replace(nulls=((0.1,), (0.2,))), 0.2)
    with pytest.raises(DataError, match="random sets of at least one kind"):
        power(study._replace(sets=()), 0.2)
