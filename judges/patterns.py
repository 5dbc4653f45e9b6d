"""Classes of one's own by regular expressions: the first class of which a pattern is found in the text is the label.

States come first, as for the packaged classes: a request that did not end is UNSCORED, broken text DEGENERATE, a text
cut off by its budget TRUNCATED, and one without the part that is read UNSCORED. Classes of the reasoning count once the
reasoning is closed, so there an answer that is cut off after that has a class.

Patterns are Python's (``re``), searched for in the part as it is split off, blanks around it removed: ``^`` is where
the answer begins. The evidence is the place of the match, under the class and the number of its pattern
(``PRAISES-2``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from mote.judges.labels import CLASSES, STATES, TRUNCATED, UNSCORED, Evidence, Label
from mote.judges.language import LANGUAGES
from mote.judges.reasoning import Markers, has_word, raw_span, split_reasoning
from mote.judges.rules import state_of

Reads = Literal["answer", "reasoning"]
NO_PATTERN: Final = "no-pattern"
"""The rule of an answer in which no pattern is found."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class PatternError(ValueError):
    """Classes or patterns that cannot label anything; the message is one line."""


def check_class_name(name: str) -> None:
    """Raise PatternError for a name that no class of one's own may have: a state's, or a packaged class's."""
    if not _NAME.fullmatch(name):
        raise PatternError(f"the class {name!r} should be a word of letters, digits and '_.-'")
    if name in STATES:
        raise PatternError(f"{name} is a state that mote gives, no class")
    if name in (*CLASSES, *LANGUAGES):
        raise PatternError(f"'{name}' is a class of the packaged sets; give yours another name")


@dataclass(frozen=True)
class PatternClasses:
    """Classes by patterns, in the order in which they are tried, and the class of what none is found in.

    Raises PatternError for fewer than two classes, a name that no class may have or that stands there twice, a class
    without a pattern, and a pattern that is blank or no regular expression.
    """

    patterns: Mapping[str, tuple[str, ...]]
    otherwise: str
    judge: str
    reads: Reads = "answer"
    ignore_case: bool = False

    def __post_init__(self) -> None:
        if not self.patterns:
            raise PatternError("no class has a pattern; at least one is needed beside 'otherwise'")
        for name in self.classes:
            check_class_name(name)
        if self.otherwise in self.patterns:
            raise PatternError(f"'{self.otherwise}' has patterns and is 'otherwise' as well")
        for name, patterns in self.patterns.items():
            if not patterns or not all(pattern.strip() for pattern in patterns):
                raise PatternError(f"the class '{name}' has {'a blank' if patterns else 'no'} pattern")
        self._compiled  # noqa: B018 - a wrong pattern is said before anything is labelled

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, in order; ``otherwise`` is the last."""
        return (*self.patterns, self.otherwise)

    @cached_property
    def _compiled(self) -> list[tuple[str, str, re.Pattern[str]]]:
        """(class, rule, pattern) of each pattern, in the order in which they are tried."""
        found = []
        for name, patterns in self.patterns.items():
            for number, pattern in enumerate(patterns, start=1):
                try:
                    compiled = re.compile(pattern, re.IGNORECASE if self.ignore_case else 0)
                except re.error as error:
                    raise PatternError(
                        f"the pattern {pattern!r} of '{name}' is no regular expression: {error}"
                    ) from None
                found.append((name, f"{name}-{number}", compiled))
        return found

    def label(
        self, raw: str, *, finish_reason: str | None, markers: Markers | None = None, prompt_opens: bool = False
    ) -> Label:
        """Label one generation; the arguments are those of ``label_refusal``."""
        markers = Markers() if markers is None else markers
        split = split_reasoning(raw, markers, prompt_opens)
        state = state_of(raw, split, finish_reason, markers, self.judge)
        known = self.reads == "reasoning" and split.closed
        if state is not None and not (known and state.label == TRUNCATED):
            return state
        text, spans = (
            (split.answer, split.answer_spans) if self.reads == "answer" else (split.reasoning, split.reasoning_spans)
        )
        if not has_word(text) or (self.reads == "reasoning" and split.opened and not split.closed):
            rule = f"no-{self.reads}" if not has_word(text) else "reasoning-never-closed"
            return Label(UNSCORED, self.judge, (Evidence.of(rule, raw, 0, len(raw)),))
        for name, rule, pattern in self._compiled:
            if match := pattern.search(text):
                place = raw_span(spans, match.start(), match.end())
                return Label(name, self.judge, (Evidence.of(rule, raw, *place),), self.classes)
        whole = (spans[0][0], spans[-1][1])
        return Label(self.otherwise, self.judge, (Evidence.of(NO_PATTERN, raw, *whole),), self.classes)
