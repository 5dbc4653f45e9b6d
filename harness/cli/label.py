"""``mote label``: a dry run of a recipe's classes over answers that are there already."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from mote.harness.cli.tables import table_console

if TYPE_CHECKING:
    from mote.judges import Evidence

_CONTEXT = 40
"""Characters shown before and after what decided."""


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("label")(label_command)


def label_command(
    answers: Annotated[
        str, typer.Argument(help="A file of answers (.jsonl, .csv, .parquet), a run, or a log.", metavar="FILE")
    ],
    labels: Annotated[str, typer.Option(help="The recipe whose classes label the answers.", metavar="RECIPE")],
    limit: Annotated[int, typer.Option(help="Show this many answers; all are counted.", min=0)] = 20,
    columns: Annotated[
        str | None, typer.Option(help="What the file calls its columns: answer=text,id=qid.", metavar="OURS=THEIRS,...")
    ] = None,
    blanks: Annotated[bool, typer.Option("--blanks", help="Take blank answers for UNSCORED.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value of the recipe: key.path=value.", metavar="KEY=VALUE"),
    ] = None,
) -> None:
    """Label answers by the classes of a recipe, and show what decided each: before a study is paid for.

    Nothing is generated or stored, and no language model is asked. What decided stands between brackets.

    Example: mote label answers.jsonl --labels praise.yaml --columns answer=text
    """
    from mote.harness.compare.table import parse_columns
    from mote.harness.compare.trial import try_labels
    from mote.harness.recipe.schema import load_recipe

    console = table_console()
    found, tried = try_labels(load_recipe(labels, changes or []), answers, parse_columns(columns), blanks=blanks)
    table = Table("answer", "label", "rule", "what decided", box=None, pad_edge=False)
    for one in tried[:limit]:
        first = one.label.evidence[0]
        table.add_row(*map(Text, (one.key, one.label.label, first.rule, _in_context(one.raw, first))))
    if limit:
        console.print(table)
    counts = Counter(one.label.label for one in tried)
    order = [*found.classes, *sorted(set(counts) - {*found.classes})]
    counted = ", ".join(f"{name} {counts[name]:,}" for name in order)
    console.print(f"{len(tried):,} answers by {found.text_judge}: {counted}", soft_wrap=True, markup=False)


def _in_context(raw: str, evidence: Evidence) -> str:
    """Return what decided between brackets, with a little of what stands around it, on one line."""
    from mote.harness.report.model_text import visible

    start, end = evidence.start, evidence.end
    shown = raw[start:end] if end - start <= 2 * _CONTEXT else f"{raw[start : start + 2 * _CONTEXT]}…"
    before, after = raw[max(0, start - _CONTEXT) : start], raw[end : end + _CONTEXT]
    return " ".join(visible(f"{before}[{shown}]{after}").split())
