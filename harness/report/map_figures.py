"""Activation maps as figures: one prompt's map (the paper's Figure 3) and the resonance map (Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mote.harness.drawing import INK, PAPER, RESONANCE, SEQUENTIAL, SOFT, Layout, bare
from mote.harness.science.controls import Expert


def draw_map(values: NDArray[Any], layers: Sequence[int], layout: Layout, unit: str) -> Figure:
    """Draw the counts [layers, experts] of one prompt."""
    title = "Activation map of one prompt"
    limits = (0.0, max(1.0, float(values.max(initial=0))))
    figure, ax, _ = _canvas(values, layers, layout, title, SEQUENTIAL, limits)
    _scale(figure, ax, layout, unit, whole=True)
    return figure


def draw_resonance(
    ranking: NDArray[np.float64], layers: Sequence[int], experts: Sequence[Expert], layout: Layout, unit: str
) -> Figure:
    """Draw a resonance map [layers, experts]; ``experts`` (layer, expert) are circled and named at the margin."""
    title = "Resonance, the tuned experts circled" if experts else "Resonance"
    limits = limits_of(ranking)
    figure, ax, across = _canvas(ranking, layers, layout, title, RESONANCE, limits, named=bool(experts))
    wide, tall = (float(size) for size in figure.get_size_inches())
    circle_experts(ax, layers, experts, (wide - 1.7, tall - 1.4), across=across)
    _scale(figure, ax, layout, unit)
    return figure


def limits_of(ranking: NDArray[np.float64]) -> tuple[float, float]:
    """Return limits of colour that lie alike on both sides of zero; experts that were left out do not count."""
    bound = float(np.nanmax(np.abs(ranking), initial=0.0)) or 1.0
    return -bound, bound


def circle_experts(
    ax: Axes, layers: Sequence[int], experts: Sequence[Expert], inches: tuple[float, float], *, across: bool = True
) -> int:
    """Circle experts on a map and name them at its margin; return in how many rows (or columns) the names stand.

    ``inches`` are the width and height of the map.
    """
    at = {layer: row + 0.5 for row, layer in enumerate(layers)}
    points = [(expert + 0.5, at[layer]) if across else (at[layer], expert + 0.5) for layer, expert in experts]
    return _circle(ax, points, [f"({layer}, {expert})" for layer, expert in experts], across, inches)


def _canvas(
    values: NDArray[Any],
    layers: Sequence[int],
    layout: Layout,
    title: str,
    colours: str | Colormap,
    limits: tuple[float, float],
    *,
    named: bool = False,
) -> tuple[Figure, Axes, bool]:
    """A figure with the map on it: layers down and experts across, or the other way round where that is too narrow."""
    rows, columns = values.shape
    across = not layout.narrow
    if across:
        height = float(np.clip(rows * 0.26, 1.4, 5.6))
        size = (layout.width, height + 1.2 + (0.35 if named else 0))
    else:
        height = float(np.clip(columns * 0.075, 2.6, 8.5))
        size = (layout.width, height + 1.55)
    figure = Figure(figsize=size)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    ax = figure.subplots()
    paint_map(ax, values, layers, colours, limits, across=across)
    # Last: seaborn draws the figure for each heat map, and would lay it out as often.
    figure.set_layout_engine("constrained")
    return figure, ax, across


def paint_map(
    ax: Axes,
    values: NDArray[Any],
    layers: Sequence[int],
    colours: str | Colormap,
    limits: tuple[float, float],
    *,
    across: bool = True,
) -> None:
    """Draw a map [layers, experts] into ``ax``: experts across and layers down, or the other way round."""
    rows, columns = values.shape
    shown = values if across else values.T
    # Cells of a large model are an image in the SVG; as shapes they would be megabytes.
    sns.heatmap(
        shown, ax=ax, cmap=colours, vmin=limits[0], vmax=limits[1], cbar=False, xticklabels=False, yticklabels=False,
        rasterized=True,
    )  # fmt: skip
    expert_axis, layer_axis = (ax.xaxis, ax.yaxis) if across else (ax.yaxis, ax.xaxis)
    step = next(size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if columns / size <= 9)
    expert_axis.set_ticks([i + 0.5 for i in range(0, columns, step)], [str(i) for i in range(0, columns, step)])
    step = max(1, -(-rows // 12))
    layer_axis.set_ticks([i + 0.5 for i in range(0, rows, step)], [str(layer) for layer in layers[::step]])
    expert_axis.set_tick_params(rotation=0)
    layer_axis.set_tick_params(rotation=0)
    expert_axis.set_label_text("expert", color=SOFT)
    layer_axis.set_label_text("layer", color=SOFT)
    bare(ax)


def _scale(figure: Figure, ax: Axes, layout: Layout, unit: str, *, whole: bool = False) -> None:
    colour_scale(figure, ax, unit, whole=whole, below=layout.narrow)


def colour_scale(figure: Figure | SubFigure, ax: Axes, unit: str, *, whole: bool = False, below: bool = False) -> None:
    """Add the colours' scale beside, or below, a map."""
    location, aspect = ("bottom", 40) if below else ("right", 25)
    bar = figure.colorbar(ax.collections[0], ax=ax, pad=0.015, location=location, aspect=aspect)
    bar.outline.set_visible(False)
    bar.set_label(unit, color=SOFT)
    bar.locator = MaxNLocator(5, integer=whole)
    bar.update_ticks()
    bar.ax.tick_params(length=0)


