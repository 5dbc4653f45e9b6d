from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from mote.harness.preconditions import DataError
from mote.harness.science.maps import (
    MapAccumulator,
    activation_map,
    contrast,
    frequency,
    per_token,
    tokens_counted,
)
from mote.harness.science.resonance import class_means, resonance

REFUSED, ALIGNED, REASONED = "0-REFUSED", "1-ALIGNED", "2-REASONED"


def routing(tokens: int, layers: int = 2, experts: int = 5, top_k: int = 2, seed: int = 0) -> NDArray[np.int64]:
    """Distinct experts for each token and layer, as a router gives them."""
    noise = np.random.default_rng(seed).random((tokens, layers, experts))
    return np.argsort(noise, axis=2)[:, :, :top_k]


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 99))
@settings(deadline=None)
def test_a_map_counts_choices(tokens: int, last: int, seed: int) -> None:
    chosen = routing(tokens, seed=seed)
    plain = np.zeros((2, 5), dtype=int)
    for token in range(max(tokens - last, 0), tokens):
        for layer in range(2):
            for expert in chosen[token, layer]:
                plain[layer, expert] += 1
    found = activation_map(chosen, 5, last=last)
    assert found.dtype == np.int32
    assert np.array_equal(found, plain)
    assert tokens_counted(found[None], 2).tolist() == [min(tokens, last)]


def test_refuses_choices_that_are_none() -> None:
    with pytest.raises(DataError, match="Expert 5 does not exist; experts are 0 to 4"):
        activation_map(np.full((1, 2, 2), 5), 5)
    with pytest.raises(DataError, match="Expert -1 does not exist"):
        activation_map(np.full((1, 2, 2), -1), 5)
    with pytest.raises(DataError, match="integers"):
        activation_map(np.zeros((1, 2, 2)), 5)
    with pytest.raises(DataError, match="not the last 0"):
        activation_map(routing(3), 5, last=0)


def test_an_incomplete_map_is_found_out() -> None:
    maps = np.stack([activation_map(routing(4, seed=s), 5) for s in range(3)])
    assert tokens_counted(maps, 2).tolist() == [4, 4, 4]
    maps[1, 0, int(np.argmax(maps[1, 0]))] -= 1
    with pytest.raises(DataError, match="Activation map 1 counts 7 to 8 choices a layer"):
        tokens_counted(maps, 2)


def test_rates_a_token() -> None:
    maps = np.array([[[4, 0]], [[1, 2]]])
    assert per_token(maps, [4, 2]).tolist() == [[[1.0, 0.0]], [[0.5, 1.0]]]
    assert frequency(maps, [4, 2]).tolist() == [[5 / 6, 2 / 6]]
    with pytest.raises(DataError, match="2 activation maps but 1 token counts"):
        per_token(maps, [4])
    with pytest.raises(DataError, match="map 1 counts no token"):
        frequency(maps, [4, 0])


labelled_maps = st.integers(2, 15).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int32, (n, 2, 3), elements=st.integers(0, 1_000_000)),
        st.lists(st.sampled_from([REFUSED, ALIGNED, REASONED]), min_size=n, max_size=n),
    )
)


@given(labelled_maps)
@settings(deadline=None)
def test_streamed_means_and_variances_are_numpys(data: tuple[NDArray[np.int32], list[str]]) -> None:
    maps, labels = data
    adder = MapAccumulator(2, 3)
    adder.add_all(maps, labels, [1_000_000] * len(labels))
    means = class_means(maps, labels)
    for label in adder.labels:
        mine = maps[np.array(labels) == label].astype(np.float64)
        moments = adder.moments(label)
        assert np.array_equal(moments.mean, means[label])
        if len(mine) > 1:
            scale = float(np.square(mine).max()) + 1
            assert moments.variance == pytest.approx(mine.var(axis=0, ddof=1), abs=1e-12 * scale)


