"""What the pairs of a contrast say of the tuned experts: how each differs within pairs, with the sign test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.recipe.sides import Sides
from mote.harness.science.controls import Expert
from mote.harness.science.inference import holm, mcnemar_exact

_COLUMNS: Final = ["layer", "expert", "part", "pairs", "difference", "more", "less", "p_sign", "p_holm"]


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
