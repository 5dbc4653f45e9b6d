"""Edits before the choice: every proven family against the independent reference, beside untuned and other profiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mote.patches import EMPTY_PROFILE, Edit, ModelLayout, Profile, read_observation, request_args
from mote.patches.families import choice_groups
from tests.conftest import Engines
from tests.patches.asking import ROWS, Ask, ask, judge, random_bias, random_profile, random_prompt
from tests.patches.reference import Reference
from tests.patches.test_parity import FAMILIES
from tests.tiny_models import OTHERS


@pytest.mark.parametrize(
    "family",
    [*FAMILIES, *(pytest.param(family, marks=pytest.mark.slow) for family in OTHERS if family != "qwen3-next")],
)
def test_parity(family: str, checkpoints: Callable[..., Path], engines: Engines) -> None:
    """Edits before the choice, after it, and none, in one batch: each answer is its own reference's."""
    folder = checkpoints(family.split()[0], **FAMILIES.get(family, {}))
    llm, reference = engines(folder), Reference(folder)
    groups = choice_groups(reference.config)
    plain = [Ask(random_prompt(seed, 5 + 7 * (seed % 5)), EMPTY_PROFILE if seed % 2 else None) for seed in range(4)]
    tuned = []
    for seed in range(10):
        edits = [4, 10, 30][seed % 3]
        profile = (
            random_bias(reference.layout, seed, edits, groups) if seed < 8 else random_profile(reference.layout, seed)
        )
        tuned.append(Ask(random_prompt(seed, 5 + 7 * (seed % 5)), profile, ["prompt", ROWS, None][seed % 3]))
    mixed = ask(llm, [*plain, *tuned])
    for sent, got in zip([*plain, *tuned], mixed, strict=True):
        judge(reference, sent, got)
    backwards = list(reversed([*tuned, *plain]))
    again = list(reversed(ask(llm, backwards)))
    assert [answer.tokens for answer in again] == [answer.tokens for answer in [*mixed[4:], *mixed[:4]]]


class SteerMoE:
    """SteerMoE's rule (arXiv 2509.09660) in Hugging Face's models, written from its definition.

    The router's logits become their log-softmax; those of activated experts the token's largest and 0.01, those of
    deactivated ones its smallest less 0.01; the model's own softmax and top-k follow.
    """

    def __init__(self, folder: Path) -> None:
        self.reference = Reference(folder)

    def run(self, tokens: list[int], signs: NDArray[np.int8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return logits [positions, vocabulary] and the chosen experts [positions, layers, k] under signs
        [layers, experts]: 1 activates, -1 deactivates."""
        chosen: list[torch.Tensor] = []
        hooks = []
        for layer, row in zip(self.reference.layout.layers, signs, strict=True):
            router = self.reference.model.model.layers[layer].mlp.gate

            def steer(module: Any, _args: Any, output: Any, row: NDArray[np.int8] = row) -> Any:
                scores = torch.log_softmax(output[0].double(), dim=-1)
                above = scores.max(dim=-1, keepdim=True).values + 0.01
                below = scores.min(dim=-1, keepdim=True).values - 0.01
                sign = torch.from_numpy(row)[None]
                scores = torch.where(sign > 0, above, torch.where(sign < 0, below, scores))
                weights, ids = torch.softmax(scores, dim=-1).topk(module.top_k, dim=-1)
                if module.norm_topk_prob:
                    weights = weights / weights.sum(dim=-1, keepdim=True)
                chosen.append(ids)
                return output[0], weights.float(), ids

            hooks.append(router.register_forward_hook(steer))
        try:
            with torch.no_grad():
                logits = self.reference.model(torch.tensor([tokens]), use_cache=False).logits[0]
        finally:
            for hook in hooks:
                hook.remove()
        return logits.numpy(), torch.stack(chosen, dim=1).numpy()


@pytest.mark.parametrize("family", ["qwen3", "qwen3 raw", "olmoe"])
def test_it_is_steermoes_rule(family: str, checkpoints: Callable[..., Path], engines: Engines) -> None:
    """Greedy tokens, the log-probability of each, and how often each edited expert is chosen."""
    from vllm import SamplingParams

    folder = checkpoints(family.split()[0], **FAMILIES[family])
    llm, peer = engines(folder), SteerMoE(folder)
    layout = peer.reference.layout
    draw = np.random.default_rng(4)
    signs = np.zeros((len(layout.layers), layout.experts), np.int8)
    for row in signs:
        row[draw.permutation(layout.experts)[:5]] = [1, 1, -1, -1, -1]
    edits = [
        Edit(layout.layers[row], int(expert), "activate" if signs[row, expert] > 0 else "deactivate")
        for row, expert in np.argwhere(signs)
    ]
    params = SamplingParams(
        temperature=0.0,
        max_tokens=12,
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
        extra_args=request_args(Profile("steer", tuple(edits), layout)),
    )
    prompts = [random_prompt(seed, 12 + seed) for seed in range(6)]
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
    for prompt, output in zip(prompts, outputs, strict=True):
        answer = output.outputs[0]
        logits, chosen = peer.run([*prompt, *answer.token_ids[:-1]], signs)
        expected = torch.from_numpy(logits[len(prompt) - 1 :]).log_softmax(dim=-1)
        for token, said, row in zip(answer.token_ids, answer.logprobs, expected, strict=True):
            assert row[token] >= row.max() - 1e-3
            assert said[token].logprob == pytest.approx(float(row[token]), abs=2e-3)
        for effect in read_observation(answer).mechanism:
            place = layout.layers.index(effect.layer)
            times = int((chosen[:, place] == effect.expert).sum())
            assert effect.selected + effect.entered - effect.left == times
            assert times == (effect.tokens if effect.action == "activate" else 0)


def test_what_is_captured_is_the_routers_own_choice(engine: Any) -> None:
    """Before the edit, as it is for edits after the choice: in the first layer, which sees untouched input."""
    layout = ModelLayout.from_config(engine.llm_engine.model_config.model)
    first = layout.layers[0]
    profile = Profile("p", (Edit(first, 1, "activate"), Edit(first, 2, "deactivate")), layout)
    prompt = random_prompt(1, 50)
    plain, edited = (
        got.observation for got in ask(engine, [Ask(prompt, each, "prompt") for each in (EMPTY_PROFILE, profile)])
    )
    assert plain is not None
    assert edited is not None
    np.testing.assert_array_equal(plain.maps["prompt"].counts[0], edited.maps["prompt"].counts[0])
    assert (plain.maps["prompt"].counts[1] != edited.maps["prompt"].counts[1]).any()
    activated, deactivated = edited.mechanism
    assert activated.entered > 0 == activated.left
    assert activated.absent == 0
    assert deactivated.left == deactivated.selected > 0
    assert deactivated.weight_after == 0
