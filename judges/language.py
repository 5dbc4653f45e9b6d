"""The language of a piece of text: English, Chinese, a mixture with its share, another one, or none.

Script counting, not a language-identification library: the question is English against Chinese, two languages with
disjoint scripts, in texts that may be one sentence long and mix both. Library classifiers (langdetect, lingua,
fastText's lid.176) return one label for the whole, with no share, need a model file or are random on short text, and
call "3 + 5 = 8" a language. Counting is exact, deterministic and says how much. Where script alone is not enough, that
is, to tell English from other languages in Latin letters, the share of function words decides; Japanese is known by its
kana.

Numbers, formulas, code, addresses and passages in quotation marks or brackets do not count, nor do names: Latin words
inside Chinese text count only in a stretch with lower-case words ("Danny Boyle" and "NATO" do not), Han characters
inside English text only beyond four in a row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mote.judges.words import HAN, HAN_PER_WORD, KANA, LATIN, blank, without_code, words

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
_HAN_RUN = re.compile(f"[{HAN}]+")
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

_FOREIGN = {
    "german": "der die das und ist nicht ein eine mit von zu auf für im den dem sich auch wurde nach als aus wie oder",
    "french": "le la les et est un une des du dans que qui pour pas sur au avec ce il elle sont ont été leurs en de",
    "spanish": "el la los las es un una de en que por con para del se no al su fue como más pero desde",
    "italian": "il lo la gli è un una di che in per con non del della sono nel alla anche si dei come",
    "portuguese": "os é um uma de em que por com para do da não no na se foi como mais dos",
    "dutch": "de het een en van is niet dat op te zijn voor met aan er die om ook werd naar bij uit",
}
_FOREIGN_WORDS = {name: frozenset(listed.split()) - FUNCTION_WORDS for name, listed in _FOREIGN.items()}
_FOREIGN_SHARE = 0.15
_FOREIGN_MINIMUM = 6
_FOREIGN_DISTINCT = 3


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
    if any(w.kind in ("latin", "han", "other") for w in words(unquoted)):
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
    other = kana + sum(1 for w in words(counted) if w.kind == "other" and not _KANA.match(w.text))
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
    """Return the language in Latin letters other than English that ``text`` is in, or None.

    By function words: at least 15% of six words or more, three different ones, and more than there are English ones.
    """
    latin = [w.text for w in words(text) if w.kind == "latin"]
    if len(latin) < _FOREIGN_MINIMUM:
        return None
    hits = {name: [w for w in latin if w in listed] for name, listed in _FOREIGN_WORDS.items()}
    best = max(hits, key=lambda name: len(hits[name]))
    count, english = len(hits[best]), sum(w in FUNCTION_WORDS for w in latin)
    enough = count >= _FOREIGN_SHARE * len(latin) and len(set(hits[best])) >= _FOREIGN_DISTINCT
    return best if enough and count > english else None


def _han(text: str, longer_than: int = 0) -> int:
    return sum(len(run) for run in _HAN_RUN.findall(text) if len(run) > longer_than)


def _latin(text: str, in_chinese: bool = False) -> int:
    """Count Latin words; inside Chinese text only in stretches that hold lower-case words, that is, English clauses."""
    count = 0
    for run in _LATIN_RUN.findall(text):
        found = re.findall(rf"[{LATIN}][{LATIN}'’]*", run)
        lower = [w for w in found if w[0].islower() and len(w) > 1]
        if not in_chinese or len(lower) >= 2 or any(w in FUNCTION_WORDS for w in lower):
            count += len(found)
    return count
