"""The search on made-up worlds: its null holds where nothing is planted, and what is planted is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mote.harness.preconditions import DataError
from mote.harness.science.searching import (
    NOTHING,
    UNTOUCHED,
    Answered,
    Arm,
    Candidate,
    Check,
    Found,
    Kind,
    Plan,
    Screened,
    TreeParzen,
    Trial,
    conduct,
    draw_arms,
    leading,
    pareto,
    rule,
    winner,
)
from tests.harness.science.search_worlds import CLASS, EXPERTS, LAYERS, REST, AnySubset, World, searched

QUICK = Plan(trials=8, batch=4)
POOL = tuple((layer, expert) for layer in (0, 1) for expert in range(4))


def test_with_nothing_planted_a_search_is_above_in_at_most_six_of_a_hundred() -> None:
    worlds = 60
    rulings = [searched(World(seed), QUICK, AnySubset) for seed in range(worlds)]
    assert sum(one.said == "above" for one in rulings) <= 0.06 * worlds
    for leg in range(2):
        # Each null alone promises 5%; this many worlds must not show clearly more.
        alone = sum(one.legs[leg].p <= 0.05 for one in rulings)
        assert stats.binomtest(alone, worlds, 0.05, alternative="greater").pvalue > 0.001
    # The null is no formality: trials have effects here, and winners too.
    assert np.mean([one.net for one in rulings]) > 0.01


def test_what_is_planted_is_found() -> None:
    ruling = searched(World(0, planted=6), Plan(trials=16), TreeParzen)
    assert ruling.said == "above"
    assert ruling.net > 0.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_with_nothing_planted_the_real_search_is_above_in_at_most_six_of_a_hundred() -> None:
    worlds = 200
    said = Counter(searched(World(1000 + seed), Plan(trials=16), TreeParzen).said for seed in range(worlds))
    assert said["above"] <= 0.06 * worlds, said


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_real_search_finds_what_is_planted_in_most_worlds() -> None:
    worlds = 40
    said = Counter(searched(World(1000 + seed, planted=6), Plan(trials=16), TreeParzen).said for seed in range(worlds))
    assert said["above"] >= 0.8 * worlds, said


class NoSearch(AnySubset):
    """Proposes the untouched model alone: a null that nobody searched in."""

    def ask(self, count: int) -> list[Candidate]:
        return [UNTOUCHED] * count


def test_without_searches_in_the_null_a_search_in_noise_looks_like_something() -> None:
    def unfair(arm: Arm, plan: Plan) -> AnySubset:
        return (AnySubset if arm.kind == "run" else NoSearch)(arm, plan)

    worlds = 30
    assert sum(searched(World(seed), QUICK, unfair).said == "above" for seed in range(worlds)) > 0.3 * worlds


def test_a_search_is_the_same_by_the_same_seeds_and_asks_in_step() -> None:
    one, two = (World(5, planted=6) for _ in range(2))
    assert searched(one, QUICK, TreeParzen, nulls=3) == searched(two, QUICK, TreeParzen, nulls=3)
    # 7 searches, two rounds of four trials each; the untouched model is never asked about.
    assert len(one.asked) == 2
    assert all(count <= 7 * 4 for count in one.asked)


def test_the_first_trial_is_the_whole_pool_and_the_rest_stay_within_it() -> None:
    proposer = TreeParzen(Arm("run", 0, POOL, (), (), 3), replace(QUICK, factors=(0.25, 0.5)))
    first = proposer.ask(6)
    assert first[0] == Candidate(POOL, 0.25)
    proposer.tell([Screened(len(one.experts) / 8, 0.0) for one in first])
    for candidate in [*first, *proposer.ask(6)]:
        assert set(candidate.experts) <= set(POOL)
        assert candidate == UNTOUCHED or candidate.factor in (0.25, 0.5)


def test_a_search_learns_what_helps_and_keeps_to_its_bound() -> None:
    good = set(POOL[:4])
    plan = Plan(trials=64, harm=0.5)
    proposer = TreeParzen(Arm("run", 0, POOL, (), (), 0), plan)
    trials: list[Trial] = []
    for _ in range(8):
        asked = proposer.ask(8)
        found = [Screened(len(good & set(one.experts)) * (1 - one.factor), 0.1 * len(one.experts)) for one in asked]
        proposer.tell(found)
        trials += map(Trial, asked, found)
    early, late = trials[:8], trials[-8:]
    assert np.mean([one.screened.effect for one in late]) > np.mean([one.screened.effect for one in early])
    best = leading(trials, plan)[0]
    assert best.screened.harm <= 0.5
    assert best.screened.effect >= 3


def test_shuffled_classes_keep_their_counts_and_have_pools_of_their_own() -> None:
    world = World(2, planted=6)
    arms = draw_arms(
        world.labels(), CLASS, world.rank, lambda ours, rest: (ours, rest), world.mass(), LAYERS, 8,
        {"shuffled": 4, "pool": 4}, 0,
    )  # fmt: skip
    own, shuffled, pools = arms[0], arms[1:5], arms[5:]
    assert [arm.kind for arm in arms] == ["run", *["shuffled"] * 4, *["pool"] * 4]
    assert len({arm.seed for arm in arms}) == len(arms)
    assert all(len(arm.targets) == len(own.targets) and arm.targets != own.targets for arm in shuffled)
    assert all(set(arm.targets) | set(arm.others) == set(world.chooses) for arm in arms)
    assert len({arm.pool for arm in shuffled} | {own.pool}) == 5
    # Random pools have the run's own prompts, and are busy as its pool is.
    mass = {(layer, expert): world.mass()[layer, expert] for layer in LAYERS for expert in range(EXPERTS)}
    for arm in pools:
        assert (arm.targets, arm.others) == (own.targets, own.others)
        assert arm.pool != own.pool
        assert sum(map(mass.__getitem__, arm.pool)) == pytest.approx(sum(map(mass.__getitem__, own.pool)), rel=0.06)
    assert set(world.labels().values()) == {CLASS, REST}


def trial(effect: float, harm: float, experts: int = 1, factor: float = 0.0) -> Trial:
    return Trial(Candidate(POOL[:experts], factor), Screened(effect, harm))


def test_who_leads_and_who_wins() -> None:
    plan = Plan(harm=0.1, broken=0.05, checked=3)
    trials = [trial(0.9, 0.2), trial(0.5, 0.1, 2), trial(0.5, 0.1, 2), trial(0.4, 0.0, 3), trial(0.0, 0.0, 4)]
    leaders = leading(trials, plan)
    assert [one.screened.effect for one in leaders] == [0.5, 0.4]
    checks = [Check(leaders[0], Answered(0.9, 0.0, 0.2)), Check(leaders[1], Answered(0.3, 0.1, 0.05))]
    assert winner(checks, plan) == leaders[1].candidate
    assert winner(checks[:1], plan) == UNTOUCHED
    assert winner([Check(leaders[0], Answered(0.1, 0.1, 0.0))], plan) == UNTOUCHED
    assert winner([], plan) == UNTOUCHED


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_nothing_on_the_front_is_beaten(points: list[tuple[float, float]]) -> None:
    trials = [trial(effect, harm) for effect, harm in points]
    best = {at: trials[at].screened for at in pareto(trials)}
    for effect, harm in points:
        assert any(one.harm <= harm and one.effect >= effect for one in best.values())
    for one in best.values():
        assert not any(
            (harm < one.harm and effect >= one.effect) or (harm <= one.harm and effect > one.effect)
            for effect, harm in points
        )


ONE = Candidate(POOL[:1], 0.0)


def found(kind: Kind, net: float, one: Candidate = ONE) -> Found:
    arm = Arm(kind, 0, POOL, (), (), 0)
    return Found(arm, (), (), one, Answered(net, 0.0, 0.0))


def test_the_ruling_goes_by_the_larger_p_and_by_what_was_in_reach() -> None:
    shuffled, pools = [found("shuffled", 0.1)] * 19, [found("pool", 0.2)] * 19
    ruling = rule([found("run", 0.3), *shuffled, *pools])
    assert (ruling.said, ruling.p, ruling.least_p) == ("above", 0.05, 0.05)
    assert rule([found("run", 0.2), *shuffled, *pools]).said == "not-above"
    assert rule([found("run", 0.3), *shuffled, *pools[:9]]).said == "few"
    assert rule([found("run", 0.3), *pools]).said == "few"
    assert rule([found("run", 0.15), *pools]).said == "not-above"
    assert rule([found("run", 0.0, UNTOUCHED), *shuffled, *pools]).said == "none"
    with pytest.raises(DataError, match="one of them is missing"):
        rule([found("run", 0.3)])
    with pytest.raises(DataError, match="one of them is missing"):
        rule(pools)


class Harmless(World):
    """A world in which nothing does anything."""

    def screen(self, asked: Sequence[tuple[Arm, Candidate]]) -> list[Screened]:
        return [Screened(0.0, 0.0)] * len(asked)

    def check(self, asked: Sequence[tuple[Arm, Candidate]]) -> list[Answered]:
        raise AssertionError("nothing leads")


def test_where_nothing_has_an_effect_the_untouched_model_wins() -> None:
    arms = [Arm("run", 0, POOL, (), (), 0), Arm("pool", 1, POOL, (), (), 1)]
    results = conduct(arms, QUICK, Harmless(0), AnySubset)
    assert [(one.winner, one.held) for one in results] == [(UNTOUCHED, NOTHING)] * 2
    assert rule(results).said == "none"
