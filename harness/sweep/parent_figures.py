"""The figures of a sweep's parents: how far apart they lie, what a threshold takes, how children route beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mote.harness.drawing import ACCENT, INK, RULE, SEQUENTIAL, SIGNAL, SOFT, Layout, bare
from mote.harness.merge.heat_map import distance_figure
from mote.harness.report.figure_data import Draw
from mote.harness.sweep.distances import threshold_curve
from mote.harness.sweep.schema import BASE

_LINE: Final = 0.24
_FEWEST_LABELLED: Final = 40


def draw_distances(frame: pd.DataFrame) -> Draw:
    """Return what draws the distances of one parent from the base: experts by layer, and groups by layer."""
    return lambda layout: distance_figure(frame, layout.width)


def draw_threshold(frame: pd.DataFrame, distance: str, chosen: float | None) -> Draw:
    """Return what draws the share above each threshold, and below it the distances that each group spans.

    A threshold cuts through the groups whose bar it crosses. ``chosen`` is the sweep's own threshold, if it has one.
    """
    curve = threshold_curve(frame, distance)
    at = [one.threshold for one in curve]
    finite = frame[np.isfinite(frame[distance])]
    spans = finite.groupby("group")[distance].agg(["min", "median", "max"])
    spans = spans.sort_values("median", ascending=False)

    def draw(layout: Layout) -> Figure:
        height = 3.0 + _LINE * len(spans)
        figure, (shares, groups) = plt.subplots(
            2,
            1,
            figsize=(layout.width, height + 0.9),
            sharex=True,
            layout="constrained",
            height_ratios=(2.6, 0.4 + _LINE * len(spans)),
        )
        for name, colour, values in (
            ("tensors", INK, [one.tensors for one in curve]),
            ("values", ACCENT, [one.values for one in curve]),
            ("experts", SIGNAL, [one.experts for one in curve]),
        ):
            shares.step(at, values, where="post", color=colour, linewidth=1.4, label=name)
        shares.set_title("Share above the threshold")
        shares.set_ylim(-0.02, 1.02)
        shares.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        shares.grid(axis="y", color=RULE, linewidth=0.5)
        shares.legend(loc="upper right")
        places = range(len(spans))
        groups.hlines(places, spans["min"], spans["max"], color=ACCENT, linewidth=4, alpha=0.5)
        groups.plot(spans["median"], places, "|", color=INK, markersize=9)
        groups.set_yticks(places, [str(group).replace("_", " ") for group in spans.index])
        groups.set_ylim(len(spans) - 0.4, -0.6)
        groups.set_title("Groups from their nearest tensor to their farthest")
        groups.set_xlabel(f"{distance} distance")
        groups.set_xlim(left=0)
        for axis in (shares, groups) if chosen is not None else ():
            axis.axvline(float(chosen or 0.0), color=SOFT, linestyle="--", linewidth=1)
        return figure

    return draw


def draw_routing(frame: pd.DataFrame, subsets: Sequence[str], names: dict[str, str]) -> Draw:
    """Return what draws the agreement of chosen experts: a panel a parent, a line a layer, a column a child.

    ``frame`` has the columns of ``routing.routing_frame``; ``names`` gives each parent's name for the title.
    """
    order = {name: at for at, name in enumerate((BASE, "", *subsets))}
    children = frame.drop_duplicates("child").sort_values(
        ["subset", "proportion"], key=lambda column: column.map(order) if column.name == "subset" else column
    )
    parents = [parent for parent in names if (frame["parent"] == parent).any()]

    def draw(layout: Layout) -> Figure:
        layers = frame["layer"].nunique()
        height = len(parents) * (0.75 + min(0.22 * layers, 6.0)) + 1.6
        figure, axes = plt.subplots(
            len(parents), 1, figsize=(layout.width, height), squeeze=False, sharex=True, layout="constrained"
        )
        for axis, parent in zip(axes[:, 0], parents, strict=True):
            own = frame[frame["parent"] == parent].pivot(index="layer", columns="child", values="agreement")
            own = own.reindex(columns=list(children["child"]))
            image = axis.imshow(
                own.to_numpy(float), aspect="auto", cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest"
            )
            # A parent beside itself is left out, and must not look like nothing in common.
            axis.set_facecolor(RULE)
            axis.set_title(f"Choices shared with {names[parent]}")
            axis.set_ylabel("layer")
            step = max(1, len(own.index) // 12)
            axis.set_yticks(range(0, len(own.index), step), [str(one) for one in own.index[::step]])
            _name_children(axis, children, layout)
            bare(axis)
            bar = figure.colorbar(image, ax=axis, pad=0.01, aspect=12)
            bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        return figure

    return draw


def _name_children(axis: Axes, children: pd.DataFrame, layout: Layout) -> None:
    """Name each child where there is room, else each subset, and part the subsets."""
    subsets = list(children["subset"])
    for at in range(1, len(subsets)):
        if subsets[at] != subsets[at - 1]:
            axis.axvline(at - 0.5, color="white", linewidth=2)
    if len(children) <= (_FEWEST_LABELLED if not layout.narrow else 12):
        places, labels = list(range(len(children))), list(children["child"])
    else:
        places = [at for at, one in enumerate(subsets) if not at or subsets[at - 1] != one]
        labels = [subsets[at] or BASE for at in places]
    axis.set_xticks(places, labels, rotation=90, fontsize=7.5)
