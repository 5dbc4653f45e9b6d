"""The end of ``mote run`` in the terminal: transition matrices, flips by group of profiles, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.table import Table

from mote.harness.compare.matrix_table import matrix_table
from mote.harness.drawing import short
from mote.harness.report.analysis import StudyResult
from mote.harness.report.chance_sections import effect
from mote.harness.science.controls import RANDOM, RETEST
from mote.judges import REFUSED

_VERDICTS = {
    "above": "More than chance.",
    "not-above": "Not more than chance.",
    "few": "Nothing can be said about chance.",
    "too-few-prompts": "Nothing can be said about chance.",
    "unknown": "Nothing can be said about chance.",
}


def print_summary(result: StudyResult, console: Console) -> None:
    """Print what a run's rows say: the matrices of the tuned profile and its controls, and one line a group."""
    shown = [
        name
        for name in (result.asked.tuned, *_kinds(result))
        if name and (name, result.asked.view) in result.changes.matrices
    ]
    if not shown:
        console.print("No profile has been compared with the baseline yet.")
        return
    where = "prompts that chose no expert" if result.asked.view == "measured" else "all prompts (in-sample)"
    console.print(f"\nTransitions on {where}: rows before, columns after")
    console.print(
        Columns(
            [matrix_table(name, result.changes.matrices[name, result.asked.view]) for name in shown], padding=(1, 3)
        )
    )
    console.print(_groups(result))
    if "in-sample" in set(result.changes.summary["view"]):
        console.print("* in-sample: on the prompts that the experts were chosen on")
    for line in effect(result):
        console.print(line, soft_wrap=True)
    verdict = f"{_VERDICTS[result.chance.verdict.kind]} {result.chance.verdict.reason}"
    console.print(f"{verdict}\n", soft_wrap=True)


def _kinds(result: StudyResult) -> list[str]:
    groups = result.changes.summary["group"].tolist() if len(result.changes.summary) else []
    return [str(group) for group in dict.fromkeys(groups) if str(group).startswith((RANDOM, RETEST))]


def _groups(result: StudyResult) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("profiles", no_wrap=True)
    answered = "answered" if result.asked.target == REFUSED else "flipped"
    for title in (answered, "share", "interval or sets", f"new {short(result.asked.target)}", "broken"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in result.changes.summary.to_dict(orient="records"):
        in_sample = " *" if row["view"] == "in-sample" else ""
        table.add_row(
            f"{row['group']}{in_sample}",
            f"{row['flips']} of {row['of']}",
            _percent(row["share"]),
            _spread(row),
            f"{row['reverse']} of {row['reverse_of']}",
            str(row["degenerate"] + row["truncated"] + row["unscored"]),
        )
    return table


def _spread(row: Mapping[Hashable, Any]) -> str:
    # Columns of random sets are only there where there are some.
    least, most = row.get("least", math.nan), row.get("most", math.nan)
    if not math.isnan(least):
        return f"{row['sets']} sets {_range(least, most)}"
    return _range(row["low"], row["high"])


def _range(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{100 * low:.1f}-{100 * high:.1f}%"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"
