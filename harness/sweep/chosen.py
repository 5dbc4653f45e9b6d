"""Experts that a sweep takes over by how far the parents lie apart there, and random ones of the same layers.

``by: distance`` takes the experts with the largest rms distance between the base's weights and the other parent's.
``by: random`` draws as many of each layer as those would be, by a seed: what any experts of these layers do.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np

from mote.harness.errors import MoteError
from mote.harness.merge.checkpoint import open_checkpoint
from mote.harness.merge.difference import distances, summed
from mote.harness.merge.schema import Parent
from mote.harness.sweep.schema import ChosenExperts, SweepRecipe

Experts = list[tuple[int, int]]


def with_experts(recipe: SweepRecipe) -> SweepRecipe:
    """Return a recipe whose subsets name their experts one by one.

    Raises MoteError where experts are chosen and there is not one parent beside the base, or too few experts.
    """
    chosen = {name: part.experts for name, part in recipe.subsets.items() if isinstance(part.experts, ChosenExperts)}
    if not chosen:
        return recipe
    if len(recipe.toward) > 1:
        raise MoteError(f"subsets.{min(chosen)}.experts: distances are of one parent, and toward names several.")
    ranked = _ranked(recipe.parents[recipe.base], recipe.parents[next(iter(recipe.toward))])
    subsets = dict(recipe.subsets)
    for name, part in chosen.items():
        if part.top > len(ranked):
            raise MoteError(f"subsets.{name}.experts.top is {part.top}, and the model has {len(ranked)} experts.")
        subsets[name] = subsets[name].model_copy(update={"experts": sorted(_take(ranked, part))})
    return recipe.model_copy(update={"subsets": subsets})


def _take(ranked: Experts, part: ChosenExperts) -> Experts:
    top = ranked[: part.top]
    if part.by == "distance":
        return top
    drawn = np.random.default_rng(part.seed)
    found: Experts = []
    for layer, count in sorted(Counter(layer for layer, _ in top).items()):
        there = sorted(expert for one, expert in ranked if one == layer)
        found += [(layer, int(expert)) for expert in drawn.choice(there, count, replace=False)]
    return found


@cache
def _ranked(base: Parent, other: Parent) -> Experts:
    """Return (layer, expert) by their distance, the largest first; of equal ones the first in the model."""
    left = open_checkpoint("base", base)
    frame = distances(left, open_checkpoint("other", other, left))
    experts = summed(frame[frame["group"] == "routed_experts"], ["layer", "expert"])
    ordered = experts.sort_values("rms", ascending=False, kind="stable")
    return [(int(layer), int(expert)) for layer, expert in zip(ordered["layer"], ordered["expert"], strict=True)]
