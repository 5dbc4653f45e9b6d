"""The group scan in the terminal and as CSV files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mote.harness.experts.group_scan import PAIR_P, TOP, GroupScan
from mote.harness.experts.output import GROUP_TABLES, write_table


def show_groups(found: GroupScan, rate: float, console: Console) -> None:
    """Print the leading experts, what the masks alone prove, and the pairs that stand in for each other."""
    table = Table(box=None, pad_edge=False)
    for title in ("expert", "effect alone", "95% interval", "prompts", "in masks", "q (masks)"):
        table.add_column(title, justify="right", no_wrap=True)
    known = found.table[found.table["prompts"] > 0]
    for row in known.head(TOP).to_dict("records"):
        table.add_row(
            f"({row['layer']}, {row['expert']})",
            f"{row['effect']:+.3f}",
            f"{row['low']:+.3f} to {row['high']:+.3f}",
            f"{row['prompts']:.0f}",
            f"{row['in_masks']:+.3f}",
            f"{row['q']:.2g}",
        )
    console.print(table)
    proven = int((found.table["q"] <= rate).sum())
    console.print(
        f"{found.scan.passes:,} passes, {found.scan.passes / found.full:.1%} of the full scan's {found.full:,}."
        f" {len(known)} of {len(found.table)} experts were measured alone, {int(known['complete'].sum())} of them on"
        f" all prompts. The masks alone prove {proven} at a false discovery rate of {rate:g}.",
        soft_wrap=True,
    )
    if found.shared is not None:
        console.print(f"Of the full scan's top {TOP} {found.shared} are among the top {TOP} here.", soft_wrap=True)
    for row in found.pairs[found.pairs["p"] <= PAIR_P].to_dict("records") if len(found.pairs) else []:
        console.print(_pair(row), soft_wrap=True)


def _pair(row: dict[Any, Any]) -> str:
    said = f"Pair {row['first']} and {row['second']}: {row['masks']} masks with both, p = {row['p']:.2g} over all pairs"
    if math.isnan(row.get("beyond", math.nan)):
        return said
    alone = f"alone {row['alone_first']:+.3f} and {row['alone_second']:+.3f}"
    beyond = f"{row['beyond']:+.3f} beyond their sum ({row['low']:+.3f} to {row['high']:+.3f})"
    return f"{said}; off together {row['together']:+.3f}, {alone}: {beyond}"


def write_groups(found: GroupScan, folder: Path) -> list[Path]:
    """Write both tables as CSV in a run's ``tables``; return the paths."""
    frames = (found.table, found.pairs)
    return [write_table(frame, folder / "tables" / name) for frame, name in zip(frames, GROUP_TABLES, strict=True)]
