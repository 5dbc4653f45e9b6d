"""``mote scan`` and ``mote rankings``: experts ranked by what they do, and every ranking set beside that one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from mote.harness.cli import own
from mote.harness.cli.ending import stoppable
from mote.harness.cli.numbers import whole_numbers
from mote.harness.errors import MoteError, nearest

if TYPE_CHECKING:
    from mote.harness.engine.trust import Own
    from mote.harness.experts.scan import ScanOptions

METHODS: Final = ("single", "groups", "halving")
_OF: Final = {"single": (), "groups": ("share", "budget", "rate", "leading"), "halving": ("budget", "leading")}
"""The options that each method takes."""
_RUN = typer.Argument(help="The folder of a run.", metavar="RUN")


def mount(app: typer.Typer) -> None:
    """Add the commands to ``mote``."""
    app.command("scan")(scan_command)
    app.command("rankings")(rankings_command)


def scan_command(
    run: Annotated[Path, _RUN],
    prompts: Annotated[
        int, typer.Option(help="How many prompts of the class under study, from the half that chooses.", min=2)
    ] = 24,
    experts: Annotated[str, typer.Option(help="'all', or the top so many of the ranking --by.")] = "all",
    by: Annotated[str, typer.Option(help="The ranking in whose order experts are scanned.")] = "resonance",
    action: Annotated[str, typer.Option(help="What is done to each expert alone: suppress or scale.")] = "suppress",
    factor: Annotated[float | None, typer.Option(help="By how much --action scale multiplies its weight.")] = None,
    opening: Annotated[int, typer.Option(help="Tokens of an opening.", min=1)] = 4,
    alternatives: Annotated[int, typer.Option(help="Openings of other classes, at most.", min=1)] = 4,
    method: Annotated[
        str,
        typer.Option(
            help="single: each expert alone; halving: all on few prompts, the better on more; groups: masks of many,"
            " then the leading."
        ),
    ] = "single",
    share: Annotated[
        float | None, typer.Option(help="groups: share of all experts in a mask.  [default: 0.02]")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="groups, halving: passes, as a share of the full scan's.  [default: 0.1]")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="groups: the false discovery rate.  [default: 0.1]")] = None,
    leading: Annotated[
        int | None,
        typer.Option(help="groups, halving: experts measured on all prompts, at most.  [default: 30]", min=0),
    ] = None,
    max_passes: Annotated[int | None, typer.Option(help="Forward passes at this start, at most.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="The seed of the choice of prompts.", min=0)] = 0,
    model: own.Model = None,
    engine: own.Engine = None,
    server: own.Server = None,
    key_env: own.KeyEnv = None,
) -> None:
    """Scan experts one by one: how much less likely does the answer's own opening become when each alone is edited?

    Each forward pass is stored as it comes; the same command goes on with a scan that was stopped.

    Example: mote scan results/runs/demo --prompts 24 --experts all

    Example: mote scan results/runs/demo --method halving --budget 0.1
    """
    from mote.harness.experts.output import show_scan, write_scan
    from mote.harness.experts.rankings import causal_effects
    from mote.harness.experts.scan import ACTIONS, ScanOptions, scan_run
    from mote.harness.store.run import RunStore
    from mote.harness.store.scans import Scans

    known = next((one for one in ACTIONS if one == action), None)
    if known is None:
        raise MoteError(f"There is no --action '{action}'.{nearest(action, ACTIONS)}")
    if (factor is None) == (action == "scale"):
        raise MoteError("--action scale and --factor F go together, for instance --action scale --factor 0.5.")
    options = ScanOptions(
        prompts=prompts, top=_top(experts), by=by, action=known,
        factor=factor or 0.0, tokens=opening, alternatives=alternatives, seed=seed,
    )  # fmt: skip
    console = Console(highlight=False)
    said = own.own_of(run, model, engine, server, key_env)
    given = {"share": share, "budget": budget, "rate": rate, "leading": leading}
    _check_method(method, given)
    if method != "single":
        said_of = {name: value for name, value in given.items() if value is not None}
        scan_in_stages = _scan_groups if method == "groups" else _scan_halving
        scan_in_stages(run, options, said_of, console, said, max_passes)
        return
    with stoppable(console):
        scan = scan_run(run, options, console, max_passes=max_passes, own=said)
    with RunStore(run, read_only=True) as store:
        effects = causal_effects(Scans(store), scan)
    show_scan(effects, console)
    console.print(f"Scan {scan.scan_id} ({scan.title}): {write_scan(effects, run)}", soft_wrap=True)


def _check_method(method: str, given: dict[str, Any]) -> None:
    if method not in METHODS:
        raise MoteError(f"There is no --method '{method}'.{nearest(method, METHODS)}")
    for name, value in given.items():
        if value is not None and name not in _OF[method]:
            takers = " or ".join(f"--method {one}" for one in METHODS if name in _OF[one])
            raise MoteError(f"--{name} is for {takers}; --method {method} has none.")


def _scan_groups(
    run: Path, options: ScanOptions, given: dict[str, Any], console: Console, said: Own, max_passes: int | None
) -> None:
    from mote.harness.experts.group_output import show_groups, write_groups
    from mote.harness.experts.group_scan import GroupOptions, group_scan_run

    groups = GroupOptions(**given)
    with stoppable(console):
        found = group_scan_run(run, options, groups, console, max_passes=max_passes, own=said)
    if not found.finished:
        console.print(f"{found.scan.passes:,} passes are stored; the same command goes on.", soft_wrap=True)
        return
    show_groups(found, groups.rate, console)
    paths = ", ".join(str(path) for path in write_groups(found, run))
    console.print(f"Scan {found.scan.scan_id} ({found.scan.title}): {paths}", soft_wrap=True)


def _scan_halving(
    run: Path, options: ScanOptions, given: dict[str, Any], console: Console, said: Own, max_passes: int | None
) -> None:
    from mote.harness.experts.group_output import show_halving, write_halving
    from mote.harness.experts.halving_scan import HalvingOptions, halving_scan_run

    halving = HalvingOptions(**given)
    with stoppable(console):
        found = halving_scan_run(run, options, halving, console, max_passes=max_passes, own=said)
    if not found.finished:
        console.print(f"{found.made:,} passes are stored; the same command goes on.", soft_wrap=True)
        return
    show_halving(found, console)
    path = write_halving(found, run)
    console.print(f"Scan {found.scan.scan_id} ({found.scan.title}): {path}", soft_wrap=True)


def rankings_command(
    run: Annotated[Path, _RUN],
    k: Annotated[str, typer.Option(help="How many top experts are switched off: numbers with commas.")] = "5,10,20",
    sets: Annotated[int, typer.Option(help="Matched random sets for each ranking and k.", min=0)] = 20,
    rankings: Annotated[
        str | None, typer.Option("--rankings", help="Names with commas.  [default: all that the run allows]")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="So many prompts of the measuring half, spread over its places.", min=1)
    ] = None,
    scan: Annotated[int | None, typer.Option(help="The causal scan of this number.  [default: the largest]")] = None,
    seed: Annotated[int, typer.Option(help="The seed of the random sets.", min=0)] = 0,
    model: own.Model = None,
    engine: own.Engine = None,
    server: own.Server = None,
    key_env: own.KeyEnv = None,
    function: own.Function = None,
) -> None:
    """Set all rankings side by side: correlation with the causal scan, and what each one's top experts flip.

    Answers are generated on the measuring half's prompts of the class under study, and stored as they come.

    Example: mote rankings results/runs/demo --k 5,10,20 --sets 20
    """
    from mote.harness.experts.comparison import RankingOptions, rank_run
    from mote.harness.experts.output import show_rankings, write_rankings

    names = tuple(name.strip() for name in rankings.split(",")) if rankings is not None else None
    options = RankingOptions(whole_numbers("--k", k, "5,10,20"), sets, names, limit, seed, scan)
    console = Console(highlight=False)
    said = own.own_of(run, model, engine, server, key_env, function)
    with stoppable(console):
        found = rank_run(run, options, console, own=said)
    show_rankings(found, console)
    for path in write_rankings(found, run):
        console.print(str(path), soft_wrap=True)


def _top(experts: str) -> int | None:
    if experts == "all":
        return None
    if not experts.isascii() or not experts.isdigit():
        raise MoteError(f"--experts {experts}: write 'all', or how many, for instance --experts 50 --by resonance.")
    return int(experts)
