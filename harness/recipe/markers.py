"""The part of a recipe that says what opens and closes a model's reasoning."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from mote.harness.recipe.strict import Part
from mote.judges import Markers


class MarkersPart(Part):
    """What opens and closes a model's reasoning: the two markers, or the name that the judges know them by."""

    start: str = Field(default="<think>", min_length=1)
    end: str = Field(default="</think>", min_length=1)
    # Left out of the resolved recipe where there is none, so that recipes older than names keep their digests.
    name: str | None = Field(default=None, exclude_if=lambda name: name is None)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, content: Any) -> Any:
        """Write down the markers that a name stands for; ``markers: harmony`` is short for ``{name: harmony}``."""
        name = content if isinstance(content, str) else content.get("name") if isinstance(content, dict) else None
        if not isinstance(name, str):
            return content
        known = Markers.named(name)
        written = {"start": known.open, "end": known.close, "name": name}
        given = content if isinstance(content, dict) else {}
        for key, value in given.items():
            if key in written and value != written[key]:
                raise ValueError(
                    f"'{name}' has {key} {written[key]!r}, not {value!r}: give the name or the two markers"
                )
        # A name that says no more than its two markers is written as these.
        if known == Markers(known.open, known.close):
            del written["name"]
        return {**{key: value for key, value in given.items() if key not in written and key != "name"}, **written}

    @property
    def reading(self) -> Markers:
        """The markers as the judges read them."""
        return Markers.named(self.name) if self.name else Markers(self.start, self.end)
