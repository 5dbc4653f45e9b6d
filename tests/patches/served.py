"""A real server for tests: vLLM's OpenAI entry point in a process of its own, and a client with nothing but HTTP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """Status and body of one request; ``chunks`` holds the events of a stream."""

    status: int
    body: dict[str, Any]
    chunks: list[dict[str, Any]]


class Server(NamedTuple):
    """Where a server listens, its process, and its log."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str, timeout: float = 120) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        return Reply(response.status, json.loads(text) if text else {}, [])

    def post(self, path: str, body: dict[str, Any], timeout: float = 120) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, json.dumps({"model": "m", **body}), {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if not body.get("stream") or response.status != 200:
            return Reply(response.status, json.loads(text), [])
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        return Reply(response.status, {}, [json.loads(line) for line in lines])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(folder: Path, log: Path, *options: str, **environment: str) -> Iterator[Server]:
    """Serve a checkpoint until the block ends; engine core and worker run in processes of their own."""
    port = _free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    command += ["--served-model-name", "m", "--dtype", "float32", "--max-model-len", "256", "--max-num-seqs", "16"]
    own = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, *options], stdout=sink, stderr=subprocess.STDOUT, env=os.environ | own | environment
        )
        try:
            yield Server(port, _wait(process, port, log), log)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path, seconds: float = 900) -> subprocess.Popen[bytes]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return process
        except OSError:
            time.sleep(0.3)
        finally:
            connection.close()
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")
