"""A server of this process's own: ``mote serve`` on a free port of this machine, shared by all profiles of a model.

Inspect's provider for vLLM does the same. One server for all is what brings the profiles into the same batches.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

from mote.harness.engine.replicas import Replica, Replicas

_PATIENCE: Final = 3600.0
"""Seconds that a server may take until it is up: a large model is read from disk first."""

_ENDS: Final = 30.0
"""Seconds that a server has to end by itself."""


class OwnServer(NamedTuple):
    """Where a server of our own listens, and the key that it asks for."""

    url: str
    key: str


_running: Final[dict[tuple[str, tuple[str, ...]], OwnServer]] = {}
_starting: Final = Lock()


def own_server(model: str, options: Mapping[str, Any]) -> OwnServer:
    """Return the server of a model with these options, started if there is none yet; it ends with this process.

    Raises MoteError, with the last words of its log, where it does not come up.
    """
    words = arguments_of(options)
    with _starting:
        found = _running.get((model, words))
        if found is None:
            found = _running[model, words] = _start(model, words)
    return found


def arguments_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return options by vLLM's names as its command line takes them: a flag for True, ``--no-`` before it for False."""
    words: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return tuple(words)


def _start(model: str, words: tuple[str, ...]) -> OwnServer:
    port, key = _free_port(), secrets.token_urlsafe(24)
    folder = Path(tempfile.mkdtemp(prefix="mote-inspect-"))
    url = f"http://127.0.0.1:{port}/v1"
    run = "from mote.harness.cli.main import main; main()"
    command = [sys.executable, "-c", run, "serve", model, *words, "--port", str(port)]
    # In the environment, where no list of processes shows it.
    replica = Replica(url, command, {**os.environ, "VLLM_API_KEY": key}, folder / "server.log", key)
    replica.start()
    try:
        Replicas([replica], lambda line: None).wait(_PATIENCE)
    except BaseException:
        # What the log says may be needed; the process is not.
        replica.kill()
        raise
    atexit.register(_end, replica, folder)
    return OwnServer(url, key)


def _end(replica: Replica, folder: Path) -> None:
    replica.end()
    limit = time.monotonic() + _ENDS
    while replica.ended() is None and time.monotonic() < limit:
        time.sleep(0.1)
    replica.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
