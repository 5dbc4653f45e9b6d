"""Words with their places: the unit in which the rules count length, repetition and language.

A word is a run of Latin letters (with inner apostrophes), a number, a single Han character, or a run of letters of any
other script. Chinese has no blanks between words; 1.5 Han characters stand for one English word, the ratio at which
translations of the same text come out equally long.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
KANA = "\u3040-\u30ff\u31f0-\u31ff"
HAN_PER_WORD = 1.5

_LATIN = rf"[{LATIN}]+(?:['’ʻʼ][{LATIN}]+)*"
_PARTS = (_LATIN, f"[{HAN}]", r"\d+(?:[.,:]\d+)*", rf"[^\W\d_{LATIN}{HAN}]+")
_KINDS = ("", "latin", "han", "number", "other")
_WORD = re.compile("|".join(_PARTS))
_KIND = re.compile("|".join(f"({part})" for part in _PARTS))
"""As ``_WORD``; the number of the group that matched is that of the word's kind."""
_LATIN_WORD = re.compile(_LATIN)
_HAN = re.compile(f"[{HAN}]")

_BLOCK = r"```.*?(?:```|$)|\$\$.{1,500}?\$\$|\\\[.{1,500}?\\\]|\\\(.{1,500}?\\\)"
_BLOCKS = re.compile(_BLOCK, re.DOTALL)
_CODE = re.compile(_BLOCK + r"|`[^`\n]+`|https?://\S+|www\.\S+", re.DOTALL)

_OPENS_CODE = ("`", "$$", "\\", "http", "www.")


class Word(NamedTuple):
    """A word in lower case, its place in the text, and its kind: ``latin``, ``han``, ``number``, ``other``."""

    text: str
    start: int
    end: int
    kind: str


@lru_cache(maxsize=16)
def words(text: str) -> tuple[Word, ...]:
    """Return the words of ``text`` in order. The last few texts are kept: one label asks for the same words often."""
    return tuple(Word(m[0].lower().replace("’", "'"), m.start(), m.end(), _kind(m)) for m in _KIND.finditer(text))


def _kind(match: re.Match[str]) -> str:
    kind = _KINDS[match.lastindex or 0]
    return "number" if kind == "other" and match[0][0].isdigit() else kind  # such as ² and ①


def latin_words(text: str) -> list[str]:
    """Return the words of Latin letters in ``text`` as they are written, without their places."""
    return _LATIN_WORD.findall(text)


def length(text: str) -> float:
    """Return the length of ``text`` in English words; a Han character counts 1/1.5."""
    han = len(_HAN.findall(text))
    return len(_WORD.findall(text)) - han + han / HAN_PER_WORD


def blank(text: str, pattern: re.Pattern[str]) -> str:
    """Return ``text`` with every match of ``pattern`` replaced by as many blanks, so that places stay as they are."""
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def without_code(text: str) -> str:
    """Return ``text`` with code, formulas and addresses blanked: they are in no language."""
    return blank(text, _CODE) if any(map(text.__contains__, _OPENS_CODE)) else text


def without_blocks(text: str) -> str:
    """Return ``text`` with blocks of code and set formulas blanked: they repeat by nature, as in a matrix of zeros."""
    return blank(text, _BLOCKS) if any(map(text.__contains__, _OPENS_CODE)) else text


@lru_cache(maxsize=4096)
def scripts(character: str) -> frozenset[str]:
    """Return the scripts of ``character`` by Unicode's names (LATIN, CJK, GREEK, THAI, ...), none where it has none.

    Units, indices, enclosed and Roman numbers (ª, ₓ, ②, Ⅴ) are another writing of a letter or number: the compatibility
    decomposition says of which. Numbers and modifier letters (the ʻ of Hawaiʻi) are of no script.
    """
    letters = (c for c in unicodedata.normalize("NFKC", character) if unicodedata.category(c) in _LETTERS)
    return frozenset(unicodedata.name(c, "unnamed").split(" ")[0] for c in letters)


_LETTERS = frozenset(["Lo", "Ll", "Lu", "Lt"])
