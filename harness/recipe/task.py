"""The part of a recipe that says what is asked, and by which classes the answers go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mote.harness.recipe.own_classes import ClassesPart
from mote.harness.recipe.own_prompts import ColumnsPart
from mote.harness.recipe.strict import Part
from mote.tasks import TASKS


def _absent(value: Any) -> bool:
    """Whether a key is left out of the resolved recipe, so that recipes older than the key keep their digests."""
    return value is None


class TaskPart(Part):
    """What is asked; ``limit`` takes that many prompts, evenly spread over the task's order.

    A packaged task by its ``name``, or prompts of one's own by their ``file``, a path from the recipe's folder, whose
    name the task then has. ``system`` is put before every prompt; ``samples`` asks each so often, with other seeds.
    ``label`` is the set of classes that answers get; left out, it is the task's own. ``classes`` are one's own.
    """

    name: str = Field(min_length=1)
    file: str | None = Field(default=None, min_length=1, exclude_if=_absent, description="JSONL, CSV or Parquet")
    columns: ColumnsPart | None = Field(default=None, exclude_if=_absent)
    system: str | None = Field(default=None, min_length=1, exclude_if=_absent)
    samples: int = Field(default=1, ge=1, exclude_if=lambda samples: samples == 1)
    limit: int | None = Field(default=None, ge=1)
    label: Literal["refusal", "compliance", "language", "classes"] = "refusal"
    classes: ClassesPart | None = Field(default=None, exclude_if=_absent)

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_file(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "name" in content or not isinstance(content.get("file"), str):
            return content
        stem = Path(content["file"]).name.partition(".")[0].lower()
        return {"name": re.sub("[^a-z0-9]+", "_", stem).strip("_") or "prompts", **content}

    @model_validator(mode="after")
    def _packaged_or_own(self) -> TaskPart:
        if self.file is None and self.columns is not None:
            raise ValueError("columns are those of a file of prompts: name it in task.file")
        if self.file is not None and (self.name in TASKS or not re.fullmatch("[a-z0-9_]+", self.name)):
            why = "the packaged task's" if self.name in TASKS else "not of a-z, 0-9 and _ alone"
            raise ValueError(f"the name '{self.name}' is {why}; give the file's prompts another task.name")
        return self
