"""Log-probabilities at a sampling temperature, from those that an engine gives at temperature 1.

Sampling at temperature T draws token x with p(x)^b / sum of p^b over the vocabulary, b = 1 / T. Engines give p of the
token and of the likeliest few. For T <= 1 those few bound the sum tightly: tokens that are not among them share the
rest m of the probability, none above the least q of the likeliest, so their part of the sum lies between 0 and
m * q^(b - 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mote.harness.preconditions import DataError


class Bounds(NamedTuple):
    """The least and the greatest log-probability (nats) that the known ones allow."""

    low: float
    high: float


def at_temperature(logprob: float, top: ArrayLike, count: int, temperature: float) -> Bounds:
    """Return the log-probability of a token under a temperature above 0 and at most 1.

    `logprob` is the token's own at temperature 1; `top` holds those of the `count` likeliest tokens at its place and
    its own, in any order (`count` + 1 values where it is not among them). At temperature 1 it is exact.
    Raises `DataError` for another temperature, fewer values than `count`, or values that are no log-probabilities.
    """
    if not 0 < temperature <= 1:
        raise DataError(f"Likely tokens bound a temperature above 0 and at most 1, not {temperature}.")
    values = np.sort(np.asarray(top, dtype=np.float64).ravel())[::-1]
    if not 1 <= count <= values.size or not np.isfinite(logprob) or np.isnan(values).any() or values[0] > 1e-6:
        raise DataError(f"{values.size} log-probabilities came for the {count} likeliest tokens, or one is above 0.")
    if temperature == 1:
        return Bounds(logprob, logprob)
    b = 1 / temperature
    known = float(np.exp(b * values).sum())
    rest = max(0.0, 1.0 - float(np.exp(values).sum()))
    most = known + rest * math.exp((b - 1) * float(values[count - 1]))
    return Bounds(b * logprob - math.log(most), b * logprob - math.log(known))


def text_at_temperature(logprobs: Sequence[float], tops: Sequence[ArrayLike], count: int, temperature: float) -> Bounds:
    """Return the log-probability of a text: the sums of its tokens' bounds."""
    each = [at_temperature(one, top, count, temperature) for one, top in zip(logprobs, tops, strict=True)]
    return Bounds(sum(one.low for one in each), sum(one.high for one in each))
