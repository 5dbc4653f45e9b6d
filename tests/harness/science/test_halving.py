"""Schedules of a scan by halving: what they cost at most, whom they find, and the measure that they screen by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mote.harness.preconditions import DataError
from mote.harness.science.causal import margins
from mote.harness.science.halving import Schedule, own_logit, plan_halving


def spent(schedule: Schedule, chosen: NDArray[np.bool_], openings: list[int], falls: NDArray[np.float64]) -> int:
    """Walk a schedule pass by pass; falls and chosen are [prompts, experts]."""
    left, made = list(range(falls.shape[1])), set()
    for one in schedule.rounds:
        left = sorted(left, key=lambda expert: -falls[: one.first, expert].mean() if one.first else 0)[: one.experts]
        made |= {(prompt, expert, 0) for prompt in range(one.first, one.end) for expert in left}
    seen = schedule.rounds[-1].end if schedule.rounds else 0
    left = sorted(left, key=lambda expert: -falls[:seen, expert].mean() if seen else 0)[: schedule.finalists]
    made |= {
        (prompt, expert, at) for prompt in range(len(openings)) for expert in left for at in range(openings[prompt])
    }
    return sum(bool(chosen[prompt, expert]) for prompt, expert, _ in made)


@given(st.data())
def test_a_schedule_never_costs_more_than_it_says(data: st.DataObject) -> None:
    prompts, experts = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 60))
    finalists = data.draw(st.integers(1, experts))
    seed = data.draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    chosen = rng.random((prompts, experts)) < data.draw(st.floats(0.1, 1))
    openings = [int(count) for count in rng.integers(1, 4, prompts)]
    counts = [int(count) for count in chosen.sum(axis=1)]
    budget = data.draw(st.integers(0, 3 * prompts * experts))
    try:
        schedule = plan_halving(budget, counts, openings, experts, finalists)
    except DataError as error:
        assert "are too few for one prompt a round" in str(error)  # noqa: PT017
        return
    assert spent(schedule, chosen, openings, rng.normal(size=(prompts, experts))) <= schedule.passes <= budget
    assert [one.first for one in schedule.rounds] == [0, *(one.end for one in schedule.rounds)][: len(schedule.rounds)]
    more = plan_halving(budget + experts, counts, openings, experts, finalists)
    assert more.passes >= schedule.passes


def test_all_prompts_and_all_experts_where_the_budget_is_large() -> None:
    schedule = plan_halving(10_000, [50] * 4, [3] * 4, experts=50, finalists=10)
    assert [(one.first, one.end, one.experts) for one in schedule.rounds] == [(0, 4, 50)]
    assert schedule.passes == 4 * 50 + 4 * 10 * 2


def test_the_least_budget_is_named() -> None:
    with pytest.raises(DataError, match=r"^10 passes are too few for one prompt a round: that takes 85\.$"):
        plan_halving(10, [50, 50], [2, 2], experts=50, finalists=10)
    with pytest.raises(DataError, match="Between 1 and 50 experts can be left for the end, not 51"):
        plan_halving(10, [50], [2], experts=50, finalists=51)


def test_planted_experts_are_found_for_a_tenth() -> None:
    """20 of 500 experts carry something on every prompt, beside noise on few: 20 prompts, 5 openings in a full scan."""
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        falls = rng.normal(0, 0.3, (20, 500)) * (rng.random((20, 500)) < 0.3)
        falls[:, :20] += 0.3
        schedule = plan_halving(5_000, [500] * 20, [2] * 20, 500, 30)
        left = np.arange(500)
        for one in schedule.rounds:
            if one.first:
                left = left[np.argsort(-falls[: one.first, left].mean(axis=0))[: one.experts]]
        left = left[np.argsort(-falls[: schedule.rounds[-1].end, left].mean(axis=0))[:30]]
        best = left[np.argsort(-falls[:, left].mean(axis=0))[:20]]
        found.append(int((best < 20).sum()))
    assert np.mean(found) >= 18


@given(st.floats(-30, -1e-6))
def test_the_own_opening_s_log_odds_are_its_margin_against_all_else(logprob: float) -> None:
    other = math.log(-math.expm1(logprob))
    assert own_logit(logprob) == pytest.approx(margins(np.array([logprob]), np.array([[other]]))[0], rel=1e-6, abs=1e-9)


def test_a_probability_of_one_has_finite_log_odds() -> None:
    assert np.isfinite(own_logit([0.0, -1e-12, -200.0])).all()
