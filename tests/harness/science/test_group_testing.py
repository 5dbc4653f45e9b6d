from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mote.harness.preconditions import DataError
from mote.harness.science.group_testing import Masks, draw_masks, group_effects, pair_falls

EXPERTS = 120
SINGLES = {3: 1.0, 40: 0.8, 77: 0.6, 90: 0.6}
PAIRS = [(10, 55), (20, 100)]


def world(seed: int, rounds: int = 50, prompts: int = 8, share: float = 0.05, noise: float = 0.25) -> Masks:
    """Falls of a made-up model: single experts that matter, pairs that stand in for each other, prompts that differ."""
    applied = draw_masks(rounds, prompts, EXPERTS, share, seed).reshape(-1, EXPERTS)
    rng = np.random.default_rng([seed, 7])
    groups = np.tile(np.arange(prompts), rounds)
    own = rng.normal(0, 0.5, prompts)
    strength = rng.uniform(0.5, 1.5, (prompts, EXPERTS))
    falls = own[groups] + rng.normal(0, noise, len(groups)) * rng.choice([1, 3], len(groups), p=[0.9, 0.1])
    for expert, effect in SINGLES.items():
        falls += effect * applied[:, expert] * strength[groups, expert]
    for one, other in PAIRS:
        falls += 2.5 * (applied[:, one] & applied[:, other])
    return Masks(applied, falls, [int(group) for group in groups], share)


def test_false_discoveries_stay_below_the_stated_rate_and_the_planted_experts_are_found() -> None:
    real = set(SINGLES) | {expert for pair in PAIRS for expert in pair}
    rate, false, found = 0.1, [], []
    for seed in range(40):
        effects = group_effects(world(seed), rate=rate)
        chosen = set(np.flatnonzero(effects.q <= rate).tolist())
        false.append(len(chosen - real) / max(1, len(chosen)))
        found.append(len(chosen & set(SINGLES)) / len(SINGLES))
    # The mean of forty shares has a standard error of about 0.02.
    assert np.mean(false) <= rate + 0.02
    assert np.mean(found) >= 0.9


def test_where_no_expert_matters_hardly_a_scan_finds_one() -> None:
    rng = np.random.default_rng(5)
    scans = 0
    for seed in range(40):
        masks = world(seed)
        heavy = rng.standard_t(2, len(masks.falls))
        scans += bool((group_effects(masks._replace(falls=heavy), rate=0.1).q <= 0.1).any())
    # 4 of 40 are expected; 9 or more have a probability of 0.02.
    assert scans < 9


def test_pairs_that_stand_in_for_each_other_become_visible() -> None:
    hits = clean = 0
    for seed in range(5):
        masks = world(seed, rounds=220)
        pairs = pair_falls(masks, group_effects(masks).left, draws=60, seed=seed)
        certain = {(a, b) for a, b, p in zip(pairs["first"], pairs["second"], pairs["p"], strict=True) if p <= 0.05}
        # A pair that shares an expert with a planted one is drawn along by the masks that it shares with that one.
        touched = {expert for pair in PAIRS for expert in pair}
        hits += len(certain & set(PAIRS))
        clean += all(set(pair) & touched for pair in certain)
    assert hits >= 7  # of 10
    assert clean >= 4


def test_pairs_are_not_seen_where_effects_add_up() -> None:
    seen = 0
    for seed in range(12):
        masks = world(seed, rounds=80)
        additive = masks.falls - sum(2.5 * (masks.applied[:, a] & masks.applied[:, b]) for a, b in PAIRS)
        masks = masks._replace(falls=additive)
        seen += bool((pair_falls(masks, group_effects(masks).left, draws=60, seed=seed)["p"] <= 0.05).any())
    assert seen <= 3  # 0.6 expected; 4 or more have a probability of 0.002


def slow_p(masks: Masks, expert: int, left: NDArray[np.float64], draws: int) -> float:
    """The test as its definition says it: the column drawn anew, again and again."""
    rng = np.random.default_rng(99)
    mine = float(((masks.applied[:, expert] - masks.share) * left).sum())
    others = [float((((rng.random(len(left)) < masks.share) - masks.share) * left).sum()) for _ in range(draws)]
    return float((1 + sum(other >= mine for other in others)) / (draws + 1))


def test_p_is_how_often_masks_that_were_not_applied_do_as_well() -> None:
    masks = world(1)
    found = group_effects(masks)
    for expert in (0, 5, 30, 61):
        assert found.p[expert] == pytest.approx(slow_p(masks, expert, found.left, 3000), abs=0.04)
    assert found.effect[3] == pytest.approx(1.0, abs=0.3)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_more_rounds_are_the_same_ones_and_further_ones(rounds: int, prompts: int, seed: int) -> None:
    few, many = (draw_masks(count, prompts, 30, 0.1, seed) for count in (rounds, rounds + 3))
    assert few.shape == (rounds, prompts, 30)
    assert (many[:rounds] == few).all()


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=10)
def test_the_order_of_the_experts_changes_no_effect(seed: int) -> None:
    masks = world(seed % 50, rounds=12)
    order = np.random.default_rng(seed).permutation(EXPERTS)
    plain, moved = group_effects(masks), group_effects(masks._replace(applied=masks.applied[:, order]))
    assert moved.effect == pytest.approx(plain.effect[order], abs=1e-3)


def test_what_cannot_be_estimated_is_refused() -> None:
    masks = world(0)
    with pytest.raises(DataError, match=r"above 0 and up to 0\.25, not 0\.5"):
        draw_masks(1, 1, 4, 0.5, 0)
    with pytest.raises(DataError, match="at least 40 masks, not 10"):
        group_effects(Masks(masks.applied[:10], masks.falls[:10], masks.groups[:10], 0.05))
    with pytest.raises(DataError, match="must be finite"):
        group_effects(masks._replace(falls=np.full(len(masks.falls), np.nan)))
    with pytest.raises(DataError, match="between 0 and 1, not 1"):
        group_effects(masks, rate=1.0)
    with pytest.raises(DataError, match=r"400 masks, but 3 falls"):
        group_effects(masks._replace(falls=masks.falls[:3]))
