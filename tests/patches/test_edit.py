"""The edit against the slow rule, over routers of every kind, and its promises one by one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mote.patches.edit import STIMULATE, Edited, edit_rows
from mote.patches.slow_rule import Action, slow_rule

EXPERTS = 12
Edits = dict[int, Action]
actions: st.SearchStrategy[Action] = st.one_of(
    st.just(("suppress", 0.0)),
    st.just(("stimulate", 0.0)),
    st.floats(0.0009765625, 1000, width=32).map(lambda factor: ("scale", factor)),
)
profiles: st.SearchStrategy[Edits] = st.dictionaries(st.integers(0, EXPERTS - 1), actions, max_size=EXPERTS)


@st.composite
def routings(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Weights and ids [tokens, k] of a softmax or sigmoid router, renormalised and scaled or not, in any slot order."""
    tokens, k = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    row = st.lists(st.integers(-12, 12), min_size=k, max_size=k)  # coarse, so that ties occur
    logits = np.array(draw(st.lists(row, min_size=tokens, max_size=tokens)), np.float64) / 2
    if draw(st.booleans()):
        weights = 1 / (1 + np.exp(-logits))
    else:
        weights = np.exp(logits) / (np.exp(logits).sum(axis=1, keepdims=True) + draw(st.sampled_from([0.0, 40.0])))
    if draw(st.booleans()):
        weights = weights / weights.sum(axis=1, keepdims=True) * draw(st.sampled_from([1.0, 2.5]))
    ids = [draw(st.permutations(range(EXPERTS)))[:k] for _ in range(tokens)]
    return weights.astype(np.float32), np.array(ids, np.int32)


def edit(weights: NDArray[np.float32], ids: NDArray[np.int32], profiles: list[Edits]) -> Edited:
    """Edit row i under profile i."""
    gain = np.ones(weights.shape, np.float32)
    for row, profile in enumerate(profiles):
        for slot, expert in enumerate(ids[row]):
            if int(expert) in profile:
                action, factor = profile[int(expert)]
                gain[row, slot] = {"suppress": 0.0, "stimulate": STIMULATE, "scale": factor}[action]
    wanted = [sorted(e for e, (action, _) in profile.items() if action == "stimulate") for profile in profiles]
    width = max(map(len, wanted))
    padded = np.array([row + [-1] * (width - len(row)) for row in wanted], np.int32).reshape(len(profiles), width)
    return edit_rows(weights, ids, gain, padded if width else None)


def as_dict(ids: NDArray[np.int32], weights: NDArray[np.float32]) -> dict[int, float]:
    return dict(zip(ids.tolist(), weights.tolist(), strict=True))


@settings(max_examples=300)
@given(routings(), st.data())
def test_it_is_the_slow_rule(routing: tuple[NDArray[np.float32], NDArray[np.int32]], data: st.DataObject) -> None:
    weights, ids = routing
    rows = [data.draw(profiles) for _ in weights]
    edited = edit(weights, ids, rows)
    for row, profile in enumerate(rows):
        expected = slow_rule(weights[row].tolist(), ids[row].tolist(), profile)
        assert as_dict(edited.ids[row], edited.weights[row]) == pytest.approx(expected, rel=1e-5, abs=1e-30)


@given(routings(), profiles, st.randoms())
def test_the_order_of_slots_does_not_matter(
    routing: tuple[NDArray[np.float32], NDArray[np.int32]], profile: Edits, random: object
) -> None:
    weights, ids = routing
    order = np.arange(weights.shape[1])
    random.shuffle(order)  # type: ignore[attr-defined]
    straight = edit(weights, ids, [profile] * len(weights))
    shuffled = edit(weights[:, order], ids[:, order], [profile] * len(weights))
    for row in range(len(weights)):
        expected = as_dict(straight.ids[row], straight.weights[row])
        assert as_dict(shuffled.ids[row], shuffled.weights[row]) == pytest.approx(expected, rel=1e-6, abs=1e-30)


