from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mote.harness.preconditions import DataError
from mote.harness.science.splits import grouped_half, stratified_folds, stratified_half, units_of

labelled = st.lists(st.sampled_from(["0-REFUSED", "1-ALIGNED", "2-REASONED"]), min_size=2, max_size=60)


PINNED = ["p1", "p3", "p6", "p7", "p9"]


def ids(n: int) -> list[str]:
    return [f"p{i}" for i in range(n)]


@given(labelled, st.integers(0, 1000))
@settings(deadline=None)
def test_halves_are_even_in_every_label_and_share_nothing(labels: list[str], seed: int) -> None:
    names = ids(len(labels))
    of = dict(zip(names, labels, strict=True))
    select, measure = stratified_half(names, labels, seed)
    assert sorted([*select, *measure]) == sorted(names)
    assert abs(len(select) - len(measure)) <= 1
    for label in set(labels):
        sides = [sum(of[name] == label for name in side) for side in (select, measure)]
        assert abs(sides[0] - sides[1]) <= 1


@given(labelled, st.integers(0, 1000), st.integers(2, 6))
@settings(deadline=None)
def test_folds_measure_each_prompt_once(labels: list[str], seed: int, folds: int) -> None:
    names = ids(len(labels))
    if folds > len(names):
        return
    splits = stratified_folds(names, labels, folds, seed)
    measured = [name for split in splits for name in split.measure]
    assert sorted(measured) == sorted(names)
    assert all(set(split.select) == set(names) - set(split.measure) for split in splits)
    sizes = [len(split.measure) for split in splits]
    assert max(sizes) - min(sizes) <= 1


@given(labelled, st.integers(0, 1000))
@settings(deadline=None)
def test_the_order_of_prompts_does_not_matter(labels: list[str], seed: int) -> None:
    names = ids(len(labels))
    forward = stratified_half(names, labels, seed)
    backward = stratified_half(names[::-1], labels[::-1], seed)
    assert set(forward.select) == set(backward.select)


def test_the_split_is_pinned_across_versions_and_moves_with_the_seed() -> None:
    names, labels = ids(10), ["a"] * 5 + ["b"] * 5
    assert stratified_half(names, labels, 0).select == PINNED
    assert {tuple(stratified_half(names, labels, seed).select) for seed in range(20)} != {tuple(PINNED)}


def test_each_prompt_is_selected_about_half_of_the_time() -> None:
    names = ids(8)
    counts = Counter(name for seed in range(400) for name in stratified_half(names, ["x"] * 8, seed).select)
    assert all(150 < counts[name] < 250 for name in names)  # 200 expected, sd 10


@given(st.integers(0, 200))
@settings(deadline=None)
def test_grouped_halves_share_no_group_and_both_have_the_rare_class(seed: int) -> None:
    places = [place for place in "ABCDEFGH" for _ in range(10)]
    # Refusals occur in four of the eight places only, as on the grid: both sides need some to measure anything.
    labels = ["0-REFUSED" if place in "ABCD" and i % 10 < 5 else "1-ALIGNED" for i, place in enumerate(places)]
    names = ids(80)
    split = grouped_half(names, places, labels, seed)
    of = dict(zip(names, zip(places, labels, strict=True), strict=True))
    select, measure = ({of[name][0] for name in side} for side in split)
    assert not select & measure
    assert len(split.select) == len(split.measure) == 40
    refused = [sum(of[name][1] == "0-REFUSED" for name in side) for side in split]
    assert refused == [10, 10]


def test_grouped_halves_even_out_the_labels_before_the_sizes() -> None:
    # By size alone the forty aligned prompts of A would face both of the places that refuse.
    places = ["A"] * 40 + ["B"] * 10 + ["C"] * 10 + ["D"] * 10
    labels = ["1-ALIGNED"] * 40 + ["0-REFUSED"] * 20 + ["1-ALIGNED"] * 10
    names = ids(70)
    split = grouped_half(names, places, labels, 0)
    assert [sum(labels[int(name[1:])] == "0-REFUSED" for name in side) for side in split] == [10, 10]


def test_grouped_half_depends_on_the_seed_and_needs_two_groups() -> None:
    places = [place for place in "ABCDEF" for _ in range(4)]
    found = {tuple(grouped_half(ids(24), places, ["x"] * 24, seed).measure) for seed in range(30)}
    assert len(found) > 5
    with pytest.raises(DataError, match="at least two groups"):
        grouped_half(ids(2), ["A", "A"], ["x", "y"], 0)


def test_names_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="'a' occurs twice"):
        stratified_half(["a", "a"], ["x", "y"], 0)
    with pytest.raises(DataError, match="2 prompts but 1 labels"):
        stratified_half(["a", "b"], ["x"], 0)
    with pytest.raises(DataError, match="2 to 2"):
        stratified_folds(["a", "b"], ["x", "x"], 3, 0)
    with pytest.raises(DataError, match="at least two prompts"):
        stratified_half(["a"], ["x"], 0)


def test_units_are_the_first_attribute_that_all_prompts_share() -> None:
    asked: dict[str, dict[str, str]] = {"p0": {"time": "1989", "place": "Paris"}, "p1": {"place": "Rome"}}
    assert units_of(asked) == ("place", {"p0": "Paris", "p1": "Rome"})
    assert units_of(asked | {"p2": {"subject": "Tibet"}}) == ("", {})
    assert units_of({}) == ("", {})
