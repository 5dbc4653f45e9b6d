"""The patch over HTTP, engine core and worker in processes of their own: same answers and receipts, clear 400s."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mote
from mote.harness.cli.serve import FRONT
from mote.harness.errors import MoteError
from mote.patches import (
    EMPTY_PROFILE,
    Edit,
    ModelLayout,
    Observation,
    ObservationError,
    Profile,
    Route,
    read_observation,
    request_args,
)
from tests.patches.asking import Ask, ask, random_profile, random_prompt
from tests.patches.served import Server, serve

LONG = Route((1,), np.tile(np.arange(4, dtype=np.uint16), (200, 1, 1)), 200)
NAMED = Profile("top-10", (Edit(1, 2, "suppress"), Edit(2, 3, "stimulate")))


@pytest.fixture(scope="module")
def server(checkpoints: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    work = tmp_path_factory.mktemp("server")
    NAMED.write(work / "top.json")
    # As `mote serve` starts it.
    with serve(
        checkpoints("glm4"), work / "log", "--enforce-eager", "--middleware", FRONT, MOTE_PROFILES=str(work)
    ) as running:
        yield running


@pytest.fixture(scope="module")
def layout(checkpoints: Callable[..., Path]) -> ModelLayout:
    return ModelLayout.from_config(checkpoints("glm4"))


def entry(profile: Profile, capture: Any = None, route: Route | None = None) -> dict[str, str]:
    return {"mote": json.dumps(request_args(profile, capture, route)["mote"])}


def body(each: Ask, **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "max_tokens": each.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    if each.profile is not None:
        settings["vllm_xargs"] = entry(each.profile, each.capture, each.route)
    return settings | {"return_token_ids": True} | more


def ended(chunks: list[dict[str, Any]]) -> Observation:
    """The observation in the one chunk that ends the choice."""
    carrying = [choice for chunk in chunks for choice in chunk["choices"] if "routed_experts" in choice]
    assert [choice["finish_reason"] for choice in carrying] == ["length"]
    return read_observation(carrying[0])


def same(a: Observation, b: Observation) -> bool:
    """Equal but for the rounding of summed weights, which batching changes."""
    counts = [[(e.layer, e.expert, e.tokens, e.selected, e.entered) for e in each.mechanism] for each in (a, b)]
    maps = [{role: found.counts.tolist() for role, found in each.maps.items()} for each in (a, b)]
    return a.receipt == b.receipt and counts[0] == counts[1] and maps[0] == maps[1]


def test_answers_equal_their_offline_twins(server: Server, engine: Any, layout: ModelLayout) -> None:
    asks = [Ask(random_prompt(seed, 30), random_profile(layout, seed), "prompt", 8) for seed in range(3)]
    asks += [Ask(random_prompt(3, 30), EMPTY_PROFILE, None, 8), Ask(random_prompt(4, 30), None, None, 8)]
    for sent, twin in zip(asks, ask(engine, asks), strict=True):
        words = " ".join(f"w{token}" for token in sent.prompt)
        completion = server.post("/v1/completions", body(sent, prompt=sent.prompt))
        streamed = server.post("/v1/completions", body(sent, prompt=sent.prompt, stream=True))
        chat = server.post("/v1/chat/completions", body(sent, messages=[{"role": "user", "content": words}]))
        chat_streamed = server.post(
            "/v1/chat/completions", body(sent, messages=[{"role": "user", "content": words}], stream=True)
        )
        for reply in (completion, chat):
            assert reply.status == 200, reply.body
            assert reply.body["choices"][0]["token_ids"] == twin.tokens
        for reply in (streamed, chat_streamed):
            choices = [choice for chunk in reply.chunks for choice in chunk["choices"]]
            tokens = [token for choice in choices for token in choice.get("token_ids") or []]
            assert tokens == twin.tokens
        if sent.profile is None:
            with pytest.raises(ObservationError, match="no receipt"):
                read_observation(completion.body["choices"][0])
            assert not any("routed_experts" in choice for chunk in streamed.chunks for choice in chunk["choices"])
            continue
        assert twin.observation is not None
        if sent.capture is not None:
            np.testing.assert_array_equal(
                read_observation(completion.body["choices"][0]).maps["prompt"].counts,
                twin.observation.maps["prompt"].counts,
            )
            assert same(read_observation(completion.body["choices"][0]), twin.observation)
            assert same(read_observation(chat.body["choices"][0]), twin.observation)
            assert same(ended(streamed.chunks), twin.observation)
            assert same(ended(chat_streamed.chunks), twin.observation)
        else:
            assert read_observation(completion.body["choices"][0]).receipt.digest == EMPTY_PROFILE.digest


def test_the_client_lays_an_answers_route_onto_another_chat(server: Server) -> None:
    pytest.importorskip("openai")
    client = mote.client(f"http://127.0.0.1:{server.port}/v1")
    told: dict[str, Any] = {"temperature": 0, "max_tokens": 6, "seed": 1}
    rows = {"what": "rows", "weights": True}
    donor = client.complete("w1 w2 w3 w4", capture=rows, **told).observation
    own = client.complete("w5 w6 w7", capture=rows, **told)
    route = Route.of(donor, tokens="prompt", kept=True, last=3)
    found = client.complete("w5 w6 w7", route=route, capture={**rows, "applied": True}, **told)
    receipt = found.observation.receipt
    assert (receipt.route, receipt.forced) == (route.digest, 3 * len(route.layers))
    assert receipt.changed > 0
    np.testing.assert_array_equal(np.sort(found.observation.rows["prompt"]), np.sort(route.ids))
    again = client.complete("w5 w6 w7", route=Route.of(own.observation), **told)
    assert (again.text, again.observation.receipt.changed) == (own.text, 0)
    with pytest.raises(MoteError, match="4 tokens are to be routed from the prompt's end, and the prompt has 3"):
        client.complete("w5 w6 w7", route=Route.of(donor, tokens="prompt", align="end"), **told)
    with pytest.raises(MoteError, match="send one of both"):
        client.complete("w5 w6 w7", NAMED, route=route, **told)


def test_several_choices_and_prompts_in_one_stream(server: Server, layout: ModelLayout) -> None:
    profile = random_profile(layout, 7, actions="suppress")
    request = body(Ask([], profile, None, 4), prompt=[[1, 2, 3], [4, 5, 6]], n=2, stream=True, temperature=1, seed=3)
    reply = server.post("/v1/completions", request)
    found = {
        choice["index"]: read_observation(choice)
        for chunk in reply.chunks
        for choice in chunk["choices"]
        if "routed_experts" in choice
    }
    assert sorted(found) == [0, 1, 2, 3]
    assert {observation.receipt.digest for observation in found.values()} == {profile.digest}


def test_profiles_by_name(server: Server) -> None:
    named = server.post("/v1/completions", {"prompt": [1, 2, 3], "vllm_xargs": {"mote": '{"profile": "top-10"}'}})
    assert read_observation(named.body["choices"][0]).receipt.digest == NAMED.digest
    wrong = server.post("/v1/completions", {"prompt": [1, 2, 3], "vllm_xargs": {"mote": '{"profile": "top10"}'}})
    assert wrong.status == 400
    assert "Did you mean 'top-10'?" in wrong.body["error"]["message"]


def test_profiles_are_listed_and_are_models(server: Server) -> None:
    listed = server.get("/v1/profiles").body["data"]
    assert [(one["id"], one["name"], one["model"], one["digest"], one["edits"]) for one in listed] == [
        ("top", "top-10", "m:top", NAMED.digest, 2)
    ]
    assert listed[0]["before_choice"] is False
    models = server.get("/v1/models").body["data"]
    assert [(one["id"], one["parent"]) for one in models] == [("m", None), ("m:top", "m")]
    for name in ("m:top", "m:top-10"):
        for path, asked in (
            ("/v1/completions", {"prompt": [1, 2, 3]}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "w1 w2"}]}),
        ):
            reply = server.post(path, {"model": name, "max_tokens": 2, **asked})
            assert reply.status == 200, reply
            assert read_observation(reply.body["choices"][0]).receipt.digest == NAMED.digest
    wrong = server.post("/v1/completions", {"model": "m:topp", "prompt": [1, 2, 3]})
    assert (wrong.status, "Did you mean 'top'?" in wrong.body["error"]["message"]) == (400, True)
    batch = server.post("/v1/responses", {"model": "m:top", "input": "w1 w2"})
    assert (batch.status, "the Responses API" in batch.body["error"]["message"]) == (400, True)


def test_mote_may_be_an_object_and_is_refused_at_the_top(server: Server) -> None:
    request = {"prompt": [1, 2, 3], "max_tokens": 2}
    asked = server.post("/v1/completions", {**request, "vllm_xargs": {"mote": request_args(NAMED)["mote"]}})
    assert asked.status == 200, asked
    assert read_observation(asked.body["choices"][0]).receipt.digest == NAMED.digest
    wrong = server.post("/v1/completions", {**request, "vllm_xargs": {"mote": {"profil": "x"}}})
    assert (wrong.status, "unknown key 'profil'" in wrong.body["error"]["message"]) == (400, True)
    for top in ({"mote": request_args(NAMED)["mote"]}, {"mote": "{}"}, {"MOTE": 1}):
        for path, more in (("/v1/completions", request), ("/v1/chat/completions", {"messages": []})):
            reply = server.post(path, {**more, **top})
            assert (reply.status, "belongs into" in reply.body["error"]["message"]) == (400, True), reply


def test_a_profile_of_many_edits_keeps_nobody_waiting(server: Server) -> None:
    edits = [[1, 0, "suppress"]] * 100_000
    waited: list[float] = []

    def look() -> None:
        while not done.is_set():
            began = time.monotonic()
            assert server.get("/health").status == 200
            waited.append(time.monotonic() - began)

    done = threading.Event()
    thread = threading.Thread(target=look)
    thread.start()
    try:
        entry_of = {"mote": json.dumps({"profile": {"edits": edits}})}
        reply = server.post("/v1/completions", {"prompt": [1, 2, 3], "vllm_xargs": entry_of})
    finally:
        done.set()
        thread.join()
    assert (reply.status, "100,000 edits" in reply.body["error"]["message"]) == (400, True)
    assert max(waited) < 3


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_a_clear_400(server: Server, path: str, stream: bool) -> None:
    for value, says in (
        ("{", "no JSON object"),
        ('{"profile": {"edits": [[0, 1, "suppress"]]}}', "nearest that has is 1"),
        ('{"profile": {"edits": [[1, 1, "activated"]]}}', "Did you mean 'activate'?"),
        ('{"profile": {"edits": []}, "route": {"layers": [1]}}', "key 'prompt' is missing"),
        (entry(EMPTY_PROFILE, route=LONG)["mote"], "200 tokens, and this one has 1: take a donor"),
        (entry(NAMED, route=LONG)["mote"], "'top-10' edits them: send one of both"),
    ):
        asked: dict[str, Any] = (
            {"messages": [{"role": "user", "content": "w1"}]} if "chat" in path else {"prompt": "w1"}
        )
        reply = server.post(path, asked | {"vllm_xargs": {"mote": value}, "stream": stream, "max_tokens": 2})
        assert reply.status == 400
        assert says in reply.body["error"]["message"]
    assert server.post("/v1/completions", {"prompt": "w1", "max_tokens": 2}).status == 200, "the engine lives"


def test_ways_of_asking_without_a_receipt_are_a_clear_400(server: Server) -> None:
    tuned = {"vllm_xargs": entry(NAMED)}
    chat = [{"role": "user", "content": "w1 w2"}]
    asked: list[tuple[str, dict[str, Any], str]] = [
        ("/v1/responses", {"input": "w1 w2"}, "/v1/chat/completions"),
        ("/v1/responses", {"input": "w1 w2", "stream": True}, "/v1/chat/completions"),
        ("/v1/messages", {"messages": chat, "max_tokens": 2}, "use /v1/chat/completions"),
        ("/v1/messages", {"messages": chat, "max_tokens": 2, "stream": True}, "use /v1/chat/completions"),
        ("/v1/chat/completions/batch", {"messages": [chat, chat], "max_tokens": 2}, "each to /v1/chat/completions"),
        ("/v1/completions", {"prompt": "w1 w2", "use_beam_search": True, "n": 2, "max_tokens": 2}, "use_beam_search"),
        ("/v1/chat/completions", {"messages": chat, "use_beam_search": True, "max_tokens": 2}, "use_beam_search"),
    ]
    for path, body_of, says in asked:
        reply = server.post(path, body_of | tuned)
        assert reply.status == 400, reply
        assert says in reply.body["error"]["message"]
    untouched: list[tuple[str, dict[str, Any]]] = [
        ("/v1/responses", {"input": "w1 w2", "max_output_tokens": 2}),
        ("/v1/messages", {"messages": chat, "max_tokens": 2}),
        ("/v1/chat/completions/batch", {"messages": [chat, chat], "max_tokens": 2}),
    ]
    for path, body_of in untouched:
        assert server.post(path, body_of).status == 200, "without 'mote' they are vLLM's own"
