"""Where a curve over the proportion goes from its start to its end, and where it is to be looked at closer."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.harness.science.sweeps import crossing, front, middles

CURVES = st.dictionaries(
    st.integers(0, 64).map(lambda number: number / 64), st.integers(0, 20).map(lambda n: n / 20), min_size=2
)


def test_a_step_is_where_it_is_and_as_wide_as_its_neighbours_lie_apart() -> None:
    one = crossing({0: 0, 0.5: 0, 0.6: 1, 1: 1})
    assert [*one.steepest, one.against] == pytest.approx([0.5, 0.6, 1, 0])
    assert [one.low, one.at, one.high, one.width] == pytest.approx([0.51, 0.55, 0.59, 0.08])


def test_a_straight_line_is_as_wide_as_can_be_and_a_fall_counts_as_a_rise_does() -> None:
    for curve in ({p / 10: p / 10 for p in range(11)}, {p / 10: 1 - p / 10 for p in range(11)}):
        one = crossing(curve)
        assert [one.low, one.at, one.high] == pytest.approx([0.1, 0.5, 0.9])
        assert one.against == pytest.approx(0)


def test_what_ends_as_it_began_has_no_place() -> None:
    one = crossing({0: 0.5, 0.5: 0.9, 1: 0.52})
    assert (one.at, one.width) == (None, None)
    assert one.against == pytest.approx(0.4)
    # A dent on the way is said too.
    assert crossing({0: 0, 0.4: 0.6, 0.6: 0.3, 1: 1}).against == pytest.approx(0.3)


@given(CURVES)
def test_a_crossing_agrees_with_a_slow_search_along_the_curve(curve: dict[float, float]) -> None:
    one = crossing(curve)
    points = sorted(curve.items())
    start, end = points[0][1], points[-1][1]
    if one.at is None:
        assert abs(end - start) < 0.1
        return
    assert one.low is not None
    assert one.high is not None
    assert points[0][0] <= one.low <= one.at <= one.high <= points[-1][0]
    for share, found in ((0.1, one.low), (0.5, one.at), (0.9, one.high)):
        wanted = start + share * (end - start)
        sign = math.copysign(1, end - start)
        for (p, m), (q, n) in itertools.pairwise(points):
            if sign * (n - wanted) >= -1e-9:
                slow = p + (q - p) * (wanted - m) / (n - m)
                break
        assert found == pytest.approx(slow, abs=1e-6)
    falls = [math.copysign(1, end - start) * (a - b) for i, (_, a) in enumerate(points) for _, b in points[i:]]
    assert one.against == pytest.approx(max(falls))


@given(CURVES, st.sampled_from((0.05, 0.2, 0.5)), st.sampled_from((1 / 64, 0.1)))
def test_halving_ends_and_leaves_only_small_steps_or_near_neighbours(
    curve: dict[float, float], step: float, finest: float
) -> None:
    def truth(p: float) -> float:
        return 1.0 if p > 0.37 else 0.0

    known = {p: truth(p) for p in curve}
    for _ in range(20):
        more = middles(known, step, finest)
        if not more:
            break
        assert not {*more} & {*known}
        known |= {p: truth(p) for p in more}
    points = sorted(known.items())
    for (p, m), (q, n) in itertools.pairwise(points):
        assert abs(m - n) <= step or q - p <= finest + 1e-8


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_the_front_holds_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    kept = front([(float(cost), float(gain)) for cost, gain in points])
    beaten = {
        point
        for point in points
        if any(other != point and other[0] <= point[0] and other[1] >= point[1] for other in points)
    }
    assert {points[at] for at in kept} == {*points} - beaten
    assert len({points[at] for at in kept}) == len(kept)
