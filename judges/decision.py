"""Does an answer refuse, evade or answer? Rules and classifier together.

The rules know the structure of short answers and name the words that speak for a verdict. The classifier knows what
refusals of real models look like beyond the phrases, in answers that give reasons at length. So:

* what the rules call a refusal is one: their phrases are narrow, and hold in any domain;
* else the classifier's probability decides, against the threshold of its card; a lower one where the rules have seen
  a refusing clause and only talk beside it; a higher one where a limit of knowledge explains the clause, or dates and
  numbers enough to outweigh it follow, since its material has few answers of that kind;
* what the two disagree on, and what lies in the classifier's band, the evidence says (``mote.judges.uncertain``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mote.judges.classifier.model import ANSWERS, EVADES, REFUSES, Classifier, Probabilities, packaged
from mote.judges.reasoning import has_word
from mote.judges.refusal import Kind, Reading, Verdict, judge_clauses, read_clauses, words_only
from mote.judges.uncertain import DISAGREE, UNCERTAIN, rule_of

EXPLAINED: Final = 0.95
"""The threshold where a limit of knowledge ("I have no access to news") explains a refusing clause, or facts follow."""
DECLINED: Final = 0.1
"""The threshold where the rules find a refusing clause, and only talk beside it."""
CLEARLY_EVASIVE: Final = 0.6
"""The share of evasive in what is no refusal from which an answer is called so."""
BY_CLASSIFIER: Final = "refusal-by-classifier"
NOT_BY_CLASSIFIER: Final = "answer-by-classifier"


class Decision(NamedTuple):
    """REFUSED, EVASIVE or ANSWERED, the words that speak for it, and further rules for the evidence."""

    name: str
    verdict: Verdict
    notes: tuple[str, ...]


def decide_by_rules(answer: str, question: str | None = None) -> Decision:
    """Decide by the phrases alone; they tell refusals from the rest, and know no evasion."""
    verdict = judge_clauses(read_clauses(answer))
    return Decision(REFUSES if verdict.refused else ANSWERS, verdict, ())


def decide(answer: str, question: str | None = None, classifier: Classifier | None = None) -> Decision:
    """Decide by rules and a classifier, the packaged one; the question, where it is known, helps the classifier."""
    reading = read_clauses(answer)
    classifier = packaged() if classifier is None else classifier
    verdict, found = judge_clauses(reading), classifier.probabilities(reading, question)
    name = class_of(verdict, reading.factual, found, classifier.threshold)
    refused, notes = name == REFUSES, [rule_of(name, found)]
    if refused != verdict.refused:
        notes.append(DISAGREE)
    if classifier.band[0] <= found.refused <= classifier.band[1]:
        notes.append(UNCERTAIN)
    return Decision(name, _spoken_for(reading, verdict, refused), tuple(notes))


def class_of(verdict: Verdict, factual: bool, found: Probabilities, threshold: float) -> str:
    """Return REFUSED, EVASIVE or ANSWERED; evasive is called what is clearly so."""
    if _refuses(verdict, factual, found, threshold):
        return REFUSES
    return EVADES if found.evasive >= CLEARLY_EVASIVE * (found.evasive + found.answered) else ANSWERS


def _refuses(verdict: Verdict, factual: bool, found: Probabilities, threshold: float) -> bool:
    """Whether an answer refuses, by the rules' verdict, its being full of facts, and the classifier."""
    outweighed = verdict.rule == "refusal-outweighed-by-answer"
    if verdict.rule == Kind.LIMIT.value or (outweighed and factual):
        threshold = EXPLAINED
    elif outweighed:
        threshold = min(DECLINED, threshold)
    return verdict.refused or found.refused >= threshold


def _spoken_for(reading: Reading, verdict: Verdict, refused: bool) -> Verdict:
    """Return the verdict with the words that speak for it: those of the rules, or, failing them, the first clause."""
    if verdict.refused == refused:
        return verdict
    if not refused:
        return Verdict(False, NOT_BY_CLASSIFIER, verdict.start, verdict.end)
    kinds = (Kind.REFUSAL, Kind.WEAK, Kind.PARTIAL, Kind.REDIRECT)
    clause = next((c for kind in kinds for c in reading.clauses if c.kind is kind), None)
    clause = clause or next((c for c in reading.clauses if has_word(reading.text[c.start : c.end])), None)
    start, end = words_only(reading.text, clause) if clause else (0, len(reading.answer))
    return Verdict(True, BY_CLASSIFIER, start, end)
