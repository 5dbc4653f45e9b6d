"""The tuned experts within the ranking they come from: their place in it, here and on other prompts, and how busy."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.preconditions import DataError
from mote.harness.science.controls import RANDOM, Expert, frequency_gap
from mote.harness.science.inference import permutation_p
from mote.harness.science.resonance import class_means, ranks_of, resonance
from mote.harness.science.stability import RankStability, bootstrap_ranking, shuffled_maxima
from mote.harness.store.run import ProfileRow

T = TypeVar("T")


BOOTSTRAPS: Final = 300
SHUFFLES: Final = 499


@dataclass(frozen=True)
class TunedExperts:
    """The tuned experts and the ranking that they come from, for the section "Which experts".

    ``resonance``: [layers, experts] over the prompts that experts were chosen on; ``no_resonance`` says why there is
    none. ``distinctive``: the tuned experts with their place in that ranking, and how sure the place is. ``overlap``:
    how many of them the other prompts' ranking would choose.
    """

    resonance: NDArray[np.float64] | None
    no_resonance: str
    distinctive: pd.DataFrame
    overlap: int | None


class Ranking(NamedTuple):
    """Resonance [layers, experts] on the prompts that experts were chosen on; ``other`` the same on the rest.

    ``target_mean`` is the mean map of the target class there, ``stability`` a bootstrap of the ranking. ``shuffled``
    holds the best score of any expert for each shuffling of the labels; ``within`` the same with labels shuffled only
    among prompts of one place (or subject), so that topics stay as they are. None where it cannot be computed;
    ``reason`` says why ``map`` is.
    """

    map: NDArray[np.float64] | None
    other: NDArray[np.float64] | None
    target_mean: NDArray[np.float64] | None
    stability: RankStability | None
    shuffled: NDArray[np.float64] | None
    within: NDArray[np.float64] | None
    reason: str

    def tuned(self, experts: Sequence[Expert], layers: Sequence[int]) -> TunedExperts:
        """Return the ranking with what it says of the tuned experts."""
        return TunedExperts(self.map, self.reason, self.table(experts, layers), self.overlap(experts, layers))

    def overlap(self, experts: Sequence[Expert], layers: Sequence[int]) -> int | None:
        """Return how many of the experts would be among the first as many of the other prompts' ranking."""
        if self.other is None or not experts:
            return None
        ranks = ranks_of(self.other)
        return sum(int(ranks[layers.index(layer), expert]) <= len(experts) for layer, expert in experts)

    def table(self, experts: Sequence[Expert], layers: Sequence[int]) -> pd.DataFrame:
        """Return the experts, best first; what is not known is nan.

        Columns: layer, expert; rank and resonance, with its bootstrap interval low, high; target_mean and others_mean
        (activations a prompt); kept, the share of bootstrap draws with the expert among the first as many;
        rank_other_half; p_shuffled and p_within, over all experts at once.
        """
        if self.map is None or self.target_mean is None:
            unknown = [math.nan] * (len(_COLUMNS) - 2)
            return pd.DataFrame([(*expert, *unknown) for expert in experts], columns=_COLUMNS)
        ranks = ranks_of(self.map)
        others = None if self.other is None else ranks_of(self.other)
        rows: list[dict[str, float]] = []
        for layer, expert in experts:
            at = layers.index(layer), expert
            score, mean = float(self.map[at]), float(self.target_mean[at])
            row: dict[str, float] = {"layer": layer, "expert": expert, "rank": int(ranks[at]), "resonance": score}
            row |= {"target_mean": mean, "others_mean": mean - score}
            if self.stability is not None:
                found = self.stability
                row |= {"low": found.low[at], "high": found.high[at], "kept": found.in_top_k[at]}
            if others is not None:
                row["rank_other_half"] = int(others[at])
            if self.shuffled is not None:
                row["p_shuffled"] = permutation_p(score, self.shuffled)
            if self.within is not None:
                row["p_within"] = permutation_p(score, self.within)
            rows.append(row)
        frame = pd.DataFrame(rows, columns=_COLUMNS)
        return frame.sort_values(["rank", "layer", "expert"], ignore_index=True)


