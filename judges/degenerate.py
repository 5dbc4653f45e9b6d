"""Broken text: loops, word salad, noise. Switching experts off breaks text; counted as an answer it would be a flip.

Each measure has a threshold that ordinary text stays far from, argued where it stands. All are relative to the text or
need several hits, since an answer may be one short sentence: being short is never a fault. No perplexity: it needs a
model, and the label would depend on which.

- repetition side by side: "I am am am", a phrase or a sentence over and over, at the end or through most of it;
- repetition anywhere: the share of four-word sequences seen before (seq-rep-4 of Welleck et al., arXiv 1908.04319), and
  the zlib ratio, which also sees loops with a counter in them;
- salad: function words in orders that no sentence has ("the of", "in the to"), long stretches without any, Chinese
  particles in a row;
- noise: words that cannot be spoken, letters of many scripts run together, U+FFFD, hardly any letters at all.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from mote.judges.language import FUNCTION_WORDS, foreign
from mote.judges.words import HAN, KANA, LATIN, Word, scripts, without_blocks, without_code, words


@dataclass(frozen=True)
class Fault:
    """A measure that a text fails, and where: ``text[start:end]``."""

    rule: str
    start: int
    end: int


def faults(text: str) -> list[Fault]:
    """Return the measures by which ``text`` is broken, an empty list for sound text."""
    if not text:
        return []
    plain = without_code(text)
    found, everything = words(plain), words(text)
    checks = (
        _loop(text, words(without_blocks(text))),
        _character_loop(plain),
        _repeated_sequences(text, everything),
        _compressible(everything),
        _clashing_function_words(text, found),
        _no_function_words(plain),
        _run_together(plain, found),
        _particles(found),
        _unpronounceable(text, found),
        _mixed_scripts(plain),
        _replacement_characters(text),
        _symbols(plain),
    )
    return [fault for fault in checks if fault is not None]


MAX_PERIOD = 60
WORD_REPEATS = 3
HAN_REPEATS = 5
"""Reduplication is grammar in Chinese, and laughter is written so: a character must come five times in a row."""
WORD_SHARE = 0.25
PHRASE_REPEATS = 3
PHRASE_SHARE = 0.5
TAIL_REPEATS = 4
TAIL_WORDS = 12
_Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]
_LAUGHTER = frozenset(["ha", "haha", "he", "ho", "la", "na", "哈", "呵", "嘿", "啊"])


def _loop(text: str, found: Sequence[Word]) -> Fault | None:
    """Find the same unit of 1 to 60 words again and again side by side.

    One word: three times with nothing but blanks between ("very, very, very" is emphasis), and at least a quarter of
    the text being such repeats; or six times in any case. A phrase: three times, and half the text being repeats; or
    four times and twelve words of repeats at the end of the text: people end where they stop, loops where the budget
    does.
    """
    if len(found) < WORD_REPEATS:
        return None
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(w.text, len(numbers)) for w in found])
    bare = sum(
        excess
        for first, excess in _runs(ids, 1)
        if excess + 1 >= (HAN_REPEATS if found[first].kind == "han" else WORD_REPEATS)
        and not text[found[first].end : found[first + excess].start].strip(" \t" + "".join(_letters(found[first])))
        and found[first].text not in _LAUGHTER
    )
    fewest = min(PHRASE_SHARE * len(found), TAIL_WORDS)  # fewer repeats of a phrase are no loop
    longest = min(MAX_PERIOD, len(found) // 2)
    repeated = np.count_nonzero(_shifted(ids, longest) == ids, axis=1)
    for period in (1, *(2 + np.flatnonzero(repeated[1:] >= fewest)).tolist()):
        for first, excess in _runs(ids, period):
            repeats, share = excess / period + 1, excess / len(found)
            at_end = first + excess + 2 * period >= len(found)
            if period == 1:
                broken = (excess >= WORD_REPEATS - 1 and bare >= WORD_SHARE * len(found)) or (
                    repeats >= 6 and found[first].text not in _LAUGHTER
                )
            elif len(set(ids[first : first + period].tolist())) == 1:
                continue  # one word in a row, seen at period 1
            else:
                broken = (repeats >= PHRASE_REPEATS and share >= PHRASE_SHARE) or (
                    repeats >= TAIL_REPEATS and excess >= TAIL_WORDS and at_end
                )
            if broken:
                return Fault("loop", found[first].start, found[first + excess + period - 1].end)
    return None


def _letters(word: Word) -> set[str]:
    return set(word.text) | set(word.text.upper())


def _shifted(ids: _Numbers, longest: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the numbers [longest, words] that stand 1 to ``longest`` places on, -1 beyond the end."""
    return np.lib.stride_tricks.sliding_window_view(np.concatenate((ids[1:], np.full(longest, -1))), len(ids))


