"""The curves of a run over dose, direction and layers, as frames: one row a profile, or a random set.

The profiles of a run are points on two axes, how many experts are tuned and how much. ``curve_tables`` sorts them:
doses over k, the way from suppression over the untouched model to stimulation, the experts of one third of the
layers alone, and beside them every random set, all with the same rates on the same prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from mote.harness.science.controls import RANDOM, RETEST
from mote.harness.science.dose import THIRDS, dose_curve, layer_shares


class CurveTables(NamedTuple):
    """Frames with the columns of `dose.dose_curve`, and profile, kind, k and factor.

    ``doses``: the top k suppressed, by k. ``direction``: one k, by factor: 0 is suppression, 1 the untouched model with
    another seed (what sampling alone does), infinity stimulation. ``thirds``: one third of the layers alone, and all of
    them; with ``effect`` and ``share`` as `dose.layer_shares` has them. ``sets``: every random set.
    """

    doses: pd.DataFrame
    direction: pd.DataFrame
    thirds: pd.DataFrame
    sets: pd.DataFrame


def curve_tables(
    profiles: pd.DataFrame,
    matrices: Mapping[tuple[str, str], pd.DataFrame],
    tuned: str | None,
    view: str,
    target: str,
) -> CurveTables:
    """Sort a run's profiles (columns profile, kind, k, factor) by what was varied; counts are those of one view."""
    there = profiles.loc[np.array([(str(name), view) in matrices for name in profiles["profile"]], dtype=bool)]
    # One row a profile: the place in the frame stands for the dose until the true ones are joined.
    curve = dose_curve(
        {(str(row.profile), float(i)): matrices[str(row.profile), view] for i, row in enumerate(there.itertuples())},
        target,
    )
    if there.empty:
        return CurveTables(there, there, there, there)
    rows = there.merge(
        curve.drop(columns=["dose", "quality"]).rename(columns={"action": "profile"}), on="profile", how="left"
    )
    kind = rows["kind"]
    own = rows[rows["profile"] == tuned]
    k = int(own["k"].iloc[0]) if len(own) else 0
    doses = rows[kind == "suppress"].sort_values("k", ignore_index=True)
    at_k = kind.isin(["scale", "stimulate"]) & (rows["k"] == k)
    direction = pd.concat([own, rows[at_k], rows[kind == RETEST].head(1)])
    direction = direction.sort_values("factor", kind="stable", ignore_index=True)
    thirds = _thirds(rows[kind == "third"], own)
    return CurveTables(doses, direction, thirds, rows[kind.str.startswith(RANDOM)].reset_index(drop=True))


def _thirds(parts: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Join the thirds' own rates with their share of the whole's effect.

    Profiles are asked with the baseline's own seeds, so an edit of nothing changes nothing: effects are over 0.
    """
    if parts.empty or own.empty:
        return parts.assign(part="", effect=math.nan, share=math.nan)
    names = [str(name).rpartition("-")[0] for name in parts["profile"]]
    ordered = parts.assign(part=names).sort_values("part", key=lambda part: part.map(THIRDS.index))
    whole = float(own["flips"].iloc[0])
    shares = layer_shares(dict(zip(ordered["part"], ordered["flips"], strict=True)), whole)
    joined = pd.concat([ordered, own.assign(part="all")], ignore_index=True)
    return joined.merge(shares[shares["part"] != "together"], on="part", how="left")
