"""The labels that a run's set gives to texts, each different text asked about once.

A function of the user's may raise, or return what is no class. While nothing depends on its labels yet that is an
error: the baseline is stored, and a function that was mended goes on with it. Once experts were chosen, mended code
would be another study, and an answer without a class is UNSCORED, as one that cannot be read is, with what happened as
its evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from mote.harness.errors import MoteError
from mote.harness.recipe.label_sets import LabelSet
from mote.harness.store.questions import last_question
from mote.harness.store.run import PromptRow
from mote.judges import UNSCORED, Evidence, Label, Markers
from mote.judges.functions import NO_FUNCTION, FunctionError


class TextLabels:
    """Labels texts by a set; ``prompts`` are those of the run, ``strict`` makes a failing function an error."""

    def __init__(self, labels: LabelSet, markers: Markers, prompts: Mapping[str, PromptRow], *, strict: bool) -> None:
        self._labels, self._markers, self._prompts, self._strict = labels, markers, prompts, strict
        self.failed: list[str] = []
        """What a function failed at, one line for each text, where that is no error."""
        # Short answers are often the same to the letter, and so are then their labels.
        self._once = cache(self._label)

    def label(self, prompt_id: str, raw: str, opens: bool, reason: str | None) -> Label:
        """Return the label of an answer. Raises MoteError where the set's function is not there, or fails."""
        # A function may go by the question, which no other set of a study is given.
        question = last_question(self._prompts[prompt_id].messages) if self._labels.by_function else ""
        try:
            return self._once(raw, opens, reason, question)
        except FunctionError as error:
            said = f"{prompt_id}: {error}"
            if self._strict or error.rule == NO_FUNCTION:
                raise MoteError(f"task.classes.function: {said}.") from error
            self.failed.append(said)
            return Label(UNSCORED, self._labels.text_judge, (Evidence.of(error.rule, raw, 0, len(raw)),))

    def _label(self, raw: str, opens: bool, reason: str | None, question: str) -> Label:
        asked = {"question": question} if self._labels.by_function else {}
        return self._labels.label(raw, finish_reason=reason, markers=self._markers, prompt_opens=opens, **asked)
