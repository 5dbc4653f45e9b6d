"""The part of a recipe that makes classes of one's own: by regular expressions, tried in order.

``patterns`` is written as a mapping, class to pattern or patterns; the resolved recipe has a list, since the order says
which class wins and a digest's mapping has none. The judge's name carries a digest of all of this: with another pattern
it is another judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from mote.harness.files import digest_of
from mote.harness.recipe.strict import Part
from mote.judges.llm.kinds import OWN_CLASSES
from mote.judges.patterns import PatternClasses

OWN: Final = OWN_CLASSES
"""The label set of classes of one's own, whoever gives them."""


class ClassPart(Part):
    """A class and its patterns."""

    name: str
    patterns: list[str]


class ClassesPart(Part):
    """Classes of one's own; the first of which a pattern is found in the answer (or reasoning) is its label."""

    patterns: list[ClassPart]
    otherwise: str = Field(description="the class of a text in which no pattern is found")
    reads: Literal["answer", "reasoning"] = "answer"
    ignore_case: bool = False

    @model_validator(mode="before")
    @classmethod
    def _in_order(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not isinstance(content.get("patterns"), dict):
            return content
        written = [
            {"name": name, "patterns": [given] if isinstance(given, str) else given}
            for name, given in content["patterns"].items()
        ]
        return {**content, "patterns": written}

    @model_validator(mode="after")
    def _can_label(self) -> ClassesPart:
        names = [one.name for one in self.patterns]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the class '{twice}' stands there twice; give it a list of patterns")
        _ = self.reading
        return self

    @property
    def reading(self) -> PatternClasses:
        """The classes as the judge has them. Raises PatternError, which is a ValueError."""
        judge = f"patterns@{digest_of(self.model_dump(mode='json'))[:8]}"
        patterns = {one.name: tuple(one.patterns) for one in self.patterns}
        return PatternClasses(patterns, self.otherwise, judge, self.reads, self.ignore_case)


def first_class(classes: Any, llm: Any) -> str | None:
    """Return the first class that a recipe's ``task.classes`` or resolved ``judges.llm`` names: what is studied.

    None where neither says one, or says it wrongly, which is for the parts' own checks.
    """
    patterns = classes.get("patterns") if isinstance(classes, Mapping) else None
    if isinstance(patterns, Mapping) and patterns:
        return str(next(iter(patterns)))
    if isinstance(patterns, list) and patterns and isinstance(patterns[0], Mapping):
        return str(patterns[0].get("name"))
    named = llm.get("classes") if isinstance(llm, Mapping) else None
    return str(named[0]) if named else None
