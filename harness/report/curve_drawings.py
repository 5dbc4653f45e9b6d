"""Curves of dose and direction, the trade-off, and the layers' share, drawn from the frames of ``curve_tables``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mote.harness.drawing import ACCENT, INK, PAPER, RULE, SIGNAL, SOFT, Layout

_RATES: Final = ("flips", "reverse", "broken", "broken_others")
_SET_MARKERS: Final = {"random-uniform": "o", "random-layers": "s", "random-frequency": "^"}
_FLIPS, _OTHERS, _REVERSE, _BROKEN = "flips", "others changed", "reverse flips", "broken text"
_COLOURS: Final = {_FLIPS: SIGNAL, _OTHERS: ACCENT, _REVERSE: ACCENT, _BROKEN: INK}
_MARKERS: Final = {_FLIPS: "D", _OTHERS: "o", _REVERSE: "o", _BROKEN: "s"}
_DASHES: Final[dict[str, Any]] = {_FLIPS: "", _OTHERS: (1, 1.5), _REVERSE: (1, 1.5), _BROKEN: (4, 2)}


def lines_of(rows: pd.DataFrame, *, reverse: bool) -> pd.DataFrame:
    """Return what is drawn of a curve, long: place, line and rate, of flips, their cost elsewhere, and broken text."""
    broken = (rows["broken_hits"] + rows["broken_others_hits"]) / (rows["broken_total"] + rows["broken_others_total"])
    cost = {_REVERSE: rows["reverse"]} if reverse else {_OTHERS: 1 - rows["kept"]}
    wide = pd.DataFrame({_FLIPS: rows["flips"], **cost, _BROKEN: broken}).astype(float)
    return (
        wide.reset_index(drop=True)
        .melt(ignore_index=False, var_name="line", value_name="rate")
        .rename_axis("place")
        .reset_index()
    )


def draw_dose(rows: pd.DataFrame, sets: pd.DataFrame, k: int, noise: float, layout: Layout) -> Figure:
    """Draw flips, changes of the other prompts and broken text over k, as ``paint_dose``."""
    figure, ax = _axes(layout)
    paint_dose(ax, rows, sets, k, noise)
    if layout.narrow:
        ax.set_title("Dose")
    _legend(figure, *curve_legend(ax), layout)
    return figure


def paint_dose(ax: Axes, rows: pd.DataFrame, sets: pd.DataFrame, k: int, noise: float) -> None:
    """Draw flips, changes of the other prompts and broken text over k into ``ax``, without a legend.

    ``sets`` are the random ones of ``k`` experts. ``noise`` is the share of other prompts that change when the
    untouched model is asked again (nan: not asked).
    """
    _dress(ax)
    at = np.arange(len(rows), dtype=float)
    ks = [int(value) for value in rows["k"]]
    top = _draw_lines(ax, at, rows, reverse=False)
    if len(sets) and k in ks:
        low, mean, high = (float(value) for value in sets["flips"].agg(["min", "mean", "max"]))
        top = max(top, high)
        ax.errorbar(
            ks.index(k) + 0.09, mean, [[mean - low], [high - mean]], color=SOFT, elinewidth=1.2, marker="_",
            markersize=11, markeredgewidth=2, linestyle="none", label=f"random sets of {k}: least, mean, most",
        )  # fmt: skip
    if not math.isnan(noise):
        ax.axhline(noise, color=ACCENT, linewidth=0.7, alpha=0.7, label="others changed by another seed")
    ax.set_xticks(at, [str(value) for value in ks])
    _finish(ax, at, top)
    ax.set_title("Dose: what changes with the number of experts suppressed")
    ax.set_xlabel("experts suppressed (top k of the ranking)")


def draw_direction(rows: pd.DataFrame, layout: Layout) -> Figure:
    """Draw flips and reverse flips from suppression (factor 0) over the untouched model (1) to stimulation (inf)."""
    figure, ax = _axes(layout)
    _dress(ax)
    again = rows[rows["factor"] == 1.0]
    curve = _with_untouched(rows[rows["factor"] != 1.0])
    at = np.arange(len(curve), dtype=float)
    top = _draw_lines(ax, at, curve, reverse=True)
    middle = float(list(curve["factor"]).index(1.0))
    for name in (_FLIPS, "reverse") if len(again) else ():
        line = _REVERSE if name == "reverse" else name
        value, label = float(again[name].iloc[0]), f"{line}, other seed alone"
        style: dict[str, Any] = {
            "color": PAPER,
            "markeredgecolor": _COLOURS[line],
            "markersize": 6,
            "linestyle": "none",
        }
        ax.plot(middle, value, marker=_MARKERS[line], label=label, **style)
        top = max(top, value)
    names = [_factor(value, layout) for value in curve["factor"]]
    ax.set_xticks(at, names, rotation=60 if layout.narrow else 0)
    _finish(ax, at, top)
    ax.set_title("Direction" if layout.narrow else "Direction: the same experts from switched off to forced on")
    ax.set_xlabel("factor of the experts' weights where they are chosen" if not layout.narrow else "factor")
    _legend(figure, *curve_legend(ax), layout)
    return figure


def _with_untouched(rows: pd.DataFrame) -> pd.DataFrame:
    """Put the untouched model at its place: compared with itself nothing changes, by definition."""
    columns = [str(name) for name in rows]
    nothing = {name: 0.0 for name in columns if name.rpartition("_")[2] in ("hits", "low", "high") or name in _RATES}
    totals = {name: rows[name].iloc[0] for name in columns if name.endswith("_total")}
    untouched = pd.DataFrame([{**nothing, **totals, "kept": 1.0, "factor": 1.0}])
    joined = pd.concat([rows, untouched], ignore_index=True)
    return joined.sort_values("factor", kind="stable", ignore_index=True)


def _factor(value: float, layout: Layout) -> str:
    breaks = " " if layout.narrow else "\n"
    named = {0.0: f"0{breaks}switched off", 1.0: f"1{breaks}untouched", math.inf: f"forced{breaks}on"}
    return named.get(value, f"{value:g}")


def percent_axis(axis: Axis) -> None:
    """Write an axis of shares in per cent, with as many digits as its ticks need."""
    axis.set_major_formatter(lambda value, _: f"{round(100 * value, 4):g}%")


def _axes(layout: Layout) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(min(layout.width, 7.6), 4.6 if layout.narrow else 4.2), layout="constrained")
    return figure, figure.subplots()


def _dress(ax: Axes) -> None:
    percent_axis(ax.yaxis)
    ax.set_ylabel("share of prompts")
    ax.grid(axis="y", color=RULE, linewidth=0.5)
    ax.set_axisbelow(True)


def _draw_lines(ax: Axes, at: NDArray[np.float64], rows: pd.DataFrame, *, reverse: bool) -> float:
    """Draw the curves, with the interval of the flips (and of the reverse flips); return the highest value."""
    bands = [(_FLIPS, _FLIPS), *([("reverse", _REVERSE)] if reverse else [])]
    for name, line in bands:
        low, high = (rows[f"{name}_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        colour = _COLOURS[line]
        ax.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0, label=f"95% interval of {line}")
    lines = lines_of(rows, reverse=reverse)
    sns.lineplot(
        lines, x="place", y="rate", hue="line", style="line", palette=_COLOURS, markers=_MARKERS, dashes=_DASHES,
        estimator=None, markersize=5.5, markeredgewidth=0, linewidth=1.6, ax=ax,
    )  # fmt: skip
    return max(float(np.nanmax(rows["flips_high"])), float(lines["rate"].max()), 0.1)


def curve_legend(ax: Axes) -> tuple[list[Any], list[str]]:
    """Return the handles and names of a curve's legend, the lines first; seaborn's own goes."""
    handles, names = ax.get_legend_handles_labels()
    if (inside := ax.get_legend()) is not None:
        inside.remove()
    order = sorted(range(len(names)), key=lambda i: (names[i] not in _COLOURS, i))
    return [handles[i] for i in order], [names[i] for i in order]


def _legend(figure: Figure, handles: list[Any], names: list[str], layout: Layout) -> None:
    """Name everything in the picture itself, so that it can be read where the page's caption is not."""
    columns = 1 if layout.narrow else 3
    figure.legend(handles, names, loc="outside lower center", ncols=columns, columnspacing=1.4, handlelength=2.4)


