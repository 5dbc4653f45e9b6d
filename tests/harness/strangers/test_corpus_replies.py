"""URLs that are none, and what servers and judges may send: 240 replies over HTTP, bombs and redirects among them."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from mote.harness.errors import MoteError
from mote.patches import EMPTY_PROFILE, ActivationMap, ModelLayout, Observation, Receipt
from mote.patches.observation import pack
from tests.harness.strangers.corpus import counted, each, said, whole
from tests.harness.strangers.mutations import broken_texts, not_json, wrong_values

URLS = (
    *("", " ", "http://", "https://", "ftp://a/v1", "file:///etc/passwd", "//a/v1", "http:///v1", "javascript:1"),
    *("http://user:secret-word@a/v1", "http://secret-word@a/v1", "http://a/v1?key=secret-word", "http://a/v1#secret"),
    *("http://[::1/v1", "http://[x]/v1", "http://a:99999/v1", "http://a:b/v1", "http://a:-1/v1", "http://a:0/v1"),
    *("http://a b/v1", "http://a\n/v1", "http://a\t/v1", "http://a/\x00", "http://é/v1", "http://a\\b/v1"),
    *("http://" + "a" * 5000 + "/v1", "http://a/" + "b" * 5000, "HTTP//a", "http:/a/v1", "a/v1", "127.0.0.1:8000"),
)


def test_urls_of_judges_and_servers() -> None:
    from mote.harness.recipe.schema import load_recipe
    from mote.judges.llm.endpoint import Endpoint, JudgeError

    def server(url: bytes) -> None:
        part = json.dumps({"urls": [url.decode()]})
        load_recipe("demo", ["model.engine=server", "model.options={}", f"model.servers={part}"])

    cases = [(repr(url[:30]), url.encode()) for url in URLS]
    each("judge URL", iter(cases), lambda url: Endpoint(url.decode(), "m"), must=True, errors=JudgeError)
    each("server URL", iter(cases), server, must=True)
    for url in URLS:
        for read, kind in ((lambda one: Endpoint(one, "m"), JudgeError), (lambda one: server(one.encode()), MoteError)):
            with pytest.raises(kind) as caught:
                read(url)
            assert "secret-word" not in str(caught.value)


COMPLETION: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "[[REFUSED]]"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@contextmanager
def replies(bodies: list[tuple[bytes, dict[str, str], int]]) -> Iterator[tuple[str, list[str]]]:
    """A server that sends each body in turn; what was asked of any other path is noted."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            body, headers, status = bodies.pop(0) if bodies else (b"", {}, 500)
            self.send_response(status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def test_replies_of_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    from mote.judges.llm.client import JudgeClient, UnreachedError
    from mote.judges.llm.endpoint import Endpoint, JudgeError
    from mote.judges.llm.verdict import json_verdict

    monkeypatch.setenv("JUDGE_KEY", "sesame-open-12345")
    cases = [*broken_texts(COMPLETION), *not_json(COMPLETION), *wrong_values(COMPLETION, 90)]
    bodies: list[tuple[bytes, dict[str, str], int]] = [(content, {}, 200) for _, content in cases]
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb") as packed:
        for _ in range(64):
            packed.write(bytes(1 << 20))
    echo = {**COMPLETION, "model": "sesame-open-12345"}
    bodies += [
        (bomb.getvalue(), {"content-encoding": "gzip"}, 200),
        (bomb.getvalue(), {"content-encoding": "gzip, gzip"}, 200),
        (json.dumps(COMPLETION).encode(), {"content-encoding": "x-evil"}, 200),
        *((b"", {"location": "http://evil.example/v1"}, status) for status in (301, 302, 303, 307, 308)),
        (b"", {"location": "/elsewhere"}, 307),
        *((b"x", {"retry-after": after}, 429) for after in ("²", "nan", "-1", "1e999", "9" * 400)),
        (json.dumps(echo).encode(), {}, 200),
    ]
    total = len(bodies)
    found: list[Any] = []

    async def ask(url: str) -> None:
        endpoint = Endpoint(url, "m", "JUDGE_KEY", attempts=1, timeout=30)
        async with JudgeClient(endpoint) as client:
            for _ in range(total):
                try:
                    found.append(await client.complete([{"role": "user", "content": "x"}]))
                except (UnreachedError, JudgeError) as error:
                    said(error)
                    found.append(error)

    with replies(bodies) as (url, asked):
        asyncio.run(ask(url))
    assert set(asked) == {"/v1/chat/completions"}
    assert len(found) == total == len(asked)
    counted["judge reply"] = total
    assert all(isinstance(one, Exception) for one in found[len(cases) : -1])
    assert "sesame" not in str(found)
    assert "redirects to http://evil.example" in str(found)
    json.dumps([str(one) for one in found]).encode()
    verdict = {"explanation": "x", "verdict": "REFUSED"}
    for _, content in (*broken_texts(verdict), *not_json(verdict)):
        assert json_verdict(content.decode("utf-8", "replace"), ["REFUSED", "ANSWERED"]) is None


LAYOUT = ModelLayout("Test", (0, 1), 4, 2)


def packet(counts: int = 4, digest: str = EMPTY_PROFILE.digest) -> str:
    """The field of an answer that holds what the patch observed, as vLLM sends it."""
    seen = {"prompt": ActivationMap(np.ones((2, counts), np.int32), 3, 3)}
    file = io.BytesIO()
    np.save(file, pack(Observation(Receipt(digest, 0, "0"), LAYOUT.layers, seen)))
    return base64.b64encode(file.getvalue()).decode()


def huge() -> str:
    """An array that says it has 10^12 bytes, and has none."""
    file = io.BytesIO()
    write: Any = np.lib.format.write_array_header_1_0
    write(file, {"descr": "|u1", "fortran_order": False, "shape": (10**12,)})
    return base64.b64encode(file.getvalue()).decode()


ANSWER: dict[str, Any] = {
    "choices": [
        {
            "text": "so",
            "finish_reason": "stop",
            "routed_experts": packet(),
            "prompt_logprobs": [None, {"2": {"logprob": -1.0, "rank": 1}}, {"3": {"logprob": -2.0}}],
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


UNREAD = {"half a character", "a long number", "a longer number", "too large a number", "a key twice", "NaN"}
UNREAD |= {"Infinity", "-Infinity"}
"""What stands beside the parts of an answer that are read, or repeats them."""


def answers_of_servers(scores: bool) -> Iterator[tuple[bytes, dict[str, str], int]]:
    """What may come instead of an answer or of scores; every one is to be told apart from one."""
    for name, content in (*broken_texts(ANSWER), *not_json(ANSWER)):
        if name not in UNREAD:
            yield content, {}, 200
    choice: dict[str, Any]
    values: tuple[Any, ...]
    value: Any
    usage: Any
    for name, values in {
        "text": (None, 3, ["x"], {"a": 1}),
        "finish_reason": (3, [], {}),
        "routed_experts": (None, "", "x", 7, "AAAA", packet(5), packet(digest="0" * 64), huge()),
        "prompt_logprobs": (
            "x",
            [1],
            [{}],
            [None, {"9": {"logprob": 1.0}}, None],
            [None, {"2": {"logprob": "x"}}, None],
            [None, {"x": {"logprob": -1.0}}, None],
            [None, {"2": {"rank": 1}}, None],
        ),
    }.items():
        for value in values if scores or name != "prompt_logprobs" else ():
            choice = {**ANSWER["choices"][0], name: value}
            yield json.dumps({**ANSWER, "choices": [choice]}).encode(), {}, 200
    for part in ("\\ud800", "\\udfff x"):
        yield json.dumps(ANSWER).replace('"so"', f'"{part}"').encode(), {}, 200
    for usage in (
        None,
        [],
        "x",
        {},
        *({"prompt_tokens": 3, "completion_tokens": n} for n in ("2", 2.5, None, -1, 2**40)),
    ):
        yield json.dumps({**ANSWER, "usage": usage}).encode(), {}, 200
    for choices in (None, [], "x", [1], ANSWER["choices"] * 2):
        yield json.dumps({**ANSWER, "choices": choices}).encode(), {}, 200
    yield json.dumps({**ANSWER, "usage": {"prompt_tokens": 4, "completion_tokens": 2}}).encode(), {}, 200
    yield b"<html>busy</html>", {"content-type": "text/html"}, 200
    yield b"", {"content-encoding": "gzip"}, 200
    for status in (301, 307, 308):
        yield b"", {"location": "http://evil.example/v1"}, status
    for status in (400, 404, 418, 429, 500, 503):
        for after in ("²", "nan", "-1", "1e999", "9" * 400, "0.01"):
            yield b'{"error": {"message": "\\ud800 no"}}', {"retry-after": after.encode().decode("latin-1")}, status


@pytest.mark.parametrize("scores", [False, True], ids=["answers", "scores"])
def test_replies_of_servers_of_a_study(scores: bool) -> None:
    """Each is the failure of that request: none is a traceback, and none is taken for an answer."""
    from mote.harness.engine.failures import AwayError, BrokenReplyError, RefusedError, UnfitError
    from mote.harness.engine.server import Server
    from mote.harness.engine.stepping import Call
    from mote.harness.engine.wire import Wire
    from mote.harness.recipe.schema import ServersPart

    bodies = [*answers_of_servers(scores), (json.dumps(ANSWER).encode(), {}, 200)]
    total = len(bodies)
    found: list[Any] = []
    params = {"max_tokens": 2, "temperature": 0.0} | ({"prompt_logprobs": 0} if scores else {})
    call = Call("a prompt", [1, 2, 3], EMPTY_PROFILE, params, "prompt")

    async def ask(url: str) -> None:
        wire = Wire()
        await wire.open()
        server = Server(url, ServersPart(urls=[url], timeout=30), LAYOUT, wire)
        server.model, server.context = "m", 256
        for _ in range(total):
            try:
                found.append(await server.ask(0, call))
            except (AwayError, BrokenReplyError, RefusedError, UnfitError) as error:
                said(error)
                found.append(error)
        await wire.close()

    with replies(bodies) as (url, asked):
        asyncio.run(ask(url))
    assert len(found) == total == len(asked)
    counted["scores" if scores else "server reply"] = total
    assert [at for at, one in enumerate(found[:-1]) if not isinstance(one, Exception)] == []
    assert found[-1].text == "so"
    assert found[-1].logprobs[1:] == ([-1.0, -2.0] if scores else [])
    assert max(one.wait for one in found if isinstance(one, AwayError)) < 1


def test_there_were_as_many_as_is_said(request: pytest.FixtureRequest) -> None:
    """The last of this file: it counts what the others tried, where all of them ran before it."""
    if whole(request):
        assert sum(counted.values()) >= 280, counted
