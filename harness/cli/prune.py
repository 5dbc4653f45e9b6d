"""``mote prune``: which of the distinctive experts are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mote.harness.cli import own
from mote.harness.cli.ending import stoppable


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("prune")(prune_command)


def prune_command(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    k: Annotated[int, typer.Option(help="How many of the most distinctive experts to begin with.", min=2)] = 10,
    keep: Annotated[float, typer.Option(help="The share of their flips that is to remain.")] = 0.9,
    model: own.Model = None,
    engine: own.Engine = None,
    server: own.Server = None,
    key_env: own.KeyEnv = None,
    function: own.Function = None,
) -> None:
    """Take the distinctive experts out of their profile one by one: which are needed for the effect?

    Goes by the prompts that chose the experts, and measures what is left on the others. Answers are stored as they
    come; the same command goes on with a pruning that was stopped, and the run's report shows it.

    Example: mote prune results/runs/demo --k 20
    """
    from mote.harness.experts.prune import prune_run

    console = Console(highlight=False)
    said = own.own_of(run, model, engine, server, key_env, function)
    with stoppable(console):
        rounds = prune_run(run, k, keep, console, own=said)
    table = Table(box=None, pad_edge=False)
    for title in ("taken out", "left", "flips"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rounds.to_dict("records"):
        table.add_row(str(row["dropped"]) or "none", str(row["left"]), f"{row['effect']:.1%}")
    console.print(table)
    last = rounds.iloc[-1]
    console.print(
        f"Needed for {keep:.0%} of the flips, on the prompts that chose them: {last['experts']}. On the other half's"
        f" {last['measured_total']} prompts these flip {last['measured_hits']}, and all {k} {last['whole_hits']}.",
        soft_wrap=True,
    )
