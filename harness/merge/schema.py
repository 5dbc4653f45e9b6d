"""Recipes of a merge: parents, a base, and rules read from top to bottom; the first that fits a tensor decides.

A child has the base's tensors. A tensor that no rule fits stays the base's. A rule gives each parent its weight, from
0 to 1; what is left to 1 is the base's. Formula, for weights w_i and tensors W_i, with W_0 the base's:
W = W_0 + sum_i w_i (W_i - W_0). That is interpolation as the abstract of arXiv 2506.14794 has it; the paper's own
formula, its distance's normalisation and its thresholds were not verified.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from mote.harness.errors import MoteError, nearest
from mote.harness.files import digest_of
from mote.harness.merge.groups import GROUPS
from mote.harness.recipe.strict import Number, Part, explain, read_yaml

RECIPES: Final = Path(__file__).parent / "recipes"
OPEN: Final = "?"
"""A packaged recipe's parents have this path: who uses it names them with --parent."""

Count = Annotated[int, Field(ge=0)]
Weight = Annotated[Number, Field(ge=0, le=1)]


class Parent(Part):
    """A parent: a folder, or a Hugging Face id with its revision."""

    path: str = Field(min_length=1)
    revision: str | None = Field(default=None, min_length=1)


def _path_alone(parents: Any) -> Any:
    if not isinstance(parents, dict):
        return parents
    return {name: {"path": value} if isinstance(value, str) else value for name, value in parents.items()}


Parents = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], Parent],
    Field(min_length=2),
    BeforeValidator(_path_alone),
]
"""Two parents or more by name; a text alone is a path."""


class Linear(Part):
    """A weight that goes linearly from the first decoder layer to the last."""

    first: Weight
    last: Weight


class Ranked(Part):
    """The ``top`` experts of a ranking.

    The ranking is a run's (``run``), or a file's (``file``): a profile, a JSON list of [layer, expert], or a CSV with
    the columns layer and expert, best first.
    """

    run: str | None = Field(default=None, min_length=1)
    file: str | None = Field(default=None, min_length=1)
    ranking: Literal["resonance", "activity"] = "resonance"
    top: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _one_source(self) -> Ranked:
        if (self.run is None) == (self.file is None):
            raise ValueError("give either run (a run's folder) or file (a profile, a JSON list, a CSV)")
        return self


class Threshold(Part):
    """A parent counts for a tensor only where its distance to the base's lies ``above`` this.

    ``relative`` is ||W_i - W_0|| / ||W_0||, ``rms`` is ||W_i - W_0|| / sqrt(values), both by the Frobenius norm.
    """

    distance: Literal["relative", "rms"]
    above: Annotated[Number, Field(ge=0)]


class Rule(Part):
    """Which tensors (all conditions must hold), and what of each parent goes into them."""

    groups: list[str] | None = Field(default=None, min_length=1)
    pattern: str | None = Field(default=None, min_length=1)
    layers: list[Count | Annotated[str, Field(pattern=r"^\d+-\d+$")]] | None = Field(default=None, min_length=1)
    experts: list[Annotated[tuple[Count, Count], Field(strict=False)]] | Ranked | None = None
    weights: dict[str, Weight | Linear] | None = Field(default=None, min_length=1)
    keep: Literal["base"] | None = None
    threshold: Threshold | None = None

    @field_validator("groups")
    @classmethod
    def _groups_are_known(cls, groups: list[str] | None) -> list[str] | None:
        for group in groups or []:
            if group not in (*GROUPS, "all"):
                raise ValueError(f"'{group}' is no group.{nearest(group, (*GROUPS, 'all'))}")
        return groups

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"'{pattern}' is not a regular expression: {error}") from None
        return pattern

    @field_validator("layers")
    @classmethod
    def _ranges_ascend(cls, layers: list[int | str] | None) -> list[int | str] | None:
        for item in layers or []:
            if isinstance(item, str) and int(item.partition("-")[0]) > int(item.partition("-")[2]):
                raise ValueError(f"'{item}' runs backwards: write the lower layer first")
        return layers

    @model_validator(mode="after")
    def _says_what_to_do(self) -> Rule:
        if (self.weights is None) == (self.keep is None):
            raise ValueError("give either weights (per parent) or keep: base")
        if self.keep and self.threshold:
            raise ValueError("a threshold has no meaning beside keep: base")
        if all(condition is None for condition in (self.groups, self.pattern, self.layers, self.experts)):
            raise ValueError("the rule names no tensors; for every tensor write groups: [all]")
        if isinstance(self.experts, list) and not self.experts:
            raise ValueError("experts is empty: name (layer, expert) pairs")
        return self

    @property
    def layer_set(self) -> frozenset[int] | None:
        """The layers this rule names, or None for all."""
        if self.layers is None:
            return None
        named: set[int] = set()
        for item in self.layers:
            first, _, last = str(item).partition("-")
            named.update(range(int(first), int(last or first) + 1))
        return frozenset(named)


