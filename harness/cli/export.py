"""``mote export``: a run's rows in the formats that other tools read, all of them or the frames that are asked for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


class Frame(StrEnum):
    """A frame of ``mote.open``."""

    prompts = "prompts"
    profiles = "profiles"
    generations = "generations"
    labels = "labels"
    flips = "flips"
    resonance = "resonance"
    experts = "experts"
    controls = "controls"
    effects = "effects"


class Format(StrEnum):
    """What a frame is written as."""

    csv = "csv"
    parquet = "parquet"
    jsonl = "jsonl"


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("export")(export_command)


def export_command(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    out: Annotated[Path | None, typer.Option(help="Where to write.  [default: RUN/export]")] = None,
    table: Annotated[
        list[Frame] | None, typer.Option(help="Write this frame instead of all tables; may be repeated.")
    ] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="Of the frame, rows of this profile only; may be repeated.")
    ] = None,
    as_format: Annotated[Format, typer.Option("--format", help="What a frame is written as.")] = Format.csv,
) -> None:
    """Write a run's tables as Parquet and its labelled generations as JSONL; with --table, frames of your choice.

    A frame is what `mote.open(RUN)` gives in Python: docs/frames.md has the columns of each.

    Example: mote export results/runs/demo --table flips --profile suppress-10 --format csv
    """
    from mote.harness.errors import MoteError
    from mote.harness.store.export import export_run

    console = Console(highlight=False)
    if not table:
        if profile:
            raise MoteError("--profile picks rows of a frame: name one with --table, for instance --table flips.")
        written = export_run(run, out or run / "export")
    else:
        from mote.harness.report.frame_files import write_frames

        written = write_frames(run, out or run / "export", [*map(str, table)], profile or [], str(as_format))
    for path in written:
        console.print(str(path), soft_wrap=True)
