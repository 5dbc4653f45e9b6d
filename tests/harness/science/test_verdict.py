from __future__ import annotations

import math

import pytest

from mote.harness.preconditions import DataError
from mote.harness.science.inference import permutation_p
from mote.harness.science.noise import NoiseFloor
from mote.harness.science.verdict import ControlLeg, Verdict, control_leg, verdict

CLEAR = NoiseFloor(0.5, (0.95, 0.97, 0.96), 0.002, 5, 4**-5)
NULL = [0.0] * 45 + [1.0, 2.0, 3.0, 3.0, 9.0]


def legs(**observed: float) -> list[ControlLeg]:
    return [control_leg(kind, flips, NULL) for kind, flips in observed.items()]


def said(*args: object, **options: object) -> Verdict:
    return verdict(*args, **options)  # type: ignore[arg-type]


def test_a_leg_is_the_permutation_test_of_distinct_sets() -> None:
    leg = control_leg("mass", 3.0, NULL)
    assert (leg.p, leg.reached, leg.sets, leg.least_p) == (permutation_p(3.0, NULL), 3, 50, 1 / 51)
    # The same sum in another order is a tie, not below.
    assert control_leg("mass", 0.1 + 0.2 + 0.3, [0.3 + 0.2 + 0.1]).reached == 1
    assert math.isnan(control_leg("mass", 3.0, NULL, planned=60).p)
    with pytest.raises(DataError, match="'mass' controls hold a value that is not finite"):
        control_leg("mass", math.nan, NULL)


def test_above_needs_every_leg() -> None:
    found = said(legs(mass=10, layers=12, uniform=12), CLEAR, 60, 5)
    assert found.kind == "above"
    assert (found.p, found.least_p) == pytest.approx((1 / 51, 1 / 51))
    assert found.reason == (
        "The tuned experts do more than random sets chosen as often, random sets of the same layers, random sets "
        "of any layers and sampling anew (largest p = 0.020)."
    )
    loud = CLEAR._replace(p=0.2)
    assert said(legs(mass=10, layers=12), loud, 60, 5).kind == "not-above"
    beaten = said(legs(mass=2, layers=12), CLEAR, 60, 5)
    assert beaten.kind == "not-above"
    assert beaten.p == pytest.approx(5 / 51)
    assert beaten.reason == "The tuned experts do no more than random sets chosen as often (p = 0.098)."


def test_above_is_not_said_where_only_uniform_sets_were_drawn() -> None:
    found = said(legs(uniform=12), CLEAR, 60, 5)
    assert found.kind == "unknown"
    assert found.reason == "No random sets chosen as often and no random sets of the same layers were drawn."


def test_what_is_missing_is_unknown_but_what_failed_has_failed() -> None:
    assert said(legs(mass=10, layers=12), None, 60, 5).kind == "unknown"
    two = CLEAR._replace(retests=(0.9, 0.9))
    assert "3 retests of the untouched model; there are 2" in said(legs(mass=10, layers=12), two, 60, 5).reason
    half = control_leg("layers", 12.0, NULL[:20], planned=50)
    found = said([*legs(mass=10), half], CLEAR, 60, 5)
    assert (found.kind, found.reason) == ("unknown", "Not finished: random sets of the same layers.")
    assert math.isnan(found.p)
    assert said([*legs(mass=1), half], CLEAR, 60, 5).kind == "not-above"
    assert said(legs(mass=1), None, 60, 5).kind == "not-above"


def test_few_sets_or_units_are_few() -> None:
    few = control_leg("layers", 12.0, NULL[:10])
    found = said([*legs(mass=10), few], CLEAR, 60, 5)
    assert found.kind == "few"
    assert found.least_p == pytest.approx(1 / 11)
    assert found.reason.startswith("Too few distinct sets, units or retests to tell the tuned experts from random sets")
    two_places = NoiseFloor(0.5, (0.9, 0.9, 0.9), 1 / 16, 2, 1 / 16)
    assert said(legs(mass=10, layers=12), two_places, 60, 5).kind == "few"


def test_too_few_prompts_unless_forced() -> None:
    found = said(legs(mass=10, layers=12), CLEAR, 9, 5)
    assert (found.kind, found.forced) == ("too-few-prompts", False)
    assert found.reason == "9 target prompts in 5 units are too few for a verdict, which needs 10 in 3."
    assert said(legs(mass=10, layers=12), CLEAR, 60, 2).kind == "too-few-prompts"
    forced = said(legs(mass=10, layers=12), CLEAR, 9, 5, force=True)
    assert (forced.kind, forced.forced) == ("above", True)


def test_the_monte_carlo_error_is_told_near_five_percent() -> None:
    near = control_leg("mass", 3.0, NULL)  # 3 of 50
    assert near.near()
    assert near.monte_carlo == pytest.approx((0.0165, 0.1478), abs=5e-4)  # R: binom.test(3, 50, conf.level = 0.9)
    assert not control_leg("mass", 0.0, NULL).near()
    assert not control_leg("mass", 10.0, NULL * 4).near()
