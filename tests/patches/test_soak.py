"""A soak: 16 clients, many profiles, aborts and nonsense against one server; then every answer against its twin.

The offline twin of a request is asked alone in another engine, so an answer that a batchmate, a cached block, a slot
or an abort had touched would differ. Slots and accounts are counted by the server's own answers staying right to the
end, memory by the processes' resident size.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mote.patches import EMPTY_PROFILE, ModelLayout, Profile, Route, read_observation, request_args
from tests.conftest import Engines
from tests.patches.asking import APPLIED, ROWS, Answer, Ask, ask, random_bias, random_profile, random_prompt
from tests.patches.served import Server, serve
from tests.patches.test_server import body

REQUESTS = int(os.environ.get("MOTE_SOAK_REQUESTS", "2000"))
PROFILES = 300
MIXED = '{"profile": {"edits": [[1, 0, "suppress"], [1, 1, "activate"]]}}'
LONGER = Route((1,), np.tile(np.arange(4, dtype=np.uint16), (200, 1, 1)), 200)
LONG = json.dumps(request_args(EMPTY_PROFILE, route=LONGER)["mote"])
NONSENSE = (
    "{",
    "[]",
    MIXED,
    LONG,
    LONG.replace('"same"', '"start"'),
    '{"profile": {"edits": [[0, 0, "suppress"]]}}',
    '{"profile": {"edits": [[1, 0, "activate"], [1, 4, "activate"], [1, 8, "activate"]]}}',
    '{"profile": {"edits": [[1, 0, "bias", 51]]}}',
    '{"profile": {"edits": []}, "capture": {"what": "prompt", "logits": true}}',
    '{"profile": "none"}',
    '{"profil": {}}',
)
CAPTURES: tuple[Any, ...] = ("prompt", "rows", ROWS, APPLIED, {"what": "prompt", "weights": True})


def resident(server: Server) -> int:
    """Kilobytes of the server and the processes it started."""
    total, family = 0, {server.process.pid}
    statuses = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "status").read_text()
        except OSError:
            continue
        statuses[int(folder.name)] = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    for pid in sorted(statuses):
        if int(statuses[pid].get("PPid", "0")) in family or pid in family:
            family.add(pid)
            total += int(statuses[pid].get("VmRSS", "0 kB").split()[0])
    return total


def routed(layout: ModelLayout, draw: np.random.Generator) -> Ask:
    """A request whose last prompt tokens and first generated ones take random experts, by one of a few routes."""
    prompt = random_prompt(int(draw.integers(40)), int(draw.integers(8, 120)))
    seed = np.random.default_rng(int(draw.integers(2)))
    tokens = 8 + int(draw.integers(8))
    shape = (tokens, len(layout.layers), layout.top_k)
    rows = [seed.permutation(layout.experts)[: layout.top_k] for _ in range(tokens * len(layout.layers))]
    weights = seed.random(shape).astype(np.float32) if draw.random() < 0.5 else None
    ids = np.array(rows, np.uint16).reshape(shape)
    route = Route(layout.layers, ids, 8, "end", weights)
    if draw.random() < 0.3:
        at = sorted(draw.choice(len(prompt), 8, replace=False).tolist())
        route = Route(layout.layers, ids, 8, "role", weights, tuple(at), len(prompt))
    return Ask(prompt, EMPTY_PROFILE, captured(draw), int(draw.integers(1, 24)), route=route)


def captured(draw: np.random.Generator) -> Any:
    """What a request brings back: mostly nothing, else each kind as often."""
    return CAPTURES[int(draw.integers(len(CAPTURES)))] if draw.random() < 0.4 else None


def hang_up(server: Server, sent: Ask) -> None:
    """Start a stream and close the connection after its first event: an aborted request."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=300)
    try:
        request = {"model": "m", **body(sent, prompt=sent.prompt, stream=True)}
        connection.request("POST", "/v1/completions", json.dumps(request), {"Content-Type": "application/json"})
        connection.getresponse().readline()
    finally:
        connection.close()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_soak(checkpoints: Callable[..., Path], engines: Engines, tmp_path: Path) -> None:
    folder = checkpoints("glm4")
    layout = ModelLayout.from_config(folder)
    pool: list[Profile | None] = [
        random_bias(layout, seed, 1 + seed % 30, (4, 2))
        if seed % 3 == 0
        else random_profile(layout, seed, 1 + seed % 30)
        for seed in range(PROFILES)
    ]
    pool += [None, EMPTY_PROFILE]
    draw = np.random.default_rng(7)
    asks: list[Ask] = []
    while len(asks) < REQUESTS:
        if len(asks) % 5 == 4:
            asks.append(routed(layout, draw))
            continue
        profile = pool[int(draw.integers(len(pool)))]
        capture = None if profile is None else captured(draw)
        # Prompts repeat, so that the prefix cache is hit under many profiles.
        prompt = random_prompt(int(draw.integers(40)), int(draw.integers(1, 120)))
        asks.append(Ask(prompt, profile, capture, int(draw.integers(1, 24))))
    answers: dict[int, Answer] = {}
    counts = {"aborted": 0, "refused": 0}
    lock = threading.Lock()

    def client(number: int) -> None:
        sent = asks[number]
        if number % 17 == 3:  # prime to the routes' 5, so that every kind is aborted
            hang_up(server, sent)
            with lock:
                counts["aborted"] += 1
            return
        if number % 19 == 7:
            wrong = {"prompt": sent.prompt, "vllm_xargs": {"mote": NONSENSE[number % len(NONSENSE)]}}
            assert server.post("/v1/completions", wrong, timeout=300).status == 400
            with lock:
                counts["refused"] += 1
            return
        reply = server.post("/v1/completions", body(sent, prompt=sent.prompt), timeout=300)
        assert reply.status == 200, reply.body
        choice = reply.body["choices"][0]
        observation = None if sent.profile is None else read_observation(choice)
        with lock:
            answers[number] = Answer(choice["token_ids"], 0, observation)

    with serve(folder, tmp_path / "log", "--enforce-eager", "--block-size", "32") as server:
        with ThreadPoolExecutor(16) as clients:
            list(clients.map(client, range(REQUESTS // 2)))
            middle = resident(server)
            list(clients.map(client, range(REQUESTS // 2, REQUESTS)))
        assert resident(server) < middle * 1.1, "memory grows"
        assert server.post("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 2}).status == 200
    assert counts["aborted"] + counts["refused"] + len(answers) == REQUESTS
    llm = engines(folder, block_size=32)
    compare(llm, asks, answers)


def compare(llm: Any, asks: list[Ask], answers: dict[int, Answer]) -> None:
    """Every answer equals that of the same request, asked offline."""
    numbers = sorted(answers)
    llm.reset_prefix_cache()
    for number, twin in zip(numbers, ask(llm, [asks[n] for n in numbers]), strict=True):
        sent, got = asks[number], answers[number]
        assert got.tokens == twin.tokens, number
        if sent.profile is None:
            continue
        assert got.observation is not None
        assert twin.observation is not None
        assert got.observation.receipt.digest == sent.profile.digest
        assert got.observation.receipt.route == ("" if sent.route is None else sent.route.digest)
        assert twin.observation.receipt.route == got.observation.receipt.route
        mine, other = got.observation, twin.observation
        for role, counted in mine.maps.items():
            assert counted.counted == counted.total == len(sent.prompt)
            np.testing.assert_array_equal(counted.counts, other.maps[role].counts)
            close(counted.weights, other.maps[role].weights)
        assert mine.maps.keys() == other.maps.keys()
        for role, rows in mine.rows.items():
            np.testing.assert_array_equal(np.sort(rows), np.sort(other.rows[role]))
        for name in ("rows", "row_weights", "row_logits"):
            assert getattr(mine, name).keys() == getattr(other, name).keys()
        for role, weights in mine.row_weights.items():
            close(np.sort(weights), np.sort(other.row_weights[role]))
        for role, logits in mine.row_logits.items():
            close(logits, other.row_logits[role])


def close(mine: Any, other: Any) -> None:
    """Sums of other batches: the same up to their order. None is close to None."""
    assert (mine is None) == (other is None)
    if mine is not None:
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-3)
