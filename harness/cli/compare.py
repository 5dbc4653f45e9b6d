"""``mote compare``: what changed between two sets of answers to the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mote.harness.errors import MoteError

_SIDE = "A run (its baseline), RUN:PROFILE, or an lm_eval sample log (samples_*.jsonl) or its folder."


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("compare")(compare_command)


def compare_command(
    before: Annotated[str, typer.Argument(help=_SIDE, metavar="BEFORE")],
    after: Annotated[str, typer.Argument(help=_SIDE, metavar="AFTER")],
    task: Annotated[
        str | None, typer.Option(help="Which log to take where a folder holds those of several tasks.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="The class whose flips are counted.  [default: 0-REFUSED or english, else the commonest]"),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="Whose labels of a run are compared.  [default: the runs' own; if they differ, the text's]"),
    ] = None,
    label: Annotated[
        str, typer.Option(help="What is compared: label (the class), reasoning_language, or answer_language.")
    ] = "label",
    examples: Annotated[int, typer.Option(help="Examples of each transition.", min=0)] = 1,
    level: Annotated[float, typer.Option(help="Confidence level of the intervals.")] = 0.95,
    receipts: Annotated[
        bool, typer.Option("--receipts/--no-receipts", help="Refuse logs whose answers carry no receipt, or take them.")
    ] = True,
    json: Annotated[
        str | None,
        typer.Option("--json", help="Write all of it as JSON to a file; - for the terminal.", metavar="FILE"),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write pairs, matrix, rates and scores as CSV here.", metavar="FOLDER")
    ] = None,
) -> None:
    """Compare two sets of answers: transition matrix and flip rates, or the paired difference of a scored task.

    Example: mote compare results/runs/demo results/runs/demo:suppress-10
    """
    from mote.harness.compare.comparison import compare
    from mote.harness.compare.output import json_text, show, write_csv
    from mote.harness.compare.sources import read_sides
    from mote.harness.files import write_atomic

    _check_outputs(json, csv)
    left, right = read_sides(before, after, judge, label, task=task, receipts=receipts)
    found = compare(left, right, target=target, examples=examples, level=level)
    if json == "-":
        print(json_text(found), end="")
    else:
        show(found, Console(highlight=False))
    if json and json != "-":
        write_atomic(Path(json), json_text(found))
    if csv:
        write_csv(found, csv)


def _check_outputs(json: str | None, csv: Path | None) -> None:
    if json and json != "-" and not Path(json).parent.is_dir():
        raise MoteError(f"--json {json}: there is no folder {Path(json).parent}.")
    if csv and csv.is_file():
        raise MoteError(f"--csv {csv} is a file; name a folder.")
