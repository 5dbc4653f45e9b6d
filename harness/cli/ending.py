"""How a command ends where it does not end well: a signal, a stream that is gone, a full disk, a damaged run.

SIGTERM and SIGHUP end a command as Ctrl-C does: what is stored stays, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final, NoReturn

from rich.console import Console

from mote.harness.errors import one_line
from mote.harness.secrets import hide

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
_MENDED_BY_USERS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_SQLITE: Final = {8: "is read only", 10: "cannot be read or written", 13: "the disk is full", 14: "cannot be opened"}
"""SQLite's primary error codes that are the user's to mend: READONLY, IOERR, FULL, CANTOPEN."""
STOPPED: Final = "Stopped. What was measured is stored; the same command goes on."
_came: list[int] = []


@contextlib.contextmanager
def signals_heard() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt within; one that is ignored, as under ``nohup``, stays so."""
    _came.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {one: signal.getsignal(one) for one in _ENDING}
    for one, handler in kept.items():
        if handler == signal.SIG_DFL:
            signal.signal(one, _heard)
    try:
        yield
    finally:
        for one, handler in kept.items():
            signal.signal(one, handler)


def _heard(number: int, frame: FrameType | None) -> None:
    # A terminal that closes and a manager that waits send both, one after the other: the first is enough.
    for one in _ENDING:
        signal.signal(one, signal.SIG_IGN)
    _came.append(number)
    raise KeyboardInterrupt


def interrupted() -> int:
    """Return the exit code of a command that a signal ended, as a shell has it: 130 for Ctrl-C."""
    return 128 + (_came[0] if _came else signal.SIGINT)


def stopped(console: Console, said: str) -> NoReturn:
    """End a command that was stopped while an engine ran, and say how to go on."""
    # A second Ctrl-C must not tear the first one's end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The terminal may be what went away.
    with contextlib.suppress(OSError):
        console.print(said, soft_wrap=True)
        console.file.flush()
    # vLLM's threads may take long to end, and everything of ours is on the disk.
    os._exit(interrupted())


@contextlib.contextmanager
def stoppable(console: Console, said: str = STOPPED) -> Iterator[None]:
    """Do what may be stopped by Ctrl-C: it ends the command as ``stopped`` does."""
    try:
        yield
    except KeyboardInterrupt:
        stopped(console, said)


def open_streams() -> None:
    """Give a process without standard streams some that lead nowhere, so that no file gets their numbers."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", errors="replace", closefd=False))


def drop_stdout() -> None:
    """Let nothing more be printed: the interpreter would try once more at its end, and fail with a traceback."""
    _drop(sys.stdout)


def _drop(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(message: str) -> NoReturn:
    """Say what is wrong in one line, and exit with 2; the code says it where the line cannot be written."""
    try:
        print(f"mote: {one_line(hide(message))}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _drop(sys.stderr)
    sys.exit(2)


def fail_for_user(error: BaseException) -> None:
    """Fail in a line where an error is the user's to mend: a path, a full disk, a damaged run; else return."""
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _MENDED_BY_USERS):
        drop_stdout()
        fail(f"{error.filename or 'writing'}: {error.strerror}.{_room(error.errno) if error.filename else ''}")
    seen: BaseException | None = error
    while seen is not None:
        code = getattr(seen, "sqlite_errorcode", None)
        if code is not None and (said := _SQLITE.get(code & 0xFF)) is not None:
            fail(f"{_store()}: {said} ({seen}). What was stored stays; once that is mended, the same command goes on.")
        seen = seen.__cause__ or seen.__context__
    _fail_if_damaged()


def _room(number: int | None) -> str:
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return " What was stored stays: make room, and the same command goes on." if full else ""


def _store() -> str:
    if "mote.harness.store.foreign" in sys.modules:
        from mote.harness.store.foreign import opened_here

        for path, _ in opened_here():
            return str(path)
    return "the run's store"


def _fail_if_damaged() -> None:
    """Fail where a run that was read is damaged, and a command broke down over it; else the mistake is ours."""
    if "mote.harness.store.foreign" in sys.modules:
        from mote.harness.store.checking import damage

        if (said := damage()) is not None:
            fail(said)
