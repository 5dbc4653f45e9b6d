"""The part of a recipe that says what is asked, and by which classes the answers go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mote.harness.recipe.hub import HubPart
from mote.harness.recipe.own_classes import ClassesPart
from mote.harness.recipe.own_prompts import ColumnsPart
from mote.harness.recipe.strict import Part, absent
from mote.tasks import TASKS


class TaskPart(Part):
    """What is asked; ``limit`` takes that many prompts, evenly spread over the task's order.

    A packaged task by its ``name``, or prompts of one's own by their ``file``, a path from the recipe's folder, or of
    a dataset of the ``hub``, whose name the task then has. ``system`` is put before every prompt; ``samples`` asks
    each so often, with other seeds. ``label`` is the set of classes that answers get; left out, it is the task's own.
    ``classes`` are one's own.
    """

    name: str = Field(min_length=1)
    file: str | None = Field(default=None, min_length=1, exclude_if=absent, description="JSONL, CSV or Parquet")
    hub: HubPart | None = Field(default=None, exclude_if=absent, description="a Hugging Face dataset")
    columns: ColumnsPart | None = Field(default=None, exclude_if=absent)
    system: str | None = Field(default=None, min_length=1, exclude_if=absent)
    samples: int = Field(default=1, ge=1, exclude_if=lambda samples: samples == 1)
    limit: int | None = Field(default=None, ge=1)
    label: Literal["refusal", "compliance", "language", "classes"] = "refusal"
    classes: ClassesPart | None = Field(default=None, exclude_if=absent)

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_file(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "name" in content:
            return content
        hub = content.get("hub")
        source = hub.get("dataset") if isinstance(hub, dict) else content.get("file")
        if not isinstance(source, str):
            return content
        stem = Path(source).name.partition(".")[0].lower()
        return {"name": re.sub("[^a-z0-9]+", "_", stem).strip("_") or "prompts", **content}

    @model_validator(mode="after")
    def _packaged_or_own(self) -> TaskPart:
        if self.file is not None and self.hub is not None:
            raise ValueError("file and hub both say where the prompts are: leave one of them out")
        if not self.is_own and self.columns is not None:
            raise ValueError("columns are those of a file of prompts: name it in task.file")
        if self.is_own and (self.name in TASKS or not re.fullmatch("[a-z0-9_]+", self.name)):
            why = "the packaged task's" if self.name in TASKS else "not of a-z, 0-9 and _ alone"
            raise ValueError(f"the name '{self.name}' is {why}; give the file's prompts another task.name")
        return self

    @property
    def is_own(self) -> bool:
        """Whether the prompts are the user's: a file, or a dataset of the hub."""
        return self.file is not None or self.hub is not None