def _runs(ids: _Numbers, period: int) -> list[tuple[int, int]]:
    """Return (first word, words beyond the first period) of each run in which every word equals the one a period on."""
    equal = ids[period:] == ids[:-period]
    if np.count_nonzero(equal) < period:
        return []
    edges = np.flatnonzero(np.diff(np.concatenate(([0], equal.astype(np.int8), [0]))))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= period]


_LONGEST = 6
_CHARACTERS = re.compile(rf"([^\W_]{{1,{_LONGEST}}}?)\1{{3,}}")
CHARACTERS = 16
_SAME = b"\1" * (CHARACTERS - _LONGEST)


def _character_loop(text: str) -> Fault | None:
    """Find one to six letters or digits over and over inside a word, over 16 characters: "252525..."; not laughter."""
    points = np.frombuffer(text.encode("utf-32-le", errors="replace"), dtype=np.uint32)
    # Of a loop of 16 characters all but the first 1 to 6 equal the one a period before.
    if not any(_SAME in (points[p:] == points[:-p]).tobytes() for p in range(1, _LONGEST + 1)):
        return None
    for match in _CHARACTERS.finditer(text):
        if len(match[0]) >= CHARACTERS and match[1].lower() not in _LAUGHTER:
            return Fault("loop", match.start(), match.end())
    return None


SEQUENCE = 4
SEQUENCE_SHARE = 0.5
SEQUENCE_MINIMUM = 40


def _repeated_sequences(text: str, found: Sequence[Word]) -> Fault | None:
    """Find that half of all four-word sequences were there before, in 40 words or more.

    Human prose has 0.5 to 3% of them, long chains of thought up to about 20%, looping models 60 to 100%. Lines that
    come back are a song's refrain while more than half of the lines are different: then each of them counts once.
    """
    if len(found) < SEQUENCE_MINIMUM or _repeated_share(found) <= SEQUENCE_SHARE:
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    different = dict.fromkeys(lines)
    if len(different) > len(lines) / 2 and _repeated_share(words("\n".join(different))) <= SEQUENCE_SHARE:
        return None
    return Fault("repeated-sequences", found[0].start, found[-1].end)


