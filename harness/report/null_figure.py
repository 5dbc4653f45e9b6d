"""The null distributions: the flip share of every random set on one axis, under that of the tuned profile."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mote.harness.drawing import ACCENT, INK, RULE, SIGNAL, SOFT, Layout

KIND_NAMES = {
    "random-mass": "same layers,\nchosen as often",
    "random-layers": "same layers",
    "random-uniform": "any experts",
    "random-frequency": "same layers,\neach chosen alike",
}


def draw_null(
    values: pd.DataFrame, tuned: tuple[str, float, float, float], retest: list[float], layout: Layout
) -> Figure:
    """Draw the flip share of every random set, a row a kind, under that of the tuned profile with its interval.

    ``values`` has the columns kind and share; ``tuned`` is name, share, low, high; ``retest`` the shares of the
    untouched model asked again.
    """
    kinds = list(dict.fromkeys(values["kind"]))
    rows = ["tuned", *kinds, *(["retest"] if retest else [])]
    figure = Figure(figsize=(min(layout.width, 8.6), 0.68 * len(rows) + 0.95), layout="constrained")
    ax = figure.subplots()
    name, share, low, high = tuned
    ax.axvline(share, color=SIGNAL, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.plot([low, high], [0, 0], color=SIGNAL, linewidth=2.2, solid_capstyle="butt", zorder=2)
    ax.plot(share, 0, marker="D", color=SIGNAL, markersize=7, zorder=3)
    for y, kind in enumerate(kinds, start=1):
        shares = values.loc[values["kind"] == kind, "share"].to_numpy(dtype=float)
        ax.plot(shares, y + _spread(shares), "o", color=ACCENT, markersize=5, alpha=0.75, markeredgewidth=0, zorder=2)
        mean = float(shares.mean())
        ax.plot([mean, mean], [y - 0.33, y + 0.33], color=INK, linewidth=1.6, zorder=3)
    if retest:
        ax.plot(retest, [len(rows) - 1] * len(retest), "o", color=SOFT, markersize=5, zorder=2)
    labels = {"tuned": name, "retest": "other seed"} | {
        kind: f"{KIND_NAMES.get(kind, kind)} ({(values['kind'] == kind).sum()})" for kind in kinds
    }
    ax.set_yticks(range(len(rows)), [labels[row] for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.set_xlim(-0.012, max(high, float(values["share"].max()) if len(values) else 0, 0.1) * 1.04)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_xlabel("share of prompts of the target class that changed to another class")
    if layout.narrow:
        ax.set_xlabel("share of target prompts that changed")
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=RULE, linewidth=0.5, zorder=0)
    ax.set_axisbelow(True)
    return figure


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
