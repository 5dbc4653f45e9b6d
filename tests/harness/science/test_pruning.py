from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mote.harness.preconditions import DataError
from mote.harness.science.controls import Expert
from mote.harness.science.pruning import Candidate, Pruning, advance, candidates, rounds_cost, start

EXPERTS: list[Expert] = [(1, 4), (2, 0), (2, 7), (5, 1)]


def prune(experts: list[Expert], effect: Callable[[Candidate], float], keep: float) -> tuple[Pruning, int]:
    state, measured = start(experts, effect(tuple(sorted(experts))), keep), 0
    while asked := candidates(state):
        measured += len(asked)
        state = advance(state, {candidate: effect(candidate) for candidate in asked})
    return state, measured


def test_finds_the_experts_that_are_needed() -> None:
    needed = {(2, 0), (5, 1)}
    state, measured = prune(EXPERTS, lambda profile: 0.2 * len(needed & set(profile)), keep=0.9)
    assert state.experts == ((2, 0), (5, 1))
    assert [r.dropped for r in state.rounds] == [(2, 7), (1, 4)]  # of equal ones the last goes first
    assert state.effect == 0.4
    assert state.done
    assert measured == 4 + 3 + 2


def test_keeps_a_pair_of_which_each_is_enough_alone() -> None:
    # Either of two does the work: ablating one by one would call both unneeded, pruning keeps one.
    state, _ = prune(EXPERTS, lambda profile: 0.5 * bool({(1, 4), (2, 7)} & set(profile)), keep=1.0)
    assert len(state.experts) == 1
    assert state.experts[0] in {(1, 4), (2, 7)}


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=7).filter(lambda weights: sum(weights) > 0),
    st.sampled_from([0.5, 0.8, 1.0]),
)
@settings(deadline=None)
def test_additive_effects_are_pruned_from_the_least(weights: list[int], keep: float) -> None:
    experts = [(0, i) for i in range(len(weights))]
    state, measured = prune(experts, lambda profile: float(sum(weights[e] for _, e in profile)), keep)
    # For effects that add up, greedy is optimal: leave out the smallest as long as enough remains.
    kept, total = sorted(weights), sum(weights)
    while len(kept) > 1 and sum(kept) - kept[0] >= keep * total:
        kept.pop(0)
    assert sorted(weights[e] for _, e in state.experts) == kept
    assert state.effect == sum(kept)
    assert measured <= rounds_cost(len(experts))
    assert len(state.rounds) == len(experts) - len(state.experts)


def test_a_share_that_is_just_kept_is_kept() -> None:
    effects = {3: 3.0, 2: 0.3, 1: 0.1}
    assert 0.1 * 3.0 > 0.3  # by one bit
    state, _ = prune(EXPERTS[:3], lambda profile: effects[len(profile)], keep=0.1)
    assert len(state.experts) == 2


def test_refuses_what_it_did_not_ask_for() -> None:
    with pytest.raises(DataError, match="positive effect; this profile's is 0"):
        start(EXPERTS, 0)
    with pytest.raises(DataError, match="each listed once"):
        start([(1, 1), (1, 1)], 0.5)
    with pytest.raises(DataError, match="not 1.5".replace(".", r"\.")):
        start(EXPERTS, 0.5, keep=1.5)
    state = start(EXPERTS[:2], 0.5)
    with pytest.raises(DataError, match=r"effect of the profile \[\(2, 0\)\] is missing"):
        advance(state, {((1, 4),): 0.5})
    with pytest.raises(DataError, match=r"\[\(9, 9\)\] is no candidate"):
        advance(state, {((1, 4),): 0.5, ((2, 0),): 0.5, ((9, 9),): 0.5})
    with pytest.raises(DataError, match="not finite"):
        advance(state, {((1, 4),): float("nan"), ((2, 0),): 0.5})
    done = start(EXPERTS[:1], 0.5)
    assert candidates(done) == []
    with pytest.raises(DataError, match="no further round"):
        advance(done, {})
