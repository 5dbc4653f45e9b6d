"""The causal scan and the comparison of rankings in the terminal and as CSV files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.console import Console
from rich.table import Table

from mote.harness.experts.comparison import Rankings
from mote.harness.experts.rankings import CAUSAL
from mote.harness.files import subfolder, write_atomic

SCAN_TABLE: Final = "causal_scan.csv"
RANKINGS_TABLE: Final = "rankings.csv"
EXPERTS_TABLE: Final = "expert_rankings.csv"
THIRDS_TABLE: Final = "thirds_chance.csv"
DEACTIVATED_TABLE: Final = "deactivated_chance.csv"
HALVING_TABLE: Final = "halving_scan.csv"
GROUP_TABLES: Final = ("group_scan.csv", "group_scan_pairs.csv")
TABLES: Final = (
    SCAN_TABLE,
    RANKINGS_TABLE,
    EXPERTS_TABLE,
    THIRDS_TABLE,
    DEACTIVATED_TABLE,
    HALVING_TABLE,
    *GROUP_TABLES,
)
"""What lies in a run's ``tables/`` beside the tables of its report; a report leaves them there."""

_INDEPENDENT: Final = "taken as independent; where they are of few places or subjects, they are not"
_COLUMNS: Final = [
    *("ranking", "k", "experts_compared", "spearman", "spearman_low", "spearman_high", "shared", "chance"),
    *("prompts", "flips", "share", "low", "high", "flips_named", "broken", "broken_share"),
    *("sets", "matched_mean", "matched_max", "matched_broken", "busier", "p", "p_holm", "least_p", "p_vs_resonance"),
    *("experts", "reliability", "scan"),
]


def show_scan(effects: pd.DataFrame, console: Console, top: int = 10) -> None:
    """Print the experts of most effect of a scan."""
    complete = effects[effects["complete"].astype(bool)]
    if complete.empty:
        console.print("No expert is measured on all prompts yet.")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("expert", "effect", "95% interval", "p", "p (Holm)"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in complete.head(top).to_dict(orient="records"):
        table.add_row(
            f"({row['layer']}, {row['expert']})",
            f"{row['effect']:+.3f}",
            f"{row['low']:+.3f} to {row['high']:+.3f}",
            f"{row['p']:.2g}",
            f"{row['p_holm']:.2g}",
        )
    console.print(table)
    idle = int((complete["selected"] == 0).sum())
    certain = int(((complete["p_holm"] <= 0.05) & (complete["effect"] > 0)).sum())
    console.print(
        "Effect: fall of the own opening's log-odds against the alternatives."
        f" Of {len(complete)} experts {certain} have one above 0 (Holm, p <= 0.05); {idle} were chosen by no token."
        f" Prompts are {_INDEPENDENT}.",
        soft_wrap=True,
    )


def show_rankings(found: Rankings, console: Console) -> None:
    """Print the comparison: how far each ranking agrees with the causal scan, and one table of flips for each k."""
    if found.scan:
        console.print(_agreement(found.table))
        console.print(
            f"Spearman's rho over {int(found.table['experts_compared'].max())} experts that were seen, with its"
            f" bootstrap interval. The scan ({found.scan}) agrees with itself at {found.reliability:.2f}."
            f" In both, prompts are {_INDEPENDENT}.\n"
        )
    else:
        console.print(
            "No causal scan to compare with is in this run: mote scan RUN makes one, and the correlations with it.\n"
        )
    unit = found.unit if found.table["flips_named"].notna().any() else ""
    for k, rows in found.table.groupby("k", sort=True):
        table = Table(box=None, padding=(0, 1, 0, 0), title=f"Top {k} switched off", title_justify="left")
        table.add_column("ranking", no_wrap=True)
        for title in ("shared", "flips", "95%", *(["same"] if unit else []), "matched", "p", "Holm", "broken"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in rows.to_dict(orient="records"):
            table.add_row(*_cells(row))
        console.print(table)
    first = found.table.iloc[0]
    if unit:
        console.print(f"same: flips whose answer is still about the {unit} that the question names.")
    if first["sets"]:
        console.print(
            "shared: experts in common with the scan's top k. matched: mean and largest share of"
            f" {first['sets']} random sets of the same layers, chosen as often in sum by the class's"
            f" prompts. p is at least {first['least_p']:.3f};"
            " Holm's is over the rankings of a k."
        )


def write_rankings(found: Rankings, folder: Path) -> list[Path]:
    """Write the comparison and every expert's scores as CSV in a run's ``tables``; return the paths."""
    known = [name for name in _COLUMNS if name in found.table]
    return [
        write_table(found.table[known], folder / "tables" / RANKINGS_TABLE),
        write_table(found.experts, folder / "tables" / EXPERTS_TABLE),
    ]


def write_thirds(table: pd.DataFrame, folder: Path) -> Path:
    """Write the thirds among their random sets as CSV in a run's ``tables``; return the path."""
    return write_table(table, folder / "tables" / THIRDS_TABLE)


def write_deactivated(table: pd.DataFrame, folder: Path) -> Path:
    """Write suppression and deactivation among the same random sets as CSV in a run's ``tables``; return the path."""
    return write_table(table, folder / "tables" / DEACTIVATED_TABLE)


def write_scan(effects: pd.DataFrame, folder: Path) -> Path:
    """Write a scan's effects as CSV in a run's ``tables``; return the path."""
    return write_table(effects, folder / "tables" / SCAN_TABLE)


def _agreement(rows: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("ranking", no_wrap=True)
    for title in ("rho with causal", "95%"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows[rows["ranking"] != CAUSAL].drop_duplicates("ranking").to_dict(orient="records"):
        table.add_row(
            row["ranking"], f"{row['spearman']:.2f}", f"{row['spearman_low']:.2f} to {row['spearman_high']:.2f}"
        )
    return table


def _cells(row: dict[Any, Any]) -> list[str]:
    shared = math.nan if row["ranking"] == CAUSAL else row.get("shared", math.nan)
    return [
        str(row["ranking"]),
        "" if math.isnan(shared) else f"{int(shared)}",
        f"{row['flips']}/{row['prompts']}",
        f"{100 * row['low']:.0f}-{100 * row['high']:.0f}%",
        *([] if math.isnan(row["flips_named"]) else [f"{row['flips_named']:.0f}"]),
        "" if math.isnan(row["p"]) else f"{row['matched_mean']:.0%} ({row['matched_max']:.0%})",
        "" if math.isnan(row["p"]) else f"{row['p']:.3f}",
        "" if math.isnan(row["p_holm"]) else f"{row['p_holm']:.2f}",
        str(row["broken"]),
    ]


def write_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table of a run as CSV, whole or not at all; return the path."""
    subfolder(path.parent.parent, path.parent.name)
    write_atomic(path, frame.to_csv(index=False, float_format="%.6g"))
    return path
