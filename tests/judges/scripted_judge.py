"""A judge that does what a test tells it: a real HTTP server on 127.0.0.1 that speaks the chat completions API.

The script is a function from the request's body and the number of times the same messages' task was asked before to
one step: say something, fail, hang, or send rubbish.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Say:
    """Answer with a text; ``reasoning`` goes into the field of its own that some servers have."""

    text: str | None
    finish: str = "stop"
    reasoning: str | None = None


@dataclass(frozen=True)
class Fail:
    """Answer with an HTTP status."""

    status: int
    body: dict[str, Any] = field(default_factory=lambda: {"error": {"message": "scripted"}})
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hang:
    """Take the request and say nothing; with ``drip``, send a blank now and then."""

    drip: bool = False


@dataclass(frozen=True)
class Rubbish:
    """Answer 200 with something that is no chat completion."""

    text: str = "<html>gateway</html>"
    kind: str = "text/html"


Step = Say | Fail | Hang | Rubbish
Script = Callable[[dict[str, Any], int], Step]


@dataclass
class ScriptedJudge:
    """What a test sees of the server: its URL, every request, and how many were under way at once."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0

    def prompts(self) -> list[str]:
        """The last message of each request."""
        return [str(request["messages"][-1]["content"]) for request in self.requests]


@contextmanager
def scripted_judge(script: Script, key: Callable[[str], object] = lambda prompt: prompt) -> Iterator[ScriptedJudge]:
    """Run the server as long as the block lasts. ``key`` makes of the last message what repetitions are counted by."""
    seen = ScriptedJudge()
    lock, closing = threading.Lock(), threading.Event()
    counts: dict[object, int] = {}
    now = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet, at once: else each reply waits 40 ms for a delayed acknowledgement.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            nonlocal now
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                now += 1
                seen.most_at_once = max(seen.most_at_once, now)
                seen.requests.append(body)
                seen.headers.append({name.lower(): value for name, value in self.headers.items()})
                what = key(body["messages"][-1]["content"])
                number = counts[what] = counts.get(what, -1) + 1
            try:
                self._do(script(body, number), body)
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                with lock:
                    now -= 1

        def _do(self, step: Step, body: dict[str, Any]) -> None:
            if isinstance(step, Say):
                message = {"role": "assistant", "content": step.text}
                if step.reasoning is not None:
                    message["reasoning_content"] = step.reasoning
                reply = {
                    "id": "scripted",
                    "object": "chat.completion",
                    "created": 0,
                    "model": body["model"],
                    "choices": [{"index": 0, "message": message, "finish_reason": step.finish}],
                    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
                }
                self._send(200, json.dumps(reply).encode())
            elif isinstance(step, Fail):
                self._send(step.status, json.dumps(step.body).encode(), step.headers)
            elif isinstance(step, Rubbish):
                self._send(200, step.text.encode(), {"Content-Type": step.kind})
            elif step.drip:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                self.wfile.flush()
                while not closing.wait(0.05):
                    self.wfile.write(b" ")
                    self.wfile.flush()
            else:
                closing.wait()

        def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    seen.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield seen
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
