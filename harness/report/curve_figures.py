"""The figures of dose, direction, cost and layers that a run's rows allow; for the others, how to get them."""

from __future__ import annotations

import math
from typing import Final

import pandas as pd

from mote.harness.drawing import ACCENT, INK, SIGNAL, SOFT
from mote.harness.report.analysis import StudyResult
from mote.harness.report.curve_drawings import (
    Series,
    draw_direction,
    draw_dose,
    draw_pruning,
    draw_thirds,
    draw_trade_off,
)
from mote.harness.report.figure_data import FigureData, Made
from mote.harness.science.controls import RETEST
from mote.harness.science.dose import best_dose

NO_DOSES: Final = "Give `study.doses` further numbers of experts, for instance `[1, 3, 5, 20, 50]`."


def dose(data: FigureData) -> Made:
    """Return the curve over the number of suppressed experts."""
    curves = data.result.curves
    if len(curves.doses) < 2:
        return None, NO_DOSES, None
    k = own_k(data.result)
    alt = "Share of flips over the number of suppressed experts: " + _listed(curves.doses, "k")
    return (
        lambda layout: draw_dose(curves.doses, curves.sets, k, noise(data.result)[1], layout),
        alt,
        _table(curves.doses),
    )


def direction(data: FigureData) -> Made:
    """Return the way from suppression to stimulation of the same experts."""
    rows = data.result.curves.direction
    if len(rows) < 3 or not rows["kind"].isin(["scale", "stimulate"]).any():
        missing = "Give `study.factors` in the recipe, for instance `[0.5, 2]`, and set `study.stimulate: true`."
        return None, missing, None
    alt = "Share of flips over the factor of the experts' weights: " + _listed(rows, "factor")
    return lambda layout: draw_direction(rows, layout), alt, _table(rows)


def trade_off(data: FigureData) -> Made:
    """Return every profile as a point: flips against what changed of the other prompts."""
    curves = data.result.curves
    if not len(curves.doses):
        return None, "No labelled answer of the tuned profile is there yet; `mote run` generates them.", None
    series = [Series("top k suppressed", curves.doses, [f"top {k}" for k in curves.doses["k"]], SIGNAL, "D", True)]
    rows = curves.direction
    scaled = rows[rows["kind"] == "scale"]
    series.append(Series("scaled", scaled, [f"×{factor:g}" for factor in scaled["factor"]], ACCENT, "o", False))
    forced, again = rows[rows["kind"] == "stimulate"], rows[rows["kind"] == RETEST]
    series.append(Series("forced on", forced, [f"top {k} on" for k in forced["k"]], INK, "P", False))
    series.append(Series("other seed", again, [""] * len(again), SOFT, "X", False))
    shown = [one for one in series if len(one.rows)]
    ringed = best_profile(data)
    table = pd.concat([*(one.rows for one in shown), curves.sets], ignore_index=True)
    alt = "Flips of the target class against changes of the other prompts, a point a profile; " + _listed(
        curves.doses, "k"
    )
    return lambda layout: draw_trade_off(shown, curves.sets, ringed, layout), alt, _table(table)


def thirds(data: FigureData) -> Made:
    """Return the flips with the experts of one third of the layers only."""
    rows = data.result.curves.thirds
    if not len(rows):
        return None, "Set `study.thirds: true` in the recipe.", None
    alt = "Flips with the experts of one third of the layers only: " + _listed(rows, "part")
    return lambda layout: draw_thirds(rows, noise(data.result)[0], layout), alt, _table(rows)


def pruning(data: FigureData) -> Made:
    """Return the effect left as experts are taken out one by one."""
    rows = data.pruned
    if not len(rows):
        return None, "`mote prune RUN` takes the experts out one by one and finds which are needed.", None
    floor = float(rows["floor"].iloc[0])
    alt = f"Of {int(rows['left'].iloc[0])} experts {int(rows['left'].iloc[-1])} are needed."
    return lambda layout: draw_pruning(rows, floor, layout), alt, rows


def noise(result: StudyResult) -> tuple[float, float]:
    """Return what another seed alone does: the flips, and the share of the other prompts that changes; nan unasked."""
    rows = result.curves.direction
    again = rows[rows["kind"] == RETEST] if len(rows) else rows
    if not len(again):
        return math.nan, math.nan
    return float(again["flips"].iloc[0]), 1 - float(again["kept"].iloc[0])


def best_profile(data: FigureData) -> str:
    """Return the profile with most flips among those that break and reverse at most 2% (`dose.best_dose`), or ""."""
    curves = data.result.curves
    rows = pd.concat([curves.doses, curves.direction[curves.direction["kind"] == "scale"]], ignore_index=True)
    best = best_dose(rows.assign(dose=rows["k"])) if len(rows) else None
    return "" if best is None or not best["flips_hits"] else str(best["profile"])


def own_k(result: StudyResult) -> int:
    """Return how many experts the tuned profile has; 0 where nothing was tuned yet."""
    rows = result.curves.doses
    own = rows[rows["profile"] == result.asked.tuned]
    return int(own["k"].iloc[0]) if len(own) else 0


def _listed(rows: pd.DataFrame, by: str) -> str:
    return ", ".join(f"{at}: {share:.1%}" for at, share in zip(rows[by], rows["flips"], strict=True))


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns=[name for name in ("plan", "action", "experts") if name in rows]).reset_index(drop=True)
