"""``mote plan``: what a study can find and what it costs, before it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("plan")(plan_command)


def plan_command(
    recipe: Annotated[str, typer.Argument(help="A recipe: a packaged one's name, or a YAML file.", metavar="RECIPE")],
    run: Annotated[
        Path | None, typer.Option(help="Take the baseline of this run instead of a guess.", metavar="RUN")
    ] = None,
    share: Annotated[
        float, typer.Option(help="Without a run: the share of prompts guessed to be of the class.", min=0.001, max=1.0)
    ] = 0.1,
    units: Annotated[
        int | None,
        typer.Option(help="Without a run: places (subjects, topics) guessed to have any.  [default: all]", min=1),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan as JSON.", metavar="FILE")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value of the recipe: key.path=value.", metavar="KEY=VALUE"),
    ] = None,
) -> None:
    """Say what effect a study can find and what it costs; generates nothing.

    From a baseline (--run) the target prompts and the speed are known; without one they are guessed. `mote run` prints
    the same after its own baseline, and writes the plan before the first tuned answer.

    Example: mote plan demo --share 0.16 --units 5 --set study.controls.mass=100
    """
    from mote.harness.files import write_atomic
    from mote.harness.recipe.schema import load_recipe
    from mote.harness.study.foresight import as_json, lines_of
    from mote.harness.study.plan_ahead import plan_by_guess, plan_by_run

    console = Console(highlight=False)
    loaded = load_recipe(recipe, changes or [])
    plan = plan_by_run(loaded, run) if run else plan_by_guess(loaded, share, units)
    for line in lines_of(plan):
        console.print(line, soft_wrap=True)
    if out is not None:
        write_atomic(out, as_json(plan))
        console.print(f"Plan: {out}", soft_wrap=True)
