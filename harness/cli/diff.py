"""``mote diff``: what a quantised, pruned or fine-tuned sibling of a model does otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mote.harness.cli import own
from mote.harness.cli.ending import stoppable
from mote.harness.errors import MoteError

if TYPE_CHECKING:
    from mote.harness.study.session import StartsEngine


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("diff")(diff_command)


def diff_command(
    run: Annotated[
        str, typer.Argument(help="The folder of a finished run; with --recipe a model.", metavar="RUN|MODEL")
    ],
    other: Annotated[
        str, typer.Argument(help="A run of the same recipe on the sibling; with --recipe the sibling.", metavar="OTHER")
    ],
    recipe: Annotated[
        str | None, typer.Option(help="Run this recipe on both models first: a packaged one's name, or a YAML file.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="With --recipe: override a value of it: key.path=value.", metavar="KEY=VALUE"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write; with --recipe both runs too.  [default: RUN/diff-OTHER]"),
    ] = None,
    profiles: Annotated[
        list[str] | None,
        typer.Option("--profile", help="A further edit: a profile's file, or RUN:PROFILE; repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Other seeds that both models answer with.", min=1)] = 3,
    sets: Annotated[int, typer.Option(help="Random sets beside each edit, chosen as often.", min=0)] = 39,
    prompts: Annotated[
        int | None,
        typer.Option(help="At most so many prompts of the class, spread over their units.  [default: all]", min=2),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of random sets, and of the prompts' halves.", min=0)] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it costs, and ask nothing.")] = False,
    model: own.Model = None,
    other_model: Annotated[
        str | None, typer.Option(help="The other run's model.  [default: the folder it was]")
    ] = None,
    engine: own.Engine = None,
    server: own.Server = None,
    other_server: Annotated[
        list[str] | None, typer.Option(help="A server of the other run's model, as --server; repeatable.")
    ] = None,
    key_env: own.KeyEnv = None,
    function: own.Function = None,
) -> None:
    """Set a model beside a sibling of the same experts (quantised, pruned, fine-tuned): what does it do otherwise?

    Classes of untouched answers, maps, routes of the same tokens, and the effects of each model's own experts in both,
    against other seeds and random sets. Answers are stored in both runs; the same command goes on.

    Example: mote diff results/runs/demo results/runs/demo-int4

    Example: mote diff demo models/demo-int4 --recipe demo --out results/runs/demo-against-int4
    """
    console = Console(highlight=False)
    _check_arguments(run, other, recipe, changes or [], out, dry_run=dry_run)
    folders = Path(run), Path(other)
    starter: StartsEngine | None = None
    with stoppable(console):
        if recipe is not None and out is not None:
            folders = out / "model", out / "other"
            starter = _run_both(recipe, changes or [], (run, other), folders, console)
            model, other_model = model or run, other_model or other
        left = own.own_of(folders[0], model, engine, server, key_env, function)
        right = own.own_of(folders[1], other_model, engine, other_server, key_env, function)

        from mote.harness.compare.run_answers import read_profile
        from mote.harness.diff.output import show_diff, write_diff
        from mote.harness.diff.plan import DiffOptions
        from mote.harness.diff.run import diff_runs

        named = tuple(read_profile(text, "--profile ") for text in profiles or [])
        options = DiffOptions(seeds, sets, named, prompts, seed)
        found = diff_runs(*folders, options, console, dry_run=dry_run, engine=starter, own=(left, right))
    if found is None:
        return
    show_diff(found, console)
    for path in write_diff(found, out or folders[0] / f"diff-{folders[1].resolve().name}"):
        console.print(str(path), soft_wrap=True)


def _check_arguments(
    run: str, other: str, recipe: str | None, changes: list[str], out: Path | None, *, dry_run: bool
) -> None:
    """Raise MoteError for arguments that do not go together."""
    if recipe is None:
        if changes:
            raise MoteError("--set changes a recipe: name one with --recipe.")
        for folder in (Path(run), Path(other)):
            if not (folder / "manifest.json").is_file() and (folder / "config.json").is_file():
                raise MoteError(f"{folder} is a model, not a run: name the recipe to run on both models with --recipe.")
    elif out is None:
        raise MoteError("--recipe: name the folder of both runs with --out.")
    elif dry_run:
        raise MoteError("--dry-run says what two finished runs cost; what --recipe costs, mote plan says.")


def _run_both(
    recipe: str, changes: list[str], models: tuple[str, str], folders: tuple[Path, Path], console: Console
) -> StartsEngine:
    """Run the recipe on both models, and return what starts their engines."""
    from mote.harness.recipe.schema import load_recipe
    from mote.harness.report.whole import stay_here

    first, second = (load_recipe(recipe, [*changes, f"model.path={path}"]) for path in models)
    # A hub that one of them needs is not kept out by the other.
    if all(path == "demo" or Path(path).is_dir() for path in models):
        stay_here(first)

    from mote.harness.diff.engines import one_at_a_time
    from mote.harness.diff.run import run_both

    starter = one_at_a_time()
    run_both((first, second), folders, console, starter)
    return starter
