"""``mote compare``: what changed between two sets of answers to the same prompts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mote.harness.errors import MoteError

_SIDE = (
    "A run (its baseline), RUN:PROFILE, a log of lm_eval (samples_*.jsonl) or its folder, a log of Inspect (.eval,"
    " .json), a bench of MT-Bench (BENCH:MODEL) or FastChat's rows, or a table of answers (.jsonl, .csv, .parquet;"
    " FILE:MODEL)."
)


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
    labels: Annotated[
        str | None,
        typer.Option(
            help="Label both sides anew by a set of rules (refusal, language, ...), or take the files' own: column."
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="Prompts of a run: measure, select (those that chose the experts), or all."
            "  [default: measure where a profile is compared]"
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="What a table calls its columns: answer=text,id=qid. Ours: id, question, answer, reasoning,"
            " finish_reason, label, model, sample, unit."
        ),
    ] = None,
    blanks: Annotated[
        bool, typer.Option("--blanks/--no-blanks", help="Take a table's blank answers for UNSCORED, or refuse them.")
    ] = False,
    markers: Annotated[
        str, typer.Option(help="What encloses the reasoning in files that don't say it: think, harmony, ...")
    ] = "think",
    label: Annotated[
        str, typer.Option(help="What is compared: label (the class), reasoning_language, or answer_language.")
    ] = "label",
    examples: Annotated[int, typer.Option(help="Examples of each transition.", min=0)] = 1,
    level: Annotated[float, typer.Option(help="Confidence level of the intervals.")] = 0.95,
    margin: Annotated[
        float | None,
        typer.Option(
            help="Test whether each metric changes by less than this, in its own unit (equivalence, alpha 0.05)."
        ),
    ] = None,
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

    With files of another tool: mote compare before.jsonl after.csv --columns id=qid,answer=text --labels refusal
    """
    from mote.harness.compare.comparison import compare
    from mote.harness.compare.output import json_text, show, write_csv
    from mote.harness.compare.sources import Reading, read_sides
    from mote.harness.compare.table import parse_columns
    from mote.harness.files import write_atomic
    from mote.judges import Markers

    _check_outputs(json, csv)
    check_margin(margin)
    try:
        read_as = Markers.named(markers)
    except ValueError as error:
        raise MoteError(f"--markers: {error}") from None
    reading = Reading(judge, label, task, receipts, part, parse_columns(columns), blanks, read_as)
    left, right = read_sides(before, after, reading, labels)
    found = compare(left, right, target=target, examples=examples, level=level, margin=margin)
    if json == "-":
        print(json_text(found), end="")
    else:
        show(found, Console(highlight=False))
    if json and json != "-":
        write_atomic(Path(json), json_text(found))
    if csv:
        write_csv(found, csv)


def check_margin(margin: float | None) -> None:
    """Raise MoteError for a margin of equivalence that is none."""
    if margin is not None and not 0 < margin < math.inf:
        raise MoteError(f"--margin {margin:g}: a margin of equivalence is above 0, for instance 0.05.")


def _check_outputs(json: str | None, csv: Path | None) -> None:
    if json and json != "-" and not Path(json).parent.is_dir():
        raise MoteError(f"--json {json}: there is no folder {Path(json).parent}.")
    if csv and csv.is_file():
        raise MoteError(f"--csv {csv} is a file; name a folder.")
