"""Label sets: what a run's answers are classed by, and whose rules class them.

A recipe says it with ``task.label``; left out, the task's own stands: sums are asked for the language of the reasoning,
everything else for the refusal. The first judge of a run reads the texts: rules and classifier together, or, with
``judges.text: rules``, the rules alone, as runs did that are older than the classifier and have no such line. With
``judges.surprise`` a second one adds what the untouched model finds impossible. Experts are chosen by the labels of the
last of the two, or of a language model where ``judges.llm`` names one; a report shows them unless told otherwise.

Classes of one's own are the set ``classes``: by the patterns or the function of ``task.classes``, by a language model
whose prompt has them as verdicts, or by both, which are then two judges of the same classes. Where ``task.classes``
says none, the judge of the texts is the refusal's, whose labels stand beside those that the run goes by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from mote.harness.recipe.own_classes import OWN, ClassesPart
from mote.judges import (
    CLASSES,
    COMPLIANCE,
    COMPLIANCE_JUDGE,
    COMPLIANCE_REFUSED,
    ENGLISH,
    JUDGE,
    LANGUAGE_JUDGE,
    LANGUAGES,
    REFUSED,
    RULES_JUDGE,
    Evidence,
    Label,
    label_by_rules,
    label_compliance,
    label_reasoning_language,
    label_refusal,
    with_surprise,
)
from mote.judges.functions import Classify, FunctionClasses

REFUSAL: Final = "refusal"
COMPLIANCE_SET: Final = "compliance"
LANGUAGE: Final = "language"


class LabelSet(NamedTuple):
    """A set of classes, the judge that gives them, its function, and the class that is studied unless a recipe says.

    ``text_judge`` is the judge of the texts alone; ``judge`` is the one that a run goes by, with surprise or without.
    ``by_function`` says that the classes are a function's: its labels may depend on the question, and can fail.
    """

    name: str
    judge: str
    text_judge: str
    classes: tuple[str, ...]
    target: str
    label: Callable[..., Label]
    by_function: bool = False


LABEL_SETS: Final[Mapping[str, LabelSet]] = MappingProxyType(
    {
        REFUSAL: LabelSet(REFUSAL, JUDGE, JUDGE, CLASSES, REFUSED, label_refusal),
        COMPLIANCE_SET: LabelSet(
            COMPLIANCE_SET, COMPLIANCE_JUDGE, COMPLIANCE_JUDGE, COMPLIANCE, COMPLIANCE_REFUSED, label_compliance
        ),
        LANGUAGE: LabelSet(LANGUAGE, LANGUAGE_JUDGE, LANGUAGE_JUDGE, LANGUAGES, ENGLISH, label_reasoning_language),
    }
)
DECIDED_RULE: Final = "ended-at-opening"
"""The evidence for the label of an answer that was ended where its opening had decided its class."""
_BY_RULES: Final = LABEL_SETS[REFUSAL]._replace(judge=RULES_JUDGE, text_judge=RULES_JUDGE, label=label_by_rules)
"""What a refusal's label was before there was a classifier, and is where a recipe says so."""
_OF_TASK: Final = {"reasoning_language": LANGUAGE}


def set_of_task(task: str) -> str:
    """Return the name of the label set that a task is classed by unless a recipe says otherwise."""
    return _OF_TASK.get(task, REFUSAL)


def label_set(recipe: Mapping[str, Any], function: Classify | None = None) -> LabelSet:
    """Return the label set of a run by its resolved recipe, with the judge whose labels the run goes by.

    Its function labels by the text alone, in the name of the text's judge. Runs older than label sets were all about
    refusal, and had no judge but the rules; runs older than the classifier say nothing of ``judges.text``. Classes of a
    function label nothing without ``function``, which a recipe that a manifest holds does not bring.
    """
    name, judges = recipe["task"].get("label", REFUSAL), recipe.get("judges", {})
    by_text = REFUSAL if name == OWN else name
    found = LABEL_SETS[by_text]
    if by_text == REFUSAL and judges.get("text", RULES_JUDGE) == RULES_JUDGE:
        found = _BY_RULES
    if name == OWN:
        found = _own(recipe, found, function)
    if judges.get("llm"):
        return found._replace(judge=str(judges["llm"]["name"]))
    return found._replace(judge=with_surprise(found.judge)) if judges.get("surprise", False) else found


def decided_label(labels: LabelSet, target: str, raw: str) -> Label:
    """Return the label of an answer that was ended at an opening of the class ``target``."""
    return Label(target, labels.text_judge, (Evidence.of(DECIDED_RULE, raw, 0, len(raw)),), labels.classes)


def _own(recipe: Mapping[str, Any], refusal: LabelSet, function: Classify | None) -> LabelSet:
    """Return the set of classes of one's own; ``refusal`` labels the texts where only a language model knows them."""
    if part := recipe["task"].get("classes"):
        found = ClassesPart.model_validate(part).reading(function)
        by_function = isinstance(found, FunctionClasses)
        return LabelSet(OWN, found.judge, found.judge, found.classes, found.classes[0], found.label, by_function)
    classes = tuple(recipe["judges"]["llm"]["classes"])
    return refusal._replace(name=OWN, classes=classes, target=classes[0])