class MergeRecipe(Part):
    """A child: its parents, the one whose tensors and configuration it has, and the rules."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    parents: Parents
    base: str
    tokenizer: str | None = Field(default=None, description="whose tokenizer and chat template; left out, the base's")
    rules: list[Rule] = Field(min_length=1)
    threshold: Threshold | None = None

    @model_validator(mode="after")
    def _names_are_parents(self) -> MergeRecipe:
        named = [("base", self.base)] + ([("tokenizer", self.tokenizer)] if self.tokenizer else [])
        named += [(f"rules.{i}.weights", name) for i, rule in enumerate(self.rules) for name in rule.weights or {}]
        hold_to_parents(named, self.parents)
        return self

    @model_validator(mode="after")
    def _weights_add_up(self) -> MergeRecipe:
        for place, rule in enumerate(self.rules):
            for end in ("first", "last"):
                shares = {
                    name: getattr(value, end) if isinstance(value, Linear) else value
                    for name, value in (rule.weights or {}).items()
                }
                total = sum(shares.values())
                if total > 1 + 1e-9 or (self.base in shares and abs(total - 1) > 1e-9):
                    raise ValueError(
                        f"rules.{place}.weights add up to {total:g}; they must be 1 with the base's own, or at most 1"
                        " without it (the rest is the base's)"
                    )
        return self

    @property
    def digest(self) -> str:
        """The sha256 of the resolved recipe without its parents' places, which differ by machine."""
        content = self.model_dump(mode="json")
        content["parents"] = sorted(self.parents)
        return digest_of(content)


class BakeRecipe(Part):
    """A model with the output projections of some experts multiplied: one parent, whose all else is kept.

    ``scales`` has (layer, expert, factor), the factor a float32 number; 0 takes the expert's output away. ``profile``
    says whose edits these are.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    parent: Parent
    profile: dict[str, Any]
    scales: list[tuple[Count, Count, Annotated[Number, Field(ge=0)]]] = Field(min_length=1)

    @property
    def tokenizer(self) -> None:
        """Whose tokenizer the child has: the parent's own."""
        return None

    @property
    def digest(self) -> str:
        """The sha256 of the recipe without its parent's place, which differs by machine."""
        return digest_of(self.model_dump(mode="json", exclude={"parent"}))


def load_merge_recipe(source: str, parents: list[str] | None = None) -> MergeRecipe:
    """Read a merge's recipe by name or path; ``parents`` are NAME=PATH or NAME=PATH@REVISION, and go before its own.

    Raises MoteError, with one line, for a recipe that isn't there, isn't YAML, or says something wrong.
    """
    path = RECIPES / f"{source}.yaml" if source in merge_recipe_names() else Path(source)
    if not path.is_file():
        raise MoteError(
            f"There is no recipe '{source}', neither a file nor a packaged one.{nearest(source, merge_recipe_names())}"
        )
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise MoteError(f"{path} is not a recipe: it should hold a mapping with {', '.join(MergeRecipe.model_fields)}.")
    name_parents(content, parents or ())
    try:
        recipe = MergeRecipe.model_validate(content)
    except ValidationError as error:
        raise MoteError(f"{source}: {explain(error, MergeRecipe)}") from None
    check_named(source, recipe.parents)
    return recipe


def hold_to_parents(named: Iterable[tuple[str, str]], parents: Collection[str]) -> None:
    """Raise ValueError for the first of (place in the recipe, name) that names no parent."""
    for place, name in named:
        if name not in parents:
            raise ValueError(f"{place}: '{name}' is no parent.{nearest(name, parents)}")


def check_named(source: str, parents: Mapping[str, Parent]) -> None:
    """Raise MoteError for a parent that a packaged recipe leaves to its user, and that nobody named."""
    for name, parent in parents.items():
        if parent.path == OPEN:
            raise MoteError(f"{source}: name the parent '{name}' with --parent {name}=FOLDER.")


def name_parents(content: dict[str, Any], parents: Iterable[str]) -> None:
    """Put parents given as NAME=PATH or NAME=PATH@REVISION into a recipe's content, before its own.

    Raises MoteError for a parent that the recipe does not name.
    """
    known = content.get("parents")
    for given in parents:
        name, separator, place = given.partition("=")
        if not separator or not place:
            raise MoteError(f"--parent {given}: write NAME=FOLDER or NAME=OWNER/MODEL[@REVISION].")
        if not isinstance(known, dict) or name not in known:
            raise MoteError(f"--parent {given}: the recipe has no parent '{name}'.{nearest(name, known or [])}")
        known[name] = _parent_of(place)


def merge_recipe_names() -> list[str]:
    """Return the names of the packaged recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def _parent_of(place: str) -> dict[str, str]:
    path, separator, revision = place.rpartition("@")
    if separator and not Path(place).exists():
        return {"path": path, "revision": revision}
    return {"path": place}
