"""Errors that are the user's to mend: one line that names what is wrong, where, and the nearest right value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MoteError(Exception):
    """A user's mistake. The command line prints the message alone and exits with 2; tracebacks are for our bugs."""


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, or a list of the names when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(names)}." if names else ""
