from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.harness.science.verdict_table import coverage, interval_cells
from tests.harness.science.worlds import NULL_WORLDS, SPECIAL, World, foretold, judge, make

BUSY = next(world for world in NULL_WORLDS if world.name == "merely busier, effect 2")


def above(world: World, studies: range, kinds: tuple[str, ...] = ("mass", "layers")) -> int:
    return sum(judge(make(world, seed), seed, kinds).kind == "above" for seed in studies)


def most(bound: float, studies: int) -> int:
    """The most false verdicts of studies whose true share is the bound that chance gives in 99.5 of 100 runs."""
    return int(stats.binom.ppf(0.995, studies, bound))


def test_busier_experts_are_told_from_special_ones_by_the_mass_leg() -> None:
    studies = [make(BUSY, seed) for seed in range(16)]
    verdicts = [judge(made, seed) for seed, made in enumerate(studies)]
    by_leg = {leg.kind: 0 for leg in verdicts[0].legs}
    for found in verdicts:
        for leg in found.legs:
            by_leg[leg.kind] += leg.p <= 0.05
    # Same-layer sets, the control of old, call about half of these studies "above".
    assert by_leg["layers"] >= 4
    assert sum(found.kind == "above" for found in verdicts) <= most(BUSY.bound, 16)


def test_experts_that_are_special_are_found_as_often_as_foretold() -> None:
    made = make(SPECIAL[2], 0)
    said = foretold(made, 0, simulations=400).power
    found = np.mean([judge(made, seed).kind == "above" for seed in range(40)])
    assert said > 0.3
    assert abs(found - said) <= 0.05 + 2.6 * (0.25 / 40) ** 0.5


def test_controls_of_a_study_take_away_as_much_on_the_prompts_that_chose() -> None:
    made = make(BUSY, 0)
    assert made.chance(made.tuned).mean() > 0.15
    assert made.chance([]) == pytest.approx(0.03)
    calm = make(replace(BUSY, shape={"effect": 0.0}), 0)
    assert calm.chance(calm.tuned).mean() < made.chance(made.tuned).mean()


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("world", NULL_WORLDS, ids=lambda world: world.name)
def test_no_world_without_special_experts_is_called_above_too_often(world: World) -> None:
    assert above(world, range(200)) <= most(world.bound, 200)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_headline_interval_covers_in_every_cell() -> None:
    for cell in interval_cells():
        assert coverage(cell, 400)[1] >= 0.93 - 2.6 * (0.93 * 0.07 / 400) ** 0.5, cell
