"""The figures of a sweep: curves over the proportion, each prompt's class, and score against tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mote.harness.drawing import INK, RULE, SIGNAL, Layout, bare, colour_of, short
from mote.harness.report.figure_data import Draw
from mote.harness.science.sweeps import front
from mote.harness.sweep.schema import BASE

_MARKERS: Final = ("o", "s", "^", "D", "P", "v", "X", "*", "<", ">")
_EACH: Final = 2.6


def subset_styles(subsets: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return each subset's colour and marker; they differ in both, as far as there are markers."""
    colours = sns.color_palette("colorblind", max(len(subsets), 1))
    return (
        dict(zip(subsets, colours, strict=False)),
        {name: _MARKERS[at % len(_MARKERS)] for at, name in enumerate(subsets)},
    )


def draw_curves(panels: Mapping[str, pd.DataFrame], subsets: Sequence[str], shares: bool) -> Draw:
    """Return what draws panels over the proportion, a line a subset.

    Each panel's frame has subset, proportion, value, and low and high of the 95% interval where there is one.
    """

    def draw(layout: Layout) -> Figure:
        columns = min(layout.columns, len(panels))
        lines = -(-len(panels) // columns)
        figure, axes = plt.subplots(
            lines, columns, figsize=(layout.width, _EACH * lines + 0.6), squeeze=False, layout="constrained"
        )
        for at, (title, rows) in enumerate(panels.items()):
            _curves(axes.flat[at], title, rows, subsets, shares)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2 if layout.narrow else min(len(labels), 5))
        return figure

    return draw


def _curves(axis: Axes, title: str, rows: pd.DataFrame, subsets: Sequence[str], shares: bool) -> None:
    colours, markers = subset_styles(subsets)
    for name in subsets:
        own = rows[rows["subset"].isin((name, BASE))].sort_values("proportion")
        colour = colours[name]
        axis.plot(
            own["proportion"], own["value"], color=colour, marker=markers[name], markersize=4, linewidth=1.4, label=name
        )
        if "low" in own and own["low"].notna().all():
            axis.fill_between(
                own["proportion"].to_numpy(float),
                own["low"].to_numpy(float),
                own["high"].to_numpy(float),
                color=colour,
                alpha=0.1,
                linewidth=0,
            )
    axis.set_title(title)
    axis.set_xlabel("proportion")
    axis.set_xlim(-0.02, 1.02)
    if shares:
        axis.set_ylim(-0.02, 1.02)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    else:
        axis.set_ylim(bottom=0)
    axis.grid(axis="y", color=RULE, linewidth=0.5)


def draw_raster(rows: pd.DataFrame, subsets: Sequence[str], classes: tuple[str, ...], target: str) -> Draw:
    """Return what draws each prompt's class by proportion: a panel a subset, a line a prompt, a column a child.

    Lines are in the order in which prompts come to have the target class, in the first of the subsets.
    """
    labels = [*classes, *sorted(set(rows["label"].dropna()) - set(classes))]
    there = [label for label in labels if (rows["label"] == label).any()]
    order = _order(rows, subsets[0], target)

    def draw(layout: Layout) -> Figure:
        columns = min(2 if layout.narrow else 4, len(subsets))
        lines = -(-len(subsets) // columns)
        figure, axes = plt.subplots(
            lines, columns, figsize=(layout.width, 2.9 * lines + 0.5), squeeze=False, layout="constrained"
        )
        colours = ListedColormap([colour_of(label, classes) for label in there])
        for axis, name in zip(axes.flat, subsets, strict=False):
            own = rows[rows["subset"].isin((name, ""))]
            wide = own.pivot(index="prompt_id", columns="proportion", values="label").reindex(order)
            codes = wide.apply(lambda column: column.map({label: at for at, label in enumerate(there)}))
            axis.imshow(
                codes.to_numpy(float),
                aspect="auto",
                cmap=colours,
                vmin=-0.5,
                vmax=len(there) - 0.5,
                interpolation="nearest",
            )
            axis.set_title(name)
            step = max(1, len(wide.columns) // 5)
            axis.set_xticks(range(0, len(wide.columns), step), [f"{p:.3g}" for p in wide.columns[::step]])
            axis.set_yticks([])
            bare(axis)
        for axis in axes.flat[len(subsets) :]:
            axis.set_axis_off()
        patches = [Patch(color=colour_of(label, classes), label=short(label)) for label in there]
        figure.legend(handles=patches, loc="outside lower center", ncols=2 if layout.narrow else 6)
        return figure

    return draw


def _order(rows: pd.DataFrame, subset: str, target: str) -> list[str]:
    own = rows[rows["subset"].isin((subset, "")) & (rows["label"] == target)]
    first = own.groupby("prompt_id")["proportion"].min()
    prompts = rows.drop_duplicates("prompt_id").sort_values("position")["prompt_id"]
    return sorted(prompts, key=lambda key: float(first.get(key, np.inf)))


def draw_front(children: pd.DataFrame, subsets: Sequence[str]) -> Draw:
    """Return what draws score against tokens, a point a child, with the front of those that nothing beats.

    ``children`` has subset, tokens and score.
    """
    colours, markers = subset_styles(subsets)
    best = front(list(zip(children["tokens"].astype(float), children["score"].astype(float), strict=True)))

    def draw(layout: Layout) -> Figure:
        figure, axis = plt.subplots(figsize=(min(layout.width, 6.4), 4.0), layout="constrained")
        chosen = children.iloc[best]
        axis.step(chosen["tokens"], chosen["score"], where="post", color=INK, linewidth=1, label="front")
        for name in (BASE, *subsets):
            own = children[children["subset"] == name]
            axis.scatter(
                own["tokens"],
                own["score"],
                color=colours.get(name, SIGNAL),
                marker=markers.get(name, "*"),
                s=30 if name != BASE else 90,
                label=name,
                zorder=3,
            )
        axis.set_xlabel("tokens of an answer, mean")
        axis.set_ylabel("right answers")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.grid(color=RULE, linewidth=0.5)
        figure.legend(loc="outside lower center", ncols=2 if layout.narrow else 5)
        return figure

    return draw
