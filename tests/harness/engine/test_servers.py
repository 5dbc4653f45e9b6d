"""A study on servers: the real one, serving the demo model, and in front of it a proxy that fails as servers do."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from rich.console import Console

from mote.harness.demo import MODEL_DIR
from mote.harness.engine.model import resolve_model
from mote.harness.engine.servers import ServerEngine
from mote.harness.engine.vllm import Request, Scoring
from mote.harness.errors import MoteError
from mote.harness.recipe.schema import SamplingPart, ServersPart, load_recipe
from mote.harness.store.run import RunStore
from mote.harness.study import run as study
from mote.judges import JUDGE
from mote.patches import EMPTY_PROFILE, Edit, ModelLayout, Profile
from mote.tasks import load_task
from tests.harness.engine.json_handler import JsonHandler
from tests.patches.served import Server, serve

SAMPLING = SamplingPart(temperature=0.6, max_tokens=24, seed=3)
PROMPT = load_task("refusal_grid")[0]
TUNED = Profile("some", tuple(Edit(layer, expert, "suppress") for layer in range(1, 6) for expert in range(48)))
SMALL = [
    "task.limit=42",
    "study.top_k=2",
    "study.doses=[]",
    "study.factors=[]",
    "study.thirds=false",
    "study.tokens=0",
    "study.controls.uniform=1",
    "study.controls.layers=1",
    "study.controls.frequency=1",
]
Fault = Callable[[str, int, bytes], int | str | None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("served") / "log"
    # Defaults of its own, as the makers of some models recommend them: a study must not be touched by them.
    own = json.dumps({"top_k": 1, "repetition_penalty": 1.7, "presence_penalty": 1.0})
    options = ["--enforce-eager", "--no-enable-chunked-prefill", "--override-generation-config", own]
    with serve(MODEL_DIR, log, *options) as running:
        yield running


@contextmanager
def proxy(target: Server, fault: Fault) -> Iterator[str]:
    """Pass requests on, but for those that ``fault(path, n)`` names: a status, "broken", "strip" or "drop"."""
    seen = {"n": 0}
    lock = threading.Lock()

    class Handler(JsonHandler, BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass_on("GET", b"")

        def do_POST(self) -> None:
            self._pass_on("POST", self.body())

        def _pass_on(self, method: str, body: bytes) -> None:
            with lock:
                seen["n"] += method == "POST"
                wrong = fault(self.path, seen["n"], body)
            if wrong == "drop":
                self.close_connection = True
                self.connection.close()
                return
            if wrong == "broken":
                self.send(200, b'{"choices": [{"text": null')
                return
            if isinstance(wrong, int):
                self.send(wrong, json.dumps({"error": {"message": "out of order"}}).encode())
                return
            try:
                connection = HTTPConnection("127.0.0.1", target.port, timeout=60)
                connection.request(method, self.path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                found = json.loads(response.read())
            except (OSError, HTTPException):
                # The server behind has gone: whoever asked sees its connection end.
                self.close_connection = True
                self.connection.close()
                return
            if wrong == "strip":
                for choice in found["choices"]:
                    choice.pop("routed_experts", None)
            if wrong == "twice":
                found["data"] *= 2
            self.send(response.status, json.dumps(found).encode())

    front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=front.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{front.server_address[1]}/v1"
    finally:
        front.shutdown()
        front.server_close()


def engine(*urls: str, layout: ModelLayout | None = None, said: list[str] | None = None, **part: Any) -> ServerEngine:
    servers = ServersPart(urls=list(urls), window=4, **{"attempts": 3, "patience": 60, **part})
    own = layout or ModelLayout.from_config(MODEL_DIR)
    tell = said.append if said is not None else lambda line: None
    return ServerEngine(servers, str(MODEL_DIR), own, SAMPLING, "<think>", say=tell)


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/v1"


def asked(count: int) -> list[Request]:
    prompts = load_task("refusal_grid")[:count]
    return [Request(each.id, each.messages, (EMPTY_PROFILE, TUNED)[at % 2], at) for at, each in enumerate(prompts)]


def rows(folder: Path) -> list[tuple[Any, ...]]:
    with RunStore(folder) as store:
        frame = store.generations_frame(JUDGE).sort_values(["profile", "prompt_id"])
        _, maps, _ = store.maps("baseline", "prompt")
    columns = ["prompt_id", "profile", "seed", "raw", "prompt_tokens", "generated_tokens", "finish_reason", "label"]
    return [*frame[columns].itertuples(index=False, name=None), maps.sum(axis=0).tolist()]


def ask_study(folder: Path, *more: str) -> None:
    study.run(study.check(load_recipe("demo", [*SMALL, *more])), folder, Console(quiet=True), force=True)


def away(*urls: str) -> list[str]:
    return ["model.engine=server", "model.options={}", f"model.servers.urls=[{', '.join(urls)}]"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study on vLLM in this process."""
    folder = tmp_path_factory.mktemp("here") / "run"
    ask_study(folder)
    return folder


