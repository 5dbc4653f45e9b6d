"""The engine's own words go to a file: vLLM, torch and their C++ print to the process's streams; the terminal is ours.

File descriptors are redirected: most of what vLLM prints does not pass through Python. Where ``sys.stdout`` is none of
them, as in a notebook, one of them stands in its place: vLLM's logger takes what it finds there as it is imported, and
would fill the notebook. Before the run's folder exists, the words wait in a temporary file, so that a refused recipe
leaves nothing behind.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from rich.console import Console

from mote.harness.files import open_own


class EngineLog:
    """While open, file descriptors 1 and 2 write to a log, and the console still to the terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._saved: dict[int, int] = {}
        self._console_file: IO[str] | None = None
        self._apart: dict[str, IO[str]] = {}

    def __enter__(self) -> Self:
        """Redirect the streams."""
        self._flush()
        self._saved = {fd: os.dup(fd) for fd in (1, 2)}
        # A console on a captured or in-memory stream (tests, notebooks) keeps it.
        if _descriptor(self._console.file) in self._saved:
            self._console_file = self._console.file
            terminal = os.dup(self._saved[_descriptor(self._console_file)])
            self._console.file = os.fdopen(terminal, "w", encoding="utf-8", buffering=1)
        else:
            self._console.file = self._console_file = self._console.file
        for fd, name in ((1, "stdout"), (2, "stderr")):
            stream = getattr(sys, name)
            if _descriptor(stream) not in self._saved:
                self._apart[name] = stream
                setattr(sys, name, open(fd, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False))
        self._redirect()
        return self

    def keep(self, path: Path) -> None:
        """Go on in a file of the run's folder, behind what earlier starts wrote there."""
        self._flush()
        kept = open_own(path)
        self._file.seek(0)
        kept.write(self._file.read())
        kept.flush()
        self._file.close()
        self._file = kept
        self._redirect()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the streams back."""
        self._flush()
        for name, stream in self._apart.items():
            setattr(sys, name, stream)
        self._apart = {}
        for fd, saved in self._saved.items():
            os.dup2(saved, fd)
            os.close(saved)
        self._saved = {}
        if self._console_file is not None:
            if self._console.file is not self._console_file:
                self._console.file.close()
            self._console.file = self._console_file
        self._file.close()

    def _redirect(self) -> None:
        for fd in self._saved:
            os.dup2(self._file.fileno(), fd)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


def temporary_log(command: str) -> Path:
    """Return a new file for the engine's words, in the folder for temporary files, which stays there."""
    # A name of its own each time: one that others know beforehand could be a link of theirs by now.
    handle, name = tempfile.mkstemp(prefix=f"mote-{command}-", suffix=".log")
    os.close(handle)
    return Path(name)


def _descriptor(stream: IO[str]) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return -1
