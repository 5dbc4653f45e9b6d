"""Bounds at a temperature against the whole vocabulary's softmax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from mote.harness.preconditions import DataError
from mote.harness.science.tempered import at_temperature, text_at_temperature


def place(logits: np.ndarray, token: int, count: int) -> tuple[float, list[float]]:
    """What an engine says of a place: the token's log-probability, and those of the likeliest with its own."""
    logprobs = log_softmax(logits)
    top = set(np.argsort(-logprobs)[:count]) | {token}
    return float(logprobs[token]), [float(logprobs[at]) for at in sorted(top)]


@given(
    seed=st.integers(0, 2**32 - 1),
    temperature=st.floats(0.1, 1.0),
    count=st.integers(1, 20),
    spread=st.floats(0.1, 8.0),
)
def test_the_truth_lies_within_the_bounds(seed: int, temperature: float, count: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=300)
    token = int(rng.integers(300))
    truth = float(log_softmax(logits / temperature)[token])
    low, high = at_temperature(*place(logits, token, count), count, temperature)
    assert low - 1e-9 <= truth <= high + 1e-9


def test_twenty_tokens_bound_a_models_usual_place_tightly() -> None:
    logits = 4 * np.random.default_rng(1).normal(size=5000)
    for token in np.argsort(-logits)[:5]:
        low, high = at_temperature(*place(logits, int(token), 20), 20, 0.6)
        assert np.exp(high) - np.exp(low) < 0.05
    logits[7] += 20
    low, high = at_temperature(*place(logits, 7, 20), 20, 0.6)
    assert np.exp(high) - np.exp(low) < 1e-4


def test_at_temperature_one_nothing_is_bounded() -> None:
    assert at_temperature(-1.5, [-1.5, -0.7], 2, 1.0) == (-1.5, -1.5)


def test_a_text_sums_its_tokens() -> None:
    each = at_temperature(-0.5, [-0.5, -1.2], 2, 0.5)
    both = text_at_temperature([-0.5, -0.5], [[-0.5, -1.2]] * 2, 2, 0.5)
    assert both == (2 * each.low, 2 * each.high)


@pytest.mark.parametrize(
    ("top", "count", "temperature"),
    [([-1.0], 1, 0.0), ([-1.0], 1, 1.1), ([-1.0], 2, 0.5), ([0.5], 1, 0.5), ([float("nan")], 1, 0.5)],
)
def test_what_is_no_place_is_refused(top: list[float], count: int, temperature: float) -> None:
    with pytest.raises(DataError):
        at_temperature(-1.0, top, count, temperature)
