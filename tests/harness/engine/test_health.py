"""Health of servers, with servers of our own: which is asked, when one is left alone, and how it ends."""

from __future__ import annotations

import base64
import io
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from mote.harness.demo import MODEL_DIR
from mote.harness.engine.servers import ServerEngine
from mote.harness.engine.vllm import Request
from mote.harness.errors import MoteError
from mote.harness.recipe.schema import SamplingPart, ServersPart
from mote.patches import ActivationMap, ModelLayout, Observation, Profile, Receipt
from mote.patches.observation import pack
from tests.harness.engine.json_handler import JsonHandler

LAYOUT = ModelLayout.from_config(MODEL_DIR)
SUPPRESSING = Profile.from_request({"edits": [[1, 0, "suppress"]]})
Fault = Callable[[int], int | str | None]


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """An answer that says which prompt, seed and profile it is of."""
    entry = json.loads(asked["vllm_xargs"]["mote"])
    profile = Profile.from_request(entry["profile"])
    shape = (len(LAYOUT.layers), LAYOUT.experts)
    maps = {"prompt": ActivationMap(np.ones(shape, np.int32), 1, 1)} if entry.get("capture") else {}
    file = io.BytesIO()
    np.save(file, pack(Observation(Receipt(profile.digest, 1, "0"), LAYOUT.layers, maps)))
    text = f"{sum(asked['prompt'])} {asked.get('seed')} {profile.digest[:6]}"
    packet = base64.b64encode(file.getvalue()).decode()
    usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": 3}
    return {"choices": [{"text": text, "finish_reason": "stop", "routed_experts": packet}], "usage": usage}


class Asked:
    """What a server was asked, and whether it is there."""

    def __init__(self) -> None:
        self.url = ""
        self.answers = 0
        self.times: list[float] = []
        self.stop: Callable[[], None] = lambda: None


@contextmanager
def a_server(fault: Fault = lambda n: None) -> Iterator[Asked]:
    """Serve; what goes wrong with the n-th request is a status, "broken", "strip", "drop" or "silent"."""
    asked, lock = Asked(), threading.Lock()

    class Handler(JsonHandler, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(200, json.dumps({"data": [{"id": "m", "max_model_len": 256}]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.body())
            with lock:
                asked.times.append(time.monotonic())
                wrong = fault(len(asked.times))
            reply = answer(body)
            if wrong == "drop":
                self.close_connection = True
                self.connection.close()
            elif wrong == "silent":
                time.sleep(5)
            elif isinstance(wrong, int):
                self.send(wrong, b'{"error": {"message": "out of order"}}')
            elif wrong == "broken":
                self.send(200, b'{"choices": [{"text": null')
            else:
                if wrong == "strip":
                    reply["choices"][0].pop("routed_experts")
                with lock:
                    asked.answers += 1
                self.send(200, json.dumps(reply).encode())

    class Serving(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass

    front = Serving(("127.0.0.1", 0), Handler)
    threading.Thread(target=front.serve_forever, daemon=True).start()

    def stop() -> None:
        front.shutdown()
        front.server_close()

    asked.url, asked.stop = f"http://127.0.0.1:{front.server_address[1]}/v1", stop
    try:
        yield asked
    finally:
        stop()


def engine(*servers: Asked, said: list[str] | None = None, **part: Any) -> ServerEngine:
    urls = [server.url for server in servers]
    tell = said.append if said is not None else lambda line: None
    own = ServersPart(urls=urls, **{"window": 8, "patience": 60, **part})
    return ServerEngine(own, str(MODEL_DIR), LAYOUT, SamplingPart(max_tokens=8), "<think>", say=tell)


def requests(count: int) -> list[Request]:
    profiles = (Profile("baseline", ()), SUPPRESSING)
    messages = [[{"role": "user", "content": f"question {at}"}] for at in range(count)]
    return [Request(str(at), messages[at], profiles[at % 2], at) for at in range(count)]


def told(asking: ServerEngine, count: int) -> list[str]:
    found = dict(pair for some in asking.generate(requests(count)) for pair in some)
    return [found[at].raw for at in range(count)]


@pytest.fixture(scope="module")
def expected() -> list[str]:
    with a_server() as one:
        return told(engine(one), 120)


@pytest.mark.parametrize("seed", range(3))
def test_one_server_killed_and_the_other_failing_a_fifth_gives_the_same_rows(expected: list[str], seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    said: list[str] = []
    kill_at = draw.randrange(2, 40)

    def failing(n: int) -> int | str | None:
        return draw.choice((500, 503, 429, "broken", "strip", "drop")) if n > 1 and draw.random() < 0.2 else None

    with a_server(failing) as hurt, a_server() as killed:
        asking = engine(hurt, killed, said=said)
        found: dict[int, str] = {}
        for some in asking.generate(requests(120)):
            found |= {at: answered.raw for at, answered in some}
            if killed.answers >= kill_at:
                killed.stop()
                killed.answers = -(10**6)
        assert [found[at] for at in range(120)] == expected
        assert any(killed.url in line for line in said)


def test_a_dead_server_is_not_asked_again_and_again(expected: list[str]) -> None:
    with a_server(lambda n: "drop" if n > 5 else None) as dead, a_server() as well:
        assert told(engine(dead, well), 120) == expected
        # What was under way when it died, and a check after one second, two, ...
        assert len(dead.times) <= 5 + 8 + 6


def test_a_server_that_is_silent_for_its_time_is_left_alone(expected: list[str]) -> None:
    with a_server(lambda n: "silent" if n > 5 else None) as dead, a_server() as well:
        assert told(engine(dead, well, timeout=0.5), 120) == expected


def test_a_busy_server_rests_as_long_as_it_asks_and_the_other_works(expected: list[str]) -> None:
    with a_server(lambda n: 429 if n == 9 else None) as busy, a_server() as other:
        assert told(engine(busy, other), 120) == expected
        # Half a second at least: what came meanwhile was under way when it said so, however fast the other ends.
        soon = [at for at in busy.times[9:] if at - busy.times[8] < 0.4]
        assert len(soon) < 8
        assert other.answers > 40


def test_the_end_of_patience_is_one_line_and_what_was_answered_is_kept() -> None:
    kept: list[int] = []

    def keep(asking: ServerEngine) -> None:
        for some in asking.generate(requests(100)):
            kept.extend(at for at, _ in some)

    with (
        a_server(lambda n: 500 if n > 50 else None) as one,
        pytest.raises(MoteError, match=r"no server has answered for 1 s; the last said: .*What was answered is stored"),
    ):
        keep(engine(one, patience=1))
    assert len(kept) >= 40


def test_a_patch_that_is_gone_ends_a_study_of_one_server() -> None:
    with (
        a_server(lambda n: "strip" if n > 5 else None) as one,
        pytest.raises(MoteError, match=r"prompt .* got no answer: no server is left.*Start it with `mote serve`"),
    ):
        told(engine(one), 40)
