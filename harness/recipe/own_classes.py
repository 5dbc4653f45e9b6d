"""The part of a recipe that makes classes of one's own: by regular expressions, tried in order, or by a function.

``patterns`` is written as a mapping, class to pattern or patterns; the resolved recipe has a list, since the order says
which class wins and a digest's mapping has none. The judge's name carries a digest of all of this: with another pattern
it is another judge.

``function`` names code (``own_function``). The resolved recipe has the digest of its file, so that with other code it
is another judge; a recipe that has the digest already, as a run's manifest does, reads no file. The function itself is
loaded by ``function_of`` alone, for a user's own recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from mote.harness.files import digest_of
from mote.harness.recipe.own_function import function_digest, load_function, parse_function
from mote.harness.recipe.strict import Part, absent
from mote.judges.functions import Classify, FunctionClasses
from mote.judges.llm.kinds import OWN_CLASSES
from mote.judges.patterns import PatternClasses

OWN: Final = OWN_CLASSES
"""The label set of classes of one's own, whoever gives them."""


_OF_PATTERNS: Final = ("patterns", "otherwise")
_OF_FUNCTIONS: Final = ("function", "names")


class ClassPart(Part):
    """A class and its patterns."""

    name: str
    patterns: list[str]


class ClassesPart(Part):
    """Classes of one's own: the first of which a pattern is found in the text, or the one that a function returns."""

    patterns: list[ClassPart] | None = Field(default=None, exclude_if=absent)
    otherwise: str | None = Field(
        default=None, exclude_if=absent, description="the class of a text in which no pattern is found"
    )
    function: str | None = Field(
        default=None, exclude_if=absent, description="FILE.py:NAME or package.module:NAME; this is code, and is run"
    )
    names: list[str] | None = Field(
        default=None, exclude_if=absent, description="all classes that the function returns; the first is studied"
    )
    sha256: str | None = Field(
        default=None, exclude_if=absent, pattern="^[0-9a-f]{64}$", description="of the function's file; filled in"
    )
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

    @model_validator(mode="before")
    @classmethod
    def _with_its_digest(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not isinstance(content.get("function"), str) or content.get("sha256"):
            return content
        return {**content, "sha256": function_digest(content["function"])}

    @model_validator(mode="after")
    def _can_label(self) -> ClassesPart:
        wanted, other = (_OF_PATTERNS, _OF_FUNCTIONS) if self.function is None else (_OF_FUNCTIONS, _OF_PATTERNS)
        for name in wanted:
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing; classes are {' and '.join(wanted)}, or {' and '.join(other)}")
        for name in (*other, "sha256" if self.function is None else "ignore_case"):
            if getattr(self, name):
                raise ValueError(f"{name} does not go with {wanted[0]}; leave it out")
        if self.function is not None and self.reads != "answer":
            raise ValueError(
                "reads: reasoning does not go with function, which is given the reasoning beside the answer"
            )
        names = [one.name for one in self.patterns or ()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the class '{twice}' stands there twice; give it a list of patterns")
        _ = self.reading()
        return self

    def reading(self, function: Classify | None = None) -> PatternClasses | FunctionClasses:
        """Return the classes as the judge has them; those of a function label where the function is given.

        Raises PatternError, which is a ValueError.
        """
        if self.function is not None:
            called = parse_function(self.function).called
            judge = f"{called}@{str(self.sha256)[:8]}"
            return FunctionClasses(tuple(self.names or ()), called, judge, function)
        judge = f"patterns@{digest_of(self.model_dump(mode='json'))[:8]}"
        patterns = {one.name: tuple(one.patterns) for one in self.patterns or ()}
        return PatternClasses(patterns, str(self.otherwise), judge, self.reads, self.ignore_case)


def function_of(classes: ClassesPart | None) -> Classify | None:
    """Return the function of the classes of a user's own recipe, which runs its file; None where it names none.

    Never to be called for what a run's manifest says. Raises MoteError as ``load_function``.
    """
    if classes is None or classes.function is None:
        return None
    return load_function(classes.function, str(classes.sha256))


def first_class(classes: Any, llm: Any) -> str | None:
    """Return the first class that a recipe's ``task.classes`` or resolved ``judges.llm`` names: what is studied.

    None where neither says one, or says it wrongly, which is for the parts' own checks.
    """
    if isinstance(classes, Mapping) and isinstance(names := classes.get("names"), list) and names:
        return str(names[0])
    patterns = classes.get("patterns") if isinstance(classes, Mapping) else None
    if isinstance(patterns, Mapping) and patterns:
        return str(next(iter(patterns)))
    if isinstance(patterns, list) and patterns and isinstance(patterns[0], Mapping):
        return str(patterns[0].get("name"))
    named = llm.get("classes") if isinstance(llm, Mapping) else None
    return str(named[0]) if named else None