def _finish(ax: Axes, at: NDArray[np.float64], top: float) -> None:
    ax.set_xlim(-0.25, at[-1] + 0.25)
    ax.set_ylim(-0.02 * top, top * 1.08)


class Series(NamedTuple):
    """Points of the trade-off that belong together: their profiles' rates, a label each, and how they are drawn."""

    name: str
    rows: pd.DataFrame
    labels: list[str]
    colour: str
    marker: str
    joined: bool


def draw_trade_off(series: Sequence[Series], sets: pd.DataFrame, best: str, layout: Layout) -> Figure:
    """Draw each profile as a point: what changed of the other prompts (across) against flips (up).

    ``sets`` are the random sets; ``best`` names the profile that is ringed.
    """
    figure = Figure(figsize=(min(layout.width, 7.6), 4.4 if layout.narrow else 4.8), layout="constrained")
    ax = figure.subplots()
    for kind, rows in sets.groupby("kind", sort=False):
        label = {"random-uniform": "random, any", "random-layers": "random, same layers"}.get(
            str(kind), "random, matched"
        )
        marker = _SET_MARKERS.get(str(kind), "o")
        ax.scatter(1 - rows["kept"], rows["flips"], s=15, color="#aab2bd", marker=marker, linewidths=0, label=label)
    names: list[tuple[float, float, str, str]] = [
        (float(1 - kept), float(flips), "", SOFT) for kept, flips in zip(sets["kept"], sets["flips"], strict=True)
    ]
    for one in series:
        x, y = (1 - one.rows["kept"]).to_numpy(dtype=float), one.rows["flips"].to_numpy(dtype=float)
        if one.joined:
            ax.plot(x, y, color=one.colour, linewidth=1.1, alpha=0.7)
        ax.scatter(x, y, s=42, color=one.colour, marker=one.marker, linewidths=0, label=one.name, zorder=3)
        names += [(a, b, text, one.colour) for a, b, text in zip(x, y, one.labels, strict=True)]
        ringed = (one.rows["profile"] == best).to_numpy()
        ax.scatter(x[ringed], y[ringed], s=190, facecolors="none", edgecolors=INK, linewidths=1.4, zorder=4)
    _name_points(ax, names, figure)
    for axis in (ax.xaxis, ax.yaxis):
        percent_axis(axis)
    ax.xaxis.set_major_locator(MaxNLocator(5 if layout.narrow else 8))
    ax.set_title("Gain and cost" if layout.narrow else "What is gained against what it costs")
    ax.set_xlabel("other prompts whose label changed" + ("" if layout.narrow else " (less is better)"))
    ax.set_ylabel("flips of the target class")
    ax.grid(color=RULE, linewidth=0.5)
    ax.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2 if layout.narrow else 4, handletextpad=0.2, columnspacing=1.2)
    return figure


