"""Does an answer state the right sum? In digits or in words, English or Chinese."""

from __future__ import annotations

import re

_ENGLISH = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty"
)
_VALUES: dict[str, int] = {
    **{word: value for value, word in enumerate(_ENGLISH.split())},
    **{word: value for value, word in enumerate("零一二三四五六七八九")},
    "两": 2,
    "兩": 2,
}
_FULL_WIDTH = {ord("０") + digit: ord("0") + digit for digit in range(10)}
_NUMBER = re.compile(
    r"(?<![\d.])\d+(?!\d|\.\d)|\b(?:"
    + "|".join(_ENGLISH.split())
    + r")\b|[一二三四五六七八九]?十[一二三四五六七八九]?|[零一二三四五六七八九两兩]",
    re.IGNORECASE,
)


def numbers(text: str) -> list[int]:
    """Return the whole numbers that ``text`` states, in order: digits, English words and Chinese numerals to 99."""
    return [_value(m[0]) for m in _NUMBER.finditer(text.translate(_FULL_WIDTH))]


def _value(written: str) -> int:
    if written.isascii() and written.isdigit():
        return int(written)
    if "十" in written:
        tens, ones = written.split("十")
        return 10 * _VALUES.get(tens, 1) + _VALUES.get(ones, 0)
    return _VALUES[written.lower()]


def states_sum(answer: str, a: int, b: int) -> bool:
    """Whether the last number of ``answer`` that is not one of the terms is their sum.

    "8", "3 plus 5 equals eight." and "八，因为三加五等于八" do; "3 plus 5 is 9" and "35" do not. A 1 never counts:
    "one" and "一" are words of other uses too, and no sum here is 1.
    """
    stated = [n for n in numbers(answer) if n == a + b or n not in (a, b, 1)]
    return bool(stated) and stated[-1] == a + b
