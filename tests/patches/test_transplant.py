"""Routes: a request's tokens take the experts of another's, judged by the independent reference, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError

from mote.patches import EMPTY_PROFILE, Edit, ModelLayout, Pairs, Profile, Route, read_observation, request_args
from mote.patches.families import choice_groups
from tests.conftest import Engines
from tests.patches.asking import (
    APPLIED,
    ROWS,
    Answer,
    Ask,
    ask,
    judge,
    random_bias,
    random_profile,
    random_prompt,
    watch_preemptions,
)
from tests.patches.reference import Reference
from tests.patches.test_isolation import assert_nothing_left
from tests.patches.test_parity import FAMILIES
from tests.tiny_models import OTHERS

LENGTHS = (12, 19, 26, 33)


def donors(llm: Any, lengths: tuple[int, ...] = LENGTHS, max_tokens: int = 10) -> list[Answer]:
    """Untouched answers to random prompts, with every token's experts and weights."""
    return ask(
        llm,
        [Ask(random_prompt(50 + n, size), EMPTY_PROFILE, ROWS, max_tokens) for n, size in enumerate(lengths)],
    )


def seen(answer: Answer) -> Any:
    assert answer.observation is not None
    return answer.observation


def routes(found: list[Answer], layout: ModelLayout, lengths: tuple[int, ...] = LENGTHS) -> list[tuple[int, Route]]:
    """Every way to lay a route, each with the length of a prompt that it fits."""
    made = []
    for number, (answer, size) in enumerate(zip(found, lengths, strict=True)):
        for tokens in ("all", "prompt", "generated"):
            kept = (number + len(tokens)) % 2 == 0
            layers = layout.layers if number % 2 else layout.layers[1:]
            route = Route.of(seen(answer), tokens=tokens, kept=kept, layers=layers)
            made.append((size, route))
        made.append((40 + number, Route.of(seen(answer), kept=bool(number % 2), last=7, align="end")))
        made.append((size + 3, Route.of(seen(answer), tokens="prompt", align="end")))
        every_other = tuple(range(0, size, 2))
        apart = Pairs(every_other, tuple(at + 1 + 3 * (at > 6) for at in every_other), size + 5)
        made.append((size + 5, Route.of(seen(answer), kept=not number % 2, layers=layout.layers[-2:], pairs=apart)))
    return made


@pytest.mark.parametrize(
    "family",
    [*FAMILIES, *(pytest.param(family, marks=pytest.mark.slow) for family in OTHERS if family != "qwen3-next")],
)
def test_parity(family: str, checkpoints: Callable[..., Path], engines: Engines) -> None:
    """Greedy tokens, rows, weights and receipts, alone and in one batch with untouched and with edited requests."""
    folder = checkpoints(family.split()[0], **FAMILIES.get(family, {}))
    llm, reference = engines(folder), Reference(folder)
    layout, groups = reference.layout, choice_groups(reference.config)
    found = donors(llm)
    asks = [
        Ask(random_prompt(seed, size), EMPTY_PROFILE, [APPLIED, ROWS, "prompt"][seed % 3], route=route)
        for seed, (size, route) in enumerate(routes(found, layout))
    ]
    asks += [Ask(random_prompt(60, 20)), Ask(random_prompt(61, 20), EMPTY_PROFILE, ROWS)]
    asks += [
        Ask(random_prompt(62, 30), random_profile(layout, 1), APPLIED),
        Ask(random_prompt(63, 30), random_bias(layout, 2, groups=groups), APPLIED),
    ]
    mixed = ask(llm, asks)
    for sent, got in zip(asks, mixed, strict=True):
        judge(reference, sent, got)
    assert any(seen(got).receipt.changed > 20 for got in mixed if got.observation)
    for sent, got in list(zip(asks, mixed, strict=True))[::6]:
        assert ask(llm, [sent])[0].tokens == got.tokens
    backwards = ask(llm, asks[::-1])[::-1]
    assert [got.tokens for got in backwards] == [got.tokens for got in mixed]


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("glm4")


