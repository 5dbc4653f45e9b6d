"""Dose of a set: how often its experts are chosen by some prompts, and how much router weight goes with them.

Suppressing experts that are rarely chosen changes little, whatever they are for. So a flip rate is read beside the
activations and the router weight that a set takes away, on the prompts whose flips are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.preconditions import DataError, check_class, check_maps
from mote.harness.science.controls import Expert
from mote.harness.science.maps import check_tokens


def target_mass(maps: NDArray[Any], labels: Sequence[str], target: str) -> NDArray[np.float64]:
    """Return the mean activation map of the class `target`, [layers, experts], in activations a prompt.

    What ``frequency`` and ``mass`` controls are matched on: give the choosing prompts. Matched over all prompts,
    experts that are chosen for the target's prompts look as busy as experts that are not.
    """
    check_maps(maps, labels)
    check_class(target, labels)
    ours = np.array([label == target for label in labels])
    return np.asarray(maps[ours].mean(axis=0, dtype=np.float64))


def removed(
    sets: Mapping[str, Sequence[Expert]],
    maps: NDArray[Any],
    tokens: Sequence[int] | NDArray[Any],
    layers: Sequence[int],
    weights: NDArray[Any] | None = None,
) -> pd.DataFrame:
    """Return what each named set takes away from some prompts: one row a set, in the order given.

    `maps` is [prompts, layers, experts] in activations, `weights` the router weights in the same shape, `tokens` the
    tokens that each map counts. Columns: set, experts (how many), activations (a prompt), activations_token (a token),
    weight_token (router weight a token, summed over layers; nan without `weights`).
    """
    check_maps(maps, [""] * maps.shape[0])
    counted = check_tokens(tokens, maps.shape[0])
    if weights is not None and weights.shape != maps.shape:
        raise DataError(f"The weights have the shape {list(weights.shape)}, the maps {list(maps.shape)}.")
    row = {number: i for i, number in enumerate(layers)}
    total = maps.sum(axis=0, dtype=np.float64)
    weight = weights.sum(axis=0, dtype=np.float64) if weights is not None else np.full(total.shape, np.nan)
    rows = []
    for name, experts in sets.items():
        unknown = [one for one in experts if one[0] not in row or not 0 <= one[1] < total.shape[1]]
        if unknown:
            raise DataError(f"The set '{name}' holds {unknown[0]}, which is no routed expert of these maps.")
        at = ([row[layer] for layer, _ in experts], [expert for _, expert in experts])
        gone, gone_weight = float(total[at].sum()), float(weight[at].sum())
        n = int(counted.sum())
        rows.append((name, len(experts), gone / maps.shape[0], gone / n, gone_weight / n))
    return pd.DataFrame(rows, columns=["set", "experts", "activations", "activations_token", "weight_token"])
