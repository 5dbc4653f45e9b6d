"""The shape of a manifest that is read: it may be a stranger's, and everything that reads a run relies on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_LAYERS = 10_000
MOST_EXPERTS = 100_000

_Layer = Annotated[int, Field(ge=0, le=10 * MOST_LAYERS)]
_Name = Annotated[str, Field(max_length=4096)]


class _Written(BaseModel):
    # Later versions may add keys.
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Layout(_Written):
    """The layout of the model's experts."""

    architecture: _Name
    layers: Annotated[list[_Layer], Field(min_length=1, max_length=MOST_LAYERS)]
    experts: Annotated[int, Field(ge=1, le=MOST_EXPERTS)]
    top_k: Annotated[int, Field(ge=1, le=MOST_EXPERTS)]


class Model(_Written):
    """The model: its name, where it lay, the layout of its experts, and its files' digests."""

    name: _Name
    path: _Name
    layout: Layout
    files: dict[_Name, _Name]


class Prompts(_Written):
    """The prompts: their task, how many, and their digest."""

    task: _Name
    count: Annotated[int, Field(ge=0)]
    digest: _Name


class SessionEntry(_Written):
    """One start of the run."""

    started: _Name
    ended: _Name | None
    versions: dict[_Name, _Name]
    device: dict[str, Any]


class _Study(_Written):
    target: _Name
    role: _Name
    split: _Name
    top_k: int


class _ModelPath(_Written):
    path: _Name


class _Classes(_Written):
    function: _Name | None = None
    sha256: _Name | None = None

    @model_validator(mode="after")
    def _resolved(self) -> _Classes:
        # A resolved recipe has it: without it the function's file would be looked for to make it.
        if self.function is not None and not self.sha256:
            raise ValueError("sha256 is missing beside function")
        return self


class _Task(_Written):
    name: _Name
    classes: _Classes | None = None


class _Judge(_Written):
    # A resolved recipe has it: without it a prompt's file would be looked for to make it.
    name: Annotated[_Name, Field(min_length=1)]


class _Judges(_Written):
    llm: _Judge | None = None


class _Recipe(_Written):
    name: _Name
    model: _ModelPath
    task: _Task
    study: _Study
    judges: _Judges = Field(default_factory=_Judges)


class _Target(_Written):
    prompts: int


class _Tuned(_Written):
    profile: _Name | None


class _Power(_Written):
    least_share: Annotated[float, Field(strict=False)] | None = None


class _Powers(_Written):
    icc: dict[_Name, _Power] = Field(default_factory=dict)


class _Plan(_Written):
    target: _Target
    tuned: _Tuned
    alpha: float
    written: _Name
    digest: _Name
    primary: _Name
    stopping: _Name
    power: _Powers = Field(default_factory=_Powers)


class _Ended(_Written):
    openings: list[_Name]
    read: int
    left_class: int
    at_most: Annotated[float, Field(strict=False)]
    left_out: _Name


class WrittenManifest(_Written):
    """A manifest; of its recipe what is read as it stands, beside the check that all recipes get."""

    format: Literal["mote-run/1"]
    recipe: _Recipe
    recipe_digest: _Name
    model: Model
    prompts: Prompts
    profiles: dict[_Name, _Name]
    seeds: dict[_Name, int]
    sessions: list[SessionEntry]
    finished: _Name | None = None
    forced: bool = False
    older: list[_Name] = Field(default_factory=list)
    seconds_an_answer: Annotated[float, Field(ge=0, strict=False)] | None = None
    plan: _Plan | None = None
    stems: dict[str, Any] | None = None
    ended_at: _Ended | None = None
