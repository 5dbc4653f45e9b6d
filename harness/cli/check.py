"""``mote check``: whether a run's rows are what was stored, before they are read, shared or gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mote.harness.errors import MoteError


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("check")(check_command)


def check_command(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
) -> None:
    """Check a run: its manifest, SQLite's own check, each value's type, each text's digest, each JSON's form.

    Example: mote check results/runs/demo
    """
    from mote.harness.recipe.manifest import read_manifest
    from mote.harness.store.checking import faults_of

    read_manifest(run)
    console = Console(highlight=False)
    with console.status("Checking"):
        found = faults_of(run)
    if found:
        more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
        raise MoteError(f"{run} is damaged: {found[0]}{more}.")
    console.print(f"{run}: its rows are whole, and each text is what was stored.", soft_wrap=True, markup=False)
