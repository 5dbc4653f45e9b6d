"""The null distributions: the flip share of every random set on one axis, under that of the tuned profile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mote.harness.drawing import ACCENT, INK, RULE, SIGNAL, SOFT, Layout

_MEAN: Final = "their mean"
KIND_NAMES: Final = {
    "random-mass": "same layers,\nchosen as often",
    "random-layers": "same layers",
    "random-uniform": "any experts",
    "random-frequency": "same layers,\neach chosen alike",
}


class NullParts(NamedTuple):
    """What the figure shows.

    Attributes:
        values: a row a random set, with the columns kind and share.
        tuned: name, share, low, high of the tuned profile.
        retest: the shares of the untouched model asked again.
        p: the p-value of the tuned profile against each kind, and against ``retest``.
    """

    values: pd.DataFrame
    tuned: tuple[str, float, float, float]
    retest: list[float]
    p: Mapping[str, float]

    @property
    def rows(self) -> list[str]:
        """What stands on the axis, from the top: the tuned profile, each kind of random sets, the retests."""
        return ["tuned", *dict.fromkeys(self.values["kind"]), *(["retest"] if self.retest else [])]


def draw_null(parts: NullParts, layout: Layout) -> Figure:
    """Draw the flip share of every random set, a row a kind, under that of the tuned profile with its interval."""
    height = (0.55 if layout.narrow else 0.68) * len(parts.rows) + (1.95 if layout.narrow else 1.7)
    figure = Figure(figsize=(min(layout.width, 8.6), height), layout="constrained")
    ax = figure.subplots()
    paint_null(ax, parts, narrow=layout.narrow)
    title = (
        "The effect among random sets" if layout.narrow else "The effect among random sets of experts and other seeds"
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    handles, names = null_legend(ax)
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=1 if layout.narrow else 4,
        columnspacing=1.4,
        handletextpad=0.5,
    )
    return figure


def paint_null(ax: Axes, parts: NullParts, *, narrow: bool = False) -> None:
    """Draw the null distributions into ``ax``, without a legend (``null_legend``)."""
    values, rows, retest, p = parts.values, parts.rows, parts.retest, parts.p
    kinds = [row for row in rows if row not in ("tuned", "retest")]
    name, share, low, high = parts.tuned
    ax.axvline(share, color=SIGNAL, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.errorbar(
        share, 0, xerr=[[share - low], [high - share]], color=SIGNAL, elinewidth=2.2, marker="D", markersize=7,
        linestyle="none", label="tuned experts, 95% interval", zorder=3,
    )  # fmt: skip
    for y, kind in enumerate(kinds, start=1):
        shares = values.loc[values["kind"] == kind, "share"].to_numpy(dtype=float)
        dots: dict[str, Any] = {"color": ACCENT, "markersize": 5, "alpha": 0.75, "markeredgewidth": 0, "zorder": 2}
        ax.plot(shares, y + _spread(shares), "o", label="a random set" if y == 1 else None, **dots)
        mean = float(shares.mean())
        ax.plot(mean, y, "|", color=INK, markersize=28, markeredgewidth=1.6, label=_MEAN if y == 1 else None, zorder=3)
    if retest:
        ax.plot(
            retest, [len(rows) - 1] * len(retest), "X", color=SOFT, markersize=6, markeredgewidth=0, zorder=2,
            label="untouched, another seed",
        )  # fmt: skip
    for y, row in enumerate(rows):
        if row in p:
            said = "p open" if math.isnan(p[row]) else f"p = {p[row]:.3f}"
            ax.annotate(
                said, (1, y), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                va="center", color=INK, fontsize=9.5, annotation_clip=False,
            )  # fmt: skip
    labels = {"tuned": name, "retest": "other seed"} | {
        kind: f"{KIND_NAMES.get(kind, kind)} ({(values['kind'] == kind).sum()})" for kind in kinds
    }
    ax.set_yticks(range(len(rows)), [labels[row] for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.set_xlim(-0.012, max(high, float(values["share"].max()) if len(values) else 0, 0.1) * 1.04)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_xlabel("share of prompts of the target class that changed to another class")
    if narrow:
        ax.set_xlabel("share of target prompts that changed")
        ax.xaxis.set_major_locator(MaxNLocator(3))
    else:
        ax.set_ylabel("what is switched off")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=RULE, linewidth=0.5, zorder=0)
    ax.set_axisbelow(True)


def null_legend(ax: Axes) -> tuple[list[Any], list[str]]:
    """Return the handles and names of the legend of what ``paint_null`` drew."""
    handles, names = ax.get_legend_handles_labels()
    shown = [
        Line2D([], [], color=INK, marker="|", markersize=10, markeredgewidth=1.6, linestyle="none")
        if said == _MEAN
        else one
        for one, said in zip(handles, names, strict=True)
    ]
    return shown, names


def _spread(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets that stack points of (nearly) one value, always the same way: no chance in a figure."""
    bins = np.floor(shares / (max(float(shares.max(initial=0.0)), 0.1) / 70)).astype(int)
    places = np.zeros(len(shares), dtype=int)
    for value in np.unique(bins):
        members = np.flatnonzero(bins == value)
        places[members] = np.arange(members.size)
    sides = np.where(places % 2, 1, -1) * ((places + 1) // 2)
    tallest = int(np.abs(sides).max(initial=0))
    return np.asarray(sides * min(0.11, 0.42 / max(tallest, 1)), dtype=np.float64)
