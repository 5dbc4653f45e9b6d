"""MT-Bench by category: bars with their intervals, and a radar, beside the paper's two rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mote.harness import drawing as style
from mote.harness.mt_bench.scores import ALL
from mote.harness.science import paper
from mote.judges.mt_bench import CATEGORIES

_COLOURS: Final = ("#8b95a3", style.ACCENT, style.SIGNAL, "#e3a72f", "#3f8f6b", "#6a4c93")
_PAPER: Final = (
    ("original", "o", "DeepSeek-R1, original (paper; no stem)"),
    ("suppress top 10", "D", "DeepSeek-R1, suppressed (paper; no stem)"),
)


def bar_chart(scores: pd.DataFrame, models: Sequence[str], title: str, *, with_paper: bool = True) -> Figure:
    """Return bars of the mean rating by category, both turns, for each model, with intervals and the paper's points."""
    by_category = _by_category(scores)
    categories = [name for name in CATEGORIES if name in set(by_category["category"])]
    with style.drawing("mt-bench-bars"):
        figure, axes = plt.subplots(figsize=(style.WIDE.width, 4.2), layout="constrained")
        width = 0.8 / max(1, len(models))
        at = np.arange(len(categories), dtype=float)
        for number, model in enumerate(models):
            rows = by_category[by_category["model"] == model].set_index("category").reindex(categories)
            place = at + (number - (len(models) - 1) / 2) * width
            mean = rows["mean"].to_numpy(dtype=float)
            errors = np.abs(
                np.vstack([mean - rows["low"].to_numpy(dtype=float), rows["high"].to_numpy(dtype=float) - mean])
            )
            axes.bar(place, mean, width * 0.92, color=_COLOURS[number % len(_COLOURS)], label=model)
            axes.errorbar(
                place, mean, yerr=np.nan_to_num(errors), fmt="none", ecolor=style.INK, elinewidth=0.9, capsize=2
            )
            _missing(axes, place, rows)
        if with_paper:
            _paper_points(axes, categories, at)
        axes.set_xticks(at, categories)
        axes.set_ylim(0, 10.6)
        axes.set_yticks(range(0, 11, 2))
        axes.set_ylabel("mean rating, both turns (1 to 10)")
        axes.set_title(title)
        if (by_category["unscored"] > 0).any():
            axes.set_title(
                "−n: n turns without a rating", loc="right", fontsize=9, fontweight="normal", color=style.SOFT
            )
        axes.grid(axis="y", color=style.RULE, linewidth=0.5)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=min(3, len(models) + 2 * with_paper))
    return figure


def radar(scores: pd.DataFrame, models: Sequence[str], title: str, *, with_paper: bool = True) -> Figure:
    """Return the mean ratings by category on a circle; a category without a rating leaves a gap in the line."""
    by_category = _by_category(scores)
    categories = [name for name in CATEGORIES if name in set(by_category["category"])]
    angles = np.linspace(0, 2 * math.pi, len(categories), endpoint=False)
    lines = [
        (
            model,
            by_category[by_category["model"] == model].set_index("category")["mean"],
            _COLOURS[i % len(_COLOURS)],
            "-",
        )
        for i, model in enumerate(models)
    ]
    if with_paper:
        table = paper.mt_bench_table()
        lines += [(label, table[name], style.INK, ["--", ":"][i]) for i, (name, _, label) in enumerate(_PAPER)]
    with style.drawing("mt-bench-radar"):
        figure, axes = plt.subplots(figsize=(6.4, 6.4), subplot_kw={"projection": "polar"}, layout="constrained")
        for label, values, colour, dashes in lines:
            radius = np.array([float(values.get(name, math.nan)) for name in categories])
            axes.plot(np.append(angles, angles[:1]), np.append(radius, radius[:1]), dashes, color=colour, label=label,
                      linewidth=0.9 if colour == style.INK else 1.8, marker="o", markersize=3.5)  # fmt: skip
        axes.set_xticks(angles, categories)
        axes.set_ylim(0, 10)
        axes.set_yticks([2, 4, 6, 8, 10])
        axes.tick_params(axis="y", labelsize=8, labelcolor=style.SOFT)
        axes.tick_params(axis="x", pad=10)
        axes.spines["polar"].set_color(style.RULE)
        axes.grid(color=style.RULE, linewidth=0.5)
        axes.set_title(title, pad=18)
        figure.legend(loc="outside lower center", ncols=1 if len(lines) < 3 else 2)
    return figure


def _by_category(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[(scores["turn"] == ALL) & (scores["category"] != ALL)]


def _missing(axes: Axes, place: np.ndarray[tuple[int, ...], np.dtype[np.float64]], rows: pd.DataFrame) -> None:
    """Write the number of turns without a rating at the foot of a bar: a mean of what is left is not the whole."""
    for x, (mean, unscored) in zip(place, rows[["mean", "unscored"]].to_numpy(dtype=float), strict=True):
        if unscored > 0:
            inside = not math.isnan(mean)
            axes.annotate(
                f"−{unscored:.0f}",
                (float(x), 0.15),
                ha="center",
                fontsize=8,
                color=style.PAPER if inside else style.SIGNAL,
            )


def _paper_points(axes: Axes, categories: Sequence[str], at: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    table = paper.mt_bench_table()
    for offset, (name, marker, label) in zip((-0.06, 0.06), _PAPER, strict=True):
        values = [float(table[name].get(category, math.nan)) for category in categories]
        face = style.PAPER if name == "original" else style.INK
        axes.scatter(
            at + offset, values, s=26, marker=marker, facecolor=face, edgecolor=style.INK, linewidth=0.9, zorder=5,
            label=label,
        )  # fmt: skip