def _repeated_share(found: Sequence[Word]) -> float:
    texts = [w.text for w in found]
    grams = list(zip(*(texts[i:] for i in range(SEQUENCE)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


COMPRESSION = 6.0
COMPRESSION_MINIMUM = 600


def _compressible(found: Sequence[Word]) -> Fault | None:
    """Find a zlib ratio of the words above 6 in 600 bytes or more. Prose has 1.5 to 2.5, tables and sums up to about 5.

    Of the words, since the blanks and rules of a table compress to nothing.
    """
    data = " ".join(w.text for w in found).encode("utf-8", errors="replace")
    if len(data) < COMPRESSION_MINIMUM or len(data) / len(zlib.compress(data, 9)) <= COMPRESSION:
        return None
    return Fault("compressible", found[0].start, found[-1].end)


_ARTICLES = {"the", "an"}
_LINKS = {"of", "in", "at", "by", "for", "to", "from", "with", "and", "or", "is", "was", "are", "were"}
_BE = {"am", "is", "are", "was", "were"}
_NO_NOUN = {"am", "can", "cannot", "i", "he", "she", "they", "we"}
_AFTER_OF = {"of", "to", "and", "is", "was", "by", "for", "at", "in"}
_FINAL = _ARTICLES | {"a", "of", "and", "or"}
_BEGINS_CLASH = _LINKS | _BE | {"the", "a", "an", "i"}
"""Words that are the first of a pair that clashes."""
CLASHES = 2
SHORT = 12
CLASH_SHARE = 0.08


def _clash(first: str, second: str) -> bool:
    """Whether no English sentence has these two words side by side."""
    return (
        (first in _ARTICLES and (second in _LINKS or second in ("the", "a", "an")))
        or (first == "a" and second in ("the", "a", "an", "of", "was", "were", "are"))
        or (first in ("the", "a", "an") and second in _NO_NOUN)
        or (first == "i" and second in ("a", "an", "the", "to", "are", "it"))
        or (first == "of" and second in _AFTER_OF)
        or (first in ("and", "or") and second in ("and", "or"))
        or (first == second and first in _LINKS - {"in", "is"})
        or (first == second == "in")
        or (first in _BE and second in _BE)
        or (first in ("to", "for", "from", "with", "by") and second in ("and", "of", "was", "is"))
    )


def _wrong_article(text: str, article: Word, noun: Word) -> bool:
    """Whether "an" stands before a consonant or "a" before a vowel, in a word that is not a name or an abbreviation."""
    if len(noun.text) < 3 or not text[noun.start : noun.end].islower():
        return False
    if article.text == "an":
        return noun.text[0] in "bcdfgjklmnpqrstvwxyz"
    return article.text == "a" and re.match("(?!one|once|ouija|eu|ew)[aeio]", noun.text) is not None


def _clashing_function_words(text: str, found: Sequence[Word]) -> Fault | None:
    """Find two or more impossible pairs of words, one in every twelve words at least: "the of", "a the", "an tree".

    In a text of fewer than twelve words one is enough. A sentence that ends in an article or an "of" has one, too.
    """
    pairs = [
        (a.start, b.end)
        for a, b in pairwise(found)
        if a.text in _BEGINS_CLASH
        and (_clash(a.text, b.text) or _wrong_article(text, a, b))
        and not text[a.end : b.start].strip()
    ]
    pairs += [(w.start, w.end + 1) for w in found if w.text in _FINAL and _ends_sentence(text, w)]
    latin = sum(w.kind == "latin" for w in found)
    if len(pairs) < (CLASHES if latin >= SHORT else 1) or len(pairs) < CLASH_SHARE * latin:
        return None
    return Fault("clashing-function-words", min(pairs)[0], max(end for _, end in pairs))


def _ends_sentence(text: str, word: Word) -> bool:
    """Whether a full stop follows a word in lower case that is no letter of a list ("a. First, b. Second")."""
    if text[word.end : word.end + 1] != "." or not text[word.start].islower():
        return False
    return text[: word.start].rstrip(" ")[-1:].isalpha()


_STRETCH = re.compile(rf"[{LATIN}][{LATIN}'’-]*(?: [{LATIN}][{LATIN}'’-]*)*")
STRETCH = 12


def _no_function_words(text: str) -> Fault | None:
    """Find twelve words or more in one breath, most of them not names, without a single word that carries grammar.

    A breath has no comma, line break or number in it, so lists do not count; nor do languages other than English.
    """
    for match in _STRETCH.finditer(text):
        stretch = match[0].split()
        if (
            len(stretch) >= STRETCH
            and sum(w[0].islower() for w in stretch) > len(stretch) / 2
            and not any(w.lower() in FUNCTION_WORDS for w in stretch)
            and foreign(text) is None
            and sum(not w.isascii() for w in stretch) < 0.05 * len(stretch)
        ):
            return Fault("no-function-words", match.start(), match.end())
    return None


_SEAMS = re.compile(
    r"[a-z](?:I|The|In|It|Okay|Let|They|This|He|She|We|You)\b"
    rf"|\b(?:{'|'.join(sorted(w for w in FUNCTION_WORDS if len(w) > 1 and w.isalpha()))})\d"
    rf"|[a-z]{{3}}[{HAN}](?![{HAN}])|(?<![{HAN}])[{HAN}][a-z]{{3,}}",
)
_TOUCHES = re.compile(rf"[a-z](?=[A-Z\d{HAN}])|[{HAN}](?=[a-z])")
RUN_TOGETHER = 2
RUN_TOGETHER_SHARE = 0.06


def _run_together(text: str, found: Sequence[Word]) -> Fault | None:
    """Find two places or more, different ones, and one in seventeen words, where words run together: "wasI", "the2"."""
    if len(_TOUCHES.findall(text)) < RUN_TOGETHER:  # what touches in every seam is found sooner than the seams
        return None
    seams = list(_SEAMS.finditer(text))
    if len({m[0] for m in seams}) < RUN_TOGETHER or len(seams) < RUN_TOGETHER_SHARE * len(found):
        return None
    return Fault("run-together", seams[0].start(), seams[-1].end())


_PARTICLES = frozenset("的了是在也就都而与着过得地")
PARTICLE_SHARE = 0.5
PARTICLE_MINIMUM = 8


def _particles(found: Sequence[Word]) -> Fault | None:
    """Find Chinese of which half or more is particles; in prose they are 10 to 20% of the characters."""
    han = [w for w in found if w.kind == "han"]
    if len(han) < PARTICLE_MINIMUM or sum(w.text in _PARTICLES for w in han) < PARTICLE_SHARE * len(han):
        return None
    return Fault("particles", han[0].start, han[-1].end)


_CLUSTER = re.compile("[bcdfghjklmnpqrstvwxz]{6}")
NOISE_SHARE = 0.3
NOISE_MINIMUM = 3


def _unpronounceable(text: str, found: Sequence[Word]) -> Fault | None:
    """Find that three in ten of the longer words, and three different ones, have no vowel or six consonants in a row.

    Words in capitals are abbreviations.
    """
    longer = [w for w in found if w.kind == "latin" and len(w.text) >= 4 and not text[w.start : w.end].isupper()]
    noise = [w for w in longer if _is_noise(w.text)]
    if len({w.text for w in noise}) < NOISE_MINIMUM or len(noise) < NOISE_SHARE * len(longer):
        return None
    return Fault("unpronounceable", noise[0].start, noise[-1].end)


@lru_cache(maxsize=1 << 16)
def _is_noise(word: str) -> bool:
    """Whether a word in lower case has no vowel or six consonants in a row. Texts share most of their words."""
    return not re.search(r"[aeiouy]|[^a-z']", word) or _CLUSTER.search(word) is not None


_NEIGHBOURS = f"{LATIN}{HAN}{KANA}\uac00-\ud7af\u0370-\u03ff0-9_"
"""Scripts that stand side by side in sound text: Latin names in East Asian text, Greek symbols."""
_NEIGHBOUR = re.compile(f"[{_NEIGHBOURS}]")
_OUTSIDE = re.compile(rf"[^\W{_NEIGHBOURS}]")
_NEIGHBOUR_NAMES = frozenset(["LATIN", "GREEK", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC"])
_LOOKALIKES = frozenset("аеорсухіјѕһԁԛԝАВЕКМНОРСТУХІЈЅ")
"""Cyrillic letters that look like Latin ones: one of them in a Latin word is a letter mistaken, the word is sound."""
_LATIN_LETTER = re.compile(f"[{LATIN}]")
SEAMS = 3


def _mixed_scripts(text: str) -> Fault | None:
    """Find three places or more where letters of unrelated scripts touch, such as Latin and Thai."""
    seams = []
    for match in _OUTSIDE.finditer(text):
        start, end = match.span()
        if not scripts(match[0]) <= _NEIGHBOUR_NAMES and not _mistaken(text, start):
            seams += [start - 1] if start and _NEIGHBOUR.match(text[start - 1]) else []
            seams += [start] if end < len(text) and _NEIGHBOUR.match(text[end]) else []
    return Fault("mixed-scripts", seams[0], seams[-1] + 2) if len(seams) >= SEAMS else None


def _mistaken(text: str, place: int) -> bool:
    """Whether a letter looks like a Latin one and stands between Latin ones, or at the edge of a word of them."""
    around = [c for c in (text[place - 1 : place], text[place + 1 : place + 2]) if c.isalpha()]
    return text[place] in _LOOKALIKES and bool(around) and all(map(_LATIN_LETTER.match, around))


def _replacement_characters(text: str) -> Fault | None:
    """Find three U+FFFD or more, and one in fifty characters: a text cut inside a character ends in one or two."""
    count = text.count("\ufffd")
    if count < 3 or count < len(text) / 50:
        return None
    return Fault("replacement-characters", text.index("\ufffd"), text.rindex("\ufffd") + 1)


SYMBOL_SHARE = 0.75
_RULE = re.compile(r"([!-/:-@\[-`{-~])\1{3,}|[\u2500-\u257f]")
SYMBOL_MINIMUM = 20


def _symbols(text: str) -> Fault | None:
    """Find 20 visible characters or more of which three quarters are no letters or digits, rules and boxes aside."""
    letters = sum(map(str.isalnum, text))
    if len(text) - letters < SYMBOL_SHARE * len(text):  # blanks and rules, too, are no letters
        return None
    visible = [c for c in _RULE.sub("", text) if not c.isspace() and c not in "-=*_.|·…"]
    if len(visible) < SYMBOL_MINIMUM or sum(not c.isalnum() for c in visible) < SYMBOL_SHARE * len(visible):
        return None
    return Fault("symbols", 0, len(text))
