"""The part of a recipe that chooses experts by two sets of prompts instead of by the class of their answers.

``{column: frame, value: leading}`` sets the prompts whose attribute ``frame`` is ``leading`` against all others, or
against ``others`` alone. ``pair`` names an attribute that pairs them: a pair has as many prompts of either set, stays
on one side of the split, and is one unit. What is measured afterwards are the classes of the answers, as in any study.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping
from typing import Any

from pydantic import Field, field_validator

from mote.harness.errors import MoteError, nearest
from mote.harness.recipe.strict import Part


class ContrastPart(Part):
    """Two sets of prompts by the value of an attribute; experts are those seen more in the prompts of ``value``."""

    column: str = Field(min_length=1)
    value: str
    others: list[str] | None = Field(default=None, description="what it is set against; left out, all other values")
    pair: str | None = Field(default=None, description="the attribute whose prompts belong together")

    @field_validator("value", mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:
        return written(value)

    @field_validator("others", mode="before")
    @classmethod
    def _each_as_written(cls, values: Any) -> Any:
        return [written(value) for value in values] if isinstance(values, list) else values

    @property
    def kept(self) -> tuple[str, ...]:
        """The columns of a file of prompts that the contrast speaks of."""
        return (self.column,) if self.pair is None else (self.column, self.pair)

    @property
    def words(self) -> str:
        """The set that experts are chosen for, in words: ``frame = leading``."""
        return f"{self.column} = {self.value}"

    def marks(self, attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Return prompt id -> the value that its prompt has, for the prompts of the two sets, in their order."""
        found = {key: written(values[self.column]) for key, values in attributes.items() if self.column in values}
        return {
            key: value
            for key, value in found.items()
            if value == self.value or self.others is None or value in self.others
        }

    def pairs(self, attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, Hashable]:
        """Return prompt id -> its pair, for the prompts of the two sets; empty where nothing pairs them."""
        return {} if self.pair is None else {key: attributes[key][self.pair] for key in self.marks(attributes)}


def written(value: Any) -> Any:
    """Return a value as a recipe and a table write it: ``true`` of True, ``3`` of 3; anything else as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def check_contrast(
    contrast: ContrastPart, attributes: Mapping[str, Mapping[str, Any]], unit: str, units: Mapping[str, Hashable]
) -> None:
    """Raise MoteError where prompts do not make two sets, or pairs are not whole: before anything is generated.

    ``attributes`` are those of each prompt, by id; ``units`` are what a split keeps together, the attribute ``unit``.
    """
    place = "study.contrast"
    if contrast.column == unit:
        raise MoteError(
            f"{place}: the attribute '{unit}' is what keeps prompts together, so no unit has both sets; name another in"
            " task.columns.unit, or call the column otherwise."
        )
    names = {name for values in attributes.values() for name in values}
    for column in contrast.kept:
        if column not in names:
            raise MoteError(f"{place}: no prompt has an attribute '{column}'.{nearest(column, names)}")
        missing = next((key for key, values in attributes.items() if column not in values), None)
        if missing is not None:
            raise MoteError(f"{place}: the prompt {missing} has no '{column}'.")
    values = {str(written(given[contrast.column])) for given in attributes.values()}
    for value in (contrast.value, *(contrast.others or ())):
        if value not in values:
            raise MoteError(f"{place}: no prompt has {contrast.column} = {value}.{nearest(value, values)}")
    marks = contrast.marks(attributes)
    if set(marks.values()) == {contrast.value}:
        raise MoteError(f"{place}: every prompt has {contrast.words}; there is nothing to set it against.")
    _check_pairs(contrast, marks, contrast.pairs(attributes), units)


def _check_pairs(
    contrast: ContrastPart, marks: Mapping[str, str], pairs: Mapping[str, Hashable], units: Mapping[str, Hashable]
) -> None:
    balance: Counter[Hashable] = Counter()
    within: dict[Hashable, set[Hashable]] = defaultdict(set)
    for key, pair in pairs.items():
        balance[pair] += 1 if marks[key] == contrast.value else -1
        within[pair].add(units.get(key))
    for pair, ahead in balance.items():
        if ahead:
            more = "more" if ahead > 0 else "fewer"
            raise MoteError(
                f"study.contrast: the pair {contrast.pair} = {pair} has {more} prompts of {contrast.words} than of the"
                " others; a pair needs as many of either."
            )
        if len(within[pair]) > 1:
            raise MoteError(
                f"study.contrast: the pair {contrast.pair} = {pair} lies in several units"
                f" ({', '.join(sorted(map(str, within[pair])))}); a split would part it."
            )
