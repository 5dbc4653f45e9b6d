"""``mote search``: over which experts, how many, by which factor, for most effect at bounded harm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mote.harness.cli import own
from mote.harness.cli.ending import stoppable
from mote.harness.errors import MoteError


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("search")(search_command)


def search_command(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    by: Annotated[str, typer.Option(help="The ranking whose leading experts are the pool.")] = "resonance",
    pool: Annotated[int, typer.Option(help="How many experts a set is made of, at most.", min=1, max=200)] = 12,
    factors: Annotated[
        str, typer.Option(help="What a set's experts may be scaled by: numbers with commas; 0 switches off.")
    ] = "0,0.25,0.5,0.75",
    trials: Annotated[int, typer.Option(help="Trials of each search.", min=2, max=1000)] = 24,
    kl: Annotated[
        float, typer.Option("--kl", help="The bound on the divergence from the untouched model, nats a token.")
    ] = 0.02,
    broken: Annotated[float, typer.Option(help="The bound on the share of broken answers.")] = 0.05,
    prompts: Annotated[int, typer.Option(help="How many prompts of the class choose.", min=2)] = 24,
    others: Annotated[int, typer.Option(help="How many other prompts bound the harm.", min=2)] = 16,
    checked: Annotated[int, typer.Option(help="How many leading trials are checked by answers.", min=1)] = 2,
    held: Annotated[
        int | None, typer.Option(help="So many held prompts of the class measure the winner.  [default: all]", min=1)
    ] = None,
    held_others: Annotated[int, typer.Option(help="So many other held prompts.", min=1)] = 60,
    shuffles: Annotated[int, typer.Option(help="Null searches with shuffled classes.", min=0, max=200)] = 19,
    pools: Annotated[int, typer.Option(help="Null searches in random pools.", min=0, max=200)] = 19,
    opening: Annotated[int, typer.Option(help="Tokens of an opening.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="The seed of prompts, proposals, shuffles and random pools.", min=0)] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print cost and pool; ask and write nothing.")] = False,
    model: own.Model = None,
    engine: own.Engine = None,
    server: own.Server = None,
    key_env: own.KeyEnv = None,
    function: own.Function = None,
) -> None:
    """Search the set of experts, and the factor, of most net effect at bounded harm; with a null of its own.

    The winner is chosen on the half that chooses and measured once on the other, beside those of the same search with
    shuffled classes and in random pools. What is asked is stored as it comes; the same command goes on.

    Example: mote search results/runs/demo --kl 0.02 --broken 0.05
    """
    from mote.harness.search.options import SearchOptions

    options = SearchOptions(
        by=by, pool=pool, factors=factors_of(factors), trials=trials, harm=kl, broken=broken, prompts=prompts,
        others=others, checked=checked, held=held, held_others=held_others, shuffles=shuffles, pools=pools,
        opening=opening, seed=seed,
    )  # fmt: skip
    console = Console(highlight=False)
    if dry_run:
        from mote.harness.search.run import plan_search

        plan_search(run, options, console)
        return
    said = own.own_of(run, model, engine, server, key_env, function)

    from mote.harness.search.output import show_search, write_search
    from mote.harness.search.run import search_run

    with stoppable(console):
        found = search_run(run, options, console, own=said)
    show_search(found, console)
    for path in write_search(found, run):
        console.print(str(path), soft_wrap=True)


def factors_of(text: str) -> tuple[float, ...]:
    """Return the numbers of a list with commas; raise MoteError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", part, re.ASCII) for part in parts):
        raise MoteError(f"--factors {text}: write numbers with commas, for instance --factors 0,0.25,0.5.")
    return tuple(float(part) for part in parts)
