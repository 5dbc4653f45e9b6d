"""The rankings side by side, from the table that `mote rankings` leaves in a run's ``tables/rankings.csv``."""

from __future__ import annotations

import io
import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mote.harness.drawing import ACCENT, INK, RULE, SIGNAL, SOFT, Layout
from mote.harness.errors import MoteError
from mote.harness.experts.rankings import CAUSAL
from mote.harness.report.figure_data import FigureData, Made
from mote.harness.report.phrases import pct
from mote.reading import UnreadableError, read_text

NAMES: Final = {
    "resonance": "resonance",
    "resonance_per_token": "resonance, per token",
    "risk_difference": "risk difference",
    "log_odds": "log-odds",
    "smd": "standardised difference",
    "auc": "AUC",
    "router_weight_resonance": "resonance, router weights",
    "resonance_last_token": "resonance, last token",
    "frequency": "most frequent",
    "causal": "causal scan",
}
LARGEST: Final = 4 << 20
_MOST: Final = 60
COLUMNS: Final = ("ranking", "k", "share", "low", "high", "matched_mean", "matched_max")


def read_rankings(path: Path) -> pd.DataFrame:
    """Return the table that `mote rankings` wrote into a run, empty where there is none.

    Raises MoteError where it is another table: a run may be a stranger's, or its table edited by hand.
    """
    if not path.exists():
        return pd.DataFrame()
    try:
        table = pd.read_csv(io.StringIO(read_text(path, LARGEST)))
    except (UnreadableError, ValueError, OverflowError) as error:
        raise MoteError(f"{path} is no table of rankings: {' '.join(str(error).split())[:120]}") from None
    if any(name not in table for name in COLUMNS):
        return table
    numbers = [name for name in (*COLUMNS[1:], "spearman", "spearman_low", "spearman_high") if name in table]
    if (
        not all(pd.api.types.is_numeric_dtype(table[name]) for name in numbers)
        or np.isinf(table[numbers].to_numpy(dtype=float)).any()
        or table[["ranking", *COLUMNS[1:5]]].isna().any(axis=None)
        or table.duplicated(["ranking", "k"]).any()
        or max(table["ranking"].nunique(), table["k"].nunique()) > _MOST
    ):
        raise MoteError(f"{path} is not the table that `mote rankings` writes; take it away, or make it anew.")
    return table.astype({"ranking": str})


def rankings(data: FigureData) -> Made:
    """Return each ranking's agreement with the causal scan, and the flips of its top k beside matched random sets."""
    table = data.rankings
    if not len(table) or any(name not in table for name in COLUMNS):
        return (
            None,
            "`mote scan RUN` edits each expert alone, and `mote rankings RUN` sets every ranking beside that.",
            None,
        )
    order = list(dict.fromkeys(table["ranking"]))
    listed = "; ".join(f"{row.ranking}, top {row.k}: {row.share:.1%}" for row in table.itertuples())
    return lambda layout: draw_rankings(table, order, layout), f"Flips of the top k of each ranking: {listed}.", None


