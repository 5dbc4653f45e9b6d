"""``mote transplant``: is it the route or the content?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import typer
from rich.console import Console

from mote.harness.cli import own
from mote.harness.cli.ending import stoppable
from mote.harness.cli.numbers import whole_numbers
from mote.harness.errors import MoteError, nearest
from mote.patches import Tokens

WEIGHTS: Final = ("recomputed", "kept")
ALIGNED: Final[tuple[Literal["end"], Literal["role"]]] = ("end", "role")


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("transplant")(transplant_command)


def transplant_command(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.", metavar="RUN")],
    prompts: Annotated[int, typer.Option(help="So many prompts of each class, spread over their units.", min=2)] = 60,
    tokens: Annotated[str, typer.Option(help="Which of the donor's tokens: prompt, generated or all.")] = "prompt",
    weights: Annotated[
        str, typer.Option(help="recomputed: by the receiver's router; kept: the donor's own weights.")
    ] = "recomputed",
    align: Annotated[
        str,
        typer.Option(help="end: from the end of both prompts; role: turn by turn, by the chat template."),
    ] = "end",
    layers: Annotated[
        str | None, typer.Option(help="Layers with experts, numbers with commas.  [default: all]")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of the choice of prompts and donors.", min=0)] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it costs, and ask nothing.")] = False,
    model: own.Model = None,
    engine: own.Engine = None,
    server: own.Server = None,
    key_env: own.KeyEnv = None,
    function: own.Function = None,
) -> None:
    """Answer a run's prompts while their tokens take the experts of other prompts: is it the route or the content?

    Each prompt is answered under its own route, and under routes of prompts of both classes, from its own unit and from
    another. Answers are stored as they come; the same command goes on with what was stopped.

    Example: mote transplant results/runs/demo --prompts 60 --tokens prompt
    """
    from mote.harness.experts.transplant import TransplantOptions, transplant_run
    from mote.harness.experts.transplant_output import show_transplant, write_transplant

    which = next((one for one in get_args(Tokens) if one == tokens), None)
    if which is None:
        raise MoteError(f"There are no --tokens '{tokens}'.{nearest(tokens, get_args(Tokens))}")
    if weights not in WEIGHTS:
        raise MoteError(f"There are no --weights '{weights}'.{nearest(weights, WEIGHTS)}")
    rule = next((one for one in ALIGNED if one == align), None)
    if rule is None:
        raise MoteError(f"There is no --align '{align}'.{nearest(align, ALIGNED)}")
    only = None if layers is None else tuple(sorted(whole_numbers("--layers", layers, "1,2,3", digits=5)))
    options = TransplantOptions(prompts, which, weights == "kept", only, seed, rule)
    console = Console(highlight=False)
    said = own.own_of(run, model, engine, server, key_env, function)
    with stoppable(console):
        found = transplant_run(run, options, console, dry_run=dry_run, own=said)
    if found is None:
        return
    show_transplant(found, console)
    for path in write_transplant(found, run):
        console.print(str(path), soft_wrap=True)
