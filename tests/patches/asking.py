"""Requests for tests: random profiles and prompts, and the call that sends them in one continuous batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from mote.patches import Edit, ModelLayout, Observation, Profile, ProfileError, Route, read_observation, request_args
from tests.patches.reference import Reference
from tests.tiny_models import VOCABULARY

ROWS = {"what": "rows", "weights": True, "logits": True}
WEIGHED = {"what": "rows", "weights": True}
APPLIED = {"what": "rows", "weights": True, "applied": True}


@dataclass(frozen=True)
class Ask:
    """One request: prompt token ids, its profile (None sends none at all), and what to capture."""

    prompt: list[int]
    profile: Profile | None = None
    capture: Any = None
    max_tokens: int = 10
    options: dict[str, Any] = field(default_factory=dict)
    route: Route | None = None

    def params(self) -> Any:
        from vllm import SamplingParams

        extra = None if self.profile is None else request_args(self.profile, self.capture, self.route)
        settings = {"temperature": 0.0, "max_tokens": self.max_tokens, "ignore_eos": True, "detokenize": False}
        return SamplingParams(**settings | self.options, extra_args=extra)


@dataclass(frozen=True)
class Answer:
    """What came back: the tokens, how many prompt tokens the cache gave, and the observation if there is one."""

    tokens: list[int]
    cached: int
    observation: Observation | None


def ask(llm: Any, asks: Sequence[Ask]) -> list[Answer]:
    """Send all requests at once and return their answers in order."""
    prompts = [{"prompt_token_ids": each.prompt} for each in asks]
    outputs = llm.generate(prompts, [each.params() for each in asks], use_tqdm=False)
    return [
        Answer(
            list(output.outputs[0].token_ids),
            output.num_cached_tokens,
            None if each.profile is None else read_observation(output.outputs[0]),
        )
        for each, output in zip(asks, outputs, strict=True)
    ]


def watch_preemptions(llm: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by a request's id whenever an engine preempts it, until the test ends."""
    preempted: list[str] = []
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    original = scheduler._preempt_request

    def spy(request: Any, *args: Any, **kwargs: Any) -> Any:
        preempted.append(request.request_id)
        return original(request, *args, **kwargs)

    monkeypatch.setattr(scheduler, "_preempt_request", spy)
    return preempted


def random_profile(layout: ModelLayout, seed: int, edits: int = 10, actions: str = "all") -> Profile:
    """A profile of random edits; ``actions`` is "all" or the one action to use."""
    draw = np.random.default_rng(seed)
    pairs = [(layer, expert) for layer in layout.layers for expert in range(layout.experts)]
    chosen = []
    for index in draw.choice(len(pairs), min(edits, len(pairs)), replace=False).tolist():
        layer, expert = pairs[index]
        action = ["suppress", "stimulate", "scale"][draw.integers(3)] if actions == "all" else actions
        factor = [0.25, 0.5, 2.0, 8.0][draw.integers(4)] if action == "scale" else 0.0
        chosen.append(Edit(layer, expert, action, factor))  # type: ignore[arg-type]
    phase = ["all", "all", "prompt", "generated"][draw.integers(4)]
    return Profile(f"random-{seed}", tuple(chosen), layout, phase)  # type: ignore[arg-type]


def random_bias(layout: ModelLayout, seed: int, edits: int = 10, groups: tuple[int, int] = (1, 1)) -> Profile:
    """A profile of random edits before the choice, that activates and deactivates no more than a token can take."""
    draw = np.random.default_rng(seed)
    pairs = [(layer, expert) for layer in layout.layers for expert in range(layout.experts)]
    chosen: list[Edit] = []
    for index in draw.permutation(len(pairs)).tolist():
        layer, expert = pairs[index]
        action: Any = ["activate", "deactivate", "bias", "nudge"][draw.integers(4)]
        factor = float([-3.0, -0.2, 0.2, 3.0][draw.integers(4)]) if action in ("bias", "nudge") else 0.0
        try:
            Profile("trial", (*chosen, Edit(layer, expert, action, factor))).check_groups(layout, *groups)
        except ProfileError:
            continue
        chosen.append(Edit(layer, expert, action, factor))
        if len(chosen) == edits:
            break
    phase: Any = ["all", "all", "prompt", "generated"][draw.integers(4)]
    return Profile(f"bias-{seed}", tuple(chosen), layout, phase)


def random_prompt(seed: int, length: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(1000 + seed).integers(VOCABULARY, size=length)]


def both(by_role: dict[str, Any]) -> Any:
    """The prompt's tokens and the generated ones, one after the other."""
    return np.concatenate([by_role[role] for role in ("prompt", "generated")])


def judge(reference: Reference, sent: Ask, got: Answer, close: float = 1e-3) -> None:
    """Assert that an answer is the reference's: tokens, map or every token's experts, receipt and mechanism."""
    layout, prompt = reference.layout, len(sent.prompt)
    profile = sent.profile or Profile("none", ())
    expected = reference.run(sent.prompt + got.tokens[:-1], prompt, profile, sent.route)
    for index, token in enumerate(got.tokens):
        logits = expected.logits[prompt - 1 + index]
        assert logits[token] >= logits.max() - close, f"token {index}: {token}, not {int(logits.argmax())}"
    if sent.profile is None:
        return
    assert got.observation is not None
    total = prompt + len(got.tokens) - 1
    edited = {"all": total, "prompt": prompt, "generated": len(got.tokens) - 1}[profile.tokens]
    receipt = got.observation.receipt
    assert receipt.digest == profile.digest
    unseen = 0 if profile.tokens == "generated" else got.cached
    assert receipt.tokens_edited == (edited - unseen if profile.edits else 0)
    assert receipt.route == ("" if sent.route is None else sent.route.digest)
    if not got.cached:
        assert (receipt.forced, receipt.changed) == expected.forced
    if sent.capture == APPLIED:
        rows, weights = both(got.observation.rows), both(got.observation.row_weights) * reference.scale
        for position, layers in enumerate(expected.taken):
            for row, taken in enumerate(layers):
                found = dict(zip(rows[position, row].tolist(), weights[position, row].tolist(), strict=True))
                assert found == pytest.approx(taken, rel=1e-3, abs=1e-4)
    if sent.capture == "prompt":
        counted = got.observation.maps["prompt"]
        assert (counted.counted, counted.total) == (prompt, prompt)
        np.testing.assert_array_equal(counted.counts, expected.counts(layout, 0, prompt))
    if sent.capture in ("rows", ROWS, WEIGHED):
        rows = both(got.observation.rows)
        np.testing.assert_array_equal(np.sort(rows), np.sort(expected.chosen))
        if sent.capture in (ROWS, WEIGHED):
            mine, theirs = np.argsort(rows), np.argsort(expected.chosen)
            weights = np.take_along_axis(both(got.observation.row_weights), mine, -1) * reference.scale
            expected_weights = np.take_along_axis(expected.weights, theirs, -1)
            np.testing.assert_allclose(weights, expected_weights, rtol=1e-3, atol=1e-4)
        if sent.capture == ROWS:
            np.testing.assert_allclose(both(got.observation.row_logits), expected.scores, rtol=1e-3, atol=1e-3)
    if got.cached == 0:
        for effect in got.observation.mechanism:
            selected, entered, before, after, left = expected.sums[effect.layer, effect.expert]
            assert (effect.selected, effect.entered, effect.left) == (selected, entered, left)
            assert np.isclose(effect.weight_before * reference.scale, before, rtol=1e-3, atol=1e-4)
            assert np.isclose(effect.weight_after * reference.scale, after, rtol=1e-3, atol=1e-4)