def _name_points(ax: Axes, names: Sequence[tuple[float, float, str, str]], figure: Figure) -> None:
    """Write a name beside each point, highest first, but not in a crowd: nor on another point, nor on a name."""
    wide, tall = (float(size) for size in figure.get_size_inches())
    xs, ys = [name[0] for name in names], [name[1] for name in names]
    per_x = (max(xs) - min(xs) or 1) / (0.8 * wide)
    per_y = (max(ys) - min(ys) or 1) / (0.65 * tall)
    taken: list[tuple[float, float, float]] = []
    points = {(x / per_x, y / per_y) for x, y in zip(xs, ys, strict=True)}
    for x, y, text, colour in sorted(names, key=lambda name: -name[1]):
        length = 0.085 * len(text) + 0.12
        place = (x / per_x, y / per_y)
        crowd = sum(math.dist(place, other) < 0.13 for other in points)
        if not text or crowd > 1:
            continue
        if any(abs(place[1] - b) < 0.19 and place[0] < a + size and a < place[0] + length for a, b, size in taken):
            continue
        taken.append((*place, length))
        ax.annotate(text, (x, y), (7, 3), textcoords="offset points", color=colour, fontsize=9)


def draw_thirds(rows: pd.DataFrame, retest: float, layout: Layout) -> Figure:
    """Draw the flips with only the early, middle or late layers' experts off, under those of all, with intervals."""
    figure = Figure(figsize=(min(layout.width, 7.6), 0.55 * len(rows) + 1.0), layout="constrained")
    ax = figure.subplots()
    at = range(len(rows))
    for y, row in zip(at, rows.to_dict("records"), strict=True):
        whole = row["part"] == "all"
        colour = SIGNAL if whole else ACCENT
        ax.plot([row["flips_low"], row["flips_high"]], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        ax.plot(row["flips"], y, marker="D" if whole else "o", color=colour, markersize=7)
        words = f"{row['flips_hits']:.0f} of {row['flips_total']:.0f}"
        ax.annotate(words, (row["flips_high"], y), (6, 0), textcoords="offset points", va="center", color=SOFT)
    if not math.isnan(retest):
        ax.axvline(retest, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        ax.annotate("other seed", (retest, -0.75), (3, 0), textcoords="offset points", color=SOFT, fontsize=9)
    ax.set_yticks(at, [_part(row) for row in rows.to_dict("records")])
    ax.set_ylim(len(rows) - 0.4, -0.9)
    ax.set_xlim(-0.01, max(float(rows["flips_high"].max()) * 1.25, 0.1))
    percent_axis(ax.xaxis)
    ax.xaxis.set_major_locator(MaxNLocator(5 if layout.narrow else 8))
    ax.set_title("Which layers" if layout.narrow else "Which layers carry the effect")
    ax.set_xlabel("flips of the target class, with 95% intervals")
    ax.set_ylabel("experts off")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=RULE, linewidth=0.5)
    ax.set_axisbelow(True)
    return figure


def _part(row: Any) -> str:
    k = int(row["k"])
    experts = f"{k} expert{'s' if k != 1 else ''}"
    return f"all layers, {experts}" if row["part"] == "all" else f"{row['part']} third, {experts}"


def draw_pruning(rows: pd.DataFrame, floor: float, layout: Layout) -> Figure:
    """Draw the effect that is left as experts are taken out one by one; ``floor`` is what had to remain.

    ``rows``: left (experts still in), effect, dropped (the expert taken out last, "" at first), best first.
    """
    figure, ax = _axes(layout)
    at = np.arange(len(rows), dtype=float)
    effects = rows["effect"].to_numpy(dtype=float)
    ax.plot(at, effects, color=SIGNAL, marker="D", markersize=5, linewidth=1.6)
    ax.axhline(floor, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.annotate("had to remain", (at[-1], floor), (0, -11), textcoords="offset points", color=SOFT, ha="right")
    names = [
        f"all {int(left)}" if not dropped else f"−{dropped}"
        for left, dropped in zip(rows["left"], rows["dropped"], strict=True)
    ]
    ax.set_xticks(at, names, rotation=60 if layout.narrow or len(names) > 8 else 30, ha="right", rotation_mode="anchor")
    ax.set_ylim(0, max(float(effects.max()), floor, 0.1) * 1.15)
    ax.set_title("Which of the experts are needed" if not layout.narrow else "Which are needed")
    ax.set_xlabel("expert taken out, round by round")
    ax.set_ylabel("share of prompts that flip")
    return figure
