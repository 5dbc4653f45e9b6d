"""``mote sweep RECIPE`` and ``mote sweep report FOLDER``: children over a proportion, each asked the same prompts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mote.harness.cli.ending import stoppable
from mote.harness.cli.whole_help import recipe_first

_RUN = "run"
SWEEPS = Path("results/sweeps")

app = typer.Typer(
    cls=recipe_first(_RUN),
    help="Children over the proportion of a parent. `mote sweep RECIPE` merges them, asks them, and reports.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def mount(parent: typer.Typer) -> None:
    """Add the commands to ``mote``."""
    parent.add_typer(app, name="sweep")


@app.command(_RUN)
def run(
    recipe: Annotated[
        str, typer.Argument(help="A recipe: the name of a packaged one, or a YAML file.", metavar="RECIPE")
    ],
    parent: Annotated[
        list[str] | None,
        typer.Option(
            help="Where a parent of the recipe lies: a folder, or OWNER/MODEL[@REVISION].", metavar="NAME=PATH"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder.  [default: results/sweeps/NAME]")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value of the recipe: key.path=value.", metavar="KEY=VALUE"),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Ask this many prompts only, evenly spread (task.limit).")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Subsets instead of the recipe's: each part alone, and all but it; groups or layers. Proportions 0"
            " and 1 without refining, if not --set.",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the children in the sweep's folder.")] = False,
) -> None:
    """Run a sweep, or go on with one that was stopped; ends with the report: `mote sweep RECIPE`.

    Weights are reloaded in place in one engine where that is proven at the start; else each child has an engine.

    Example: mote sweep demo --parent answerer=models/parents/answerer --parent reasoner=models/parents/reasoner
    """
    from mote.harness.sweep.presets import PRESET_CHANGES, with_preset
    from mote.harness.sweep.schema import load_sweep

    console = Console(highlight=False)
    first = PRESET_CHANGES if preset is not None else ()
    overrides = [*first, *(changes or []), *([f"task.limit={limit}"] if limit is not None else [])]
    loaded = load_sweep(recipe, parent or (), overrides)
    if preset is not None:
        loaded = with_preset(loaded, preset)
    if all(Path(one.path).is_dir() for one in loaded.parents.values()) and loaded.task.hub is None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")

    from mote.harness.report.whole import folder_of
    from mote.harness.sweep import run as sweep

    folder = folder_of(loaded.name, out, limit, SWEEPS)

    with stoppable(console, "Stopped. What was answered is stored; the same command goes on."):
        sweep.run(sweep.check(loaded), folder, console, keep=keep)
    _report(folder, console)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a sweep.", metavar="FOLDER")],
) -> None:
    """Make report.html, figures and tables of a sweep anew from its stored rows.

    Example: mote sweep report results/sweeps/demo
    """
    _report(folder, Console(highlight=False))


def _report(folder: Path, console: Console) -> None:
    from mote.harness.sweep.report import sweep_report

    with console.status("Report"):
        path = sweep_report(folder)
    console.print(f"Report: {path}", soft_wrap=True)
