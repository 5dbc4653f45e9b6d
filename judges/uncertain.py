"""What the classifier says in a label's evidence, and how to read it back from a run's rows.

A label by rules and classifier carries, after what decided, ``classifier-<CLASS> REFUSED 0.93 EVASIVE 0.05 ANSWERED
0.02``; where phrases, classifier and label are not of one mind ``rules-disagree``, and ``uncertain`` where the
probability of a refusal lies in the classifier's band. Stored evidence has the same rules, so a report counts by them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mote.judges.classifier.model import ANSWERS, EVADES, REFUSES, Probabilities

UNCERTAIN: Final = "uncertain"
DISAGREE: Final = "rules-disagree"
_PREFIX: Final = "classifier-"
_RULE = re.compile(
    rf"{_PREFIX}(?P<name>{REFUSES}|{EVADES}|{ANSWERS}) {REFUSES} ([\d.]+) {EVADES} ([\d.]+) {ANSWERS} ([\d.]+)"
)


def rule_of(name: str, found: Probabilities) -> str:
    """Return the rule that says which class the label stands for, and the probabilities of all."""
    return f"{_PREFIX}{name} {REFUSES} {found.refused:.3f} {EVADES} {found.evasive:.3f} {ANSWERS} {found.answered:.3f}"


def classified(rules: Iterable[str]) -> tuple[str, Probabilities] | None:
    """Return REFUSED, EVASIVE or ANSWERED, and the probabilities, from the rules of a label's evidence.

    None where no classifier was asked: a state, another language, an older run.
    """
    for rule in rules:
        if match := _RULE.fullmatch(rule):
            return match["name"], Probabilities(*(float(one) for one in match.groups()[1:]))
    return None


def evasive(rules: Iterable[str]) -> bool:
    """Whether a label that is no refusal stands for an evasive answer: a party line, generalities, another text."""
    found = classified(rules)
    return found is not None and found[0] == EVADES


def doubtful(rules: Iterable[str]) -> bool:
    """Whether rules and classifier differ on a label, or its probability lies in the classifier's band."""
    return not {UNCERTAIN, DISAGREE}.isdisjoint(rules)