_COLUMNS: Final = [
    *("layer", "expert", "rank", "resonance", "low", "high", "target_mean", "others_mean", "kept", "rank_other_half"),
    *("p_shuffled", "p_within"),
]


def rank(
    ids: Sequence[str],
    maps: NDArray[Any],
    labels: Mapping[str, str],
    split: Mapping[str, str],
    target: str,
    k: int = 0,
    groups: Mapping[str, Hashable] | None = None,
    pairs: Mapping[str, Hashable] | None = None,
) -> Ranking:
    """Rank by resonance as the study did, on the part ``select``; and on the rest, to see whether it would agree.

    ``ids`` name the prompts of ``maps`` [prompts, layers, experts]; prompts without a label are left out. Without a
    split all prompts are the first part. With ``k`` experts chosen their stability is bootstrapped; ``groups`` (prompt
    -> place or subject) are what is then drawn, and what labels are shuffled within, unless ``pairs`` say it closer.
    """
    at = [i for i, key in enumerate(ids) if key in labels]
    if not at:
        return _nothing("No activation map of a labelled baseline answer is stored yet.")
    parts: dict[str, list[int]] = {"select": [], "measure": []}
    for i in at:
        parts[split.get(ids[i], "select")].append(i)
    names = {name: [labels[ids[i]] for i in rows] for name, rows in parts.items()}
    chosen, ours = maps[parts["select"]], names["select"]
    try:
        ranking = resonance(chosen, ours, target)
    except DataError as error:
        return _nothing(str(error))
    units = None if groups is None else [groups[ids[i]] for i in parts["select"]]
    closer = units if pairs is None else [pairs[ids[i]] for i in parts["select"]]
    return Ranking(
        map=ranking,
        other=_or_none(resonance, maps[parts["measure"]], names["measure"], target),
        target_mean=class_means(chosen, ours)[target],
        stability=_or_none(bootstrap_ranking, chosen, ours, target, k, clusters=units, draws=BOOTSTRAPS) if k else None,
        shuffled=_or_none(shuffled_maxima, chosen, ours, target, draws=SHUFFLES),
        within=_or_none(shuffled_maxima, chosen, ours, target, draws=SHUFFLES, groups=closer) if closer else None,
        reason="",
    )


def _nothing(reason: str) -> Ranking:
    return Ranking(None, None, None, None, None, None, reason)


def _or_none(function: Callable[..., T], *arguments: Any, **options: Any) -> T | None:
    """Return the value of a statistic, or None where the prompts do not allow it."""
    try:
        return function(*arguments, **options)
    except DataError:
        return None


def controls_gap(
    frequency: NDArray[np.float64] | None, profiles: Sequence[ProfileRow], tuned: str | None, layers: Sequence[int]
) -> pd.DataFrame:
    """Return for each random set how much less busy it is than the tuned experts (activations a prompt and expert).

    ``frequency`` is the mean of the baseline's maps, [layers, experts]. Columns kind, profile, gap, tuned; ``tuned`` is
    the mean frequency of the tuned experts themselves, over all prompts. Empty where there are no maps or no controls.
    """
    specs = {profile.name: profile for profile in profiles}
    rows = []
    if frequency is not None and tuned is not None:
        experts = [(edit["layer"], edit["expert"]) for edit in specs[tuned].spec["edits"]]
        at = {layer: row for row, layer in enumerate(layers)}
        busy = float(np.mean([frequency[at[layer], expert] for layer, expert in experts]))
        for profile in specs.values():
            if profile.kind.startswith(RANDOM):
                drawn = [(edit["layer"], edit["expert"]) for edit in profile.spec["edits"]]
                gap = frequency_gap(experts, drawn, frequency, layers)
                rows.append((profile.kind, profile.name, gap, busy))
    return pd.DataFrame(rows, columns=["kind", "profile", "gap", "tuned"])
