"""``mote demo``: train a demo model, or measure one, on the user's own machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from mote.harness.errors import MoteError

demo_app = typer.Typer(help="The demo models: train one yourself.", no_args_is_help=True, rich_markup_mode=None)


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
    if out.exists():
        raise MoteError(f"{out} exists; name a new folder with --out.")
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
