"""The tuned experts within the ranking they come from: their place in it, here and on other prompts, and how busy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.checks import DataError
from mote.harness.controls import Expert, frequency_gap
from mote.harness.resonance import class_means, ranks_of, resonance
from mote.harness.store import ProfileRow


class Ranking(NamedTuple):
    """Resonance [layers, experts] on the prompts that experts were chosen on; ``other`` the same on the rest.

    ``target_mean`` is the mean map of the target class there. None where it cannot be computed; ``reason`` says why
    ``map`` is.
    """

    map: NDArray[np.float64] | None
    other: NDArray[np.float64] | None
    target_mean: NDArray[np.float64] | None
    reason: str

    def overlap(self, experts: Sequence[Expert], layers: Sequence[int]) -> int | None:
        """Return how many of the experts would be among the first as many of the other prompts' ranking."""
        if self.other is None or not experts:
            return None
        ranks = ranks_of(self.other)
        return sum(int(ranks[layers.index(layer), expert]) <= len(experts) for layer, expert in experts)

    def table(self, experts: Sequence[Expert], layers: Sequence[int]) -> pd.DataFrame:
        """Return the experts, best first, with rank, resonance, both means, and rank on the other prompts (or nan)."""
        columns = ["layer", "expert", "rank", "resonance", "target_mean", "others_mean", "rank_other_half"]
        if self.map is None or self.target_mean is None:
            return pd.DataFrame([(*expert, *[math.nan] * 5) for expert in experts], columns=columns)
        ranks = ranks_of(self.map)
        others = None if self.other is None else ranks_of(self.other)
        rows = []
        for layer, expert in experts:
            at = layers.index(layer), expert
            score, mean = float(self.map[at]), float(self.target_mean[at])
            elsewhere = math.nan if others is None else int(others[at])
            rows.append((layer, expert, int(ranks[at]), score, mean, mean - score, elsewhere))
        return pd.DataFrame(rows, columns=columns).sort_values(["rank", "layer", "expert"], ignore_index=True)


def rank(
    ids: Sequence[str], maps: NDArray[Any], labels: Mapping[str, str], split: Mapping[str, str], target: str
) -> Ranking:
    """Rank by resonance as the study did, on the part ``select``; and on the rest, to see whether it would agree.

    ``ids`` name the prompts of ``maps`` [prompts, layers, experts]; prompts without a label are left out. Without a
    split all prompts are the first part.
    """
    at = [i for i, key in enumerate(ids) if key in labels]
    if not at:
        return Ranking(None, None, None, "No activation map of a labelled baseline answer is stored yet.")
    parts: dict[str, list[int]] = {"select": [], "measure": []}
    for i in at:
        parts[split.get(ids[i], "select")].append(i)
    sides = {name: [labels[ids[i]] for i in rows] for name, rows in parts.items()}
    try:
        ranking = resonance(maps[parts["select"]], sides["select"], target)
    except DataError as error:
        return Ranking(None, None, None, str(error))
    try:
        other = resonance(maps[parts["measure"]], sides["measure"], target) if parts["measure"] else None
    except DataError:
        other = None
    return Ranking(ranking, other, class_means(maps[parts["select"]], sides["select"])[target], "")


def controls_gap(
    maps: NDArray[Any], profiles: Sequence[ProfileRow], tuned: str | None, layers: Sequence[int]
) -> pd.DataFrame:
    """Return for each random set how much less busy it is than the tuned experts (activations a prompt and expert).

    ``maps`` are those of the baseline, [prompts, layers, experts]. Columns kind, profile, gap, tuned; ``tuned`` is
    the mean frequency of the tuned experts themselves, over all prompts. Empty where there are no maps or no controls.
    """
    specs = {profile.name: profile for profile in profiles}
    rows = []
    if len(maps) and tuned is not None:
        frequency = maps.mean(axis=0)
        experts = [(edit["layer"], edit["expert"]) for edit in specs[tuned].spec["edits"]]
        at = {layer: row for row, layer in enumerate(layers)}
        busy = float(np.mean([frequency[at[layer], expert] for layer, expert in experts]))
        for profile in specs.values():
            if profile.kind.startswith("random-"):
                drawn = [(edit["layer"], edit["expert"]) for edit in profile.spec["edits"]]
                gap = frequency_gap(experts, drawn, frequency, layers)
                rows.append((profile.kind, profile.name, gap, busy))
    return pd.DataFrame(rows, columns=["kind", "profile", "gap", "tuned"])
