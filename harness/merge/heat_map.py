"""The distances of two checkpoints as a figure: routed experts by layer, and groups by layer."""

from __future__ import annotations

import io
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mote.harness.drawing import SEQUENTIAL, bare, drawing, name_typeface


def heat_map(frame: pd.DataFrame) -> bytes:
    """Return an SVG of the rms distances: experts by layer where there are routed ones, and groups by layer."""
    with drawing("merge-distances"):
        figure = distance_figure(frame, 10)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(figure)
    return name_typeface(buffer.getvalue())


def distance_figure(frame: pd.DataFrame, width: float) -> Figure:
    """Return the figure of ``heat_map``, so many inches wide, in whatever style is set."""
    panels = []
    experts = frame[(frame["group"] == "routed_experts") & frame["expert"].notna()]
    if len(experts):
        panels.append(("Routed experts: rms distance", "expert", _table(experts, "expert")))
    layered = frame[frame["layer"].notna()]
    if len(layered):
        panels.append(("Groups: rms distance", "", _table(layered, "group")))
    height = 1.2 + sum(0.9 + 0.16 * table.shape[0] for _, _, table in panels)
    figure, axes = plt.subplots(max(len(panels), 1), 1, figsize=(width, height), squeeze=False, layout="constrained")
    for axis, (title, label, table) in zip(axes[:, 0], panels, strict=False):
        _panel(axis, title, label, table)
    if not panels:
        axes[0, 0].set_axis_off()
    return figure


def _table(rows: pd.DataFrame, across: str) -> pd.DataFrame:
    """Return rms distances [layer, expert or group]."""
    sums = rows.groupby(["layer", across])[["values", "squares_apart"]].sum()
    sums["rms"] = np.sqrt(sums["squares_apart"] / sums["values"])
    return sums.reset_index().pivot(index="layer", columns=across, values="rms")


def _panel(axis: Axes, title: str, label: str, table: pd.DataFrame) -> None:
    values: Any = table.to_numpy(dtype=float)
    image = axis.imshow(values, aspect="auto", cmap=SEQUENTIAL, vmin=0, interpolation="nearest")
    axis.set_title(title)
    axis.set_ylabel("layer")
    axis.set_xlabel(label)
    step = max(1, len(table.index) // 12)
    axis.set_yticks(range(0, len(table.index), step), [str(one) for one in table.index[::step]])
    if not label:
        names = [str(one).replace("_", " ") for one in table.columns]
        axis.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    bare(axis)
    axis.figure.colorbar(image, ax=axis, pad=0.01, shrink=0.9)
