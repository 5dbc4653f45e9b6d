"""Requests that one process of the ``server`` engine sustains: per CPU second of the client, by kind and endpoints.

    python -m tests.benchmarks.client_speed --out results/reach

The servers are of our own and run in a process of their own: they answer at once with what vLLM's would send, receipts
and maps among it, so that what is measured is the client: rendering, sending, reading, and checking every reply. CPU
time is that of the client's process, all its threads; the model's shape and tokenizer are the demo's.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import time
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from mote.harness.demo import MODEL_DIR
from mote.patches import EMPTY_PROFILE, ActivationMap, Edit, ModelLayout, Observation, Profile, Receipt
from mote.patches.observation import pack
from tests.benchmarks.router_patch import machine

LAYOUT: Final = ModelLayout.from_config(MODEL_DIR)
TEN: Final = Profile("ten", tuple(Edit(layer, 7, "suppress") for layer in LAYOUT.layers) * 2)
CONTEXT: Final = 8192
ANSWER: Final = "Let us see what there is to say about it. " * 20
KINDS: Final = {
    "answers of 200 tokens": 2000,
    "the same, with the prompt's map": 2000,
    "prompts of 1,000 words": 1000,
    "scores of 1,500 tokens": 300,
}


def main() -> None:
    """Measure, print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scores", action="store_true", help="measure scores alone, into a file of their own")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    kinds = {kind: count for kind, count in KINDS.items() if kind.startswith("scores") or not args.scores}
    rows: dict[str, dict[str, float]] = {kind: {} for kind in kinds}
    here, there = multiprocessing.Pipe()
    serving = multiprocessing.get_context("spawn").Process(target=_serve, args=(max(args.endpoints), there))
    serving.start()
    try:
        ports: list[int] = here.recv()
        for endpoints in args.endpoints:
            urls = [f"http://127.0.0.1:{port}/v1" for port in ports[:endpoints]]
            for kind, count in kinds.items():
                rows[kind][str(endpoints)] = round(median(_rate(urls, kind, count) for _ in range(args.rounds)), 1)
                print(f"{kind}, {endpoints} endpoints: {rows[kind][str(endpoints)]} requests a CPU second", flush=True)
    finally:
        serving.kill()
    if args.out is not None:
        report = {"machine": machine(), "rounds": args.rounds, "requests a CPU second, by endpoints": rows}
        (args.out / f"client{'-scores' if args.scores else ''}.json").write_text(json.dumps(report, indent=1) + "\n")


def _rate(urls: list[str], kind: str, count: int) -> float:
    from mote.harness.engine.servers import ServerEngine
    from mote.harness.engine.vllm import Request, Scoring
    from mote.harness.recipe.schema import SamplingPart, ServersPart

    sampling = SamplingPart(temperature=0.6, max_tokens=200, seed=1)
    engine = ServerEngine(ServersPart(urls=urls, window=64), str(MODEL_DIR), LAYOUT, sampling, "<think>")
    words = 1000 if "words" in kind else 20
    messages = [({"role": "user", "content": f"{at} " + "what is there to say " * (words // 5)},) for at in range(50)]
    if kind.startswith("scores"):
        scored = [Scoring(str(at % 50), messages[at % 50], EMPTY_PROFILE, "so it is " * 500) for at in range(count)]
        before = time.process_time()
        done = sum(len(some) for some in engine.score(scored))
    else:
        capture = "prompt" if "map" in kind else None
        asked = [
            Request(str(at % 50), messages[at % 50], (EMPTY_PROFILE, TEN)[at % 2], at, capture) for at in range(count)
        ]
        before = time.process_time()
        done = sum(len(some) for some in engine.generate(asked))
    spent = time.process_time() - before
    if done != count:
        raise RuntimeError(f"{done} of {count} requests were answered")
    return count / spent


class _Serving(asyncio.Protocol):
    """HTTP/1.1, kept alive, one request after the other: enough for a client that sends no chunks."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._read) < end + 4 + length:
                return
            body = self._read[end + 4 : end + 4 + length]
            self._read = self._read[end + 4 + length :]
            reply = _answer(json.loads(body)) if body else _LISTED
            head_out = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(reply)
            self._transport.write(head_out + reply)


_LISTED: Final = json.dumps({"data": [{"id": "m", "max_model_len": CONTEXT}]}).encode()


def _answer(asked: dict[str, Any]) -> bytes:
    first = asked.get("max_tokens") == 1
    own = tuple(asked["prompt"]) if asked.get("prompt_logprobs") is not None else ()
    return _made(asked["vllm_xargs"]["mote"], len(asked["prompt"]), 1 if first else 200, own)


@cache
def _made(entry: str, prompt_tokens: int, tokens: int, own: tuple[int, ...]) -> bytes:
    wanted = json.loads(entry)
    profile = Profile.from_request(wanted["profile"])
    counts = np.random.default_rng(0).integers(0, 50, (len(LAYOUT.layers), LAYOUT.experts), np.int32)
    maps = {"prompt": ActivationMap(counts, 1, 1)} if wanted.get("capture") else {}
    file = io.BytesIO()
    np.save(file, pack(Observation(Receipt(profile.digest, 1, "0"), LAYOUT.layers, maps)))
    choice: dict[str, Any] = {
        "index": 0,
        "text": ANSWER if tokens > 1 else "a",
        "logprobs": None,
        "finish_reason": "length" if tokens == 1 else "stop",
        "stop_reason": None,
        "token_ids": None,
        "routed_experts": base64.b64encode(file.getvalue()).decode(),
    }
    if own:
        rows = [{str(token): {"logprob": -1.25, "rank": 3, "decoded_token": " what"}} for token in own]
        choice["prompt_logprobs"] = [None, *rows[1:]]
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}
    return json.dumps({"id": "cmpl-1", "object": "text_completion", "choices": [choice], "usage": usage}).encode()


def _serve(count: int, there: Connection) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(_Serving, "127.0.0.1", 0) for _ in range(count)]
        there.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
