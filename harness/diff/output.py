"""A difference of two models in the terminal, as CSV and JSON, and as a figure."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.console import Console
from rich.table import Table

from mote.harness.compare.matrix_table import matrix_table
from mote.harness.diff.effects import BROKEN, FLIPPED, UNTOUCHED
from mote.harness.diff.figure import draw_diff
from mote.harness.diff.run import Diff
from mote.harness.drawing import short
from mote.harness.files import write_atomic
from mote.harness.report.figures import render
from mote.harness.science.inference import Rate

FORMAT: Final = "mote-diff/1"
SAID: Final = {
    "changed": "changed on these prompts: beyond other seeds, and beyond random sets",
    "as-random": "differs beyond other seeds, but random sets differ as much",
    "not-apart": "not told apart",
    "few": "too few prompts, units, seeds or sets to tell",
    "unknown": "differs beyond other seeds; no random sets were asked",
    "": "",
}
_SHOWN: Final = 10


def show_diff(found: Diff, console: Console) -> None:
    """Print classes, maps and routes by layer, leading experts, and effects with what is said of each."""
    _show_classes(found, console)
    console.print()
    console.print(_maps(found))
    console.print(_tops(found))
    console.print()
    for measure in (FLIPPED, BROKEN):
        console.print(_effects(found, measure))
    _show_rulings(found, console)
    if found.experts is not None:
        _show_experts(found.experts, console)


def write_diff(found: Diff, folder: Path) -> list[Path]:
    """Write the tables, diff.json and the figure (PNG, PDF, SVG) into a folder; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"maps": found.maps, "tops": found.tops, "effects": found.effects, "sets": found.sets}
    if found.experts is not None:
        tables["experts"] = found.experts
    paths = []
    for name, content in (
        ("classes.csv", found.classes.matrix.to_csv()),
        *((f"{name}.csv", frame.to_csv(index=False, float_format="%.6g")) for name, frame in tables.items()),
        ("diff.json", json.dumps(as_json(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"),
    ):
        paths.append(folder / name)
        write_atomic(paths[-1], content)
    drawn = render("diff", draw_diff(found), "")
    for kind in ("png", "pdf", "svg"):
        paths.append(folder / f"diff.{kind}")
        write_atomic(paths[-1], getattr(drawn, kind))
    return paths


def as_json(found: Diff) -> dict[str, Any]:
    """Return the difference as JSON values; what is not known is null."""
    classes = found.classes
    rates = {name: one._asdict() for name, one in classes.rates._asdict().items() if isinstance(one, Rate)}
    content: dict[str, Any] = {
        "format": FORMAT,
        "models": {"first": found.names[0], "second": found.names[1]},
        "settings": found.settings,
        "notes": list(found.notes),
        "classes": {
            "target": classes.target,
            "matrix": {"labels": list(map(str, classes.matrix.index)), "counts": classes.matrix.to_numpy().tolist()},
            "rates": rates,
            "net": classes.net._asdict(),
            "mcnemar_exact": classes.mcnemar._asdict(),
            "stuart_maxwell": classes.margins._asdict(),
            "changed": classes.changed,
            "changed_by_seed": classes.by_seed,
            "retested": classes.retested,
            "beyond_seed": None if classes.beyond_seed is None else classes.beyond_seed._asdict(),
        },
        "maps": _records(found.maps),
        "tops": _records(found.tops),
        "effects": _records(found.effects),
        "experts": None if found.experts is None else _records(found.experts),
    }
    plain: dict[str, Any] = _plain(content)
    return plain


def _show_classes(found: Diff, console: Console) -> None:
    classes, (first, second) = found.classes, found.names
    console.print(matrix_table(f"untouched: {first} \\ {second}", classes.matrix))
    table = Table(box=None, pad_edge=False)
    table.add_column(f"of {classes.target}, {first} to {second}")
    for title in ("count", "share", "95%, exact"):
        table.add_column(title, justify="right", no_wrap=True)
    rates = classes.rates
    for title, one in (
        ("to another class", rates.flips),
        ("to it, from another class", rates.reverse),
        ("to broken text", rates.broken),
        ("broken text, from another class", rates.broken_others),
    ):
        share = "-" if math.isnan(one.share) else f"{one.share:.1%}"
        table.add_row(title, f"{one.hits} of {one.total}", share, f"{one.low:.1%} to {one.high:.1%}")
    console.print(table)
    net, over = classes.net, f" over {found.unit}s" if found.unit else ""
    console.print(
        f"{short(classes.target)} falls by {_points(net.net)} of all prompts ({_points(net.low)} to"
        f" {_points(net.high)}{over}). McNemar, exact: p {_p(classes.mcnemar.p)}; all classes (Stuart-Maxwell): p"
        f" {_p(classes.margins.p)}.",
        soft_wrap=True,
    )
    if classes.by_seed is not None and classes.beyond_seed is not None:
        console.print(
            f"Another label: {classes.changed} of {int(classes.matrix.to_numpy().sum())}"
            f" prompts; with another seed {first} itself changes {classes.by_seed} of {classes.retested}: p"
            f" {_p(classes.beyond_seed.p)} for the difference.",
            soft_wrap=True,
        )


def _maps(found: Diff) -> Table:
    table = Table(box=None, pad_edge=False, title="Maps and routes, the same prompts", title_justify="left",
                  title_style="bold")  # fmt: skip
    table.add_column("layer", no_wrap=True)
    for title in ("activations r", "resonance r", "halves, one model", "halves, both", "routing agreement"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in _records(found.maps):
        cells = (row[name] for name in ("activations", "resonance", "within", "between", "routing"))
        table.add_row(str(row["layer"]), *(_number(cell) for cell in cells))
    return table


def _tops(found: Diff) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("leading experts", no_wrap=True)
    for title in ("shared", "by chance", "p", "halves, one model", "halves, both"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in _records(found.tops):
        table.add_row(
            f"top {row['k']}", str(row["shared"]), f"{row['chance']:.1f}", _p(row["p"]).removeprefix("= "),
            f"{row['within']:.1f}", f"{row['between']:.1f}",
        )  # fmt: skip
    return table


def _effects(found: Diff, measure: str) -> Table:
    rows = found.effects[found.effects["measure"] == measure]
    first = rows.iloc[0]
    table = Table(
        box=None, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left", title_style="bold",
        title=f"{measure} of {first['prompts']} prompts in {first['units']} units, {first['seeds']} seeds",
    )  # fmt: skip
    table.add_column("edit")
    for title in (*found.names, "difference", "95%", "sets", "p seeds", "p sets", "Holm"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in _records(rows):
        known = [row["sets_mean"], row["p_sets"], row["p_holm"]]
        table.add_row(
            row["edit"], f"{row['share']:.1%}", f"{row['share_other']:.1%}", _points(row["difference"]),
            f"{100 * row['low']:+.0f} to {100 * row['high']:+.0f}",
            "" if math.isnan(known[0]) else f"{100 * known[0]:+.1f}", f"{row['p_seeds']:.3g}",
            *("" if math.isnan(one) else f"{one:.3g}" for one in known[1:]),
        )  # fmt: skip
    return table


def _show_rulings(found: Diff, console: Console) -> None:
    for row in _records(found.effects[found.effects["edit"] != UNTOUCHED]):
        open_end = row["said"] == "changed" and row["low"] <= 0 <= row["high"]
        more = "; the interval over units holds 0, so nothing is said of further ones" if open_end else ""
        console.print(f"{row['edit']}, {row['measure']}: {SAID[row['said']]}{more}.", soft_wrap=True, markup=False)
    console.print(
        "Shares are under the edit; the difference is of effects (edited less untouched, same prompts and seeds), in"
        " points. p seeds: the models' names dealt anew over their runs within units; p sets: among random sets chosen"
        " as often; Holm: of the larger, over the edits.",
        soft_wrap=True,
    )


def _show_experts(experts: pd.DataFrame, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("expert alone", "difference of effect", "95%", "p", "Holm"):
        table.add_column(title, justify="right", no_wrap=True)
    order = experts["effect"].abs().sort_values(ascending=False, kind="stable").index
    for row in _records(experts.loc[order].head(_SHOWN)):
        table.add_row(
            f"({row['layer']}, {row['expert']})", f"{row['effect']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}",
            f"{row['p']:.2g}", f"{row['p_holm']:.2g}",
        )  # fmt: skip
    console.print(table)
    certain = int((experts["p_holm"] <= 0.05).sum())
    console.print(
        f"By both scans, in log-odds of the own opening: {certain} of {len(experts)} experts differ (Holm, p <= 0.05).",
        soft_wrap=True,
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict(orient="records")]


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
