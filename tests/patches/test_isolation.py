"""What a request computes depends on its own profile alone: not on batchmates, caches, preemptions or aborts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm import SamplingParams

from mote.patches import EMPTY_PROFILE, Edit, ModelLayout, Profile, read_observation, request_args
from tests.conftest import Engines
from tests.patches.asking import Ask, ask, judge, random_bias, random_profile, random_prompt, watch_preemptions
from tests.patches.reference import Reference

PROMPT = random_prompt(0, 100)
GROUPS = (4, 2)


def profile_of(layout: ModelLayout, seed: int) -> Profile:
    """One after the choice, one before it, in turn."""
    return random_bias(layout, seed, groups=GROUPS) if seed % 2 else random_profile(layout, seed)


def core(llm: Any) -> Any:
    return llm.llm_engine.engine_core.engine_core


def state(llm: Any) -> Any:
    return core(llm).model_executor.driver_worker.worker.model_runner.mote_state


def assert_nothing_left(llm: Any) -> None:
    """No request is known any more after one further request: the worker hears of the end of one with the next step."""
    ask(llm, [Ask([1, 2, 3], EMPTY_PROFILE)])
    assert len(core(llm).scheduler.aux_output_connector) == 0
    assert len(state(llm).requests) <= 1


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("glm4")


@pytest.fixture(scope="module")
def layout(folder: Path) -> ModelLayout:
    return ModelLayout.from_config(folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference(folder)


@pytest.fixture(scope="module")
def llm(folder: Path, engines: Engines) -> Any:
    return engines(folder, block_size=32)


def logprobs(llm: Any, profiles: list[Profile | None]) -> list[Any]:
    """Every bit of the first request's distributions, with batchmates of these profiles on the same prompts."""
    params = [
        SamplingParams(
            temperature=0.0,
            max_tokens=6,
            ignore_eos=True,
            logprobs=20,
            extra_args=None if profile is None else request_args(profile),
        )
        for profile in profiles
    ]
    prompts = [{"prompt_token_ids": random_prompt(seed, 30)} for seed in range(len(profiles))]
    llm.reset_prefix_cache()
    first = llm.generate(prompts, params, use_tqdm=False)[0].outputs[0]
    return [{token: value.logprob for token, value in position.items()} for position in first.logprobs]


def test_batchmates_change_no_bit(llm: Any, layout: ModelLayout) -> None:
    tuned = [random_profile(layout, seed) for seed in range(3)]
    biased = [random_bias(layout, seed, groups=GROUPS) for seed in range(2)]
    for mine in (None, EMPTY_PROFILE, random_profile(layout, 9), random_bias(layout, 9, groups=GROUPS)):
        alone = logprobs(llm, [mine, None, None, None])
        assert logprobs(llm, [mine, *tuned]) == alone
        assert logprobs(llm, [mine, *biased, tuned[0]]) == alone
    assert logprobs(llm, [EMPTY_PROFILE, *tuned]) == logprobs(llm, [None, *tuned])


def test_the_prefix_cache_is_not_shared_between_profiles(llm: Any, layout: ModelLayout) -> None:
    llm.reset_prefix_cache()
    one, other = random_profile(layout, 1), random_bias(layout, 2, groups=GROUPS)

    def cached(profile: Profile | None, capture: str | None = None) -> int:
        return ask(llm, [Ask(PROMPT, profile, capture)])[0].cached

    assert (cached(one), cached(one)) == (0, 96), "within a profile all is shared"
    assert cached(None) == 0, "nothing of a tuned request reaches an untuned one"
    assert cached(EMPTY_PROFILE) == 96, "the empty profile computes what no profile computes"
    assert (cached(other), cached(other)) == (0, 96)
    assert cached(one, "prompt") == 0, "a capturing request reads no cache, or its map would be incomplete"
    renamed = Profile("another name", tuple(reversed(one.edits)), None, one.tokens)
    assert cached(renamed) == 96, "what computes the same shares the same"
    phase = Profile("other phase", one.edits, None, "generated" if one.tokens != "generated" else "prompt")
    assert cached(phase) == 0


def test_tuned_answers_come_out_of_the_cache_unchanged(llm: Any, layout: ModelLayout, reference: Reference) -> None:
    llm.reset_prefix_cache()
    asks = [Ask(PROMPT, random_profile(layout, seed)) for seed in range(4)]
    asks += [Ask(PROMPT, random_bias(layout, seed, groups=GROUPS)) for seed in range(2)]
    first = [ask(llm, [each])[0] for each in asks]
    again = ask(llm, asks)
    assert [answer.tokens for answer in again] == [answer.tokens for answer in first]
    assert [answer.cached for answer in again] == [96] * 6
    for sent, got in zip(asks, again, strict=True):
        judge(reference, sent, got)


