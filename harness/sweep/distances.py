"""How far a sweep's parents lie apart, tensor by tensor, and what a threshold on that distance would take over.

Weights alone say it, so neither an engine nor a child is needed. ``distances.parquet`` in a sweep's folder has the rows
of ``mote merge diff`` between the base and each parent of ``toward``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from mote.harness.files import write_atomic
from mote.harness.merge.checkpoint import open_checkpoint
from mote.harness.merge.difference import distances
from mote.harness.merge.groups import GROUPS
from mote.harness.merge.schema import Parent
from mote.harness.sweep.schema import SweepRecipe

DISTANCES_NAME: Final = "distances.parquet"
_QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9)
HANDS: Final = 4
"""Threads that read or write weights."""


class Taken(NamedTuple):
    """What lies above a threshold: shares of tensors, values and experts, and what becomes of each group.

    An expert is above where one of its tensors is. A group is ``whole`` where all its tensors are above, ``left`` where
    none is, else ``cut``.
    """

    threshold: float
    tensors: float
    values: float
    experts: float
    whole: tuple[str, ...]
    cut: tuple[str, ...]
    left: tuple[str, ...]


@cache
def parents_distances(base: Parent, other: Parent) -> pd.DataFrame:
    """Return the distances of two parents as ``merge.difference.distances`` does; reads every weight once."""
    left = open_checkpoint("base", base)
    return distances(left, open_checkpoint("other", other, left), threads=HANDS)


def write_parents_distances(folder: Path, recipe: SweepRecipe) -> None:
    """Write the distances of a sweep's parents from its base, with the column ``parent``, unless they are there."""
    if (folder / DISTANCES_NAME).exists():
        return
    base = recipe.parents[recipe.base]
    found = [parents_distances(base, recipe.parents[name]).assign(parent=name) for name in recipe.toward]
    write_atomic(folder / DISTANCES_NAME, pd.concat(found, ignore_index=True).to_parquet(None, index=False))


def read_parents_distances(folder: Path) -> pd.DataFrame | None:
    """Return the distances of a sweep's parents, None of a sweep that was made before they were kept."""
    path = folder / DISTANCES_NAME
    return pd.read_parquet(path) if path.is_file() else None


def taken_above(frame: pd.DataFrame, distance: str, threshold: float) -> Taken:
    """Return what of the tensors of one parent lies above a threshold on ``relative`` or ``rms``."""
    above = frame[distance] > threshold
    routed = frame["expert"].notna() & (frame["group"] == "routed_experts")
    experts = above[routed].groupby([frame.loc[routed, "layer"], frame.loc[routed, "expert"]]).any()
    shares = above.groupby(frame["group"]).mean()
    named = [(group, float(shares[group])) for group in GROUPS if group in shares.index]
    return Taken(
        float(threshold),
        float(above.mean()),
        float(frame.loc[above, "values"].sum() / frame["values"].sum()),
        float(experts.mean()) if len(experts) else float("nan"),
        tuple(group for group, share in named if share == 1),
        tuple(group for group, share in named if 0 < share < 1),
        tuple(group for group, share in named if share == 0),
    )


def threshold_curve(frame: pd.DataFrame, distance: str, points: int = 200) -> list[Taken]:
    """Return what lies above each of ``points`` thresholds, from 0 to the largest distance."""
    values = _finite(frame[distance])
    return [taken_above(frame, distance, one) for one in np.quantile(values, np.linspace(0, 1, points))]


def threshold_table(frame: pd.DataFrame, distance: str, further: Sequence[float] = ()) -> list[Taken]:
    """Return what lies above some quantiles of the tensors' distances, and above ``further`` thresholds."""
    values = _finite(frame[distance])
    thresholds = {0.0, *(float(f"{one:.3g}") for one in np.quantile(values, _QUANTILES)), *further}
    return [taken_above(frame, distance, one) for one in sorted(thresholds)]


def _finite(values: pd.Series[float]) -> pd.Series[float]:
    # A base of zeros makes a relative distance infinite: above every threshold.
    return values[np.isfinite(values)]
