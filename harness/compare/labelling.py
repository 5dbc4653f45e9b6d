"""One judge for both sides: answers labelled anew, by the rules of one label set, from their texts."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from inspect import signature

from mote.harness.compare.answers import Answers
from mote.harness.errors import MoteError, nearest
from mote.harness.recipe.label_sets import LABEL_SETS, LabelSet
from mote.judges import CLASSES, TRUNCATED, Markers, language, split_reasoning

COLUMN = "column"
"""The labels that a file of answers brings itself."""

_READ = ["raw", "finish_reason", "opens", "question"]


def by_own_column(left: Answers, right: Answers) -> tuple[Answers, Answers]:
    """Return both sides by the labels that their files hold; raise MoteError where a side holds none."""
    for side in (left, right):
        if side.source != "table" or not side.judge:
            raise MoteError(
                f"--labels {COLUMN}: {side.name} has no labels of its own; name another set, or its column."
            )
    return left, right


def relabelled(side: Answers, name: str, which: str = "label") -> Answers:
    """Return a side labelled by the rules of a label set; ``which`` is one of LABELLINGS.

    A side without texts (ratings alone) keeps no labels. Raises MoteError for an unknown set.
    """
    if name not in LABEL_SETS:
        raise MoteError(f"--labels {name} is unknown.{nearest(name, [*LABEL_SETS, COLUMN])}")
    found = LABEL_SETS[name]
    rows = side.rows
    if not (rows["raw"] != "").any() and rows["finish_reason"].isna().all():
        return replace(side, rows=rows.assign(label=None), judge="")
    labels = _labels(side, found, which)
    brought = side.source == "table" and bool(side.judge)
    passed = (f"{side.name} brings labels of its own ({side.judge}), which are not used; --labels {COLUMN} uses them.",)
    return replace(
        side, rows=rows.assign(label=labels), judge=found.judge, notes=(*side.notes, *(passed if brought else ()))
    )


def _labels(side: Answers, found: LabelSet, which: str) -> list[str]:
    # Refusals are often the same to the letter, and so are then their labels.
    @cache
    def one(raw: str, reason: str | None, opens: bool, question: str) -> str:
        label = label_text(found, raw, reason, side.markers, prompt_opens=opens, question=question)
        if which == "label":
            return label
        # As the task's filter for lm_eval has it: a language where there is a class, else the state.
        classed = (*found.classes, *((TRUNCATED,) if which == "reasoning_language" else ()))
        if label not in (*classed, *CLASSES):
            return label
        split = split_reasoning(raw, side.markers, opens)
        return language(split.reasoning if which == "reasoning_language" else split.answer).name

    return [
        one(raw, reason if isinstance(reason, str) else None, bool(opens), question)
        for raw, reason, opens, question in side.rows[_READ].itertuples(index=False)
    ]


def label_text(
    labels: LabelSet, raw: str, reason: str | None, markers: Markers, *, prompt_opens: bool = False, question: str = ""
) -> str:
    """Return the label that a set's rules give one answer; ``question`` goes to the rules that read it, if known."""
    asked = {"question": question} if question and "question" in signature(labels.label).parameters else {}
    return labels.label(raw, finish_reason=reason, markers=markers, prompt_opens=prompt_opens, **asked).label
