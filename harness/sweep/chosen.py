"""Experts that a sweep takes over: those in which the parents differ most, or those that a run ranks first.

Beside each such set stand random ones, as subsets of their own: ``NAME-layers-1`` and so on have as many experts of
each layer, ``NAME-mass-1`` and so on are chosen as often by the prompts of the run's class, where a run is named. What
any experts of these layers, or any as busy ones, do is then on the same page.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mote.harness.errors import MoteError
from mote.harness.experts.rankings import CAUSAL, read_halves, run_rankings
from mote.harness.merge.difference import summed
from mote.harness.merge.experts import ranked_experts
from mote.harness.merge.schema import Ranked
from mote.harness.preconditions import DataError
from mote.harness.recipe.manifest import read_manifest
from mote.harness.science.controls import ControlKind, Expert, random_experts
from mote.harness.store.run import RunStore
from mote.harness.sweep.distances import parents_distances
from mote.harness.sweep.schema import ChosenExperts, Subset, SweepRecipe

_KINDS: Final[dict[ControlKind, str]] = {"layers": "of the same layers", "mass": "of the same mass"}
_BY: Final = {
    "distance": "the {top} experts in which the parents differ most (rms)",
    "random": "{top} random experts, as many of each layer as the most different have",
    "activity": "the {top} most active experts of {run}",
    "resonance": "the {top} experts of the highest resonance in {run}",
    "causal": "the {top} experts of the largest effect in the scan of {run}",
}


class _Model(NamedTuple):
    """The experts of the base, the most different from the other parent's first, and its layers with experts."""

    ranked: list[Expert]
    layers: list[int]
    experts: int


def with_experts(recipe: SweepRecipe) -> SweepRecipe:
    """Return a recipe whose subsets name their experts one by one, with the random sets that stand beside them.

    Raises MoteError where experts are chosen and there is not one parent beside the base, where a run does not rank
    this model's experts or too few of them, and where a random set would have the name of a subset.
    """
    chosen = {name: part.experts for name, part in recipe.subsets.items() if isinstance(part.experts, ChosenExperts)}
    if not chosen:
        return recipe
    if len(recipe.toward) > 1:
        raise MoteError(f"subsets.{min(chosen)}.experts: distances are of one parent, and toward names several.")
    model = _model(recipe)
    subsets: dict[str, Subset] = {}
    for name, part in recipe.subsets.items():
        how = chosen.get(name)
        if how is None:
            subsets[name] = part
            continue
        if how.top > len(model.ranked):
            raise MoteError(f"subsets.{name}.experts.top is {how.top}, and the model has {len(model.ranked)} experts.")
        try:
            top = _take(model, how)
            beside = {} if how.by == "random" else _beside(model, how, top)
        except (DataError, MoteError) as error:
            raise MoteError(f"subsets.{name}.experts: {error}") from None
        note = part.note or _BY[how.by].format(top=how.top, run=Path(how.run or "").name)
        subsets[name] = part.model_copy(update={"experts": sorted(top), "note": note})
        for (kind, number), experts in beside.items():
            other = f"{name}-{kind}-{number}"
            if other in recipe.subsets:
                raise MoteError(f"subsets.{other}: this is the name of a random set beside {name}; take another.")
            note = f"{len(experts)} random experts {_KINDS[kind]} as those of {name}"
            subsets[other] = part.model_copy(update={"experts": experts, "note": note})
    return recipe.model_copy(update={"subsets": subsets})


def _take(model: _Model, how: ChosenExperts) -> list[Expert]:
    """Return the experts that a subset names."""
    top = model.ranked[: how.top]
    if how.by == "distance":
        return top
    if how.by != "random":
        return _of_run(model, how)
    drawn = np.random.default_rng(how.seed)
    found: list[Expert] = []
    for layer, count in sorted(Counter(layer for layer, _ in top).items()):
        there = sorted(expert for one, expert in model.ranked if one == layer)
        found += [(layer, int(expert)) for expert in drawn.choice(there, count, replace=False)]
    return found


def _of_run(model: _Model, how: ChosenExperts) -> list[Expert]:
    """Return the first experts of a run's ranking, or those of the largest effect in its scan."""
    if how.by == "activity" or how.by == "resonance":
        found = ranked_experts(Ranked(run=how.run, ranking=how.by, top=how.top))
    else:
        effects = run_rankings(str(how.run)).get(CAUSAL)
        if effects is None:
            raise MoteError(f"{how.run} has no scan: make one with mote scan {how.run}.")
        measured = int(np.isfinite(effects).sum())
        if measured < how.top:
            raise MoteError(f"top is {how.top}, and the scan of {how.run} measured {measured} experts.")
        layers = _layers_of(str(how.run))
        order = np.argsort(-np.nan_to_num(effects.ravel(), nan=-np.inf), kind="stable")[: how.top]
        found = [(layers[int(at) // effects.shape[1]], int(at) % effects.shape[1]) for at in order]
    if strange := sorted(set(found) - set(model.ranked)):
        raise MoteError(f"{how.run} ranks the expert {strange[0]}, which the base does not have.")
    return found


def _beside(model: _Model, how: ChosenExperts, top: list[Expert]) -> dict[tuple[ControlKind, int], list[Expert]]:
    """Return the random sets beside a chosen one, by kind and number from 1."""
    # Sets of the same layers read no mass.
    mass = np.zeros((len(model.layers), model.experts)) if how.run is None else _mass(model, how.run)
    kinds: tuple[ControlKind, ...] = ("layers",) if how.run is None else ("layers", "mass")
    return {
        (kind, number): experts
        for kind in kinds
        for number, experts in enumerate(random_experts(kind, top, mass, model.layers, how.beside, how.seed), start=1)
    }


def _mass(model: _Model, run: str) -> NDArray[np.float64]:
    """Return how often each expert is chosen by a prompt of the run's class, [layers, experts]."""
    folder = Path(run)
    with RunStore(folder, read_only=True) as store:
        halves = read_halves(store, read_manifest(folder))
    if list(halves.layers) != model.layers or halves.experts != model.experts:
        raise MoteError(f"{run} is of another model: its experts are not those of the base.")
    return halves.mass


def _layers_of(run: str) -> list[int]:
    return [int(layer) for layer in read_manifest(Path(run))["model"]["layout"]["layers"]]


def _model(recipe: SweepRecipe) -> _Model:
    frame = parents_distances(recipe.parents[recipe.base], recipe.parents[next(iter(recipe.toward))])
    experts = summed(frame[frame["group"] == "routed_experts"], ["layer", "expert"])
    ordered = experts.sort_values("rms", ascending=False, kind="stable")
    ranked = [(int(layer), int(expert)) for layer, expert in zip(ordered["layer"], ordered["expert"], strict=True)]
    layers = sorted({layer for layer, _ in ranked})
    return _Model(ranked, layers, 1 + max((expert for _, expert in ranked), default=-1))
