"""Servers of one model on this machine, started together, looked after, and ended together: ``mote up``.

Each is a process group of its own (``mote serve``) and has its GPUs to itself. One that ends after it was up is started
again; one that never comes up ends all of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from mote.harness.errors import MoteError

_ENDS: Final = 30.0
"""Seconds that a server has to end by itself."""
_LONG: Final = 60.0
"""Seconds that a server must have been up for its end to be no fault of how it is started."""
_TAIL: Final = 16384


class Replica:
    """One server: its URL, its command and environment, and how it is.

    Attributes:
        url: ends in ``/v1``.
        log: what it says.
        up: whether it answered when it was last asked.
        since: when it was started or, once up, when it came up.
    """

    def __init__(self, url: str, command: Sequence[str], environment: Mapping[str, str], log: Path, key: str) -> None:
        self.url = url
        self.log = log
        self.up = False
        self.since = 0.0
        self._command = list(command)
        self._environment = dict(environment)
        self._key = key
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; what it says is added to the log."""
        self.up, self.since = False, time.monotonic()
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self) -> int | None:
        """Return the exit code of a process that has ended, None while it runs."""
        return self._process.poll() if self._process is not None else None

    def answers(self) -> bool:
        """Return whether it lists its models, within five seconds."""
        request = urllib.request.Request(f"{self.url}/models", headers={"Authorization": f"Bearer {self._key}"})  # noqa: S310
        try:
            # A proxy of the environment knows nothing of this machine's loopback.
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as reply:
                return bool(reply.status == 200)
        except (OSError, ValueError):
            return False

    def last_words(self) -> str:
        """Return the last line of the log that speaks of an error, or else its last line."""
        try:
            lines = self.log.read_bytes()[-_TAIL:].decode(errors="replace").splitlines()
        except OSError:
            return ""
        spoken = [line.strip() for line in lines if line.strip()]
        wrong = [line for line in spoken if line.startswith("mote: ") or "Error" in line]
        return (wrong or spoken or [""])[-1][:300]

    def end(self) -> None:
        """Ask the whole process group to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the whole process group: engine and workers may outlive the server that started them."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


class Replicas:
    """Servers within ``with``; what leaves the block ends them all. ``say`` is told of what changes, in a line."""

    def __init__(self, replicas: Sequence[Replica], say: Callable[[str], None]) -> None:
        self._replicas = list(replicas)
        self._say = say

    def __enter__(self) -> Replicas:
        for one in self._replicas:
            if one.answers():
                raise MoteError(f"{one.url} is taken: something answers there already.")
        for one in self._replicas:
            one.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave half of them running.
        kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for one in self._replicas:
                one.end()
            limit = time.monotonic() + _ENDS
            while time.monotonic() < limit and any(one.ended() is None for one in self._replicas):
                time.sleep(0.1)
            for one in self._replicas:
                one.kill()
        finally:
            signal.signal(signal.SIGINT, kept)

    def wait(self, patience: float, pause: float = 1.0) -> None:
        """Return once all answer. Raises MoteError for one that ends before, and after ``patience`` seconds."""
        began = time.monotonic()
        while missing := [one for one in self._replicas if not one.up]:
            for one in missing:
                if (code := one.ended()) is not None:
                    raise MoteError(f"{one.url} ended with {code} before it was up ({one.log}): {one.last_words()}")
                if one.answers():
                    one.up, one.since = True, time.monotonic()
                    self._say(f"{one.url} is up after {time.monotonic() - began:.0f} s")
            if time.monotonic() - began > patience:
                urls = ", ".join(one.url for one in missing if not one.up)
                raise MoteError(f"{urls}: not up after {patience:g} s ({missing[0].log}): {missing[0].last_words()}")
            time.sleep(pause)

    def watch(self, pause: float = 10.0) -> Iterator[int]:
        """Look after them, again and again; yield how many are up.

        Raises MoteError where one ends soon after it was started: it would do so again.
        """
        while True:
            for one in self._replicas:
                self._look(one)
            yield sum(one.up for one in self._replicas)
            time.sleep(pause)

    def _look(self, one: Replica) -> None:
        lasted = time.monotonic() - one.since
        if (code := one.ended()) is not None:
            if lasted < _LONG:
                raise MoteError(f"{one.url} ended with {code} after {lasted:.0f} s ({one.log}): {one.last_words()}")
            self._say(f"{one.url} ended with {code} and is started again ({one.log})")
            one.kill()
            one.start()
        elif (answers := one.answers()) != one.up:
            one.up, one.since = answers, time.monotonic() if answers else one.since
            self._say(f"{one.url} {'is up' if answers else 'does not answer'}")


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; empty where there is none."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one.strip() for one in given.split(",") if one.strip()]
    try:
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.stdout.split()


def shares(devices: Sequence[str], servers: int, each: int) -> list[str | None]:
    """Return each server's devices; None where there are no GPUs. Raises MoteError where they do not suffice."""
    if not devices:
        return [None] * servers
    if servers * each > len(devices):
        raise MoteError(
            f"{servers} servers of {each} GPUs need {servers * each}; there are {len(devices)}:"
            f" name at most {len(devices) // each} servers, or give each fewer by --tensor-parallel-size."
        )
    return [",".join(devices[at * each : (at + 1) * each]) for at in range(servers)]
