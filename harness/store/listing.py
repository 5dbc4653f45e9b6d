"""What runs there are: one line each, read from their manifests and stores."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from mote.harness.errors import MoteError
from mote.harness.recipe.manifest import MANIFEST_NAME, read_manifest
from mote.harness.store.run import RunStore


class RunLine(NamedTuple):
    """A run of a folder; ``generations`` is None where its rows are not here."""

    run: str
    model: str
    task: str
    started: str
    state: str
    generations: int | None


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
    table = Table("run", "model", "task", "started", "state", box=None, pad_edge=False)
    table.add_column("generations", justify="right")
    for *words, count in runs_of(folder):
        table.add_row(*map(str, words), "-" if count is None else str(count))
    return table


def _line(folder: Path) -> RunLine:
    try:
        manifest = read_manifest(folder)
    except MoteError:
        return RunLine(folder.name, "", "", "", "unreadable", None)
    sessions = manifest["sessions"]
    started = str(sessions[0]["started"]) if sessions else ""
    try:
        with RunStore(folder, read_only=True) as store:
            count = len(store.stored())
    except MoteError:
        # A committed result may carry its report and tables without the store.
        count = None
    state = "finished" if manifest["finished"] else "to go on with"
    return RunLine(folder.name, str(manifest["model"]["name"]), str(manifest["prompts"]["task"]), started, state, count)
