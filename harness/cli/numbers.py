"""Options that take several whole numbers."""

from __future__ import annotations

from mote.harness.errors import MoteError


def whole_numbers(option: str, text: str, example: str, digits: int = 9) -> tuple[int, ...]:
    """Return the different numbers of a list with commas, each of so many digits at most, in their order.

    Raises MoteError, with an example, for anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= digits for part in parts):
        raise MoteError(f"{option} {text}: write numbers with commas, for instance {option} {example}.")
    return tuple(dict.fromkeys(int(part) for part in parts))
