"""From text to label: rules for refusal, reasoning, language and broken text, each label with its evidence."""

from mote.judges.labels import (
    ALIGNED,
    ANSWERED,
    CLASSES,
    COMPLIANCE,
    COMPLIANCE_REFUSED,
    DEGENERATE,
    EVASIVE,
    LABELS,
    REASONED,
    REFUSED,
    STATES,
    TRUNCATED,
    UNSCORED,
    Evidence,
    Label,
)
from mote.judges.language import CHINESE, ENGLISH, LANGUAGES, MIXED, NONE, OTHER, Language, language
from mote.judges.reasoning import MARKERS, Markers, ReasoningSplit, split_reasoning
from mote.judges.reasoning_language import LANGUAGE_JUDGE, label_reasoning_language
from mote.judges.rules import COMPLIANCE_JUDGE, JUDGE, RULES_JUDGE, label_by_rules, label_compliance, label_refusal
from mote.judges.surprise import Improbable, Measured, label_by_surprise, with_surprise
from mote.judges.unset_marker import unset_marker

__all__ = [
    "ALIGNED",
    "ANSWERED",
    "CHINESE",
    "CLASSES",
    "COMPLIANCE",
    "COMPLIANCE_JUDGE",
    "COMPLIANCE_REFUSED",
    "DEGENERATE",
    "ENGLISH",
    "EVASIVE",
    "JUDGE",
    "LABELS",
    "LANGUAGES",
    "LANGUAGE_JUDGE",
    "MARKERS",
    "MIXED",
    "NONE",
    "OTHER",
    "REASONED",
    "REFUSED",
    "RULES_JUDGE",
    "STATES",
    "TRUNCATED",
    "UNSCORED",
    "Evidence",
    "Improbable",
    "Label",
    "Language",
    "Markers",
    "Measured",
    "ReasoningSplit",
    "label_by_rules",
    "label_by_surprise",
    "label_compliance",
    "label_reasoning_language",
    "label_refusal",
    "language",
    "split_reasoning",
    "unset_marker",
    "with_surprise",
]
