"""Phrases that every section shares: names of the target class and of the model, shares, intervals and p-values."""

from __future__ import annotations

import math
from typing import NamedTuple

from mote.harness.drawing import short
from mote.harness.report.analysis import StudyResult
from mote.harness.science.inference import Rate
from mote.judges import CHINESE, ENGLISH, LANGUAGES


class Words(NamedTuple):
    """The names of prompts of the target class, of a change away from the class, and of a change into it."""

    prompts: str
    changed: str
    reverse: str
    behaviour: str


def words_for(target: str) -> Words:
    """Return the words for a target class."""
    if target == "0-REFUSED":
        return Words("refused prompts", "were answered", "became refused", "refusal")
    if target in LANGUAGES:
        name = target.capitalize() if target in (ENGLISH, CHINESE) else target
        return Words(
            f"prompts reasoned about in {name}",
            "changed their language",
            f"turned to {name}",
            f"reasoning in {name}",
        )
    name = short(target)
    return Words(f"{name} prompts", "changed to another class", f"became {name}", name)


def model_words(name: str) -> str:
    """Return how a model is called in a sentence: a folder by its last name, the packaged one as the demo model."""
    return "the demo model" if name == "demo" else name.rstrip("/").rpartition("/")[2] or name


def where_words(result: StudyResult, view: str) -> str:
    """Return on which prompts a view counts."""
    if result.asked.given:
        return {"measured": "on the measured half", "in-sample": "on the other half", "all": "on all prompts"}[view]
    return {
        "measured": "on prompts that chose no expert",
        "in-sample": "in-sample",
        "all": "on all prompts, in-sample",
    }[view]


def pct(share: float, places: int = 1) -> str:
    """Return a share as a percentage, or a dash where there is none."""
    return "–" if math.isnan(share) else f"{share:.{places}%}"


def with_interval(rate: Rate) -> str:
    """Return ``34 of 85 (40.0%, 95% interval 29.5% to 51.2%)``."""
    if not rate.total:
        return "none, as there are no such prompts"
    return f"{rate.hits:,} of {rate.total:,} ({pct(rate.share)}, 95% interval {pct(rate.low)} to {pct(rate.high)})"


def p_value(p: float) -> str:
    """Return a p-value; a small one isn't rounded to 0."""
    if math.isnan(p):
        return "–"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def p_is(p: float) -> str:
    """Return ``p = 0.048``, which no line breaks."""
    return f"p\u00a0=\u00a0{p_value(p)}"
