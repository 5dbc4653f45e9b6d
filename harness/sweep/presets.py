"""Subsets that find where a behaviour sits: each group of tensors, or each band of layers, alone and left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

import numpy as np

from mote.harness.errors import MoteError, nearest
from mote.harness.merge.checkpoint import open_checkpoint
from mote.harness.merge.groups import GROUPS, place_of
from mote.harness.sweep.schema import Subset, SweepRecipe

Preset = Literal["groups", "layers"]
PRESETS: Final[tuple[Preset, ...]] = get_args(Preset)
PRESET_CHANGES: Final = ("proportions=[0, 1]", "refine=null")
"""What a preset sets before anything else is: whether a part carries a behaviour shows when it is taken over whole."""
MOST_BANDS: Final = 8
"""Into how many bands the layers are divided at most."""


def with_preset(recipe: SweepRecipe, preset: str) -> SweepRecipe:
    """Return a recipe whose subsets are everything, and of each part of the base that part alone and all but it.

    Parts are the groups that the base has (``groups``; a tied head goes with the embeddings), or up to ``MOST_BANDS``
    bands of decoder layers (``layers``; what lies outside of them belongs to no band).
    """
    if preset not in PRESETS:
        raise MoteError(f"There is no preset '{preset}'.{nearest(preset, PRESETS)} Presets: {', '.join(PRESETS)}.")
    base = open_checkpoint(recipe.base, recipe.parents[recipe.base])
    parts = _groups(base.tensors, base.layers, base.tied) if preset == "groups" else _bands(base.layers)
    subsets = {"all": Subset(groups=["all"])}
    for name, part in parts.items():
        subsets[f"only-{name}"] = part
        subsets[f"but-{name}"] = part.model_copy(update={"others": True})
    return recipe.model_copy(update={"name": f"{recipe.name}-{preset}", "subsets": subsets})


def _groups(tensors: Iterable[str], layers: int, tied: bool) -> dict[str, Subset]:
    there = {place_of(name, layers).group for name in tensors}
    found = {group.replace("_", "-"): Subset(groups=[group]) for group in GROUPS if group in there}
    if tied and "head" in found:
        del found["head"]
        found["embeddings"] = Subset(groups=["embeddings", "head"])
    return found


def _bands(layers: int) -> dict[str, Subset]:
    found = {}
    for band in np.array_split(np.arange(layers), min(layers, MOST_BANDS)):
        first, last = int(band[0]), int(band[-1])
        found[f"layers-{first}-{last}"] = Subset(layers=[f"{first}-{last}"])
    return found
