"""URLs that are none, and what judges' servers may send: 120 replies over real HTTP, bombs and redirects among them."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mote.harness.errors import MoteError
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


def test_there_were_as_many_as_is_said(request: pytest.FixtureRequest) -> None:
    """The last of this file: it counts what the others tried, where all of them ran before it."""
    if whole(request):
        assert sum(counted.values()) >= 180, counted
