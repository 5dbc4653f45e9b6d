"""Captured maps and rows against the reference, and the division of generated tokens into roles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.patches import Profile
from mote.patches.capture import Capture, split
from tests.conftest import Engines
from tests.patches.asking import ROWS, Answer, Ask, ask, judge, random_profile, random_prompt
from tests.patches.reference import Reference

ROLES = Capture("roles", start=(7,), end=(8, 9))


@pytest.mark.parametrize(
    ("tokens", "opened", "reasoning"),
    [
        ([7, 1, 2, 8, 9, 3], False, 5),
        ([1, 2, 8, 9, 3], True, 4),
        ([8, 9, 3], True, 2),
        ([1, 2, 3], True, 3),
        ([1, 2, 3], False, 0),
        ([7, 1, 8], False, 3),
        ([], True, 0),
        ([8, 9, 1, 8, 9], True, 2),
    ],
)
def test_division_into_reasoning_and_answer(tokens: list[int], opened: bool, reasoning: int) -> None:
    assert split(tokens, ROLES._replace(opened=opened)) == reasoning


@given(st.sampled_from(["prompt", "rows", "roles"]), st.booleans(), st.integers(0, 9), st.booleans())
def test_captures_survive_the_way_to_the_worker(what: str, weights: bool, last: int, opened: bool) -> None:
    capture = Capture(what, weights, last, (1, 2), (3,), opened)
    assert Capture.from_list(capture.to_list()) == capture


@pytest.fixture(scope="module")
def reference(checkpoints: Callable[..., Path]) -> Reference:
    return Reference(checkpoints("glm4"))


@pytest.fixture(scope="module", params=["whole", "chunked", "preempted"])
def llm(request: pytest.FixtureRequest, checkpoints: Callable[..., Path], engines: Engines) -> Any:
    """The engines of the isolation tests, under the ways in which a request's tokens can be spread over steps."""
    options: dict[str, dict[str, Any]] = {
        "whole": {"block_size": 32},
        "chunked": {"block_size": 32, "max_num_batched_tokens": 32, "max_num_seqs": 8},
        "preempted": {
            "block_size": 32,
            "num_gpu_blocks_override": 9,
            "max_num_seqs": 6,
            "enable_prefix_caching": False,
        },
    }
    return engines(checkpoints("glm4"), **options[request.param])


def check(reference: Reference, sent: Ask, got: Answer) -> None:
    layout, prompt, total = reference.layout, len(sent.prompt), len(sent.prompt) + len(got.tokens)
    assert sent.profile is not None
    assert got.observation is not None
    expected = reference.run(sent.prompt + got.tokens[:-1], prompt, sent.profile)
    maps, rows = got.observation.maps, got.observation.rows
    if sent.capture == ROWS:
        judge(reference, sent, got)
        for role, start, stop in (("prompt", 0, prompt), ("generated", prompt, total - 1)):
            np.testing.assert_array_equal(np.sort(rows[role], axis=2), np.sort(expected.chosen[start:stop], axis=2))
        return
    spans = {"prompt": (0, prompt), "prompt_last": (max(0, prompt - 5), prompt)}
    if sent.capture["what"] == "roles":
        closed = got.tokens.index(40) + 1 if 40 in got.tokens else len(got.tokens)
        spans |= {"reasoning": (prompt, prompt + closed), "answer": (prompt + closed, total)}
    assert maps.keys() == spans.keys()
    for role, (start, stop) in spans.items():
        seen = min(stop, total - 1)
        assert (maps[role].counted, maps[role].total) == (max(0, seen - start), stop - start), role
        np.testing.assert_array_equal(maps[role].counts, expected.counts(layout, start, seen))
        sums = np.zeros_like(maps[role].counts, np.float64)
        for position in range(start, seen):
            for row in range(len(layout.layers)):
                sums[row, expected.chosen[position, row]] += expected.weights[position, row]
        found = maps[role].weights
        assert found is not None
        np.testing.assert_allclose(found * reference.scale, sums, rtol=1e-3, atol=1e-4)


def test_maps_by_role_and_rows(llm: Any, reference: Reference) -> None:
    roles = {"what": "roles", "weights": True, "last": 5, "reasoning_end": "w40", "prompt_opens": True}
    asks = []
    for seed in range(6):
        profile = random_profile(reference.layout, seed) if seed else Profile("empty", ())
        capture: Any = [roles, ROWS, {"what": "prompt", "weights": True, "last": 5}][seed % 3]
        asks.append(Ask(random_prompt(seed, 40), profile, capture, max_tokens=45))
    for sent, got in zip(asks, ask(llm, asks), strict=True):
        check(reference, sent, got)