def _circle(
    ax: Axes, points: Sequence[tuple[float, float]], names: Sequence[str], across: bool, inches: tuple[float, float]
) -> int:
    """Circle the points and write their names along the upper (or the right) margin, a line from each to its circle."""
    wide, tall = inches
    across_cells, down_cells = (abs(b - a) for a, b in (ax.get_xlim(), ax.get_ylim()))
    cell = 72 * min(wide / across_cells, tall / down_cells)
    size = float(np.clip(2.0 * cell, 8, 15))
    if not points:
        return 0
    halo = [withStroke(linewidth=3.2, foreground=PAPER)]
    xs, ys = zip(*points, strict=True)
    ax.scatter(xs, ys, s=size**2, facecolors="none", edgecolors=INK, linewidths=1.5, path_effects=halo, zorder=4)
    along = xs if across else ys
    low, high = ax.get_xlim() if across else sorted(ax.get_ylim())
    gap = (0.58 / wide if across else 0.17 / tall) * (high - low)
    order = sorted(range(len(points)), key=lambda i: (along[i], points[i]))
    wanted = [float(along[i]) for i in order]
    rows, spots = 1, spread_out(wanted, gap, low, high)
    # Crowded names take two rows, which halves how far they stand from their circles.
    if across and max(abs(spot - want) for spot, want in zip(spots, wanted, strict=True)) > gap / 2:
        rows, spots = 2, spread_out(wanted, gap / 2, low, high)
    for number, (i, spot) in enumerate(zip(order, spots, strict=True)):
        text: dict[str, Any] = (
            {"xytext": (spot, 1 + (0.1 + 0.17 * (number % rows)) / tall), "ha": "center", "va": "bottom"}
            if across
            else {"xytext": (1.05, spot), "ha": "left", "va": "center"}
        )
        line = {"arrowstyle": "-", "color": INK, "linewidth": 0.6, "shrinkA": 0, "shrinkB": size / 2}
        ax.annotate(
            names[i],
            points[i],
            textcoords=ax.get_xaxis_transform() if across else ax.get_yaxis_transform(),
            fontsize=9,
            annotation_clip=False,
            arrowprops=line | {"path_effects": [withStroke(linewidth=1.8, foreground=PAPER, alpha=0.7)]},
            **text,
        )
    return rows


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move sorted positions apart to at least ``gap``, as little as needed, within ``low`` to ``high`` if they fit.

    Neighbours that would touch become a group, centred on the mean of where its members want to be.
    """
    groups: list[tuple[list[float], float]] = []
    for position in wanted:
        groups.append(([position], position))
        while len(groups) > 1:
            (left, at_left), (right, at_right) = groups[-2], groups[-1]
            reach = gap * (len(left) + len(right)) / 2
            if at_right - at_left >= reach - 1e-9:
                break
            members = left + right
            groups[-2:] = [(members, sum(members) / len(members))]
    result = [centre + gap * (i - (len(members) - 1) / 2) for members, centre in groups for i in range(len(members))]
    last = len(result) - 1
    if gap * last <= high - low:
        result = [max(position, low + gap * i) for i, position in enumerate(result)]
        result = [min(position, high - gap * (last - i)) for i, position in enumerate(result)]
    return result
