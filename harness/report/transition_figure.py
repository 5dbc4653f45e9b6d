"""Transition matrices as figures (the paper's Figures 8, 9, 10 and 12): counts, row shares, one shade of blue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mote.harness.drawing import INK, PAPER, SEQUENTIAL, SOFT, Layout, bare, short
from mote.harness.preconditions import STATES
from mote.harness.science.transitions import row_shares
from mote.judges import CLASSES


class Panel(NamedTuple):
    """A matrix of a figure, with its title and a line below the title."""

    title: str
    note: str
    matrix: pd.DataFrame


def shown(matrices: Sequence[pd.DataFrame]) -> tuple[list[str], list[str]]:
    """Return the rows and columns to show: the classes, and the states in which any prompt began (ended).

    The paper's three classes always have a row, of languages the two that are asked for.
    """
    names = [str(name) for name in matrices[0].index]
    rows = [name for name in names if name in (*CLASSES, *names[:2]) or any(m.loc[name].sum() for m in matrices)]
    columns = [name for name in names if name not in STATES or any(m[name].sum() for m in matrices)]
    return rows, columns


def draw_matrices(panels: Sequence[Panel], layout: Layout) -> Figure:
    """Draw matrices side by side: rows the class before, columns the class after, shaded by the share of the row."""
    rows, columns = shown([panel.matrix for panel in panels])
    across = min(layout.columns, len(panels))
    down = math.ceil(len(panels) / across)
    width = layout.width if layout.narrow else 1.0 + across * (0.55 * len(columns) + 0.25) + 0.6
    figure = Figure(figsize=(min(layout.width, width), down * (0.5 * len(rows) + 1.45)))
    axes = figure.subplots(down, across, squeeze=False)
    for place, ax in enumerate(axes.flat):
        if place < len(panels):
            paint_matrix(ax, panels[place], rows, columns, first=place % across == 0)
        else:
            ax.set_axis_off()
    # Last: seaborn draws the figure for each heat map, and would lay it out as often.
    figure.set_layout_engine("constrained")
    return figure


def paint_matrix(ax: Axes, panel: Panel, rows: list[str], columns: list[str], *, first: bool = True) -> None:
    """Draw one matrix into ``ax``; the ``first`` of a row of them names the classes before."""
    counts = panel.matrix.loc[rows, columns]
    shares = row_shares(panel.matrix).loc[rows, columns]
    numbers, parts = counts.to_numpy(dtype=int), shares.to_numpy(dtype=float)
    sns.heatmap(
        np.nan_to_num(parts), ax=ax, cmap=SEQUENTIAL, vmin=0, vmax=1, cbar=False, linewidths=1.5, linecolor=PAPER
    )
    for i, j in np.ndindex(numbers.shape):
        _cell(ax, j + 0.5, i + 0.5, int(numbers[i, j]), float(parts[i, j]))
    ax.set_xticks([j + 0.5 for j in range(len(columns))], [_name(name) for name in columns], rotation=35, ha="right")
    sums = panel.matrix.loc[rows].sum(axis="columns")
    names = [f"{_name(n) if first else ''}\n{sums[n]:,}".strip() for n in rows]
    ax.set_yticks([i + 0.5 for i in range(len(rows))], names, rotation=0)
    bare(ax)
    for label in ax.get_xticklabels():
        label.set_rotation_mode("anchor")
    ax.set_title(panel.title, pad=20)
    ax.annotate(
        panel.note, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=SOFT
    )
    if first:
        ax.set_ylabel("before", color=SOFT)
    ax.set_xlabel("after", color=SOFT)


def _name(label: str) -> str:
    return short(label).capitalize()


def _cell(ax: Axes, x: float, y: float, count: int, share: float) -> None:
    if not count:
        ax.text(x, y, "·", ha="center", va="center", color=SOFT)
        return
    colour = PAPER if share > 0.5 else INK
    text = f"{count:,}"
    # Pooled sets count in thousands, and with all states in sight a cell has room for five figures at nine points.
    size = min(11.0, 45 / len(text))
    ax.text(x, y - 0.15, text, ha="center", va="center", color=colour, fontsize=size, fontweight="bold")
    ax.text(x, y + 0.2, percent(share), ha="center", va="center", color=colour, fontsize=9)


def percent(share: float) -> str:
    """Return a share as a percentage; one decimal below ten, so that 0.3% isn't 0%."""
    if math.isnan(share):
        return "–"
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"