@given(routings(), profiles)
def test_promises(routing: tuple[NDArray[np.float32], NDArray[np.int32]], profile: Edits) -> None:
    weights, ids = routing
    original_weights, original_ids = weights.copy(), ids.copy()
    edited = edit(weights, ids, [profile] * len(weights))
    assert (weights == original_weights).all(), "arguments are not changed"
    assert (ids == original_ids).all()
    total, after = weights.sum(axis=1), edited.weights.sum(axis=1)
    assert np.all((after == 0) | np.isclose(after, total, rtol=1e-5)), "the sum is kept, or all are 0"
    for row in range(len(weights)):
        assert len(set(edited.ids[row].tolist())) == ids.shape[1], "no expert occurs twice"
        got = as_dict(edited.ids[row], edited.weights[row])
        assert all(got[e] == 0 for e in got if profile.get(e, ("", 0))[0] == "suppress")
        new = set(got) - set(ids[row].tolist())
        assert all(profile[e][0] == "stimulate" for e in new), "nothing enters but what is stimulated"
        stimulated = sum(action == "stimulate" for action, _ in profile.values())
        present = sum(profile.get(e, ("", 0))[0] == "stimulate" for e in got)
        assert present == min(stimulated, ids.shape[1]), "every stimulated expert has a slot while there are slots"


@given(routings())
def test_rows_that_nothing_concerns_keep_every_bit(routing: tuple[NDArray[np.float32], NDArray[np.int32]]) -> None:
    weights, ids = routing
    edited = edit(weights, ids, [{}] * len(weights))
    assert edited.weights.tobytes() == weights.tobytes()
    assert edited.ids is ids


def one(weights: list[float], ids: list[int], profile: Mapping[int, Action]) -> dict[int, float]:
    edited = edit(np.array([weights], np.float32), np.array([ids], np.int32), [dict(profile)])
    return as_dict(edited.ids[0], edited.weights[0])


def test_suppression_by_hand() -> None:
    assert one([0.5, 0.3, 0.2], [7, 2, 9], {7: ("suppress", 0)}) == pytest.approx({7: 0, 2: 0.6, 9: 0.4})


def test_all_suppressed_stay_zero() -> None:
    assert one([0.5, 0.5], [1, 2], {1: ("suppress", 0), 2: ("suppress", 0)}) == {1: 0, 2: 0}


def test_stimulation_by_hand() -> None:
    """Absent: it takes the slot of the lowest weight, and the largest weight, then the sum is restored."""
    assert one([0.5, 0.3, 0.2], [7, 2, 9], {4: ("stimulate", 0)}) == pytest.approx({7: 5 / 13, 2: 3 / 13, 4: 5 / 13})


def test_a_suppressed_slot_is_given_up_first() -> None:
    got = one([0.5, 0.3, 0.2], [7, 2, 9], {4: ("stimulate", 0), 7: ("suppress", 0)})
    assert got == pytest.approx({4: 0.5, 2: 0.3, 9: 0.2})


def test_among_equal_weights_the_highest_expert_leaves() -> None:
    assert set(one([0.25] * 4, [3, 9, 1, 5], {0: ("stimulate", 0)})) == {0, 1, 3, 5}


def test_more_stimulated_than_slots() -> None:
    assert one([0.6, 0.4], [5, 6], dict.fromkeys((6, 1, 2, 3), ("stimulate", 0))) == pytest.approx({6: 0.5, 1: 0.5})


def test_scaling_by_hand() -> None:
    assert one([0.5, 0.5], [1, 2], {1: ("scale", 3.0)}) == pytest.approx({1: 0.75, 2: 0.25})


def test_tiny_factors_do_not_overflow() -> None:
    got = one([0.5, 0.5], [1, 2], {1: ("scale", 1e-30), 2: ("scale", 1e-30)})
    assert got == pytest.approx({1: 0.5, 2: 0.5})
