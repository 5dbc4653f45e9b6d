"""The prompts that a run's experts were ranked by: a class against the others, or the two sets of a contrast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.drawing import short
from mote.harness.recipe.study_part import StudyPart
from mote.harness.science.controls import Expert
from mote.harness.science.inference import holm, mcnemar_exact
from mote.harness.science.maps import LENGTH_NORMALISED

_COLUMNS: Final = ["layer", "expert", "part", "pairs", "difference", "more", "less", "p_sign", "p_holm"]


@dataclass(frozen=True)
class Sides:
    """Which prompts stand on which side of the ranking.

    ``marks``: prompt id -> its side, prompts on none left out; ``target`` is the side that experts are seen more in,
    ``name`` its name in a sentence ("REFUSED", "frame = leading"). ``pairs``: prompt id -> its pair, empty where
    nothing pairs them. ``unit`` is the ranking's, ``contrast`` whether the sides are sets of prompts, not classes.
    """

    marks: Mapping[str, str]
    target: str
    name: str
    unit: str
    contrast: bool
    pairs: Mapping[str, Hashable] = field(default_factory=dict)


def sides_of(labels: Mapping[str, str], attributes: Mapping[str, Mapping[str, Any]], study: StudyPart) -> Sides:
    """Return the sides of a run's ranking from the baseline's labels and the prompts' attributes, by prompt id."""
    unit = "activations a token" if study.ranking == LENGTH_NORMALISED else "activations a prompt"
    found = study.contrast
    if found is None:
        return Sides(labels, study.target, short(study.target), unit, contrast=False)
    return Sides(found.marks(attributes), found.value, found.words, unit, contrast=True, pairs=found.pairs(attributes))


def pair_signs(
    ids: Sequence[str],
    maps: NDArray[Any],
    sides: Sides,
    split: Mapping[str, str],
    experts: Sequence[Expert],
    layers: Sequence[int],
) -> pd.DataFrame:
    """Return for each tuned expert how it differs within pairs, on the part that chose experts and on the other.

    ``maps`` [prompts, layers, experts] are in the unit of the ranking, in the order of ``ids``. Columns: layer, expert,
    part; pairs; difference (mean within a pair of the target's side minus the other, in that unit); more and less
    (pairs in which the target's side has more, less; the rest are equal), the two-sided sign test of them, and its p
    after Holm over the experts of a part. No rows where nothing pairs prompts. On the part ``select`` an expert was
    chosen for its difference: its p says little there.
    """
    rows: list[tuple[object, ...]] = []
    at = {key: row for row, key in enumerate(ids)}
    for part in dict.fromkeys(split.values()) or ["all"]:
        pairs: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for key, pair in sides.pairs.items():
            if key in at and split.get(key, "all") == part:
                pairs[pair][sides.marks[key] != sides.target].append(at[key])
        whole = [pair for pair in pairs.values() if all(pair)]
        signs = {}
        for layer, expert in experts if whole else ():
            counts = maps[:, layers.index(layer), expert]
            found = np.array([counts[ours].mean() - counts[others].mean() for ours, others in whole])
            more, less = int((found > 0).sum()), int((found < 0).sum())
            p = mcnemar_exact(more, less).p
            signs[layer, expert] = (part, len(found), float(found.mean()), more, less, p)
        adjusted = holm({expert: sign[-1] for expert, sign in signs.items()}) if signs else {}
        rows += [(*expert, *sign, adjusted[expert]) for expert, sign in signs.items()]
    return pd.DataFrame(rows, columns=_COLUMNS)
