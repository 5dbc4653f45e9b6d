"""``mote demo``: make the demo models on the user's own machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from mote.harness.cli.whole_help import WholeHelp
from mote.harness.errors import MoteError
from mote.harness.files import MODEL_DIR

demo_app = typer.Typer(
    cls=WholeHelp, help="The demo models: make one yourself.", no_args_is_help=True, rich_markup_mode=None
)


class Free(StrEnum):
    """What trains in the parents."""

    all = "all"
    experts = "experts"


def mount(app: typer.Typer) -> None:
    """Add the commands to ``mote``."""
    app.add_typer(demo_app, name="demo")


@demo_app.callback()
def _demo() -> None:
    # With a callback Typer keeps `train` a command of its own, whatever else joins it or not.
    pass


@demo_app.command("train")
def train_command(
    out: Annotated[Path, typer.Option(help="The folder to write the checkpoint to; it must not exist.")],
    seed: Annotated[int, typer.Option(help="The seed of corpus, weights and order.", min=0)] = 1,
    threads: Annotated[int, typer.Option(help="Threads; another number gives slightly other weights.", min=1)] = 1,
) -> None:
    """Train a demo model from nothing, in two phases, and measure it; at most 20 minutes of one core.

    Example: mote demo train --seed 2 --out models/demo-2
    """
    _check_new(out)
    try:
        from mote.harness.demo.card import write_card
        from mote.harness.demo.evaluation import evaluate
        from mote.harness.demo.trainer import Recipe, Step, train
    except ImportError as error:
        raise MoteError(f"training needs torch and transformers ({error}); `make .venv` installs them.") from None
    console = Console(highlight=False)
    with Progress(console=console) as progress:
        tasks: dict[str, int] = {}

        def show(step: Step) -> None:
            if step.phase not in tasks:
                tasks[step.phase] = int(progress.add_task(step.phase, total=step.steps))
            description = f"{step.phase}, loss {step.loss:.2f}"
            progress.update(progress.task_ids[tasks[step.phase]], completed=step.step, description=description)

        train(seed, out, progress=show, threads=threads)
    with console.status("Measuring"):
        quality = evaluate(out)
        write_card(out, seed=seed, recipe=Recipe(), quality=quality)
    console.print(quality.to_json())
    missed = quality.passes()
    for line in missed:
        console.print(line)
    console.print(f"Model: {out} (its card: {out / 'README.md'})")
    if missed:
        raise typer.Exit(1)


@demo_app.command("build-smollm")
def build_smollm_command(
    out: Annotated[Path, typer.Option(help="The folder to write the checkpoint to; a build begun there goes on.")],
    seed: Annotated[int, typer.Option(help="The seed of corpus, experts and order.", min=0)] = 1,
    steps: Annotated[int | None, typer.Option(help="Steps of the alignment, if not the recipe's.", min=1)] = None,
    threads: Annotated[int, typer.Option(help="Threads; another number gives slightly other weights.", min=1)] = 2,
) -> None:
    """Make a mixture of experts out of SmolLM2-135M-Instruct and align it; about 20 minutes of CPU, resumable.

    Example: mote demo build-smollm --out models/smollm
    """
    try:
        from mote.harness.demo.smollm.build import Recipe, build
        from mote.harness.demo.smollm.source import load_source
        from mote.harness.demo.smollm.trainer import Schedule
    except ImportError as error:
        raise MoteError(f"building needs torch and transformers ({error}); `make .venv` installs them.") from None
    if (out / "model.safetensors").exists():
        raise MoteError(f"{out} already holds a checkpoint; name another folder with --out.")
    console = Console(highlight=False)
    with console.status("Reading SmolLM2"):
        source = load_source()
    schedule = Schedule() if steps is None else Schedule(steps=steps)
    with Progress(console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, of: int) -> None:
            name = what.split(",")[0]
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=of)
            progress.update(tasks[name], completed=done, description=what)

        last = build(source, Recipe(seed=seed, schedule=schedule), out, tell, threads=threads)
    console.print_json(data=last)
    console.print(f"Model: {out}; what it does: mote run smollm --set model.path={out}")


@demo_app.command("train-parents")
def train_parents_command(
    out: Annotated[Path, typer.Option(help="The folder for the two checkpoints; neither may exist in it.")],
    seed: Annotated[int, typer.Option(help="The seed of corpus, weights and order.", min=0)] = 1,
    start: Annotated[
        str | None,
        typer.Option("--from", help="The base: demo (the packaged model) or a folder.  [default: one trained anew]"),
    ] = None,
    free: Annotated[
        Free, typer.Option(help="What trains in the parents: all, or routers and routed experts alone.")
    ] = Free.all,
    steps: Annotated[int | None, typer.Option(help="Steps of each parent, if not the recipe's.", min=1)] = None,
) -> None:
    """Train one base and from it two parents for merging: one that reasons at length, one that answers at once.

    From the packaged model it takes minutes; with a base of its own about half an hour of one core.

    Example: mote demo train-parents --from demo --steps 300 --out models/parents
    """
    try:
        from mote.harness.demo.example import PARENTS
        from mote.harness.demo.model import ForeignShapeError
        from mote.harness.demo.trainer import Step, train_parents
    except ImportError as error:
        raise MoteError(f"training needs torch and transformers ({error}); `make .venv` installs them.") from None
    base = MODEL_DIR if start == "demo" else Path(start) if start is not None else None
    if base is not None and not (base / "model.safetensors").is_file():
        raise MoteError(f"--from: '{start}' is neither demo nor a folder with model.safetensors.")
    for parent in PARENTS:
        _check_new(out / parent)
    console = Console(highlight=False)
    with Progress(console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def show(step: Step) -> None:
            if step.phase not in tasks:
                tasks[step.phase] = progress.add_task(step.phase, total=step.steps)
            description = f"{step.phase}, loss {step.loss:.2f}"
            progress.update(tasks[step.phase], completed=step.step, description=description)

        try:
            folders = train_parents(
                seed, out, start=base, experts_only=free is Free.experts, steps=steps, progress=show
            )
        except ForeignShapeError as error:
            raise MoteError(f"--from: {base}: {error}") from None
    for name, folder in folders.items():
        console.print(f"{name}: {folder}")


def _check_new(folder: Path) -> None:
    """Raise MoteError, before anything is trained, for a folder that is there or cannot be made."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise MoteError(f"{folder} exists; name a new folder with --out.") from None
    except OSError as error:
        raise MoteError(f"--out: {folder} cannot be made: {error.strerror}.") from None
    folder.rmdir()
