"""Recipes of a sweep: parents, what of them is taken over, at which proportions, and what every child is asked.

A child takes the tensors of a ``subset`` over from the parents of ``toward``, as far as the proportion says, and has
the base's tensors elsewhere: W = W_0 + p sum_i s_i (W_i - W_0), with p the proportion, s_i the parent's share and W_0
the base's tensor. Proportion 0 is the base itself, which all subsets share.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from mote.harness.errors import MoteError, nearest
from mote.harness.files import digest_of
from mote.harness.merge.schema import (
    Count,
    MergeRecipe,
    Parents,
    Ranked,
    Rule,
    Threshold,
    Weight,
    check_named,
    hold_to_parents,
    name_parents,
)
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.markers import MarkersPart
from mote.harness.recipe.schema import (
    JudgesPart,
    Recipe,
    SamplingPart,
    from_its_folder,
    set_values,
)
from mote.harness.recipe.strict import Number, Part, explain, read_yaml
from mote.harness.recipe.task import TaskPart

RECIPES: Final = Path(__file__).parent / "recipes"
BASE: Final = "base"
"""The child at proportion 0."""
SCORE: Final = "score"
_NAME: Final = r"^[a-z0-9][a-z0-9._-]*$"

Name = Annotated[str, Field(pattern=_NAME)]
Proportion = Annotated[Number, Field(ge=0, le=1)]


class ChosenExperts(Part):
    """The ``top`` routed experts ``by`` how far the parents lie apart there (rms), or by what a ``run`` says of them.

    ``activity`` and ``resonance`` are a run's rankings, ``causal`` the scan of a run. Random sets stand ``beside`` each
    such subset as subsets of their own: so many of the same layers, and so many of the same mass where a run is named.
    ``random`` draws as many experts of each layer as ``distance`` would take, and has none beside it.
    """

    by: Literal["activity", "resonance", "causal", "distance", "random"]
    top: Annotated[int, Field(ge=1)]
    run: str | None = Field(default=None, min_length=1)
    seed: Count = 0
    beside: Annotated[int, Field(ge=1, le=20)] = 2

    @model_validator(mode="after")
    def _ranked_by_a_run(self) -> ChosenExperts:
        if self.by in ("activity", "resonance", "causal") and self.run is None:
            raise ValueError(f"by: {self.by} is a ranking of a run: name its folder with run")
        if self.by == "random" and self.run is not None:
            raise ValueError("by: random reads no run")
        return self


class Subset(Part):
    """Which tensors are taken over, by the conditions of a merge's rule; with ``others`` all but those."""

    groups: list[str] | None = Field(default=None, min_length=1)
    pattern: str | None = Field(default=None, min_length=1)
    layers: list[Count | str] | None = Field(default=None, min_length=1)
    experts: list[Annotated[tuple[Count, Count], Field(strict=False)]] | Ranked | ChosenExperts | None = None
    others: bool = False
    note: str | None = Field(default=None, min_length=1, description="what the page says of it")

    @model_validator(mode="after")
    def _is_a_rule(self) -> Subset:
        one = self.model_copy(update={"experts": [(0, 0)]}) if isinstance(self.experts, ChosenExperts) else self
        one.rules({"parent": 1.0}, 1.0)
        return self

    def rules(self, toward: dict[str, float], proportion: float) -> list[Rule]:
        """Return the rules of a merge that takes this over at a proportion, ``toward`` being each parent's share."""
        weights = {name: round(share * proportion, 9) for name, share in toward.items()}
        named = self.model_dump(exclude={"others", "note"}, exclude_none=True)
        try:
            if not self.others:
                return [Rule.model_validate({**named, "weights": weights})]
            return [
                Rule.model_validate({**named, "keep": "base"}),
                Rule.model_validate({"groups": ["all"], "weights": weights}),
            ]
        except ValidationError as error:
            raise ValueError(explain(error, Rule).rstrip(".")) from None


class RefinePart(Part):
    """Where to look closer: between neighbours whose ``measure`` differs by more than ``step`` their middle is asked.

    The measure is a class, whose share is meant, or ``score``. Neighbours nearer than ``finest`` are left alone.
    """

    measure: str = Field(min_length=1)
    step: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    finest: Annotated[Number, Field(gt=0, lt=1)] = 0.02


class ScorePart(Part):
    """What makes an answer right: the prompts' ``attribute`` is the answer (``exact``), or occurs in it (``within``).

    Blanks at both ends do not count.
    """

    attribute: str = Field(min_length=1)
    match: Literal["exact", "within"] = "exact"


class EnginePart(Part):
    """The engine of every child; ``options`` go to vLLM by name. ``reload: false`` starts an engine for each child.

    Of children whose weights were reloaded in place the first, the last and every ``check_every``-th are loaded by a
    fresh engine too, which has to answer alike; 0 checks none.
    """

    options: dict[str, Any] = Field(default_factory=dict)
    markers: MarkersPart = MarkersPart()
    template: dict[str, Any] = Field(default_factory=dict)
    reload: bool = True
    check_every: Count = 10


