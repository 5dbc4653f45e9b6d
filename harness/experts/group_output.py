"""Scans in stages, by masks and by halving, in the terminal and as CSV files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mote.harness.experts.group_scan import PAIR_P, GroupScan
from mote.harness.experts.halving_scan import HalvingScan
from mote.harness.experts.output import GROUP_TABLES, HALVING_TABLE, write_table
from mote.harness.experts.stages import TOP


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
    _show_shared(found.shared, console)
    for row in found.pairs[found.pairs["p"] <= PAIR_P].to_dict("records") if len(found.pairs) else []:
        console.print(_pair(row), soft_wrap=True)


def show_halving(found: HalvingScan, console: Console) -> None:
    """Print the finalists that lead, and what the scan cost."""
    table = Table(box=None, pad_edge=False)
    for title in ("expert", "effect alone", "95% interval", "screened on", "fall there"):
        table.add_column(title, justify="right", no_wrap=True)
    known = found.table[found.table["complete"]]
    for row in known.head(TOP).to_dict("records"):
        table.add_row(
            f"({row['layer']}, {row['expert']})",
            f"{row['effect']:+.3f}",
            f"{row['low']:+.3f} to {row['high']:+.3f}",
            f"{row['screened']}",
            f"{row['fall']:+.3f}",
        )
    console.print(table)
    console.print(
        f"{found.made:,} passes, {found.made / found.full:.1%} of the full scan's {found.full:,}; {len(known)} of"
        f" {len(found.table):,} experts were measured on all prompts and openings.",
        soft_wrap=True,
    )
    _show_shared(found.shared, console)


def write_halving(found: HalvingScan, folder: Path) -> Path:
    """Write the table as CSV in a run's ``tables``; return its path."""
    return write_table(found.table, folder / "tables" / HALVING_TABLE)


def _show_shared(shared: int | None, console: Console) -> None:
    if shared is not None:
        console.print(f"Of the full scan's top {TOP} {shared} are among the top {TOP} here.", soft_wrap=True)


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