@pytest.fixture(scope="module")
def layout(folder: Path) -> ModelLayout:
    return ModelLayout.from_config(folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference(folder)


def logprobs(llm: Any, asks: list[Ask]) -> list[Any]:
    llm.reset_prefix_cache()
    params = [each.params() for each in asks]
    for each in params:
        each.logprobs = 20
    outputs = llm.generate([{"prompt_token_ids": each.prompt} for each in asks], params, use_tqdm=False)
    return [
        [{key: one.logprob for key, one in row.items()} for row in output.outputs[0].logprobs] for output in outputs
    ]


@pytest.mark.parametrize("family", ["glm4", "qwen3", "qwen3 raw"])
@pytest.mark.parametrize("kept", [False, True])
def test_ones_own_route_changes_no_bit(
    family: str, kept: bool, checkpoints: Callable[..., Path], engines: Engines
) -> None:
    llm = engines(checkpoints(family.split()[0], **FAMILIES[family]))
    prompts = [random_prompt(seed, 20 + seed) for seed in range(4)]
    plain = [Ask(prompt, EMPTY_PROFILE, ROWS) for prompt in prompts]
    own = ask(llm, plain)
    routed = [
        Ask(p, EMPTY_PROFILE, ROWS, route=Route.of(seen(a), kept=kept)) for p, a in zip(prompts, own, strict=True)
    ]
    again = ask(llm, routed)
    for mine, other in zip(own, again, strict=True):
        receipt = seen(other).receipt
        rows = seen(mine).rows
        assert other.tokens == mine.tokens
        assert receipt.forced == sum(len(rows[role]) for role in rows) * len(seen(mine).layers)
        assert receipt.changed == 0
    assert logprobs(llm, plain) == logprobs(llm, routed)


@pytest.mark.parametrize("before", [False, True])
def test_what_was_applied_under_a_profile_is_all_that_the_profile_does(
    before: bool, folder: Path, layout: ModelLayout, engines: Engines
) -> None:
    """The same prompt takes the experts and weights that it took under the profile: the profile's answer."""
    llm = engines(folder)
    edits = random_bias(layout, 3, 20, (4, 2)) if before else random_profile(layout, 3, 20)
    profile = Profile("p", edits.edits, layout)
    prompts = [random_prompt(seed, 30) for seed in range(3)]
    tuned = ask(llm, [Ask(prompt, profile, APPLIED) for prompt in prompts])
    routed = ask(
        llm,
        [
            Ask(prompt, EMPTY_PROFILE, APPLIED, route=Route.of(seen(answer), kept=True))
            for prompt, answer in zip(prompts, tuned, strict=True)
        ],
    )
    plain = ask(llm, [Ask(prompt) for prompt in prompts])
    assert [got.tokens for got in routed] == [got.tokens for got in tuned]
    assert [got.tokens for got in routed] != [got.tokens for got in plain]
    for mine, other in zip(tuned, routed, strict=True):
        for role, weights in seen(mine).row_weights.items():
            np.testing.assert_array_equal(weights, seen(other).row_weights[role])
            np.testing.assert_array_equal(seen(mine).rows[role], seen(other).rows[role])


def test_batchmates_routes_change_no_bit(folder: Path, layout: ModelLayout, engines: Engines) -> None:
    llm = engines(folder, block_size=32)
    found = donors(llm, (30, 30, 30, 30))
    forced = [route for _, route in routes(found, layout, (30, 30, 30, 30)) if route.prompt in (0, 30)]
    plain = [Ask(random_prompt(seed, 30), None) for seed in range(4)]
    beside = [Ask(each.prompt, EMPTY_PROFILE, route=route) for each, route in zip(plain, forced, strict=False)]
    for mine in (plain[0], Ask(plain[0].prompt, random_profile(layout, 9)), beside[0]):
        alone = logprobs(llm, [mine, *plain[1:]])[0]
        assert logprobs(llm, [mine, *beside[1:]])[0] == alone


def test_the_prefix_cache_is_not_shared_between_routes(folder: Path, engines: Engines) -> None:
    llm = engines(folder, block_size=32)
    llm.reset_prefix_cache()
    one, other = (Route.of(seen(each)) for each in donors(llm, (100, 100), 4))
    prompt = random_prompt(0, 100)

    def cached(route: Route | None, profile: Profile | None = EMPTY_PROFILE) -> int:
        return ask(llm, [Ask(prompt, profile, route=route)])[0].cached

    assert (cached(one), cached(one)) == (0, 96)
    assert cached(None) == 0
    assert cached(None, None) == 96
    assert (cached(other), cached(other)) == (0, 96)
    assert cached(Route(one.layers[1:], one.ids[:, 1:], one.prompt)) == 0
    assert cached(Route(one.layers, one.ids, one.prompt, one.align)) == 96, "what is the same shares the same"


def test_chunked_prefill(folder: Path, engines: Engines, layout: ModelLayout, reference: Reference) -> None:
    llm = engines(folder, block_size=32, max_num_batched_tokens=32, max_num_seqs=8)
    lengths = tuple(40 + 13 * number for number in range(4))
    asks = [
        Ask(random_prompt(seed, max(size, 40)), EMPTY_PROFILE, APPLIED, route=route)
        for seed, (size, route) in enumerate(routes(donors(llm, lengths), layout, lengths))
    ]
    for sent, got in zip(asks, ask(llm, asks), strict=True):
        judge(reference, sent, got)


def test_preemption(folder: Path, engines: Engines, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = engines(folder, block_size=32, num_gpu_blocks_override=9, max_num_seqs=6, enable_prefix_caching=False)
    found = donors(llm, (40,) * 6, 50)
    preempted = watch_preemptions(llm, monkeypatch)
    asks = [
        Ask(random_prompt(seed, 40), EMPTY_PROFILE, APPLIED, 50, route=Route.of(seen(answer), kept=bool(seed % 2)))
        for seed, answer in enumerate(found)
    ]
    answers = ask(llm, asks)
    assert preempted
    for sent, got in zip(asks, answers, strict=True):
        judge(reference, sent, got)
    assert_nothing_left(llm)


def test_a_stop_string_keeps_the_receipt(folder: Path, engines: Engines) -> None:
    llm = engines(folder)
    route = Route.of(seen(donors(llm, (30,))[0]), tokens="prompt")
    prompt = {"prompt_token_ids": random_prompt(0, 30)}
    extra = request_args(EMPTY_PROFILE, APPLIED, route)
    whole = llm.generate([prompt], SamplingParams(temperature=0.0, max_tokens=12, extra_args=extra), use_tqdm=False)
    stop = whole[0].outputs[0].text.split()[4]
    params = SamplingParams(temperature=0.0, max_tokens=12, stop=[stop], extra_args=extra)
    output = llm.generate([prompt], params, use_tqdm=False)[0].outputs[0]
    assert output.finish_reason == "stop"
    receipt = read_observation(output).receipt
    assert (receipt.route, receipt.forced) == (route.digest, 30 * len(route.layers))


def test_what_a_route_does_not_go_with(folder: Path, engines: Engines) -> None:
    llm = engines(folder)
    donor = seen(donors(llm, (30,))[0])
    route = Route.of(donor)
    with pytest.raises(VLLMValidationError, match="by role onto a prompt of 31 tokens, and this one has 30: lay the"):
        ask(
            llm,
            [Ask(random_prompt(0, 30), EMPTY_PROFILE, route=Route.of(donor, pairs=Pairs((0, 4), (1, 4), 31)))],
        )
    with pytest.raises(VLLMValidationError, match="profile 'p' edits them: send one of both"):
        ask(llm, [Ask(random_prompt(0, 30), Profile("p", (Edit(1, 0, "suppress"),)), route=route)])
    with pytest.raises(VLLMValidationError, match="from a prompt of 30 tokens, and this one has 31: take a donor"):
        ask(llm, [Ask(random_prompt(0, 31), EMPTY_PROFILE, route=route)])
    with pytest.raises(
        VLLMValidationError, match=r"30 tokens are to be routed from .*, and the prompt has 29: keep the"
    ):
        ask(llm, [Ask(random_prompt(0, 29), EMPTY_PROFILE, route=Route(route.layers, route.ids, 30, "end"))])