@pytest.mark.slow  # more than five minutes beside other work
def test_a_study_on_servers_has_the_rows_of_one_in_this_process(server: Server, here: Path, tmp_path: Path) -> None:
    ask_study(tmp_path / "away", *away(url(server), url(server)))
    assert rows(tmp_path / "away") == rows(here)
    # Where the answers came from may change between two starts of one run.
    ask_study(tmp_path / "away", *away(url(server)))


@pytest.mark.slow  # a reply in doubt costs a check of the server, and the checks fail as often
@pytest.mark.timeout(1200)
def test_a_study_ends_by_itself_where_one_server_dies_and_the_other_fails_a_fifth(
    server: Server, here: Path, tmp_path: Path
) -> None:
    draw = random.Random(7)  # noqa: S311
    faults = (503, "broken", "drop", 429, "strip")
    asked_of = {"dying": 0, "failing": 0}

    def dying(path: str, n: int, body: bytes) -> str | None:
        asked_of["dying"] += n <= 30
        return "drop" if n > 30 else None

    def failing(path: str, n: int, body: bytes) -> int | str | None:
        asked_of["failing"] += 1
        return draw.choice(faults) if draw.random() < 0.2 else None

    with proxy(server, dying) as one, proxy(server, failing) as other:
        ask_study(tmp_path / "hurt", *away(one, other))
    assert rows(tmp_path / "hurt") == rows(here)
    assert min(asked_of.values()) > 20


def test_scores_over_http_are_those_of_the_profile(server: Server) -> None:
    requests = [Scoring(PROMPT.id, PROMPT.messages, each, "I am sorry") for each in (EMPTY_PROFILE, TUNED)]
    found = dict(pair for some in engine(url(server)).score(requests) for pair in some)
    assert "".join(found[0].tokens).strip() == "I am sorry"
    assert all(value < 0 for each in found.values() for value in each.logprobs)
    assert sum(found[0].logprobs) != pytest.approx(sum(found[1].logprobs), abs=1e-3)
    assert found[1].observation.receipt.digest == TUNED.digest


@pytest.mark.parametrize("wrong", [503, 429, "drop"])
def test_a_server_that_fails_for_a_while_costs_no_answer(server: Server, wrong: int | str) -> None:
    # A check's GETs do not count as requests: they would meet the fifth's fault for ever.
    with proxy(server, lambda path, n, body: wrong if body and n in (2, 3, 5) else None) as front:
        found = [index for some in engine(front).generate(asked(8)) for index, _ in some]
    assert sorted(found) == list(range(8))


def test_a_server_that_dies_leaves_its_requests_to_the_others(server: Server) -> None:
    with proxy(server, lambda path, n, body: "drop" if n > 3 else None) as front:
        found = [index for some in engine(front, url(server)).generate(asked(12)) for index, _ in some]
    assert sorted(found) == list(range(12))


def test_what_no_server_answers_ends_in_one_line(server: Server) -> None:
    with (
        proxy(server, lambda path, n, body: 500 if n > 1 else None) as front,
        pytest.raises(MoteError, match=r"prompt .* got no answer: no server has answered for 2 s.*out of order"),
    ):
        list(engine(front, patience=2).generate(asked(2)))


def test_a_request_without_an_answer_is_counted_and_keeps_no_other(server: Server) -> None:
    worst: list[bytes] = []

    def fault(path: str, n: int, body: bytes) -> str | None:
        if n == 3:
            worst.append(body)
        return "broken" if body in worst else None

    found: list[int] = []
    with proxy(server, fault) as front, pytest.raises(MoteError, match=r"1 requests got no answer; prompt .* 3 times"):
        found.extend(index for some in engine(front).generate(asked(8)) for index, _ in some)
    assert len(found) == 7


def test_one_server_is_enough_to_start_and_the_other_joins(server: Server) -> None:
    said: list[str] = []
    with proxy(server, lambda path, n, body: "drop" if not said else None) as front:
        asking = engine(front, url(server), said=said)
        assert "nothing answers there" in said[0]
        assert said[0].endswith("1 of 2 servers can be asked.")
        time.sleep(1)
        for _ in range(3):
            assert len([index for some in asking.generate(asked(12)) for index, _ in some]) == 12
    assert said[1:] == [f"{front} answers again."]


