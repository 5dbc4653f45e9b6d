"""The Python client, before an HTTP server that answers as vLLM with the patch does, and as it should not."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openai")

import mote
from mote.harness.errors import MoteError
from mote.patches import EMPTY_PROFILE, ActivationMap, Edit, Observation, Profile, Receipt, Route
from mote.patches.observation import pack

TUNED = Profile("tuned", (Edit(1, 3, "suppress"), Edit(2, 7, "stimulate")))
Change = Callable[[dict[str, Any]], Any]


ROUTE = Route((1, 2), np.arange(8, dtype=np.uint16).reshape(2, 2, 2), 2, "end")


def packet(profile: Profile, *, maps: bool = False, route: str = "") -> str:
    """The receipt as vLLM sends it: the base64 of an array's file."""
    found = {"prompt": ActivationMap(np.full((2, 8), 3, np.int32), 5, 5)} if maps else {}
    observation = Observation(Receipt(profile.digest, 5 if profile.edits else 0, "1", route), (1, 2), found)
    file = io.BytesIO()
    np.save(file, pack(observation))
    return base64.b64encode(file.getvalue()).decode()


@contextmanager
def served(change: Change = lambda reply: reply, status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Answer every chat under the profile that it names; ``change`` is made to each reply."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            models = [{"id": "demo", "object": "model"}, {"id": "demo:tuned", "object": "model", "parent": "demo"}]
            self._send(200, {"object": "list", "data": models})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({**body, "key": self.headers["Authorization"]})
            mine = json.loads(body["vllm_xargs"]["mote"])
            route = Route.from_request(mine["route"]).digest if "route" in mine else ""
            sent = packet(Profile.from_request(mine["profile"]), maps=mine.get("capture") == "prompt", route=route)
            choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
            self._send(status, change({"id": "1", "choices": [{**choice, "routed_experts": sent}], "usage": usage}))

        def _send(self, code: int, content: Any) -> None:
            sent = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def test_an_answer_comes_with_the_receipt_of_its_profile(tmp_path: Path) -> None:
    TUNED.write(tmp_path / "tuned.json")
    with served() as (url, asked):
        client = mote.client(url, "sk-mine")
        for profile in (TUNED, tmp_path / "tuned.json"):
            found = client.complete("Is it?", profile, temperature=0.0, top_k=5)
            assert (found.text, found.finish_reason, found.prompt_tokens, found.generated_tokens) == (
                "Yes.",
                "stop",
                5,
                2,
            )
            assert found.observation.receipt.digest == TUNED.digest
        assert client.complete("Is it?").observation.receipt.digest == EMPTY_PROFILE.digest
    first = asked[0]
    assert first["messages"] == [{"role": "user", "content": "Is it?"}]
    assert (first["model"], first["temperature"], first["top_k"], first["key"]) == ("demo", 0.0, 5, "Bearer sk-mine")
    assert Profile.from_request(json.loads(first["vllm_xargs"]["mote"])["profile"]).digest == TUNED.digest


def test_a_map_is_asked_for_by_name() -> None:
    with served() as (url, _):
        found = mote.client(url).complete([{"role": "user", "content": "Is it?"}], TUNED, capture="prompt")
    assert found.observation.maps["prompt"].counts.shape == (2, 8)


def test_a_route_goes_along_and_its_receipt_is_checked() -> None:
    with served() as (url, asked):
        found = mote.client(url).complete("Is it?", route=ROUTE)
        assert found.observation.receipt.route == ROUTE.digest
        assert Route.from_request(json.loads(asked[0]["vllm_xargs"]["mote"])["route"]).digest == ROUTE.digest
    other = Route(ROUTE.layers, ROUTE.ids, 1)
    for sent, taken in ((ROUTE, None), (None, ROUTE), (other, ROUTE)):
        receipt = packet(EMPTY_PROFILE, route="" if taken is None else taken.digest)

        def change(reply: dict[str, Any], receipt: str = receipt) -> dict[str, Any]:
            return {**reply, "choices": [{**reply["choices"][0], "routed_experts": receipt}]}

        with served(change) as (url, _), pytest.raises(MoteError, match=r"took the route .*, not .*; nothing of it"):
            mote.client(url).complete("Is it?", route=sent)


def _without(reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "choices": [{**reply["choices"][0], "routed_experts": None}]}


def _untouched(reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "choices": [{**reply["choices"][0], "routed_experts": packet(EMPTY_PROFILE)}]}


def _damaged(reply: dict[str, Any]) -> dict[str, Any]:
    sent = reply["choices"][0]["routed_experts"]
    return {**reply, "choices": [{**reply["choices"][0], "routed_experts": sent[:-40]}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without, "carries no receipt: the engine runs without the MoTE patch"),
        (_untouched, f"was answered under profile {EMPTY_PROFILE.digest[:12]}, not under 'tuned'"),
        (_damaged, "the answer under 'tuned': "),
        (lambda reply: {**reply, "choices": reply["choices"] * 2}, "sent 2 answers to one request"),
        (lambda reply: {"choices": "none"}, "did not send what was asked for: choices"),
        (lambda reply: b"<html>", "did not send what was asked for: "),
    ],
)
def test_nothing_else_is_taken_for_an_answer_under_the_profile(change: Change, said: str) -> None:
    with served(change) as (url, _), pytest.raises(MoteError) as caught:
        mote.client(url).complete("Is it?", TUNED)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refusal_is_given_in_the_servers_words() -> None:
    refusal = {"error": {"message": "layer 99 is none of this model's", "code": 400}}
    with served(lambda reply: refusal, 400) as (url, _), pytest.raises(MoteError, match="layer 99 is none"):
        mote.client(url).complete("Is it?", TUNED)


@pytest.mark.parametrize("params", [{"stream": True}, {"n": 2}, {"vllm_xargs": {}}, {"extra_body": {}}])
def test_what_would_go_around_the_receipt_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(MoteError, match=f"takes no {next(iter(params))}"):
        mote.client("http://127.0.0.1:1/v1").complete("Is it?", TUNED, **params)


def test_a_wrong_url_or_profile_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(MoteError, match="the URL of a server"):
        mote.client("localhost:8000")
    with pytest.raises(MoteError, match="no such profile file"):
        mote.client("http://127.0.0.1:1/v1").complete("Is it?", tmp_path / "none.json")
