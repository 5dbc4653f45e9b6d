"""``mote merge RECIPE``, ``mote merge diff``, ``mote merge check``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mote.harness.cli.ending import interrupted
from mote.harness.cli.whole_help import recipe_first

if TYPE_CHECKING:
    from mote.harness.merge.plan import Plan

_MAKE = "make"
_KINDS = ("kept", "copied", "mixed", "converted")
MIB = 1 << 20
# Bytes a CPU second as results/merge/ has them, for --dry-run's estimate; converting, not measured, goes as mixing.
_RATES = {"kept": 0.48e9, "copied": 0.48e9, "mixed": 0.30e9, "converted": 0.30e9}
_FP8_RATE = 0.06e9


app = typer.Typer(
    cls=recipe_first(_MAKE),
    help="Children of mixture-of-experts parents, merged tensor by tensor. `mote merge RECIPE --out FOLDER` makes one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Threads = Annotated[int | None, typer.Option(help="Hands at work.  [default: the cores, at most 4]", min=1)]
DEFAULT_THREADS = min(4, os.cpu_count() or 1)


def mount(parent: typer.Typer) -> None:
    """Add the commands to ``mote``."""
    parent.add_typer(app, name="merge")


@app.command(_MAKE)
def make(
    recipe: Annotated[
        str, typer.Argument(help="A recipe: the name of a packaged one, or a YAML file.", metavar="RECIPE")
    ],
    out: Annotated[Path, typer.Option(help="The child's folder.")],
    parent: Annotated[
        list[str] | None,
        typer.Option(
            help="Where a parent of the recipe lies: a folder, or OWNER/MODEL[@REVISION].", metavar="NAME=PATH"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Merge a child, or go on with one that was stopped: `mote merge RECIPE --out FOLDER`.

    Everything that headers can show is checked before a byte is written.

    Example: mote merge r1t --parent first=V3-0324 --parent second=R1 --out children/r1t
    """
    from mote.harness.merge.child import check_target
    from mote.harness.merge.plan import make_plan
    from mote.harness.merge.schema import load_merge_recipe

    console = Console(highlight=False)
    plan = make_plan(load_merge_recipe(recipe, parent))
    check_target(plan, out)
    _print_plan(plan, console, threads or DEFAULT_THREADS)
    if dry_run:
        return
    from mote.harness.merge.child import make_child
    from mote.harness.progress import step

    try:
        with step(console, "Merging, MiB", plan.total // MIB) as advance:
            result = make_child(plan, out, threads=threads or DEFAULT_THREADS, advance=in_mib(advance))
    except KeyboardInterrupt:
        console.print("Stopped. Finished shards are kept; the same command goes on.")
        raise typer.Exit(interrupted()) from None
    _print_threshold(result.record["threshold"], console)
    done = "was finished before" if result.before else "is finished"
    console.print(f"The child {done}: {out} ({result.record['child']['digest'][:16]})", soft_wrap=True)


@app.command()
def diff(
    first: Annotated[
        str, typer.Argument(help="A folder, or a Hugging Face id; distances are relative to it.", metavar="A")
    ],
    second: Annotated[str, typer.Argument(help="Another of the same architecture.", metavar="B")],
    out: Annotated[Path | None, typer.Option(help="Where to write Parquet, tables and heat map.")] = None,
    threads: Threads = None,
) -> None:
    """Show how far two checkpoints lie apart: by tensor, group, layer and expert.

    Example: mote merge diff DeepSeek-V3-0324 DeepSeek-R1 --out distances
    """
    from mote.harness.merge.difference import distances, open_pair, summed, write_distances
    from mote.harness.progress import step

    console = Console(highlight=False)
    left, right, notes = open_pair(first, second)
    total = sum(shard.size for shard in left.shards)
    with step(console, "Comparing, MiB", total // MIB) as advance:
        frame = distances(left, right, threads=threads or DEFAULT_THREADS, advance=in_mib(advance))
    table = Table(box=None, pad_edge=False)
    for title in ("group", "tensors", "equal", "relative", "rms"):
        table.add_column(title, justify="left" if title == "group" else "right", no_wrap=True)
    for row in summed(frame, ["group"]).to_dict("records"):
        own = frame[frame["group"] == row["group"]]
        equal = int((own["squares_apart"] == 0).sum())
        table.add_row(str(row["group"]), str(len(own)), str(equal), f"{row['relative']:.4f}", f"{row['rms']:.3g}")
    console.print(table)
    for note in notes:
        console.print(f"Note: {note}.", soft_wrap=True)
    for path in write_distances(frame, out) if out is not None else []:
        console.print(str(path), soft_wrap=True)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="The folder of a child.", metavar="FOLDER")],
) -> None:
    """Verify a child's digests, and show what it was made from.

    Example: mote merge check children/r1t
    """
    from mote.harness.merge.record import read_record
    from mote.harness.merge.verify import check_child, parentage
    from mote.harness.progress import step

    console = Console(highlight=False)
    read_record(folder)
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    with step(console, "Hashing, MiB", total // MIB) as advance:
        record = check_child(folder, in_mib(advance))
    console.print(f"{folder}: every file is as the merge wrote it.", soft_wrap=True)
    console.print(f"Child {record['child']['digest']}, recipe {record['made_from']['recipe']} ({record['name']})")
    for parent in parentage(record):
        console.print(f"Parent {parent.name}: {parent.path}, {parent.state}", soft_wrap=True)


def _print_plan(plan: Plan, console: Console, threads: int) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("group", no_wrap=True)
    for kind in _KINDS:
        table.add_column(kind, justify="right", no_wrap=True)
    groups = sorted({group for group, _ in plan.tensors})
    for group in groups:
        table.add_row(group, *(_cell(plan.tensors[group, kind], plan.bytes[group, kind]) for kind in _KINDS))
    table.add_row("all", *(_cell(_sum(plan.tensors, kind), plan.bytes_of(kind)) for kind in _KINDS))
    console.print(table)
    for note in plan.notes:
        console.print(f"Note: {note}.", soft_wrap=True)
    read = plan.total + plan.bytes_of("mixed") * (len(plan.parents) - 1)
    console.print(
        f"Writes {plan.total / 1e9:.2f} GB in {len(plan.shards)} files, reads {read / 1e9:.2f} GB; about"
        f" {_duration(_seconds(plan) / threads)} with {threads} threads at the rates of results/merge, if disks allow.",
        soft_wrap=True,
    )


def _seconds(plan: Plan) -> float:
    """Return the estimated seconds of one thread."""
    fp8 = plan.base.config.get("quantization_config") is not None
    rates = {kind: _FP8_RATE if fp8 and kind in ("mixed", "converted") else rate for kind, rate in _RATES.items()}
    return sum(plan.bytes_of(kind) / rate for kind, rate in rates.items())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _sum(counts: Any, kind: str) -> int:
    return sum(count for (_, what), count in counts.items() if what == kind)


def _cell(tensors: int, nbytes: int) -> str:
    return f"{tensors:,} ({nbytes / 1e6:,.1f} MB)" if tensors else "-"


def _print_threshold(found: dict[str, Any] | None, console: Console) -> None:
    if found is None:
        return
    for group, counts in found["groups"].items():
        cut = ", which the threshold cuts through" if group in found["cut"] else ""
        console.print(f"Threshold, {group}: {counts['taken']} taken over, {counts['kept']} the base's{cut}")


def in_mib(advance: Any) -> Any:
    """Count bytes into whole MiB, across threads: each call adds, and what is less than one waits."""
    from threading import Lock

    lock, held = Lock(), [0]

    def add(nbytes: int) -> None:
        with lock:
            held[0] += nbytes
            whole, held[0] = divmod(held[0], MIB)
            if whole:
                advance(whole)

    return add