def test_a_server_that_is_another_when_it_comes_back_is_not_asked_again(server: Server) -> None:
    said = [""]

    def fault(path: str, n: int, body: bytes) -> int | str | None:
        return "twice" if path.endswith("models") and n > 4 else 503 if 2 < n < 6 else None

    with proxy(server, fault) as front:
        asking = engine(front, url(server), said=said)
        while "not asked again" not in said[-1]:
            assert len([index for some in asking.generate(asked(12)) for index, _ in some]) == 12
            time.sleep(0.4)
    assert (
        said[-1] == f"{front} is not asked again: server {front} lists 2 models; a study needs a server of one model."
    )


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda path, n, body: "strip" if n else None, r"a first request under 'baseline'.*Start it with `mote serve`"),
        (lambda path, n, body: "twice" if path.endswith("models") else None, "lists 2 models"),
        (lambda path, n, body: 404 if n else None, "refused a first request: out of order"),
    ],
)
def test_a_server_without_the_patch_or_the_model_is_refused_at_the_start(
    server: Server, fault: Fault, words: str
) -> None:
    with proxy(server, fault) as front, pytest.raises(MoteError, match=words):
        engine(front)


def test_a_receipt_that_is_lost_later_is_noticed(server: Server) -> None:
    with (
        proxy(server, lambda path, n, body: "strip" if n > 2 else None) as front,
        pytest.raises(MoteError, match=r"prompt '.*' under '"),
    ):
        list(engine(front, patience=5).generate(asked(4)))


def test_a_request_that_is_refused_is_named_and_nothing_is_left_running(server: Server) -> None:
    far = Profile("far", (Edit(77, 0, "suppress"),))
    with pytest.raises(MoteError, match=r"refused prompt .* under 'far': .*77"):
        list(engine(url(server)).generate([Request(PROMPT.id, PROMPT.messages, far, 0)]))
    running = engine(url(server))
    next(iter(running.generate(asked(12))))
    assert not any(each.running for each in running._servers)


def test_nobody_there_and_another_model_are_one_line(server: Server) -> None:
    with pytest.raises(MoteError, match=r"server http://127\.0\.0\.1:9/v1: nothing answers there"):
        engine("http://127.0.0.1:9/v1")
    with pytest.raises(MoteError, match=r"nothing answers there.*None of 2 servers can be asked"):
        engine("http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1")
    own = resolve_model("demo").layout
    for layers, experts in ((own.layers[1:], own.experts), (own.layers, 2 * own.experts)):
        with pytest.raises(MoteError, match=r"it is another model\."):
            engine(url(server), layout=ModelLayout(own.architecture, layers, experts, own.top_k))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_server_killed_in_the_midst_and_another_that_fails_a_fifth(
    server: Server, here: Path, tmp_path: Path
) -> None:
    """Two real servers: one ends by SIGKILL, the other fails a fifth of its requests."""
    draw, asked_of = random.Random(11), {"killed": 0}  # noqa: S311

    def failing(path: str, n: int, body: bytes) -> int | str | None:
        return draw.choice((503, "broken", "drop", 429, "strip")) if draw.random() < 0.2 else None

    with serve(MODEL_DIR, tmp_path / "log", "--enforce-eager", "--no-enable-chunked-prefill") as doomed:

        def killing(path: str, n: int, body: bytes) -> None:
            asked_of["killed"] = n
            if n == 30:
                doomed.process.kill()

        with proxy(server, failing) as one, proxy(doomed, killing) as other:
            ask_study(tmp_path / "hurt", *away(one, other))
    assert rows(tmp_path / "hurt") == rows(here)
    assert asked_of["killed"] >= 30


@pytest.mark.slow
def test_a_limit_of_the_servers_own_is_noticed(tmp_path: Path) -> None:
    short = json.dumps({"max_new_tokens": 3})
    with (
        serve(MODEL_DIR, tmp_path / "log", "--enforce-eager", "--override-generation-config", short) as running,
        pytest.raises(MoteError, match=r"stopped after 3 of 24 tokens; start it with --generation-config vllm"),
    ):
        list(engine(url(running)).generate(asked(1)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.engine=server"], "options are for vLLM in this process|needs servers.urls"),
        (["model.engine=server", "model.options={}", "model.servers.urls=[127.0.0.1:8000]"], "model.servers.urls.0"),
        (["model.servers.urls=[http://127.0.0.1:8000/v1]"], "set engine: server"),
    ],
)
def test_a_recipe_says_where_its_engine_is(settings: list[str], words: str) -> None:
    with pytest.raises(MoteError, match=words):
        load_recipe("demo", settings)
