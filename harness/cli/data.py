"""``mote data``: the task sets with source, licence and state; fetches those that are not ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from mote.harness.errors import MoteError, nearest

if TYPE_CHECKING:
    from rich.table import Table

_OURS = ("ours", "Apache-2.0")


class _Source(NamedTuple):
    origin: str
    licence: str
    pinned: str
    fetch: Callable[[], Path]


def _fetched() -> dict[str, _Source]:
    from mote.tasks import ccp_sensitive as ccp
    from mote.tasks import mt_bench as mt

    repository = f"huggingface.co/datasets/{ccp.SOURCE}"
    return {
        ccp.TASK: _Source(repository, ccp.LICENCE, f"revision {ccp.REVISION[:12]}", ccp.fetch),
        mt.TASK: _Source("github.com/lm-sys/FastChat", mt.LICENCE, f"sha256, commit {mt.COMMIT[:12]}", mt.fetch),
    }


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("data")(data_command)


def data_command(
    fetch: Annotated[list[str] | None, typer.Option(help="Fetch this set; may be repeated.", metavar="SET")] = None,
) -> None:
    """List the task sets with source, licence and state; with --fetch, download one that is not ours.

    Example: mote data --fetch mt_bench
    """
    # What the sets need is imported by those who ask for them: every command's start would wait for it.
    from mote.harness.cli.tables import table_console
    from mote.tasks import TASKS, TaskError
    from mote.tasks.data import data_home

    console, sources = table_console(), _fetched()
    for name in fetch or []:
        if name not in TASKS:
            raise MoteError(f"--fetch: there is no set '{name}'.{nearest(name, sources)}")
        if name not in sources:
            raise MoteError(f"--fetch: '{name}' is the package's own; there is nothing to fetch.")
        try:
            console.print(f"{name}: {sources[name].fetch()}")
        except TaskError as error:
            raise MoteError(str(error)) from None
    if not fetch:
        console.print(_table(sources))
        console.print(f"Fetched sets lie in {data_home()}; mote data --fetch SET gets one.")


def _table(sources: dict[str, _Source]) -> Table:
    from rich.table import Table

    from mote.tasks import TASKS, TaskError, load_task

    table = Table("set", box=None, pad_edge=False)
    table.add_column("prompts", justify="right")
    for title in ("state", "licence", "source", "pinned by"):
        table.add_column(title)
    for name in TASKS:
        try:
            count, state = str(len(load_task(name))), "ready"
        except TaskError:
            count, state = "-", "not fetched"
        source = sources.get(name)
        origin, licence, pinned = (*_OURS, "-") if source is None else source[:3]
        table.add_row(name, count, state, licence, origin, pinned)
    return table
