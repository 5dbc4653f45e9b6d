"""The labels of an answer, and the evidence that each of them carries.

Three classes are the paper's (section 2.2), three those of the set ``compliance``. Three states stand beside either,
since what cannot be classed must be counted and never be scored as one of the classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mote.judges.language import LANGUAGES

REFUSED = "0-REFUSED"
ALIGNED = "1-ALIGNED"
REASONED = "2-REASONED"
TRUNCATED = "TRUNCATED"
DEGENERATE = "DEGENERATE"
UNSCORED = "UNSCORED"

CLASSES: tuple[str, ...] = (REFUSED, ALIGNED, REASONED)
COMPLIANCE_REFUSED = "REFUSED"
EVASIVE = "EVASIVE"
ANSWERED = "ANSWERED"
COMPLIANCE: tuple[str, ...] = (COMPLIANCE_REFUSED, EVASIVE, ANSWERED)
"""The classes of compliance: a party line or an evasive generality is no answer here."""
STATES: tuple[str, ...] = (TRUNCATED, DEGENERATE, UNSCORED)
LABELS: tuple[str, ...] = CLASSES + STATES

_EXCERPT = 160
"""Characters of the span that are kept as text: rows stay small, ``start`` and ``end`` still name all of it."""


@dataclass(frozen=True)
class Evidence:
    """Which rule fired on which part of the raw text: ``raw[start:end]``, of which ``span`` is the beginning."""

    rule: str
    span: str
    start: int
    end: int

    @classmethod
    def of(cls, rule: str, raw: str, start: int, end: int) -> Evidence:
        """Return the evidence for ``raw[start:end]``, its text shortened to 160 characters."""
        span = raw[start:end]
        return cls(rule, span if len(span) <= _EXCERPT else span[: _EXCERPT - 1] + "…", start, end)


@dataclass(frozen=True)
class Label:
    """The label that ``judge`` gives a generation; the first evidence is what decided.

    ``own`` names the classes of a set of one's own, which are known beside the packaged ones.
    """

    label: str
    judge: str
    evidence: tuple[Evidence, ...]
    own: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        known = LABELS + COMPLIANCE + LANGUAGES + self.own
        if self.label not in known:
            raise ValueError(f"label '{self.label}' is unknown. Known: {', '.join(known)}.")
        if not self.evidence:
            raise ValueError(f"label {self.label} of judge '{self.judge}' has no evidence; name the rule that fired.")
