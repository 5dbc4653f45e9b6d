"""A comparison in the terminal, as JSON, and as CSV files."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mote.harness.compare.comparison import Comparison, Example, to_dict
from mote.harness.compare.matrix_table import matrix_table
from mote.harness.files import write_atomic
from mote.harness.science.inference import Rate
from mote.harness.science.transitions import ClusteredFlips, FlipRates
from mote.judges import LABELS, LANGUAGES

_IN_MATRIX = {
    *(label.split("-")[-1].lower() for label in LABELS),
    *(f"{part}_{name}" for part in ("reasoning", "answer") for name in LANGUAGES),
}
"""Metrics of our tasks that only count labels: a matrix says more. JSON and CSV have them."""
_SHOWN = 280
"""Characters of a text that an example shows; the whole is in the JSON."""


def show(found: Comparison, console: Console) -> None:
    """Print a comparison: what was paired, caveats, matrix, rates, scores, examples. Model text is printed as text."""
    for which in ("before", "after"):
        console.print(Text(f"{which:<7} {_named(found, which)}"), soft_wrap=True)
    left, right = found.unpaired
    same = int((found.pairs["raw_before"] == found.pairs["raw_after"]).sum())
    lonely = f"; without a partner: {left} before, {right} after" if left or right else ""
    console.print(f"{len(found.pairs)} pairs, {same} with the same output{lonely}")
    judges = dict.fromkeys(side.judge for side in (found.before, found.after) if side.judge)
    if found.matrix is not None:
        console.print(
            Text(f"labels  {' and '.join(judges)}{', both sides' if len(judges) == 1 else ''}"), soft_wrap=True
        )
    for caveat in found.caveats:
        console.print(f"[yellow]! {escape(caveat)}[/yellow]")
    if found.matrix is not None and found.rates is not None:
        console.print()
        console.print(matrix_table("before \\ after", found.matrix))
        console.print()
        console.print(_rates(found.rates))
        if found.clustered is not None:
            console.print(_by_unit(found.clustered))
        if found.mcnemar is not None and found.margins is not None:
            console.print(
                f"McNemar, exact: p {_p(found.mcnemar.p)}; all classes together (Stuart-Maxwell):"
                f" p {_p(found.margins.p)}"
            )
    scores = found.scores if found.matrix is None else found.scores[~found.scores["metric"].isin(_IN_MATRIX)]
    if len(scores):
        console.print()
        console.print(_scores(scores))
    for example in found.examples:
        _example(example, console)


def json_text(found: Comparison) -> str:
    """Return a comparison as one JSON object."""
    return json.dumps(to_dict(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_csv(found: Comparison, folder: Path) -> list[Path]:
    """Write pairs.csv, and matrix.csv, rates.csv and scores.csv as far as there are such; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = {"pairs": (found.pairs.drop(columns=["raw_before", "raw_after"]), False)}
    if found.matrix is not None and found.rates is not None:
        frames["matrix"] = (found.matrix, True)
        rates = {name: rate._asdict() for name, rate in found.rates._asdict().items() if isinstance(rate, Rate)}
        frames["rates"] = (pd.DataFrame(rates).T.rename_axis("rate"), True)
    if len(found.scores):
        frames["scores"] = (found.scores, False)
    paths = []
    for name, (frame, index) in frames.items():
        path = folder / f"{name}.csv"
        write_atomic(path, frame.to_csv(index=index))
        paths.append(path)
    return paths


def _named(found: Comparison, which: str) -> str:
    side = found.before if which == "before" else found.after
    digest = next(iter(side.digests), "")[:12]
    profile = f"  profile {side.profile} {digest}" if digest else ""
    return f"{side.name}{profile}"


def _rates(rates: FlipRates) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(f"of {rates.target}")
    for title in ("count", "share", "95% interval, exact"):
        table.add_column(title, justify="right", no_wrap=True)
    for title, one in (
        ("to another class", rates.flips),
        ("to it, from another class", rates.reverse),
        ("to broken text", rates.broken),
        ("broken text, from another class", rates.broken_others),
    ):
        table.add_row(title, f"{one.hits} of {one.total}", _percent(one.share), _between(one.low, one.high))
    return table


def _by_unit(clustered: ClusteredFlips) -> str:
    """One line: the same rates with intervals that resample whole units."""
    said = []
    for title, interval in (("to another class", clustered.flips_interval), ("to it", clustered.reverse_interval)):
        if interval is not None:
            said.append(f"{title} {_between(interval.low, interval.high)}")
    return f"by unit ({clustered.clusters} units): {', '.join(said) or 'too few for an interval'}"


def _scores(scores: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("metric", overflow="fold")
    one_filter = scores["filter"].nunique() == 1
    for title in ("pairs", "before", "after", "difference", "interval", "up/down", "p"):
        table.add_column(title, justify="right", no_wrap=True)
    if "margin" in scores:
        table.add_column(f"within {float(scores['margin'].iloc[0]):g}", justify="right", no_wrap=True)
    for row in scores.to_dict("records"):
        # lm_eval's own way to write a metric and its filter.
        metric = str(row["metric"]) if one_filter else f"{row['metric']},{row['filter']}"
        table.add_row(
            metric,
            str(row["pairs"]),
            f"{row['before']:.3f}",
            f"{row['after']:.3f}",
            f"{row['difference']:+.3f}",
            f"{row['low']:+.3f} to {row['high']:+.3f}",
            f"{row['up']}/{row['down']}",
            _p(float(row["p"])).removeprefix("= "),
            *([_within(row)] if "margin" in scores else []),
        )
    return table


def _within(row: dict[Hashable, Any]) -> str:
    """Return whether a change is shown to be smaller than the margin, with the p of the equivalence test."""
    p = float(row["equivalence_p"])
    return "–" if math.isnan(p) else f"{'yes' if row['equivalent'] else 'not shown'}, p {_p(p)}"


def _example(example: Example, console: Console) -> None:
    console.print()
    # A document's hash says nothing to a reader; its beginning finds it in the log.
    name = example.key if "/" in example.key else example.key[:12]
    console.print(Text(f"{name}  {example.before} -> {example.after}", style="bold"))
    console.print(Text(_short(example.question)))
    for title, raw in (("before", example.raw_before), ("after ", example.raw_after)):
        console.print(Text(f"  {title}  {_short(raw)}"))


def _short(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= _SHOWN else one_line[: _SHOWN - 1] + "…"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"


def _between(low: float, high: float) -> str:
    return f"{100 * low:.1f}% to {100 * high:.1f}%"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
