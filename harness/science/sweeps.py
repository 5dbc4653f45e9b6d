"""Measures over the proportion of a merge: where one goes from low to high, how wide that is, and where to look closer.

Proportions are in [0, 1] and ascend; a measure is a share in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

_SAME = 1e-9


class Crossing(NamedTuple):
    """Where a curve goes from its start to its end.

    Attributes:
        start: the measure at the smallest proportion.
        end: the measure at the largest.
        at: the first proportion at which half of the way is done, between points by a straight line; None where start
            and end differ by less than ``least``.
        low: the first proportion at which a tenth of the way is done.
        high: the first proportion at which nine tenths are.
        steepest: (p, q, change) of the neighbours between which the measure changes most.
        against: the largest fall against the curve's own direction from any point to a later one; 0 where monotone.
            Of a curve without a direction, the difference of its largest and smallest measure.
    """

    start: float
    end: float
    at: float | None
    low: float | None
    high: float | None
    steepest: tuple[float, float, float]
    against: float

    @property
    def width(self) -> float | None:
        """The proportions from a tenth of the way to nine tenths."""
        return None if self.low is None or self.high is None else self.high - self.low


def crossing(curve: Mapping[float, float], least: float = 0.1) -> Crossing:
    """Return where a curve (proportion -> measure, two points at least) goes from its start to its end."""
    points = sorted(curve.items())
    start, end = points[0][1], points[-1][1]
    way = end - start
    steepest = max(((p, q, n - m) for (p, m), (q, n) in pairwise(points)), key=lambda one: abs(one[2]))
    values = [value for _, value in points]
    if abs(way) < least:
        return Crossing(start, end, None, None, None, steepest, max(values) - min(values))
    done = [(p, (value - start) / way) for p, value in points]
    low, at, high = (_first(done, share) for share in (0.1, 0.5, 0.9))
    sign = 1.0 if way > 0 else -1.0
    against, best = 0.0, -1.0
    for value in values:
        best = max(best, sign * value)
        against = max(against, best - sign * value)
    return Crossing(start, end, at, low, high, steepest, against)


def middles(curve: Mapping[float, float], step: float, finest: float) -> list[float]:
    """Return the middles of neighbours whose measure differs by more than ``step``.

    Neighbours that lie ``finest`` or less apart are left alone, so that halving ends.
    """
    return [
        round((p + q) / 2, 9)
        for (p, m), (q, n) in pairwise(sorted(curve.items()))
        if abs(n - m) > step + _SAME and q - p > finest + _SAME
    ]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the numbers of the (cost, gain) points than which no other costs less and gains as much, or more.

    They come in the order of their costs; of equal points the first counts.
    """
    kept: list[int] = []
    best = float("-inf")
    for number in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1], at)):
        if points[number][1] > best:
            kept.append(number)
            best = points[number][1]
    return kept


def _first(done: Sequence[tuple[float, float]], share: float) -> float:
    """Return the first proportion at which a share of the way is done; the last point has done all of it."""
    for (p, m), (q, n) in pairwise(done):
        # A share that is met to the last digits is met: sums of decimal shares are not exact.
        if n >= share - _SAME:
            return min(q, p + (q - p) * (share - m) / (n - m)) if n > m else q
    raise AssertionError("the end of the way is the last point's own measure")
