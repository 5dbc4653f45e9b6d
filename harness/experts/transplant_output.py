"""What a route transplant says: the 2 x 2 in the terminal; tables, settings and a page beside the run, read again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.table import Table

from mote.harness.errors import MoteError
from mote.harness.experts.output import write_table
from mote.harness.experts.transplant import FOLDER, Transplant
from mote.harness.files import canonical_json, subfolder, write_atomic
from mote.harness.recipe.manifest import new_session
from mote.harness.science.transplants import CELLS, EFFECTS, OWN
from mote.patches import Tokens
from mote.reading import UnreadableError, read_json, read_text

_ALIGNED = {"end": "from the prompt's end", "role": "turn by turn"}
_TEXTS: Final = {"content", "route", "unit", "compared"}
_MOST: Final = 200
"""Rows of a table and characters of a class's name that are read: a run may come from anywhere."""
_WHERE = {"same": "of its own unit", "another": "of another unit", "any": ""}


def show_transplant(found: Transplant, console: Console) -> None:
    """Print the shares and the effects."""
    target = found.settings["classes"][0]
    for title, rows in ((f"answered {target}", cell_rows(found)), ("difference, 95%", effect_rows(found))):
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


class _Settings(BaseModel):
    """What ``settings.json`` says of a transplant; what else stands there is passed over."""

    model_config = ConfigDict(extra="ignore", strict=True)

    classes: list[str]
    tokens: Tokens
    kept: bool
    layers: list[int] | None
    align: Literal["end", "role"] = "end"
    unit: str | None
    seed: int
    own_routes: int
    own_routes_same_text: int


def read_transplant(folder: Path) -> Transplant | None:
    """Read what :func:`write_transplant` wrote beside a run; None where there is nothing.

    Raises MoteError for what is no transplant's.
    """
    place = folder / FOLDER
    path = place / "settings.json"
    if not path.exists():
        return None
    try:
        said = _Settings.model_validate(read_json(path))
        if len(set(said.classes)) != 2:
            raise ValueError("there are two classes in a transplant")
        path = place / "cells.csv"
        cells = _read_table(path, CELLS)
        path = place / "effects.csv"
        effects = _read_table(path, EFFECTS)
    except ValidationError as error:
        raise MoteError(f"{path} is no transplant's: {error.errors()[0]['msg']}") from None
    except UnreadableError as error:
        raise MoteError(f"{path} {error}") from None
    except (ValueError, OverflowError, KeyError) as error:
        raise MoteError(f"{path} is no transplant's: {' '.join(str(error).split())[:120]}") from None
    settings = said.model_dump(exclude={"own_routes", "own_routes_same_text"})
    return Transplant(settings, cells, effects, 0, said.own_routes_same_text, said.own_routes)


def _read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    table = pd.read_csv(io.StringIO(read_text(path)), nrows=_MOST)[columns]
    kinds = {name: str if name in _TEXTS else int if name in ("prompts", "units") else float for name in columns}
    found = table.astype(kinds)
    for name in _TEXTS & set(columns):
        found[name] = found[name].str.slice(0, _MOST)
    if strange := [unit for unit in found["unit"] if unit not in _WHERE]:
        raise ValueError(f"'{strange[0]}' is no place of a donor")
    return found


def page(found: Transplant) -> str:
    """Return the page: what was done, the shares, the effects, and what holds of them."""
    said = found.settings
    target, other = said["classes"]
    lines = [
        "# Is it the route or the content?",
        "",
        what_was_done(found),
        "",
        f"| content | route | prompts | answered {target} |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in cell_rows(found)),
        "",
        f"By how much the share of {target} falls, the same prompts under both routes, with its interval over "
        f"{said['unit'] or 'prompt'}s:",
        "",
        "| content | from route to route | prompts | difference, 95% |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in effect_rows(found)),
        "",
        f"Classes: {target} and {other}, by the run's labels. Donors are drawn by seed {said['seed']}, not chosen. A "
        "share counts broken answers as not of the class; `cells.csv` says how many there are, and how many of a "
        "route's choices are not those of the receiver's router.",
    ]
    return "\n".join(lines) + "\n"


def what_was_done(found: Transplant) -> str:
    """Return a transplant's settings as sentences, with its check by the receivers' own routes."""
    said = found.settings
    layers = "all layers" if said["layers"] is None else f"layers {', '.join(map(str, said['layers']))}"
    weights = "kept" if said["kept"] else "recomputed by the receiver's router"
    return (
        f"Each prompt was answered again while its tokens took the experts of another prompt's: {said['tokens']} "
        f"tokens, {layers}, weights {weights}, aligned {_ALIGNED[said['align']]}. Route: whose experts; content: the "
        f"prompt itself. {_identity(found)}"
    )


def cell_rows(found: Transplant) -> list[list[str]]:
    """Return the rows of the 2 x 2 and what stands beside it: content, route, prompts, share of the class."""
    return [
        [
            row["content"],
            "its own" if row["route"] == OWN else f"{row['route']} {_WHERE[row['unit']]}".strip(),
            str(row["prompts"]),
            f"{row['share']:.1%}" + (f" ({row['broken']:.1%} broken)" if row["broken"] else ""),
        ]
        for row in _records(found.cells)
    ]


def effect_rows(found: Transplant) -> list[list[str]]:
    """Return the paired differences: content, from which route to which, prompts, points with their interval."""
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
