"""From text to label: rules for refusal, reasoning, language and broken text, each label with its evidence."""

from mote.judges.labels import (
    ALIGNED,
    CLASSES,
    DEGENERATE,
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
from mote.judges.rules import JUDGE, label_refusal
from mote.judges.surprise import Improbable, Measured, label_by_surprise, with_surprise
from mote.judges.unset_marker import unset_marker

__all__ = [
    "ALIGNED",
    "CHINESE",
    "CLASSES",
    "DEGENERATE",
    "ENGLISH",
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
    "label_by_surprise",
    "label_reasoning_language",
    "label_refusal",
    "language",
    "split_reasoning",
    "unset_marker",
    "with_surprise",
]