class SweepRecipe(Part):
    """A sweep. ``profiles`` are files; every child is asked without one, and under each.

    Of so many prompts as ``maps`` says each child's activation map is kept, to compare its routing with the parents'.
    """

    name: Name
    parents: Parents
    base: str
    toward: dict[str, Weight] = Field(min_length=1, description="a parent, or each parent's share at proportion 1")
    tokenizer: str | None = None
    threshold: Threshold | None = None
    subsets: dict[Name, Subset] = Field(min_length=1)
    proportions: list[Proportion] = Field(min_length=2)
    refine: RefinePart | None = None
    profiles: list[str] = Field(default_factory=list)
    model: EnginePart = EnginePart()
    task: TaskPart
    sampling: SamplingPart = SamplingPart()
    judges: JudgesPart = JudgesPart(surprise=False)
    score: ScorePart | None = None
    maps: Count = 16

    @field_validator("toward", mode="before")
    @classmethod
    def _one_parent(cls, toward: Any) -> Any:
        return {toward: 1.0} if isinstance(toward, str) else toward

    @field_validator("judges", mode="before")
    @classmethod
    def _without_surprise(cls, judges: Any) -> Any:
        return {"surprise": False, **judges} if isinstance(judges, dict) else judges

    @field_validator("proportions")
    @classmethod
    def _ascending(cls, proportions: list[float]) -> list[float]:
        if proportions != sorted(set(proportions)):
            raise ValueError("the proportions should ascend, each named once")
        if not proportions[-1]:
            raise ValueError("no proportion is above 0")
        return proportions

    @model_validator(mode="after")
    def _names_are_known(self) -> SweepRecipe:
        named = [("base", self.base), *(("toward", name) for name in self.toward)]
        named += [("tokenizer", self.tokenizer)] if self.tokenizer else []
        hold_to_parents(named, self.parents)
        if self.base in self.toward:
            raise ValueError(f"toward: '{self.base}' is the base, which has what the others leave")
        if sum(self.toward.values()) > 1 + 1e-9:
            raise ValueError("toward: the parents' shares are more than 1 together")
        if BASE in self.subsets:
            raise ValueError(f"subsets: '{BASE}' is the name of the child at proportion 0")
        return self

    @model_validator(mode="after")
    def _labels_by_text(self) -> SweepRecipe:
        if self.judges.surprise:
            raise ValueError("judges.surprise asks one untouched model how likely answers are; a sweep has many")
        if self.judges.llm is not None:
            raise ValueError("judges.llm: a sweep labels by the text alone")
        return self

    @model_validator(mode="after")
    def _measure_is_known(self) -> SweepRecipe:
        if self.refine is None:
            return self
        if self.refine.measure == SCORE:
            if self.score is None:
                raise ValueError("refine.measure: score needs the part score, which says what is right")
            return self
        known = label_set(self.study("demo").model_dump(mode="json")).classes
        if self.refine.measure not in known:
            raise ValueError(
                f"refine.measure: '{self.refine.measure}' is neither a class nor {SCORE}."
                f"{nearest(self.refine.measure, [*known, SCORE])}"
            )
        return self

    def study(self, path: str) -> Recipe:
        """Return the study's recipe that asks one model, the one at ``path``, what every child is asked."""
        model = {**self.model.model_dump(mode="json", exclude={"reload", "check_every"}), "path": path}
        controls = {"retest": 0, "mass": 0, "layers": 0}
        parts = {"task": self.task, "sampling": self.sampling, "judges": self.judges}
        dumped = {name: part.model_dump(mode="json") for name, part in parts.items()}
        return Recipe.model_validate({"name": self.name, "model": model, "study": {"controls": controls}, **dumped})

    def merge(self, subset: str, proportion: float) -> MergeRecipe:
        """Return the recipe of the child that takes a subset over at a proportion."""
        return self._merge(subset, self.subsets[subset].rules(self.toward, proportion), self.threshold)

    def whole(self) -> MergeRecipe:
        """Return the recipe of the child that takes everything over: the parent itself, in the base's form."""
        return self._merge("whole", Subset(groups=["all"]).rules(self.toward, 1.0), None)

    def _merge(self, name: str, rules: list[Rule], threshold: Threshold | None) -> MergeRecipe:
        return MergeRecipe(
            name=f"{self.name}-{name}",
            parents=self.parents,
            base=self.base,
            tokenizer=self.tokenizer,
            rules=rules,
            threshold=threshold,
        )

    @property
    def digest(self) -> str:
        """The sha256 of the resolved recipe, without where things lie and what does not change an answer."""
        places: Any = {
            "parents": True,
            "profiles": True,
            "model": {"reload", "check_every"},
            "task": {"file"},
            "maps": True,
        }
        content = self.model_dump(mode="json", exclude=places)
        return digest_of({**content, "parents": sorted(self.parents)})


def load_sweep(source: str, parents: Iterable[str] = (), changes: Iterable[str] = ()) -> SweepRecipe:
    """Read a sweep's recipe by name or path; ``parents`` are NAME=PATH, ``changes`` key.path=value.

    Raises MoteError, with one line, for a recipe that isn't there, isn't YAML, or says something wrong.
    """
    packaged = RECIPES / f"{source}.yaml"
    path = packaged if source in sweep_names() else Path(source)
    if not path.is_file():
        raise MoteError(
            f"There is no sweep '{source}', neither a file nor a packaged one.{nearest(source, sweep_names())}"
        )
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise MoteError(f"{path} is not a sweep: it should hold a mapping with {', '.join(SweepRecipe.model_fields)}.")
    from_its_folder(content, path.parent)
    for number, profile in enumerate(content.get("profiles") or []):
        if isinstance(profile, str):
            content["profiles"][number] = str(path.parent / profile)
    set_values(content, changes)
    name_parents(content, parents)
    try:
        recipe = SweepRecipe.model_validate(content)
    except ValidationError as error:
        raise MoteError(f"{source}: {explain(error, SweepRecipe)}") from None
    check_named(source, recipe.parents)
    return recipe


def sweep_names() -> list[str]:
    """Return the names of the packaged sweeps."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))
