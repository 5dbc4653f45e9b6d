"""Classes of one's own by a Python function: what it returns for an answer is the label.

States come first, as for patterns: a request that did not end is UNSCORED, broken text DEGENERATE, a text cut off by
its budget TRUNCATED, and one without an answer UNSCORED; the function is asked about the others alone. The evidence is
the whole answer, under the function's name.

The function is code. These classes are known by name without it, and whoever reads a run needs no more; a label can
only be given where the function itself was handed over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from mote.judges.labels import UNSCORED, Evidence, Label
from mote.judges.patterns import PatternError, check_class_name
from mote.judges.reasoning import Markers, has_word, split_reasoning
from mote.judges.rules import state_of

Classify = Callable[..., str]
"""``classify(answer, *, reasoning, question)``: the name of a class; ``question`` goes to those that take it."""
NO_FUNCTION: Final = "no-function"
"""The rule of a FunctionError where the function was not handed over."""
_SHOWN: Final = 80
_GIVEN: Final = ("reasoning", "question")


class FunctionError(Exception):
    """A function that gave no class; the message is one line, ``rule`` names what happened in a word."""

    def __init__(self, message: str, rule: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True)
class FunctionClasses:
    """Classes that a function gives; ``called`` is its name in evidence and errors.

    Raises PatternError for fewer than two classes, for one that stands there twice and for names that no class may
    have, as ``PatternClasses`` does.
    """

    classes: tuple[str, ...]
    called: str
    judge: str
    classify: Classify | None = None

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise PatternError("names needs two classes or more: all that the function may return")
        for name in self.classes:
            check_class_name(name)
            if self.classes.count(name) > 1:
                raise PatternError(f"the class '{name}' stands in names twice")

    @cached_property
    def _takes(self) -> frozenset[str]:
        """Which of ``reasoning`` and ``question`` the function takes."""
        assert self.classify is not None  # noqa: S101 - asked for by label alone
        parameters = inspect.signature(self.classify).parameters.values()
        every = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
        return frozenset(_GIVEN if every else {*_GIVEN} & {one.name for one in parameters})

    def label(
        self,
        raw: str,
        *,
        finish_reason: str | None,
        markers: Markers | None = None,
        prompt_opens: bool = False,
        question: str = "",
    ) -> Label:
        """Label one generation; the arguments are those of ``label_refusal``.

        Raises FunctionError where the function was not handed over, where it raises, and where it returns anything but
        one of the classes.
        """
        markers = Markers() if markers is None else markers
        split = split_reasoning(raw, markers, prompt_opens)
        if (state := state_of(raw, split, finish_reason, markers, self.judge)) is not None:
            return state
        if not has_word(split.answer):
            return Label(UNSCORED, self.judge, (Evidence.of("no-answer", raw, 0, len(raw)),))
        if self.classify is None:
            raise FunctionError(f"{self.called} is code and was not named by whoever asks for labels", NO_FUNCTION)
        given = {"reasoning": split.reasoning, "question": question}
        try:
            found = self.classify(split.answer, **{name: given[name] for name in _GIVEN if name in self._takes})
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:_SHOWN]}".rstrip(": ")
            raise FunctionError(f"{self.called} raised {said}", f"function-raised-{type(error).__name__}") from error
        if not isinstance(found, str) or found not in self.classes:
            shown = repr(found)[:_SHOWN]
            said = f"{self.called} returned {shown}, none of {', '.join(self.classes)}"
            raise FunctionError(said, "function-returned-no-class")
        spans = split.answer_spans
        return Label(found, self.judge, (Evidence.of(self.called, raw, spans[0][0], spans[-1][1]),), self.classes)
