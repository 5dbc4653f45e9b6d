"""A model's text on a page: made visible, cut to a length, its differences marked. Never trusted.

Model output may hold markup, characters that turn the direction of writing, control characters, and any length of
it. Markup is escaped; what would act unseen is replaced by its name in brackets, so that a reader sees that it was
there; and the page isolates every piece of it (``<bdi>``) and clips it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Final, NamedTuple

from markupsafe import Markup, escape

HEAD: Final = 800
"""Characters of an example that are shown at once, and compared; the rest unfolds."""

MOST: Final = 60_000
"""Characters of an example that the page holds at all."""

# Control characters but for tab and newline, and all that reorders text: marks, embeddings, overrides, isolates.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_WORDS: Final = re.compile(r"\s+|\w+|[^\w\s]")
_WHOLE: Final = 0.85
_SHARED: Final = 3
"""Words that must be shared in a row, but for those that open or close both: any two texts share an "in the"."""


class Marked(NamedTuple):
    """A text for the page: its head with differences marked, the rest, and how many characters there are in all.

    ``whole``: the two texts share next to nothing, so that no words are marked.
    """

    head: Markup
    rest: str
    length: int
    cut: int
    whole: bool


def visible(text: str) -> str:
    """Return the text with every character that acts unseen replaced by its code point: ``[U+202E]``."""
    return _UNSEEN.sub(lambda match: f"[U+{ord(match[0]):04X}]", text.replace("\r\n", "\n"))


def clip(text: str, length: int) -> str:
    """Return the visible text, cut to a length with the number of characters left out."""
    shown = visible(text[:length])
    return f"{shown} … [{len(text) - length:,} more characters]" if len(text) > length else shown


def compare(before: str, after: str) -> tuple[Marked, Marked]:
    """Return two texts for the page, the words of each that the other has not wrapped in ``<mark>``."""
    left, right = _WORDS.findall(visible(before[:HEAD])), _WORDS.findall(visible(after[:HEAD]))
    own_left, own_right = [True] * len(left), [True] * len(right)
    for a, b, size in SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks():
        same = left[a : a + size]
        opens, closes = a == b == 0, a + size == len(left) and b + size == len(right)
        if opens or closes or sum(word[0].isalnum() for word in same) >= _SHARED:
            own_left[a : a + size] = own_right[b : b + size] = [False] * size
    words = sum(len(word) for word in left + right)
    alone = sum(len(word) for word, own in zip(left + right, own_left + own_right, strict=True) if own)
    if alone > _WHOLE * words:
        return _marked(before, left, [False] * len(left), True), _marked(after, right, [False] * len(right), True)
    return _marked(before, left, own_left, False), _marked(after, right, own_right, False)


def _marked(text: str, words: Sequence[str], own: Sequence[bool], whole: bool) -> Marked:
    head = Markup("").join(
        Markup("<mark>{}</mark>").format(run) if marked and run.strip() else escape(run)
        for run, marked in _runs(words, own)
    )
    if len(text) > HEAD:
        head += "…"
    return Marked(head, visible(text[HEAD:MOST]), len(text), max(0, len(text) - MOST), whole)


def _runs(words: Sequence[str], own: Sequence[bool]) -> Iterator[tuple[str, bool]]:
    start = 0
    for i in range(1, len(words) + 1):
        if i == len(words) or own[i] != own[start]:
            yield "".join(words[start:i]), own[start]
            start = i
