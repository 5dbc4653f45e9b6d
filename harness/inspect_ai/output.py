"""The table of a family of logs, in the terminal and as JSON."""

from __future__ import annotations

import json
import math

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mote.harness.inspect_ai.family import Family


def show(families: list[tuple[Family, pd.DataFrame]], console: Console) -> None:
    """Print each task's tables, what its logs say of themselves, and how small a p the shams could give."""
    for family, found in families:
        tuned = family.tuned
        (digest,) = tuned.digests
        console.print(Text(f"{family.task} under {tuned.profile} {digest[:12]}, {len(family.shams)} shams"))
        for note in dict.fromkeys(note for side in (family.baseline, tuned, *family.shams) for note in side.notes):
            console.print(Text(f"! {note}", style="yellow"), soft_wrap=True)
        if (left := int(found["left_out"].max())) > 0:
            console.print(f"! {left} samples are in no figure: not every log has scored them.", soft_wrap=True)
        console.print()
        console.print(_paired(found))
        console.print()
        if not family.shams:
            console.print("No shams: whether random experts would do the same is not known.", soft_wrap=True)
            continue
        console.print(_among(found))
        console.print(
            f"p: how many of {len(family.shams)} sets of random experts move the metric as far, either way; at least"
            f" {1 / (len(family.shams) + 1):.3f}.",
            soft_wrap=True,
        )


def _paired(found: pd.DataFrame) -> Table:
    table = _columns("metric", "samples", "baseline", "tuned", "difference", "95% interval", "p, paired")
    for row in found.to_dict("records"):
        interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
        shares = (f"{row['baseline']:.3f}", f"{row['tuned']:.3f}", f"{row['difference']:+.3f}")
        table.add_row(Text(str(row["metric"])), str(row["samples"]), *shares, interval, _p(row["p_paired"]))
    return table


def _among(found: pd.DataFrame) -> Table:
    table = _columns("metric", "difference", "shams: least", "mean", "most", "p, permutation")
    for row in found.to_dict("records"):
        moved = (f"{row[name]:+.3f}" for name in ("difference", "sham_least", "sham_mean", "sham_most"))
        table.add_row(Text(str(row["metric"])), *moved, _p(row["p_permutation"]))
    return table


def _columns(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for title in others:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def json_text(families: list[tuple[Family, pd.DataFrame]]) -> str:
    """Return all rows as one JSON list; what is unknown is null."""
    rows = [row for _, table in families for row in table.to_dict("records")]
    plain = [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows
    ]
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
