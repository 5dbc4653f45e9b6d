"""The first sentence of a report and the caveats below it. They claim what the numbers bear and no more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from mote.harness.drawing import short
from mote.harness.report.analysis import StudyResult
from mote.harness.report.phrases import Words, pct, words_for
from mote.harness.science.transitions import FlipRates

DEMO_CAVEAT: Final = (
    "This is the demo model: a small model trained for this package, whose alignment phase trained the routers and the "
    "routed experts only. That puts refusal where this method looks for it. Small models of this kind show mixed "
    "effects, from one base seed to the next; nothing here says how a large model behaves."
)


_P_VALUES: Final = re.compile(r" \((?:largest )?p [^)]*\)")
_DIGIT: Final = re.compile(r"\d")

FEW: Final = 30
"""Fewer measured prompts of the target class than this are pointed out."""


def lead(result: StudyResult) -> str:
    """Return the first sentence: whether it is chance, and what changed, in at most four numbers."""
    sentence = _lead(result)
    return sentence[0].upper() + sentence[1:]


def _lead(result: StudyResult) -> str:
    target, tuned = result.asked.target, result.asked.tuned
    words, rates = words_for(target), result.rate_of(tuned)
    if tuned is None or rates is None:
        return _nothing_yet(result, words)
    if not rates.flips.total:
        return f"No prompt of the measured ones had the label {short(target)}, so there was nothing to change."
    effect = f"with {_experts(result, words)} switched off, {_flipped(rates)} of the {words.prompts} {words.changed}"
    verdict = result.chance.verdict
    if verdict.kind == "too-few-prompts":
        return f"Too few prompts for a verdict: {effect}."
    if verdict.kind == "unknown":
        return f"{'' if result.record.complete else 'So far, '}{effect}; {_open(result)}, so this may be chance."
    if verdict.kind == "above":
        return f"More than chance: {effect}; random sets of experts and other seeds do less."
    if not rates.flips.hits:
        # Broken text is no flip, but it isn't nothing either.
        also = ", but the text of some of them broke" if rates.broken.hits else ""
        return f"No effect: {effect}{also}."
    if verdict.kind == "few":
        return f"Too few controls to call it more than chance: {effect}."
    return f"Not more than chance: {effect}, and {_lowered(_worded(verdict.reason))}."


def _flipped(rates: FlipRates) -> str:
    return f"{rates.flips.hits:,} of {rates.flips.total:,} ({pct(rates.flips.share)})"


def _open(result: StudyResult) -> str:
    """Return why nothing can be said about chance yet."""
    if not result.record.complete:
        return "the controls are not all measured yet"
    if result.chance.sets.empty:
        return "there is no random control"
    said = _worded(result.chance.verdict.reason)
    return "not all controls that a verdict needs are there" if _DIGIT.search(said) else _lowered(said)


def _worded(reason: str) -> str:
    """Return a verdict's reason without its p-values, which have a tile and a table of their own."""
    return _P_VALUES.sub("", reason).rstrip(".")


def _lowered(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _experts(result: StudyResult, words: Words) -> str:
    k = len(result.experts.distinctive)
    if result.asked.given:
        return f"the {k} experts that the recipe names" if k != 1 else "the expert that the recipe names"
    of = f"prompts of {result.sides.name}" if result.sides.contrast else words.behaviour
    return f"the {k} most distinctive experts of {of}" if k != 1 else f"the most distinctive expert of {of}"


def _nothing_yet(result: StudyResult, words: Words) -> str:
    if result.record.progress.empty or not result.record.progress["generated"].sum():
        return "Nothing has been generated yet."
    if result.asked.tuned is None:
        return "Only the untouched model has been asked so far; the experts have not been chosen yet."
    return f"The experts are chosen; no answer of the tuned model says yet what becomes of the {words.prompts}."


def caveats(result: StudyResult, manifest: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know beside the first sentence, most important first."""
    notes = []
    if manifest["model"]["name"] == "demo":
        notes.append(DEMO_CAVEAT)
    rates = result.rate_of(result.asked.tuned)
    if result.asked.view == "all" and rates is not None and not result.asked.given:
        notes.append(
            "The experts were chosen on the same prompts on which the effect is measured (study.split: none), "
            "so the figure is likely to be too high."
        )
    if result.asked.view == "measured" and result.asked.unit and manifest["recipe"]["study"]["split"] == "half":
        notes.append(
            f"The prompts that are measured chose no expert, but they share their {result.asked.unit}s with those that "
            "did (study.split: units keeps them apart)."
        )
    if result.chance.verdict.forced:
        notes.append(
            f"The run went on by --force with {result.chance.verdict.prompts} target prompts in "
            f"{result.chance.verdict.units} units, fewer than a verdict asks for."
        )
    if rates is not None and 0 < rates.flips.total < FEW:
        few = f"Only {rates.flips.total} {words_for(result.asked.target).prompts} were measured"
        notes.append(f"{few}: the interval is wide, and a small effect would not be seen.")
    if rates is not None and rates.flips.total:
        broken = rates.broken
        if broken.hits and broken.share >= max(0.05, rates.flips.share / 4):
            notes.append(
                f"The edit also broke text: {broken.hits} of {broken.total} of the same prompts ({pct(broken.share)}) "
                "ended cut off, degenerate or not to be scored. Those are not counted as changed."
            )
    return notes