def test_chunked_prefill(folder: Path, engines: Engines, layout: ModelLayout, reference: Reference) -> None:
    llm = engines(folder, block_size=32, max_num_batched_tokens=32, max_num_seqs=8)
    asks = [
        Ask(
            random_prompt(seed, 40 + 13 * seed),
            profile_of(layout, seed) if seed else None,
            "prompt" if seed else None,
        )
        for seed in range(8)
    ]
    for sent, got in zip(asks, ask(llm, asks), strict=True):
        judge(reference, sent, got)


def test_preemption(
    folder: Path, engines: Engines, layout: ModelLayout, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = engines(folder, block_size=32, num_gpu_blocks_override=9, max_num_seqs=6, enable_prefix_caching=False)
    preempted = watch_preemptions(llm, monkeypatch)
    asks = [Ask(random_prompt(seed, 40), profile_of(layout, seed), "prompt", max_tokens=50) for seed in range(6)]
    answers = ask(llm, asks)
    assert preempted
    for sent, got in zip(asks, answers, strict=True):
        judge(reference, sent, got)
    assert_nothing_left(llm)


def test_more_profiles_than_slots(llm: Any, layout: ModelLayout, reference: Reference) -> None:
    """A batch of 16 has 17 slots; 60 requests bring 60 profiles, in another order the second time."""
    asks = [Ask(random_prompt(seed, 8 + seed % 9), profile_of(layout, seed), None, 4) for seed in range(60)]
    answers = ask(llm, asks)
    for sent, got in zip(asks[::7], answers[::7], strict=True):
        judge(reference, sent, got)
    again = ask(llm, asks[::-1])[::-1]
    assert [answer.tokens for answer in again] == [answer.tokens for answer in answers]
    assert state(llm).slots.held <= 17
    assert_nothing_left(llm)


def test_aborted_requests_leave_nothing_behind(llm: Any, layout: ModelLayout, reference: Reference) -> None:
    engine = llm.llm_engine
    asks = [Ask(random_prompt(seed, 20), profile_of(layout, seed), "prompt", 12) for seed in range(10)]
    for number, each in enumerate(asks):
        engine.add_request(f"abort-{number}", {"prompt_token_ids": each.prompt}, each.params())
    for _ in range(4):
        engine.step()
    engine.abort_request([f"abort-{number}" for number in range(0, 10, 2)])
    finished: dict[str, Any] = {}
    while engine.has_unfinished_requests():
        finished |= {output.request_id: output for output in engine.step() if output.finished}
    assert sorted(finished) == [f"abort-{number}" for number in range(1, 10, 2)]
    for name, output in finished.items():
        completion = output.outputs[0]
        observation = read_observation(completion)
        assert observation.receipt.digest == asks[int(name[-1])].profile.digest  # type: ignore[union-attr]
        assert observation.maps["prompt"].counted == 20
        assert list(completion.token_ids) == ask(llm, [asks[int(name[-1])]])[0].tokens
    assert_nothing_left(llm)


def test_each_of_several_samples_has_its_receipt(llm: Any, layout: ModelLayout) -> None:
    profile = random_profile(layout, 3, actions="suppress")
    params = SamplingParams(
        n=3, temperature=1.0, seed=1, max_tokens=5, ignore_eos=True, extra_args=request_args(profile, "prompt")
    )
    outputs = llm.generate([{"prompt_token_ids": PROMPT}], params, use_tqdm=False)[0].outputs
    observations = [read_observation(output) for output in outputs]
    assert len(observations) == 3
    for observation in observations:
        assert observation.receipt.digest == profile.digest
        assert observation.maps["prompt"].counted == 100
        assert all(effect.weight_after == 0 for effect in observation.mechanism)


def test_a_stop_string_keeps_the_receipt(llm: Any, layout: ModelLayout) -> None:
    """The front end ends such a request after the engine has sent its last output, so every output has a packet."""
    profile = Profile("p", (Edit(1, 3, "suppress"),), layout)
    plain = SamplingParams(temperature=0.0, max_tokens=12, extra_args=request_args(profile, "prompt"))
    words = llm.generate([{"prompt_token_ids": PROMPT}], plain, use_tqdm=False)[0].outputs[0].text.split()
    stop = words[4]
    first = words.index(stop)
    params = SamplingParams(temperature=0.0, max_tokens=12, stop=[stop], extra_args=request_args(profile, "prompt"))
    output = llm.generate([{"prompt_token_ids": PROMPT}], params, use_tqdm=False)[0].outputs[0]
    assert output.finish_reason == "stop"
    observation = read_observation(output)
    assert observation.receipt.digest == profile.digest
    assert observation.receipt.tokens_edited == 100 + first
    assert observation.maps["prompt"].counted == 100
