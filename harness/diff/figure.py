"""The figure of a difference: classes of untouched answers, maps and routes by layer, effects beside random sets'."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mote.harness.diff.effects import FLIPPED, UNTOUCHED
from mote.harness.drawing import ACCENT, INK, RULE, SIGNAL, SOFT, Layout
from mote.harness.report.figure_data import Draw
from mote.harness.report.transition_figure import Panel, paint_matrix, shown
from mote.harness.science.map_difference import ALL

if TYPE_CHECKING:
    from mote.harness.diff.run import Diff


def draw_diff(found: Diff) -> Draw:
    """Return what draws the three panels."""

    def draw(layout: Layout) -> Figure:
        shape = (3, 1) if layout.narrow else (1, 3)
        figure, axes = plt.subplots(
            *shape, figsize=(layout.width, 11.5 if layout.narrow else 4.2), layout="constrained"
        )
        rows, columns = shown([found.classes.matrix])
        paint_matrix(axes[0], Panel("Untouched answers", f"rows {found.names[0]}, columns {found.names[1]}",
                                    found.classes.matrix), rows, columns)  # fmt: skip
        _layers(axes[1], found)
        _effects(axes[2], found)
        named = [one.get_legend_handles_labels() for one in axes[1:]]
        handles, labels = ([each for part in named for each in part[at]] for at in (0, 1))
        figure.legend(handles, labels, loc="outside lower center", ncols=1 if layout.narrow else 3)
        return figure

    return draw


def _layers(axis: Axes, found: Diff) -> None:
    by_layer = found.maps[found.maps["layer"] != ALL]
    at = np.arange(len(by_layer))
    for name, label, colour, style in (
        ("routing", "routing agreement", INK, "-"),
        ("resonance", "resonance maps, r", ACCENT, "-"),
        ("between", "halves, both models, r", ACCENT, ":"),
        ("within", "halves, one model, r", SOFT, ":"),
    ):
        axis.plot(at, by_layer[name].to_numpy(float), style, color=colour, marker="o", markersize=3, label=label)
    axis.set_xticks(at[:: max(1, len(at) // 12)], [str(one) for one in by_layer["layer"]][:: max(1, len(at) // 12)])
    axis.set_xlabel("layer")
    axis.set_title("Maps and routes")
    axis.set_ylim(min(0.0, axis.get_ylim()[0]), 1.03)
    axis.grid(axis="y", color=RULE, linewidth=0.5)


def _effects(axis: Axes, found: Diff) -> None:
    rows = found.effects[(found.effects["measure"] == FLIPPED) & (found.effects["edit"] != UNTOUCHED)]
    rng = np.random.default_rng(0)
    for at, (_, row) in enumerate(rows.iterrows()):
        mine = found.sets[(found.sets["edit"] == row["edit"]) & (found.sets["measure"] == FLIPPED)]
        jitter = at + rng.uniform(-0.18, 0.18, len(mine))
        axis.scatter(jitter, mine["difference"], s=14, color=SOFT, alpha=0.6, linewidths=0,
                     label="random sets, one seed" if at == 0 else None)  # fmt: skip
        axis.errorbar(at, row["difference"], yerr=[[row["difference"] - row["low"]], [row["high"] - row["difference"]]],
                      fmt="D", color=SIGNAL, markersize=6, capsize=3,
                      label="the edit, 95% over units" if at == 0 else None)  # fmt: skip
    axis.scatter(range(len(rows)), rows["first_seed"], s=42, marker="D", facecolors="none", edgecolors=SIGNAL,
                 zorder=3, label="the edit, one seed")  # fmt: skip
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.set_xticks(range(len(rows)), [f"{row['edit']}\n{row['said']}" for _, row in rows.iterrows()], fontsize=8)
    axis.set_xlim(-0.6, len(rows) - 0.4)
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
    axis.set_ylabel(f"{found.names[1]} less {found.names[0]}, points")
    axis.set_title("Difference of effects")
    axis.grid(axis="y", color=RULE, linewidth=0.5)
