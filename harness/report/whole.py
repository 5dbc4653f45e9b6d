"""A whole study in one call, from a recipe to its report: what ``mote run`` and ``mote.study`` do.

Nothing here imports what would ask a hub before ``stay_here`` has said whether it may.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from mote.harness.errors import MoteError, nearest
from mote.harness.files import RUNS
from mote.harness.recipe.schema import Recipe, load_recipe, resolve_recipe
from mote.harness.secrets import report_no_usage

if TYPE_CHECKING:
    from mote.harness.report.frames import Run

Protocol = Literal["sound", "paper"]


def folder_of(name: str, out: Path | None, limit: int | None, place: Path = RUNS) -> Path:
    """Return the folder of a run: a look at a few prompts is another run than the whole, which would refuse it."""
    return out or place / (name if limit is None else f"{name}-{limit}")


def stay_here(recipe: Recipe) -> None:
    """Ask no hub where the model lies in a folder and the prompts come from none; before what would ask is imported."""
    if (recipe.model.path == "demo" or Path(recipe.model.path).is_dir()) and recipe.task.hub is None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def answer_whole(
    recipe: Recipe, folder: Path, console: Console, *, force: bool = False, protocol: Protocol = "sound"
) -> MoteError | None:
    """Do what is missing of a study and of what its recipe has measured after it, up to the last row.

    What is too little for a further measurement is said; another error of one is returned, not raised: the study is
    done by then, and has its report in any case. Raises MoteError as ``study.run.check`` and ``study.run.run`` do.
    KeyboardInterrupt passes through; what was stored stays, and the same call goes on.
    """
    from mote.harness.engine.once import started_once
    from mote.harness.experts.further import further_rankings, measure_further
    from mote.harness.preconditions import DataError
    from mote.harness.study import run as study

    sound = protocol == "sound"
    checked = study.check(recipe)
    further = further_rankings(recipe, console) if sound else ()
    starter = started_once()
    study.run(checked, folder, console, force=force, paper=not sound, engine=starter)
    if not sound:
        return None
    try:
        measure_further(folder, recipe, further, console, starter)
    except DataError as error:
        console.print(f"! after the study nothing more was measured: {error}", soft_wrap=True)
    except MoteError as error:
        return error
    return None


def write_report(folder: Path, console: Console, mt_bench: Path | None = None, judge: str | None = None) -> None:
    """Make a run's report anew and say where it lies."""
    from mote.harness.report import make_report

    with console.status("Report"):
        path = make_report(folder, mt_bench=mt_bench, judge=judge, console=console)
    console.print(f"Report: {path}", soft_wrap=True)


def whole_study(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | Recipe,
    out: str | os.PathLike[str] | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    limit: int | None = None,
    force: bool = False,
    protocol: Protocol = "sound",
    quiet: bool = False,
) -> Run:
    """Run a whole study, or go on with one that was stopped, and return the run; ``mote.study`` says the rest."""
    if protocol not in ("sound", "paper"):
        raise MoteError(f"There is no protocol '{protocol}'.{nearest(str(protocol), ('sound', 'paper'))}")
    report_no_usage()
    asked = dict(changes or {}) | ({} if limit is None else {"task.limit": limit})
    if isinstance(recipe, str | os.PathLike):
        found = load_recipe(os.fspath(recipe), asked)
    else:
        found = resolve_recipe(recipe, asked)
    stay_here(found)
    folder = folder_of(found.name, None if out is None else Path(out), limit)
    # A notebook's console shows through widgets, which may not be there; lines show everywhere.
    console = Console(highlight=False, quiet=quiet, force_jupyter=False)
    with _beside_a_loop():
        failed = answer_whole(found, folder, console, force=force, protocol=protocol)
    # The paper's table is all that its protocol says; the report is of the sound study.
    if protocol == "sound":
        write_report(folder, console)
    if failed is not None:
        raise failed

    from mote.harness.report.frames import open_run

    return open_run(folder)


@contextmanager
def _beside_a_loop() -> Iterator[None]:
    """Let an event loop be run within, in a notebook too: its own loop waits for this call in any case."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
