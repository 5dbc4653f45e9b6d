"""What lies above a threshold on the parents' distance, and how far two maps agree, against sums written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mote.harness.sweep.distances import taken_above, threshold_curve, threshold_table
from mote.harness.sweep.routing import agreement

_GROUPS = ("routed_experts", "router", "attention", "embeddings")
_ROW = st.tuples(
    st.sampled_from(_GROUPS), st.integers(0, 1), st.integers(0, 2), st.integers(1, 9), st.floats(0, 1, width=16)
)


def frame_of(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["group", "layer", "expert", "values", "relative"])
    frame["expert"] = frame["expert"].where(frame["group"] == "routed_experts")
    return frame.astype({"layer": "Int64", "expert": "Int64"})


@given(st.lists(_ROW, min_size=1, max_size=20), st.floats(0, 1, width=16))
def test_what_a_threshold_takes_is_counted_as_by_hand(rows: list[tuple[Any, ...]], threshold: float) -> None:
    taken = taken_above(frame_of(rows), "relative", threshold)
    above = [row for row in rows if row[4] > threshold]
    assert taken.tensors == pytest.approx(len(above) / len(rows))
    assert taken.values == pytest.approx(sum(row[3] for row in above) / sum(row[3] for row in rows))
    experts = {row[1:3] for row in rows if row[0] == "routed_experts"}
    if experts:
        there = {row[1:3] for row in above if row[0] == "routed_experts"}
        assert taken.experts == pytest.approx(len(there) / len(experts))
    else:
        assert np.isnan(taken.experts)
    for group in {row[0] for row in rows}:
        own = [row[4] > threshold for row in rows if row[0] == group]
        where = "whole" if all(own) else "cut" if any(own) else "left"
        assert [name for name in ("whole", "cut", "left") if group in getattr(taken, name)] == [where]


@settings(max_examples=10)
@given(st.lists(_ROW, min_size=1, max_size=20))
def test_a_higher_threshold_takes_no_more(rows: list[tuple[Any, ...]]) -> None:
    frame = frame_of(rows)
    for taken in (threshold_curve(frame, "relative", 5), threshold_table(frame, "relative", [0.5])):
        shares = [one.values for one in taken]
        assert shares == sorted(shares, reverse=True)
    assert threshold_curve(frame, "relative", 5)[-1].tensors == 0
    assert 0.5 in [one.threshold for one in threshold_table(frame, "relative", [0.5])]


@given(st.integers(0, 10_000))
def test_agreement_is_the_share_of_choices_in_common(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    maps = [drawn.multinomial(12, np.full(5, 0.2), size=(3, 2)) for _ in range(2)]
    expected = [
        np.mean(
            [
                sum(min(maps[0][prompt, layer, one], maps[1][prompt, layer, one]) for one in range(5)) / 12
                for prompt in range(3)
            ]
        )
        for layer in range(2)
    ]
    assert agreement(maps[0], maps[1]) == pytest.approx(expected)
    assert agreement(maps[0], maps[0]).tolist() == [1.0, 1.0]


def test_maps_of_other_tokens_are_not_compared() -> None:
    maps = np.ones((1, 1, 4), dtype=np.int32)
    with pytest.raises(ValueError, match="not of the same tokens"):
        agreement(maps, 2 * maps)
