"""Prompts as points by their activation maps, t-SNE as in the paper's Figure 4, coloured by class and attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA  # type: ignore[import-untyped]
from sklearn.manifold import TSNE  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mote.harness.drawing import CLASS_MARKERS, SOFT, Layout, colour_of, short

MOST_POINTS: Final = 2000
FEWEST_POINTS: Final = 12
MOST_GROUPS: Final = 8
PREFERRED: Final = ("place_group", "decade")
GROUP_COLOURS: Final = ("#174a7e", "#e3a72f", "#b3361e", "#3f8f6b", "#8c6bb1", "#6fa8dc", "#5b6470", "#d98cb3")
_EARLY, _LATE = "#d6e4f2", "#0b2440"


class Colouring(NamedTuple):
    """A panel: the name of its colouring, the value of each point, and the colour of each value, in legend order."""

    title: str
    values: list[str]
    colours: dict[str, str]


def embed(maps: NDArray[Any], seed: int = 0) -> NDArray[np.float64]:
    """Return t-SNE coordinates [prompts, 2] of maps [prompts, layers, experts], the same for the same seed.

    Maps are taken as shares of their tokens, so that a longer question isn't a point further out, and reduced to at
    most 50 principal components first, as is usual for t-SNE.
    """
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    flat /= np.maximum(flat.sum(axis=1, keepdims=True), 1)
    parts = min(50, *flat.shape)
    reduced = PCA(parts, random_state=seed, svd_solver="randomized").fit_transform(flat)
    spread = reduced[:, 0].std() or 1.0
    perplexity = min(30.0, max(2.0, (len(maps) - 1) / 3))
    # After 500 steps the demo's divergence is 0.38, after 1,000 it is 0.37, in twice the time.
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1, max_iter=500)
    # One thread: the same picture on every machine, and no slower, as threads wait for each other here.
    with threadpool_limits(1):
        points = tsne.fit_transform(reduced / spread)
    return np.asarray(points, dtype=np.float64)


def thin(count: int) -> NDArray[np.intp]:
    """Return the indices of at most ``MOST_POINTS`` prompts, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(np.intp))


def colourings(labels: Sequence[str], attributes: pd.DataFrame, classes: tuple[str, ...]) -> list[Colouring]:
    """Return the panels: by class, then by at most two attributes with 2 to 8 values."""
    order = [name for name in (*classes, *sorted(set(labels) - set(classes))) if name in set(labels)]
    panels = [Colouring("by class", list(labels), {name: colour_of(name, classes) for name in order})]
    fit = [str(name) for name in attributes if 2 <= attributes[name].nunique() <= MOST_GROUPS]
    for name in [*(n for n in PREFERRED if n in fit), *(n for n in fit if n not in PREFERRED)][:2]:
        values = [str(value) for value in attributes[name]]
        title = {"place_group": "by place", "decade": "by time"}.get(name, f"by {name.replace('_', ' ')}")
        panels.append(Colouring(title, values, _group_colours(sorted(set(values)))))
    return panels


def _group_colours(values: list[str]) -> dict[str, str]:
    ordered = [value for value in values if value[:1].isdigit()]
    if len(ordered) < len(values) - 1:
        return dict(zip(values, GROUP_COLOURS, strict=False))
    # Numbers or years: light to dark; the one value that is none stands apart.
    shades = [_mix(0.15 + 0.85 * i / max(1, len(ordered) - 1)) for i in range(len(ordered))]
    return dict(zip(ordered, shades, strict=True)) | {value: "#e3a72f" for value in values if value not in ordered}


def _mix(share: float) -> str:
    pairs = [(int(_EARLY[i : i + 2], 16), int(_LATE[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def draw_embedding(points: NDArray[np.float64], panels: Sequence[Colouring], layout: Layout) -> Figure:
    """Draw the points once a panel; the axes of t-SNE have no unit, so none is shown."""
    columns = min(layout.columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    side = layout.width / columns
    figure = Figure(figsize=(layout.width, rows * (side * 0.95 + 0.55) + 0.3), layout="constrained")
    figure.suptitle("Prompts by their activation maps (t-SNE)", x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax, panel in zip(axes.flat, panels, strict=False):
        _panel(ax, points, panel)
    return figure


def _panel(ax: Axes, points: NDArray[np.float64], panel: Colouring) -> None:
    order = list(panel.colours)
    marks = {value: CLASS_MARKERS[i % len(CLASS_MARKERS)] for i, value in enumerate(order)}
    sns.scatterplot(
        x=points[:, 0], y=points[:, 1], hue=panel.values, style=panel.values, hue_order=order, style_order=order,
        palette=panel.colours, markers=marks, s=15, linewidth=0.3, edgecolor="white", ax=ax,
    )  # fmt: skip
    handles, names = ax.get_legend_handles_labels()
    if panel.title == "by class":
        names = [short(name).capitalize() for name in names]
    ax.set_title(panel.title)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color("#e3e6ea")
    ax.legend(
        handles,
        names,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=3,
        handletextpad=0.1,
        columnspacing=1.0,
        labelcolor=SOFT,
    )
