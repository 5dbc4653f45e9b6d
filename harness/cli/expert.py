"""``mote expert``: what a run says of one expert, seen for beside needed for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mote.harness.cli.tables import table_console
from mote.harness.errors import MoteError, printable

if TYPE_CHECKING:
    import pandas as pd

    from mote.harness.report.expert import ExpertPage


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("expert")(expert_command)


def expert_command(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    expert: Annotated[str, typer.Argument(help="Layer and expert, as the model numbers them: 4,17.", metavar="L,E")],
    top: Annotated[int, typer.Option(help="So many prompts and tokens, at most.", min=1)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object, for scripts.")] = False,
) -> None:
    """Say what one expert is seen for and what it is needed for.

    Seen for: prompts and tokens that choose it, by class and unit, and its place in every ranking. Needed for: its
    effect alone, from the run's causal scan, and what the run's profiles that edit it did.

    Example: mote expert results/demo 0,51
    """
    from mote.harness.report.frames import open_run

    layer, number = _numbers(expert)
    page = open_run(run).expert(layer, number, top)
    if as_json:
        print(json.dumps(_objects(page), indent=2, ensure_ascii=False))
    else:
        _show(page)


def _numbers(text: str) -> tuple[int, int]:
    parts = [part.strip() for part in text.strip("() ").split(",")]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise MoteError(f"'{text}' is no expert: write layer and expert with a comma, for instance 4,17.")
    return int(parts[0]), int(parts[1])


def _objects(page: ExpertPage) -> dict[str, Any]:
    found: dict[str, Any] = {
        "layer": page.expert[0],
        "expert": page.expert[1],
        "target": page.target,
        "role": page.role,
    }
    for name in ("seen", "prompts", "tokens", "places", "alone", "profiles"):
        frame: pd.DataFrame = getattr(page, name)
        found[name] = json.loads(frame.to_json(orient="records", double_precision=10))
    return found | {"missing": list(page.missing)}


def _show(page: ExpertPage) -> None:
    console = table_console()
    console.print(f"Expert {page.expert[0]},{page.expert[1]}; class under study: {page.target}", soft_wrap=True)
    titles = {
        "seen": f"Seen for: activations of {page.role} tokens, untouched",
        "prompts": "Prompts that choose it most",
        "tokens": "Tokens that choose it most",
        "places": "Its place in every ranking",
        "alone": "Needed for: fall of the own opening's log-odds when it alone is edited",
        "profiles": f"Profiles that edit it among others: flips of {page.target}",
    }
    for name, title in titles.items():
        frame: pd.DataFrame = getattr(page, name)
        if not frame.empty:
            console.print(f"\n{title}", soft_wrap=True)
            console.print(_table(frame))
    for line in page.missing:
        console.print(f"\nNot known: {line}", soft_wrap=True, markup=False)


def _table(frame: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, kind in frame.dtypes.items():
        table.add_column(str(name), justify="right" if kind.kind in "if" else "left")
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(f"{cell:.3g}" if isinstance(cell, float) else printable(str(cell))) for cell in row))
    return table
