"""Character n-grams of the parts of an answer, hashed: which words open it, speak for the speaker, and end it.

The parts have places of their own, so that "I cannot" as the first words of an answer and inside its last lines are two
features. Hashes are of the code points, computed here, so that a stored model means the same on every machine.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mote.judges.words import HAN

BITS: Final = 15
SIZE: Final = 1 << BITS
"""Places of each part: a model has ``SIZE * len(PARTS)`` weights a class for n-grams."""
ORDERS: Final = (2, 3, 4, 5)
PARTS: Final = ("opening", "speaker", "ending")
_OPENING, _SPEAKER, _ENDING = 320, 400, 240
_OPENING_HAN, _SPEAKER_HAN, _ENDING_HAN = 120, 160, 90
"""Characters of each part in text that is mostly Latin and mostly Chinese: about fifty, sixty and forty words."""

_HAN = re.compile(f"[{HAN}]")
_SPEAKS = re.compile(r"\b(?:I|I'm|I'll|I'd|I've|my|me|you|your)\b|我|您|你|本助手|作为", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?。！？；\n]+[.!?。！？；\n]*")
_BLANKS = re.compile(r"\s+")
_DIGITS = re.compile(r"\d")
_HEAD = 6_000
"""Characters in which the speaker's sentences are looked for."""


def parts(answer: str) -> tuple[str, str, str]:
    """Return what opens an answer, its first sentences about speaker or reader, and what ends it, in lower case."""
    han = len(_HAN.findall(answer[:400])) > 0.3 * len(answer[:400])
    opening, speaker, ending = (_OPENING_HAN, _SPEAKER_HAN, _ENDING_HAN) if han else (_OPENING, _SPEAKER, _ENDING)
    text = _plain(answer[: 2 * opening])[:opening]
    spoken = ""
    for sentence in _SENTENCE.finditer(answer[:_HEAD].replace("’", "'")):
        if _SPEAKS.search(sentence[0]):
            spoken += _plain(sentence[0]) + " "
            if len(spoken) >= speaker:
                break
    return text, spoken[:speaker], _plain(answer[-2 * ending :])[-ending:]


def _plain(text: str) -> str:
    """Return ``text`` in lower case, one blank for any white space, straight apostrophes, one digit for all."""
    return _DIGITS.sub("0", _BLANKS.sub(" ", text.replace("’", "'").replace("*", "")).strip().lower())


def hashed(text: str) -> NDArray[np.int64]:
    """Return the places, 0 to ``SIZE - 1``, of the n-grams of ``text``, each once and in order."""
    points = np.frombuffer(f" {text} ".encode("utf-32-le", errors="replace"), dtype=np.uint32).astype(np.uint64)
    found = []
    with np.errstate(over="ignore"):
        grams = np.full(len(points), 1469598103934665603, dtype=np.uint64)
        for order in range(1, max(ORDERS) + 1):
            if len(points) < order:
                break
            grams = (grams[: len(points) - order + 1] ^ points[order - 1 :]) * np.uint64(1099511628211)
            grams ^= grams >> np.uint64(29)
            if order in ORDERS:
                found.append(((grams * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - BITS)).view(np.int64))
    seen = np.zeros(SIZE, dtype=np.bool_)
    for hashes in found:
        seen[hashes] = True
    return np.flatnonzero(seen)


def places(answer: str) -> list[NDArray[np.int64]]:
    """Return the places of the n-grams of each part, counted through over all of them."""
    return [
        hashed(part) + number * SIZE if part else np.zeros(0, dtype=np.int64)
        for number, part in enumerate(parts(answer))
    ]
