"""Requests with stop strings: what the front end adds up is what the scheduler would have said, in fewer bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.patches import Edit, ModelLayout, Profile, read_observation, request_args
from mote.patches.capture import Capture
from mote.patches.frames import FrameError
from mote.patches.ledger import Ledger
from mote.patches.messages import KEY, Hits, MapPart, RowPart, StepReport, Ticket
from mote.patches.news import MAGIC, SHORT, Collected, new_completion_output, process_outputs
from mote.patches.observation import COUNTS_LOST, Observation, unpack
from tests.patches.asking import random_prompt
from tests.patches.test_observation import same

LAYOUT = ModelLayout("Glm4MoeForCausalLM", (1, 3), 12, 3)
WIDE = Profile("wide", tuple(Edit(layer, expert, "scale", 0.5) for layer in (1, 3) for expert in range(12)))
PROMPT = 4
ROWS = Capture("rows", True, logits=True)


def request(name: str, stop: bool, capture: Any) -> Any:
    params = SimpleNamespace(extra_args={KEY: Ticket(WIDE.spec, capture).to_extra()}, stop=["w1"] if stop else [])
    return SimpleNamespace(
        request_id=name, sampling_params=params, num_prompt_tokens=PROMPT, output_token_ids=[], num_in_flight_tokens=1
    )


def step(seed: int, names: list[str], capture: Capture) -> StepReport:
    """The same made-up report for every one of the names: hits, and of an odd seed a part of a map, and rows."""
    draw = np.random.default_rng(seed)
    touched = np.sort(draw.choice(24, draw.integers(0, 24), replace=False))
    sums, tokens = draw.random((len(touched), 5)), int(draw.integers(0, 3))
    counts, summed = draw.integers(0, 9, (2, 12)).astype(np.int32), draw.random((2, 12)).astype(np.float32)
    ids, weighed = draw.integers(0, 12, (tokens, 2, 3)).astype(np.uint16), draw.random((tokens, 2, 3), np.float32)
    logits = draw.random((tokens, 2, 12), np.float32)
    owners = range(len(names))
    capturing = owners if seed % 2 else range(0)
    return StepReport(
        names,
        [WIDE.digest] * len(names),
        np.full(len(names), seed % 5),
        ["a route"] * len(names),
        np.full((len(names), 2), seed % 7) if seed % 3 else None,
        Hits(np.repeat(list(owners), len(touched)), np.tile(touched, len(names)), np.tile(sums, (len(names), 1)))
        if len(touched)
        else None,
        [MapPart(owner, "prompt", 2, counts, summed if capture.weights else None) for owner in capturing],
        [
            RowPart(owner, role, ids, weighed if capture.weights else None, logits if capture.logits else None)
            for owner in capturing
            for role in ("prompt", "generated")
        ],
    )


@given(
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=8),
    silent=st.sets(st.integers(0, 7)),
    capture=st.sampled_from(
        [None, Capture("prompt", True), Capture("roles", True, 0, (7,), (8,)), Capture("roles"), Capture("rows"), ROWS]
    ),
    lost=st.booleans(),
)
def test_the_sum_of_the_news_is_the_whole(
    seeds: list[int], silent: set[int], capture: Capture | None, lost: bool
) -> None:
    wanted = None if capture is None else capture.to_list()
    stopping, plain = request("stopping", True, wanted), request("plain", False, wanted)
    ledger, collected, largest = Ledger(LAYOUT, "0"), None, 0
    for number, seed in enumerate(seeds):
        last = number == len(seeds) - 1
        ledger.absorb(step(seed, ["stopping", "plain"], capture or Capture("rows")), {"stopping", "plain"})
        for each in (stopping, plain):
            each.is_finished = lambda last=last: last
            each.output_token_ids.append(7 + seed % 3)
        if lost and number == 1:
            ledger.lose([stopping, plain])
        if number in silent and not last:
            continue  # vLLM sends no output for an unfinished chunk of a prompt
        news, nothing = ledger.take_output(stopping, None), ledger.take_output(plain, None)
        assert news is not None
        assert (nothing is not None) == plain.is_finished()
        if collected is None:
            collected = Collected(news)
        else:
            collected.add(news)
            largest = max(largest, len(news))
    assert collected is not None
    assert nothing is not None
    found, whole = unpack(collected.packet(PROMPT, stopping.output_token_ids).tobytes()), unpack(nothing.tobytes())
    assert same(rounded(found), rounded(whole))
    assert found.receipt.digest == (COUNTS_LOST if lost and len(seeds) > 1 else WIDE.digest)
    ledger.request_finished(stopping)
    ledger.request_finished(plain)
    assert not len(ledger)


def rounded(observation: Observation) -> Observation:
    """Sums of floats may differ in the last bit by the order in which they were added."""
    from dataclasses import replace

    effects = tuple(
        replace(e, weight_before=round(e.weight_before, 9), weight_after=round(e.weight_after, 9))
        for e in observation.mechanism
    )
    maps = {
        role: replace(found, weights=None if found.weights is None else found.weights.round(3))
        for role, found in observation.maps.items()
    }
    return replace(observation, mechanism=effects, maps=maps)


def test_the_front_end_takes_the_news_and_leaves_the_rest() -> None:
    ledger = Ledger(LAYOUT, "0")
    asked = request("asked", True, None)
    asked.is_finished = lambda: False
    ledger.absorb(step(1, ["asked"], Capture("rows")), {"asked"})
    news, foreign = ledger.take_output(asked, None), np.zeros(5, np.uint8)
    outputs = [
        SimpleNamespace(request_id=name, routed_experts=packet)
        for name, packet in (("asked", news), ("aborted", news), ("other", foreign), ("untuned", None))
    ]
    state = SimpleNamespace(
        prompt_len=PROMPT, detokenizer=SimpleNamespace(output_token_ids=[7]), routed_experts_chunks=[]
    )
    processor = SimpleNamespace(request_states={"asked": state, "other": SimpleNamespace()})
    process_outputs(lambda self, outputs: None, processor, outputs)
    assert [output.routed_experts for output in outputs] == [None, None, foreign, None]
    for reason, packets in ((None, 0), ("stop", 1)):
        new_completion_output(lambda self, ids, reason, stop: None, state, [7], reason, None)
        assert len(state.routed_experts_chunks) == packets
    assert unpack(state.routed_experts_chunks[0].tobytes()).receipt.digest == WIDE.digest
    later = ledger.take_output(asked, None)
    assert later is not None
    assert later[: len(SHORT)].tobytes() == SHORT
    with pytest.raises(FrameError):
        Collected(later)
    ledger.absorb(step(3, ["asked"], Capture("rows")), {"asked"})
    whole = ledger.take_output(asked, None)
    assert whole is not None
    assert whole[: len(MAGIC)].tobytes() == MAGIC
    with pytest.raises(KeyError):
        Collected(whole)


@pytest.mark.parametrize("capture", [None, "rows", {"what": "roles", "weights": True}], ids=["none", "rows", "roles"])
def test_an_answer_with_a_stop_string_says_what_the_same_without_says(engine: Any, capture: Any) -> None:
    """The real engine: a stop string that comes, one that never comes, and several answers to one prompt."""
    from vllm import SamplingParams

    layout = ModelLayout.from_config(engine.llm_engine.model_config.model)
    profile = Profile("p", tuple(Edit(layer, expert, "scale", 0.5) for layer in layout.layers for expert in range(16)))
    prompt = {"prompt_token_ids": random_prompt(11, 20)}

    def run(**options: Any) -> Any:
        settings = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True}
        params = SamplingParams(**settings | options, extra_args=request_args(profile, capture))
        engine.reset_prefix_cache()
        return engine.generate(prompt, params, use_tqdm=False)[0].outputs

    whole = run()[0]
    never = run(stop=["no such word"])[0]
    assert never.token_ids == whole.token_ids
    assert same(rounded(read_observation(never)), rounded(read_observation(whole)))
    words = whole.text.split()
    cut = words.index(words[5]) + 1
    stopped = run(stop=[words[5]])[0]
    assert (stopped.finish_reason, len(stopped.token_ids)) == ("stop", cut)
    short = run(max_tokens=cut)[0]
    assert same(rounded(read_observation(stopped)), rounded(read_observation(short)))
    for each in run(n=3, temperature=1.0, seed=0, stop=[words[5]]):
        assert read_observation(each).receipt.digest == profile.digest
