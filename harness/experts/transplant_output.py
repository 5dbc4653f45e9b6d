"""What a route transplant says: the 2 x 2 in the terminal, and tables, settings and a page beside the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from mote.harness.experts.output import write_table
from mote.harness.experts.transplant import FOLDER, Transplant
from mote.harness.files import canonical_json, subfolder, write_atomic
from mote.harness.recipe.manifest import new_session
from mote.harness.science.transplants import OWN

_ALIGNED = {"end": "from the prompt's end", "role": "turn by turn"}
_WHERE = {"same": "of its own unit", "another": "of another unit", "any": ""}


def show_transplant(found: Transplant, console: Console) -> None:
    """Print the shares and the effects."""
    target = found.settings["classes"][0]
    for title, rows in ((f"answered {target}", _cell_rows(found)), ("difference, 95%", _effect_rows(found))):
        table = Table(box=None, pad_edge=False)
        for name in ("content", "route", "prompts", title):
            table.add_column(name)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(_identity(found), soft_wrap=True)


def write_transplant(found: Transplant, folder: Path) -> list[Path]:
    """Write a run's ``transplant/``: cells.csv, effects.csv, settings.json and README.md; return the paths."""
    place = subfolder(folder, FOLDER)
    paths = [write_table(found.cells, place / "cells.csv"), write_table(found.effects, place / "effects.csv")]
    settings = {**found.settings, "own_routes": found.own, "own_routes_same_text": found.again}
    write_atomic(place / "settings.json", canonical_json({**settings, "session": new_session()}) + "\n")
    write_atomic(place / "README.md", page(found))
    return [*paths, place / "settings.json", place / "README.md"]


def page(found: Transplant) -> str:
    """Return the page: what was done, the shares, the effects, and what holds of them."""
    said = found.settings
    target, other = said["classes"]
    layers = "all layers" if said["layers"] is None else f"layers {', '.join(map(str, said['layers']))}"
    weights = "kept" if said["kept"] else "recomputed by the receiver's router"
    lines = [
        "# Is it the route or the content?",
        "",
        f"Each prompt was answered again while its tokens took the experts of another prompt's: {said['tokens']} "
        f"tokens, {layers}, weights {weights}, aligned {_ALIGNED[said['align']]}. Route: whose experts; content: the "
        f"prompt itself. {_identity(found)}",
        "",
        f"| content | route | prompts | answered {target} |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in _cell_rows(found)),
        "",
        f"By how much the share of {target} falls, the same prompts under both routes, with its interval over "
        f"{said['unit'] or 'prompt'}s:",
        "",
        "| content | from route to route | prompts | difference, 95% |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in _effect_rows(found)),
        "",
        f"Classes: {target} and {other}, by the run's labels. Donors are drawn by seed {said['seed']}, not chosen. A "
        "share counts broken answers as not of the class; `cells.csv` says how many there are, and how many of a "
        "route's choices are not those of the receiver's router.",
    ]
    return "\n".join(lines) + "\n"


def _cell_rows(found: Transplant) -> list[list[str]]:
    return [
        [
            row["content"],
            "its own" if row["route"] == OWN else f"{row['route']} {_WHERE[row['unit']]}".strip(),
            str(row["prompts"]),
            f"{row['share']:.1%}" + (f" ({row['broken']:.1%} broken)" if row["broken"] else ""),
        ]
        for row in _records(found.cells)
    ]


def _effect_rows(found: Transplant) -> list[list[str]]:
    target, other = found.settings["classes"]
    rows = []
    for row in _records(found.effects):
        ends = (target, other) if row["compared"] == "class" else ("its own", row["content"])
        where = f" {_WHERE[row['unit']]}".rstrip()
        rows.append(
            [
                row["content"],
                f"{ends[0]} to {ends[1]}{where}",
                str(row["prompts"]),
                f"{100 * row['net']:.1f} points ({_interval(row)})",
            ]
        )
    return rows


def _interval(row: dict[str, Any]) -> str:
    if row["units"] < 2:
        return f"no interval: the class occurs in {row['units']} units"
    return f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"


def _identity(found: Transplant) -> str:
    return f"Under their own routes {found.again} of {found.own} prompts have the run's own answer, to the letter."


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict(orient="records")]