def ranking_rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return the figure as a table: a row a ranking, its agreement, and for each k its flips and random sets."""
    if not len(table) or any(name not in table for name in COLUMNS):
        return [], []
    ks = sorted(set(table["k"]))
    columns = ["ranking", "agreement with the scan"]
    for k in ks:
        columns += [f"top {k} flips", f"random sets of {k}, mean (most)"]
    rows = []
    for name, own in table.groupby("ranking", sort=False):
        by_k = {int(row["k"]): row for row in own.to_dict("records")}
        cells = [NAMES.get(str(name), str(name)), _correlation(own.iloc[0].to_dict())]
        for k in ks:
            row = by_k.get(int(k))
            cells += ["–", "–"] if row is None else [
                f"{pct(row['share'])} ({pct(row['low'])} to {pct(row['high'])})",
                f"{pct(row['matched_mean'])} ({pct(row['matched_max'])})",
            ]  # fmt: skip
        rows.append(cells)
    return columns, rows


def _correlation(row: Mapping[Hashable, Any]) -> str:
    numbers = [float(row.get(name, math.nan)) for name in ("spearman", "spearman_low", "spearman_high")]
    if math.isnan(numbers[0]):
        return "–"
    return "{:.2f} ({:.2f} to {:.2f})".format(*numbers).replace("-", "−")


def draw_rankings(table: pd.DataFrame, order: list[str], layout: Layout) -> Figure:
    """Draw a panel for the rank correlation with the scan, and one for each k with the flips and random sets."""
    ks = sorted(set(table["k"]))
    scanned = "spearman" in table and bool(table["spearman"].notna().any())
    panels = len(ks) + scanned
    across = 1 if layout.narrow else panels
    down = -(-panels // across)
    size = (layout.width, down * (0.27 * len(order) + 0.95) + (1.3 if layout.narrow else 0.75))
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    if scanned:
        _agreement(axes[0], table.drop_duplicates("ranking").set_index("ranking").reindex(order))
    top = max(float(table["high"].max()), float(table["matched_max"].max()), 0.1) * 1.05
    for ax, k in zip(axes[scanned:], ks, strict=True):
        _flips(ax, table[table["k"] == k].set_index("ranking").reindex(order), top)
        ax.set_title(f"Flips, top {k} off")
    for place, ax in enumerate(axes):
        ax.set_yticks(range(len(order)), [NAMES.get(name, name) for name in order] if place % across == 0 else [])
        ax.set_ylim(len(order) - 0.5, -0.5)
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color=RULE, linewidth=0.5)
        ax.set_axisbelow(True)
        if place % across == 0:
            ax.set_ylabel("ranking of all experts")
    figure.suptitle("Rankings of experts side by side", x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    handles, names = axes[-1].get_legend_handles_labels()
    figure.legend(
        handles[::-1], names[::-1], loc="outside lower center", ncols=1 if layout.narrow else 3, columnspacing=1.6
    )
    return figure


def _agreement(ax: Axes, rows: pd.DataFrame) -> None:
    for y, (name, row) in enumerate(zip(rows.index, rows.to_dict("records"), strict=True)):
        if pd.isna(row["spearman"]):
            # A ranking that gives all experts one score has no correlation.
            said = "itself" if name == CAUSAL else "none"
            ax.annotate(said, (0, y), (4, 0), textcoords="offset points", va="center", color=SOFT, fontsize=9)
            continue
        ax.plot([row["spearman_low"], row["spearman_high"]], [y, y], color=ACCENT, linewidth=2, solid_capstyle="butt")
        ax.plot(row["spearman"], y, "o", color=ACCENT, markersize=6)
    ax.axvline(0, color=INK, linewidth=0.8)
    low, high = (float(np.nanmin(rows["spearman_low"])), float(np.nanmax(rows["spearman_high"])))
    ax.set_xlim(min(-0.05, low * 1.1), max(0.3, high * 1.1))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_title("Agreement")
    ax.set_xlabel("Spearman's rho with the scan")


def _flips(ax: Axes, rows: pd.DataFrame, top: float) -> None:
    at, flips = np.arange(len(rows)), rows["share"].to_numpy(dtype=float)
    ax.barh(at + 0.22, rows["matched_max"], 0.16, color="#aab2bd", label="matched random sets, up to the most")
    ax.plot(rows["matched_mean"], at + 0.22, "|", color=INK, markersize=9, markeredgewidth=1.4, label="their mean")
    reach = np.abs(rows[["low", "high"]].to_numpy(dtype=float).T - flips)
    ax.errorbar(
        flips, at - 0.12, xerr=reach, color=SIGNAL, elinewidth=1.8, marker="D", markersize=5, linestyle="none",
        label="flips with 95% interval",
    )  # fmt: skip
    ax.set_xlim(-0.01 * top, top)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_xlabel("flips of the target class")
