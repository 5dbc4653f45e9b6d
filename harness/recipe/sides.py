"""The prompts that experts are ranked by: a class against the others, or the two sets of a contrast."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mote.harness.drawing import short
from mote.harness.recipe.roles import in_words
from mote.harness.recipe.study_part import StudyPart
from mote.harness.science.maps import LENGTH_NORMALISED


@dataclass(frozen=True)
class Sides:
    """Which prompts stand on which side of the ranking.

    ``marks``: prompt id -> its side, prompts on none left out; ``target`` is the side that experts are seen more in,
    ``name`` its name in a sentence ("REFUSED", "frame = leading"). ``pairs``: prompt id -> its pair, empty where
    nothing pairs them. ``unit`` is the ranking's, ``contrast`` whether the sides are sets of prompts, not classes.
    """

    marks: Mapping[str, str]
    target: str
    name: str
    unit: str
    contrast: bool
    pairs: Mapping[str, Hashable] = field(default_factory=dict)


def sides_of(labels: Mapping[str, str], attributes: Mapping[str, Mapping[str, Any]], study: StudyPart) -> Sides:
    """Return the sides of a run's ranking from the baseline's labels and the prompts' attributes, by prompt id."""
    unit = "activations a token" if study.ranking == LENGTH_NORMALISED else "activations a prompt"
    unit += in_words(study.role)
    found = study.contrast
    if found is None:
        marks = {key: label for key, label in labels.items() if study.chooses(label)}
        return Sides(marks, study.target, short(study.target), unit, contrast=False)
    return Sides(found.marks(attributes), found.value, found.words, unit, contrast=True, pairs=found.pairs(attributes))