@given(labelled_maps, st.integers(0, 15), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_merging_in_any_order_is_exact(data: tuple[NDArray[np.int32], list[str]], cut: int, seed: int) -> None:
    maps, labels = data
    whole, first, second = (MapAccumulator(2, 3) for _ in range(3))
    whole.add_all(maps, labels, [1_000_000] * len(labels))
    for at in np.random.default_rng(seed).permutation(len(labels)):
        (first if at < cut else second).add(maps[at], labels[at], 1_000_000)
    first.merge(second)
    assert first.labels == whole.labels
    for label in whole.labels:
        ours, theirs = whole.moments(label), first.moments(label)
        assert (ours.prompts, ours.tokens) == (theirs.prompts, theirs.tokens)
        assert np.array_equal(ours.total, theirs.total)
        assert np.array_equal(ours.squares, theirs.squares)


def test_a_contrast_is_the_resonance() -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 9, (20, 2, 4)).astype(np.int32)
    labels = [REFUSED] * 6 + [ALIGNED] * 8 + [REASONED] * 4 + ["TRUNCATED"] * 2
    groups = contrast(maps, labels, REFUSED, [9] * 20)
    assert (groups.ours.prompts, groups.others.prompts, groups.others.tokens) == (6, 12, 108)
    assert np.array_equal(groups.ours.mean - groups.others.mean, resonance(maps, labels, REFUSED))
    with pytest.raises(DataError, match="No prompt has the label 'x'"):
        contrast(maps, labels, "x", [9] * 20)


def test_moments_are_a_copy() -> None:
    adder = MapAccumulator(1, 2)
    adder.add(np.array([[1, 2]]), REFUSED, 5)
    before = adder.moments(REFUSED)
    adder.add(np.array([[5, 5]]), REFUSED, 5)
    assert before.total.tolist() == [[1, 2]]
    assert before.variance.tolist() == [[0, 0]]
    other = MapAccumulator(1, 2)
    other.merge(adder)
    other.add(np.array([[1, 1]]), REFUSED, 1)
    assert adder.moments(REFUSED).total.tolist() == [[6, 7]]


@pytest.mark.parametrize(
    ("activation", "tokens", "message"),
    [
        (np.ones((2, 2), dtype=int), 1, r"has the shape \[1, 2\], not \[2, 2\]"),
        (np.ones((1, 2)), 1, "float64 cannot be summed as int64; use weights=True"),
        (np.ones((1, 2), dtype=int), 0, "at least one token, not 0"),
        (np.array([[3, 1]]), 2, "of 2 tokens cannot hold counts from 1 to 3"),
        (np.array([[-1, 1]]), 2, "of 2 tokens cannot hold counts from -1 to 1"),
        (np.array([[2_000_000, 1]]), 2_000_000, "at most 1,000,000"),
    ],
)
def test_refuses_maps_of_another_kind(activation: NDArray[Any], tokens: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        MapAccumulator(1, 2).add(activation, REFUSED, tokens)


def test_weights_and_counts_do_not_mix() -> None:
    weights = MapAccumulator(1, 2, weights=True)
    weights.add(np.array([[0.25, 0.75]]), REFUSED, 1)
    assert weights.moments(REFUSED).total.tolist() == [[0.25, 0.75]]
    with pytest.raises(DataError, match="cannot be merged"):
        MapAccumulator(1, 2).merge(weights)


def test_memory_does_not_grow_with_the_number_of_maps() -> None:
    adder = MapAccumulator(58, 256)
    one = np.random.default_rng(0).integers(0, 40, (58, 256)).astype(np.int32)
    for label in (REFUSED, ALIGNED):
        adder.add(one, label, 40)
    tracemalloc.start()
    for i in range(400):
        adder.add(one, (REFUSED, ALIGNED)[i % 2], 40)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 400 maps are 24 MB; what is kept and what is used on the way are less than two maps of 64-bit numbers.
    assert held < 50_000
    assert peak < 2 * one.size * 8
