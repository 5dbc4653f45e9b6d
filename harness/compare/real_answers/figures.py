"""Three figures about published answers: transition matrices, shares by each judge, and what our judges see."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mote.harness.compare.real_answers.data import EVASIVE, OURS, TWO_JUDGES, Data
from mote.harness.compare.real_answers.tables import (
    BY_HAND,
    PAIRS,
    SHORT,
    confusion,
    matrix,
    pair,
)
from mote.harness.drawing import ACCENT, INK, RULE, SEQUENTIAL, SIGNAL, SOFT, bare, drawing, name_typeface
from mote.judges import STATES

_DPI: Final = 200
_LANGUAGES: Final = {"en": "English", "zh": "Chinese"}


def draw(data: Data, transitions: pd.DataFrame) -> dict[str, bytes]:
    """Return the figures as files by name, each as SVG and PNG; the same data give the same bytes."""
    figures: dict[str, Callable[[], Figure]] = {
        "transitions": lambda: draw_matrices(data),
        "answered-by-judge": lambda: draw_shares(transitions),
        "judge-audit": lambda: draw_audit(data),
    }
    files = {}
    for name, made in figures.items():
        with drawing(name):
            figure = made()
            for kind in ("svg", "png"):
                files[f"{name}.{kind}"] = _bytes(figure, kind)
    return files


def draw_matrices(data: Data) -> Figure:
    """Draw the transition matrices: three by the LLM judges where they agree, the twins' by hand."""
    figure = Figure(figsize=(10.0, 3.1), layout="constrained")
    shown = [*((*one, TWO_JUDGES) for one in PAIRS), ("o", "d", BY_HAND)]
    for axes, (before, after, labels) in zip(figure.subplots(1, 4), shown, strict=True):
        found = pair(data, before, after, labels)
        _heat(axes, matrix(found, labels))
        axes.set_title(f"{SHORT[before]} to {SHORT[after]}", fontsize=9.5)
        source = "labelled by hand" if labels == BY_HAND else "both LLM judges agree"
        axes.set_xlabel(f"{SHORT[after]}\n{len(found)} pairs, {source}", fontsize=9)
        axes.set_ylabel(SHORT[before], fontsize=9)
    return figure


def draw_shares(transitions: pd.DataFrame) -> Figure:
    """Draw the share of withheld replies that the second model answers, by each source of labels, with intervals."""
    shown = transitions[(transitions["part"] == "all") & (transitions["total"] > 0)]
    shown = shown[shown["source"].isin((EVASIVE, "REFUSED", "refused"))]
    pairs = list(dict.fromkeys(zip(shown["before"], shown["after"], strict=True)))
    heights = [len(shown[(shown["before"] == a) & (shown["after"] == b)]) for a, b in pairs]
    figure = Figure(figsize=(8.0, 0.55 * len(pairs) + 0.34 * sum(heights) + 0.6), layout="constrained")
    panels = figure.subplots(len(pairs), 1, sharex=True, gridspec_kw={"height_ratios": heights}, squeeze=False)
    for axes, (before, after) in zip(panels[:, 0], pairs, strict=True):
        rows = shown[(shown["before"] == before) & (shown["after"] == after)].to_dict("records")
        for y, row in enumerate(rows):
            _interval(axes, y, row)
        axes.set_yticks(range(len(rows)), [f"{row['source'].lower()} by {_judge(row['labels'])}" for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_title(f"{before} to {after}")
        axes.grid(axis="x", color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
    panels[-1, 0].set_xticks(np.linspace(0, 1, 6), [f"{share:.0%}" for share in np.linspace(0, 1, 6)])
    panels[-1, 0].set_xlabel("answered by the second model (95%, whole requests resampled)")
    return figure


def draw_audit(data: Data) -> Figure:
    """Draw our labels (columns) against the verdicts on which both LLM judges agree (rows), by language."""
    figure = Figure(figsize=(4.6 * len(data.ours) + 0.8, 2.9 * len(_LANGUAGES)), layout="constrained")
    panels = figure.subplots(len(_LANGUAGES), len(data.ours), squeeze=False)
    for row, (code, language) in enumerate(_LANGUAGES.items()):
        for column, judge in enumerate(data.ours):
            axes = panels[row, column]
            _heat(axes, confusion(data, judge, [code]))
            axes.set_title(f"{language}: label set {judge}")
            axes.set_ylabel("both LLM judges" if not column else "")
            axes.set_xlabel("our label" if row else "")
    return figure


def _heat(axes: Axes, counts: pd.DataFrame) -> None:
    """Counts as numbers, the share of the row as the colour."""
    totals = counts.sum(axis="columns").to_numpy()
    shares = counts.to_numpy() / np.where(totals, totals, 1)[:, None]
    sns.heatmap(
        shares, ax=axes, cmap=SEQUENTIAL, vmin=0, vmax=1, cbar=False, annot=counts.to_numpy(), fmt="d", linewidths=1,
        linecolor="white", annot_kws={"fontsize": 9.5},
        xticklabels=[_tick(name) for name in counts.columns], yticklabels=[_tick(name) for name in counts.index],
    )  # fmt: skip
    axes.set_xticklabels(axes.get_xticklabels(), rotation=0, fontsize=8)
    axes.set_yticklabels(axes.get_yticklabels(), rotation=90, va="center", fontsize=8)
    bare(axes)


def _tick(name: Any) -> str:
    return str(name).lower() if name not in STATES else f"({str(name).lower()})"


def _interval(axes: Axes, y: int, row: dict[Any, Any]) -> None:
    ours = row["labels"] in OURS
    colour = SIGNAL if ours else ACCENT if row["labels"] in (TWO_JUDGES, BY_HAND) else SOFT
    if not math.isnan(row["low_by_request"]):
        axes.plot([row["low_by_request"], row["high_by_request"]], [y, y], color=colour, linewidth=2.2)
    axes.plot(row["share"], y, "o", color=colour, markersize=6, clip_on=False, zorder=3)
    # Beside the interval on the side that has room.
    left = row["share"] > 0.5
    place = row["low_by_request"] if left else row["high_by_request"]
    place = row["share"] if math.isnan(place) else place
    axes.annotate(
        f"{row['hits']} of {row['total']}", (place, y), (-8 if left else 8, 0), textcoords="offset points",
        ha="right" if left else "left", va="center", color=INK, fontsize=9,
    )  # fmt: skip


def _judge(labels: str) -> str:
    if labels == BY_HAND:
        return "hand"
    return f"our set {labels}" if labels in OURS else labels


def _bytes(figure: Figure, kind: str) -> bytes:
    # Neither a date nor a version: the same data give the same bytes.
    metadata: dict[str, Any] = {"Creator": "MoTE Harness", "Date": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
    return name_typeface(buffer.getvalue()) if kind == "svg" else buffer.getvalue()
