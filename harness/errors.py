"""Errors that are the user's to mend: one line that names what is wrong, where, and the nearest right value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

MOST_SHOWN: Final = 400
"""Characters of a line that says what is wrong: it may quote what a stranger wrote, at any length."""

MOST_NAMES: Final = 12
"""Names that a message lists; whoever needs all of them looks at the command that shows them."""


class MoteError(Exception):
    """A user's mistake. The command line prints the message alone and exits with 2; tracebacks are for our bugs."""


def one_line(message: str) -> str:
    """Return a message as one line that a terminal shows as it is, with its middle left out where it is too long."""
    text = printable(" ".join(message[: 64 * MOST_SHOWN].split()))
    if len(text) <= MOST_SHOWN:
        return text
    head = MOST_SHOWN * 2 // 3
    return f"{text[:head]} … {text[head + 3 - MOST_SHOWN :]}"


def printable(text: str) -> str:
    """Return a text without what a terminal would take for an order: control characters become a question mark."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, or a few of the names when none is close."""
    names = sorted(name for name in known if len(name) <= MOST_SHOWN)
    wrong = wrong[:MOST_SHOWN]
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {a_few(names)}." if names else ""


def a_few(names: Sequence[str]) -> str:
    """Return names with commas, those beyond the first ``MOST_NAMES`` counted."""
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown}, and {len(names) - MOST_NAMES} more"
