"""The language of a piece of text: English, Chinese, a mixture with its share, another one, or none.

Script counting first: the question is English against Chinese, two languages with disjoint scripts, in texts that may
be one sentence long and mix both. Library classifiers return one label for the whole, with no share, and call
"3 + 5 = 8" and any name a language. Counting is exact, deterministic and says how much. Japanese is known by its kana.

Script alone does not tell English from other languages in Latin letters. English prose has 40 to 50 function words in
100, so a text with enough of them is English without further question. Only where they are rare is py3langid asked (a
naive Bayes classifier of 97 and more languages, with its model in the package), and it must be sure: another language
is one that it finds far more likely than English, over three words or more that are no names. Of 6,162 replies to
English and Chinese requests 5 are called ``other`` so, of 1,240 to Finnish requests 1,006. Of the other 234 about 77
open with reasoning in English, without markers, and end in Finnish: the language of a text is that of most of it.

Numbers, formulas, code, addresses and passages in quotation marks or brackets do not count, nor do names: Latin words
inside Chinese text count only in a stretch with lower-case words ("Danny Boyle" and "NATO" do not), Han characters
inside English text only beyond four in a row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from mote.judges.words import HAN, HAN_PER_WORD, KANA, LATIN, Word, blank, latin_words, scripts, without_code, words

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier  # type: ignore[import-untyped]

ENGLISH = "english"
CHINESE = "chinese"
MIXED = "mixed"
OTHER = "other"
NONE = "none"
LANGUAGES: tuple[str, ...] = (ENGLISH, CHINESE, MIXED, OTHER, NONE)

MIXED_ABOVE = 0.2
"""A share of the lesser language above this makes a text mixed: one word in five is more than a quoted term."""

_QUOTED = re.compile(
    r"“[^”]{1,80}”|「[^」]{1,80}」|『[^』]{1,80}』|\"[^\"\n]{1,80}\"|《[^》]{1,40}》|[(（][^()（）\n]{1,80}[)）]"
)
_OUTSIDE = re.compile(rf"[^\W\d_{LATIN}{HAN}]")
"""Letters of scripts other than Latin and Han: where there are none, nor is there a word of them."""
_HAN_RUN = re.compile(f"[{HAN}]+")
_LATIN_WORD = re.compile(rf"[{LATIN}][{LATIN}'’]*")
_LATIN_RUN = re.compile(rf"[{LATIN}][{LATIN}'’]*(?:[ \t,]+[{LATIN}][{LATIN}'’]*)*")
_KANA = re.compile(f"[{KANA}]")
_NAME_CHARACTERS = 4

_ENGLISH = (
    "a about after all also an and any are as at be because been before between both but by can could did do does"
    " during each for from had has have he her here him his how however i if in into is it its just let like may me"
    " might more most much must my no not now of on one only or other our out over she should so some such than that"
    " the their them then there these they this those through to too two under until up us very was we were what when"
    " where which while who will with would yes you your i'm it's don't can't"
)
FUNCTION_WORDS = frozenset(_ENGLISH.split())
"""English words that carry grammar. Some 40 to 50 of 100 words of English prose are among them."""

FUNCTION_SHARE = 0.25
"""English words that carry grammar in a text that is English beyond doubt; other languages have up to 12% of them."""
ODDS = 25.0
"""Nats by which another language must be likelier than English. Lists of names stay below, short sentences pass."""
LOWER_WORDS = 3
"""Names and titles have no language of their own: so many words must begin with a small letter."""
SAMPLE = 2_000
"""Characters of a text that are put to the library: its answer does not change with more."""


@dataclass(frozen=True)
class Language:
    """The language of a text, one of ``LANGUAGES``.

    ``chinese_share`` is the part of Chinese in the English and Chinese words, 0 to 1 (1.5 Han characters make a word),
    0 where there are neither; ``words`` is the number of words counted, in that unit.
    """

    name: str
    chinese_share: float
    words: float


def language(text: str) -> Language:
    """Return the language of ``text``. See the module for what counts."""
    counted = without_code(text)
    unquoted = blank(counted, _QUOTED)
    if any(c.isalpha() for c in unquoted):
        counted = unquoted
    han, latin = _han(counted), _latin(counted)
    kana = len(_KANA.findall(counted))
    if han and latin:
        if latin > 2 * han / HAN_PER_WORD:
            han = _han(counted, longer_than=_NAME_CHARACTERS)
        else:
            latin = _latin(counted, in_chinese=True)
    chinese = han / HAN_PER_WORD
    total = chinese + latin
    strange = words(counted) if _OUTSIDE.search(counted) else ()
    other = kana + sum(1 for w in strange if w.kind == "other" and _of_another_script(w))
    if other > 0.1 * (han + latin) and other >= 2:
        return Language(OTHER, chinese / total if total else 0.0, total + other)
    if not total:
        return Language(NONE, 0.0, 0.0)
    share = chinese / total
    if share > 1 - MIXED_ABOVE:
        return Language(CHINESE, share, total)
    if share > MIXED_ABOVE:
        return Language(MIXED, share, total)
    return Language(OTHER if foreign(counted) else ENGLISH, share, total)


def foreign(text: str) -> str | None:
    """Return the code (``fi``, ``tr``, ...) of the language in Latin letters other than English that ``text`` is in.

    None where it is English, or where that cannot be told: too few words, names, words of no language.
    """
    latin = latin_words(text)
    lower = [w for w in latin if w[0].islower() and len(w) > 1]
    if len(lower) < LOWER_WORDS:
        return None
    latin = [w.lower().replace("’", "'") for w in latin]
    if sum(map(FUNCTION_WORDS.__contains__, latin)) >= FUNCTION_SHARE * len(latin):
        return None
    scores = dict(_identifier().rank(" ".join(latin)[:SAMPLE]))
    best = max(scores, key=lambda code: scores[code])
    return best if scores[best] - scores["en"] >= ODDS else None


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def _of_another_script(word: Word) -> bool:
    """Whether letters of a script other than Latin and Han make a word; kana is counted apart, β is a symbol."""
    of = [scripts(c) - {"LATIN", "CJK"} for c in word.text]
    letters = [one for one in of if one]
    return bool(letters) and not _KANA.match(word.text) and not (len(letters) == 1 and letters[0] == {"GREEK"})


def _han(text: str, longer_than: int = 0) -> int:
    return sum(len(run) for run in _HAN_RUN.findall(text) if len(run) > longer_than)


def _latin(text: str, in_chinese: bool = False) -> int:
    """Count Latin words; inside Chinese text only in stretches that hold lower-case words, that is, English clauses."""
    if not in_chinese:
        return len(_LATIN_WORD.findall(text))
    count = 0
    for run in _LATIN_RUN.findall(text):
        found = _LATIN_WORD.findall(run)
        lower = [w for w in found if w[0].islower() and len(w) > 1]
        if len(lower) >= 2 or any(w in FUNCTION_WORDS for w in lower):
            count += len(found)
    return count
