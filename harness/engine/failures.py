"""What a server may do wrong, told apart by what follows from it, and how that is said in a line.

A server can't be asked at present (``AwayError``), this reply is none (``BrokenReplyError``), this server doesn't take
the request (``RefusedError``), or it isn't a server for this study at all (``UnfitError``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from mote.harness.errors import MoteError

_BUSY: Final = frozenset({408, 409, 425, 429})
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")


class AwayError(Exception):
    """A server is busy, broken or silent: the request may be asked again.

    ``wait`` are the seconds that it asked for, 0 if none; ``busy`` where it is there and says so.
    """

    def __init__(self, message: str, wait: float = 0.0, *, busy: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.busy = busy


class BrokenReplyError(Exception):
    """A server answered with what is no answer to the request. ``doubt`` where it may be another server by now."""

    def __init__(self, message: str, *, doubt: bool = False) -> None:
        super().__init__(message)
        self.doubt = doubt


class RefusedError(Exception):
    """A server does not take a request, whoever sends it and however often."""


class UnfitError(MoteError):
    """A server is none for this study: it has no patch, another model, or limits of its own."""


def of_status(status: int, body: Any, reason: str, retry_after: str) -> AwayError | RefusedError:
    """Return what a status of 400 and above means. ``body`` is the reply as JSON, None where it is none."""
    said = words_of(body) or f"{status} {reason}".strip()
    if status in _BUSY or status >= 500:
        wait = float(retry_after) if _SECONDS.fullmatch(retry_after) else 0.0
        return AwayError(said, wait, busy=status in _BUSY)
    return RefusedError(said)


def words_of(body: Any) -> str:
    """Return a server's own words on an error in one line; empty where it has none."""
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    text = inner.get("message") if isinstance(inner, Mapping) else None
    return in_one_line(text or "")


def in_one_line(text: object) -> str:
    """Return a text in one line of at most 300 characters."""
    return " ".join(str(text).split())[:300]


def first_error(error: ValidationError) -> str:
    """Return in a line what is wrong first in a reply, and where."""
    found = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in found["loc"])[:80]
    return f"{where}: {found['msg'][:120]}" if where else str(found["msg"])[:120]
