"""What runs there are: one line each, read from their manifests and stores."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from rich.table import Table

from mote.harness.errors import MoteError, printable
from mote.harness.recipe.manifest import MANIFEST_NAME, read_manifest
from mote.harness.store.foreign import limit_time
from mote.harness.store.run import PACKED_NAME, STORE_NAME, RunStore

_A_MOMENT: Final = 4_000


def runs_table(folder: Path) -> Table:
    """Return a table of the runs in a folder, oldest first; a folder that is itself a run is its only line.

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
    table = Table("run", "model", "task", "started", "state", box=None, pad_edge=False)
    table.add_column("generations", justify="right")
    for started, row in sorted(_row(path) for path in folders):
        name, model, task, state, count = row
        table.add_row(name, model, task, started, state, count)
    return table


def _row(folder: Path) -> tuple[str, tuple[str, str, str, str, str]]:
    name = printable(folder.name)
    try:
        manifest = read_manifest(folder)
    except (MoteError, OSError):
        return "", (name, "", "", "unreadable", "-")
    sessions = manifest["sessions"]
    started = str(sessions[0]["started"]) if sessions else ""
    count = _count(folder)
    state = "finished" if manifest["finished"] else "to go on with"
    model, task = (printable(str(manifest[part][key])) for part, key in (("model", "name"), ("prompts", "task")))
    return printable(started), (name, model, task, state, count)


def _count(folder: Path) -> str:
    """Return how many answers there are; "-" where the rows are not here, are no store, or take too long to count."""
    if not (folder / STORE_NAME).is_file():
        # A committed result may carry its report and tables without the store, or keep it packed.
        return "packed" if (folder / PACKED_NAME).is_file() else "-"
    try:
        with RunStore(folder, read_only=True) as store:
            limit_time(store.db, _A_MOMENT)
            return str(store.db.execute("select count(*) from generations").fetchone()[0])
    except (MoteError, sqlite3.Error, OSError):
        return "-"
