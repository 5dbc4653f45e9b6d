"""What runs there are: one line each, read from their manifests and stores."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from mote.harness.errors import MoteError
from mote.harness.recipe.manifest import MANIFEST_NAME, read_manifest
from mote.harness.store.run import RunStore


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
    try:
        manifest = read_manifest(folder)
    except MoteError:
        return "", (folder.name, "", "", "unreadable", "-")
    sessions = manifest["sessions"]
    started = str(sessions[0]["started"]) if sessions else ""
    try:
        with RunStore(folder, read_only=True) as store:
            count = str(len(store.stored()))
    except MoteError:
        # A committed result may carry its report and tables without the store.
        count = "-"
    state = "finished" if manifest["finished"] else "to go on with"
    return started, (folder.name, str(manifest["model"]["name"]), str(manifest["prompts"]["task"]), state, count)
