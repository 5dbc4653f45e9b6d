"""Label sets: what a run's answers are classed by, and whose rules class them.

A recipe says it with ``task.label``; left out, the task's own stands: sums are asked for the language of the reasoning,
everything else for the refusal. The first judge of a run reads the texts by the label set's rules. With
``judges.surprise`` a second one adds what the untouched model finds impossible. Experts are chosen by the labels of the
last of the two, or of a language model where ``judges.llm`` names one; a report shows them unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from mote.judges import (
    CLASSES,
    ENGLISH,
    JUDGE,
    LANGUAGE_JUDGE,
    LANGUAGES,
    REFUSED,
    Label,
    label_reasoning_language,
    label_refusal,
    with_surprise,
)

REFUSAL: Final = "refusal"
LANGUAGE: Final = "language"


class LabelSet(NamedTuple):
    """A set of classes, the judge that gives them, its function, and the class that is studied unless a recipe says."""

    name: str
    judge: str
    classes: tuple[str, ...]
    target: str
    label: Callable[..., Label]


LABEL_SETS: Final[Mapping[str, LabelSet]] = MappingProxyType(
    {
        REFUSAL: LabelSet(REFUSAL, JUDGE, CLASSES, REFUSED, label_refusal),
        LANGUAGE: LabelSet(LANGUAGE, LANGUAGE_JUDGE, LANGUAGES, ENGLISH, label_reasoning_language),
    }
)
_OF_TASK: Final = {"reasoning_language": LANGUAGE}


def set_of_task(task: str) -> str:
    """Return the name of the label set that a task is classed by unless a recipe says otherwise."""
    return _OF_TASK.get(task, REFUSAL)


def label_set(recipe: Mapping[str, Any]) -> LabelSet:
    """Return the label set of a run by its resolved recipe, with the judge whose labels the run goes by.

    Its function labels by the text alone, in the name of the text's judge. Runs older than label sets were all about
    refusal, and had no judge but the rules.
    """
    found = LABEL_SETS[recipe["task"].get("label", REFUSAL)]
    judges = recipe.get("judges", {})
    if judges.get("llm"):
        return found._replace(judge=str(judges["llm"]["name"]))
    return found._replace(judge=with_surprise(found.judge)) if judges.get("surprise", False) else found
