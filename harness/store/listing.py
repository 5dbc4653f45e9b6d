"""What runs there are: one line each, read from their manifests, the tables of their reports, and their stores."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

from rich.table import Table

from mote.harness.errors import MoteError, printable
from mote.harness.recipe.manifest import MANIFEST_NAME, read_manifest
from mote.harness.store.foreign import limit_time
from mote.harness.store.reported import reported
from mote.harness.store.run import PACKED_NAME, STORE_NAME, RunStore

_A_MOMENT: Final = 4_000


class RunLine(NamedTuple):
    """A run of a folder; ``generations`` is None where its rows are not here, or are ``packed``.

    The verdict, the effect (the share of target prompts that flipped) and its 95% interval are the last report's, None
    where there is none.
    """

    run: str
    model: str
    task: str
    started: str
    state: str
    verdict: str | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    generations: int | None = None
    packed: bool = False


def runs_of(folder: Path) -> list[RunLine]:
    """Return the runs in a folder, oldest first; a folder that is itself a run is its only one.

    Raises MoteError where there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise MoteError(f"there is no folder {folder}; `mote run RECIPE` makes one.")
    folders = (
        [folder]
        if (folder / MANIFEST_NAME).is_file()
        else sorted(path.parent for path in folder.glob(f"*/{MANIFEST_NAME}"))
    )
    if not folders:
        raise MoteError(f"{folder} holds no run.")
    return sorted(map(_line, folders), key=lambda one: (one.started, one.run))


def runs_table(folder: Path) -> Table:
    """Return ``runs_of`` as a table."""
    table = Table("run", "model", "task", "started", "state", "verdict", box=None, pad_edge=False)
    for title in ("effect", "95% interval", "generations"):
        table.add_column(title, justify="right")
    for one in runs_of(folder):
        words = (one.run, one.model, one.task, one.started, one.state, one.verdict or "")
        count = "packed" if one.packed else "-" if one.generations is None else str(one.generations)
        table.add_row(*words, *_effect(one), count)
    return table


def _effect(one: RunLine) -> tuple[str, str]:
    if one.effect is None or one.low is None or one.high is None:
        return "", ""
    return f"{one.effect:.1%}", f"{one.low:.1%} to {one.high:.1%}"


def _line(folder: Path) -> RunLine:
    name = printable(folder.name)
    try:
        manifest = read_manifest(folder)
    except (MoteError, OSError):
        return RunLine(name, "", "", "", "unreadable")
    sessions = manifest["sessions"]
    started = str(sessions[0]["started"]) if sessions else ""
    state = "finished" if manifest["finished"] else "to go on with"
    model, task = (printable(str(manifest[part][key])) for part, key in (("model", "name"), ("prompts", "task")))
    return RunLine(name, model, task, printable(started), state, *reported(folder, manifest), *_count(folder))


def _count(folder: Path) -> tuple[int | None, bool]:
    """Return how many answers there are, and whether they are packed; None where they can't be counted quickly."""
    if not (folder / STORE_NAME).is_file():
        # A committed result may carry its report and tables without the store, or keep it packed.
        return None, (folder / PACKED_NAME).is_file()
    try:
        with RunStore(folder, read_only=True) as store:
            limit_time(store.db, _A_MOMENT)
            return int(store.db.execute("select count(*) from generations").fetchone()[0]), False
    except (MoteError, sqlite3.Error, OSError):
        return None, False
