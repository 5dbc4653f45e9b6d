"""The tables of a report as CSV: every number that a figure or a sentence shows, with its numerator and denominator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from mote.harness.drawing import short
from mote.harness.preconditions import STATES
from mote.harness.report.analysis import StudyResult
from mote.harness.report.model_text import visible
from mote.harness.science import paper
from mote.harness.science.inference import Rate, rate
from mote.harness.science.verdict import ControlLeg
from mote.harness.store.reported import ANSWERS, FLIPS, RESAMPLED


def all_tables(result: StudyResult, gap: pd.DataFrame, beside: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables by file name, without those that have no row."""
    controls = result.chance.sets.merge(gap[["profile", "gap"]], on="profile", how="left")
    tables = {
        "progress": result.record.progress,
        "labels": result.changes.labels,
        "summary": result.changes.summary,
        "effects": result.changes.effects,
        "null-distribution": controls,
        "null": null_table(result),
        "verdict": legs_table(result),
        "effect": effect_table(result),
        "divergence": result.effect.divergence,
        "dose-removed": result.effect.dose,
        "experts": result.experts.distinctive,
        "pairs": result.pairs,
        "mechanism": result.record.mechanism,
        "coverage": result.record.coverage,
        "examples": _examples(result),
        "paper": beside,
    }
    return {name: table for name, table in tables.items() if len(table)}


def null_table(result: StudyResult) -> pd.DataFrame:
    """Return one row a kind of control: what the random sets did, and where the tuned profile stands among them."""
    rows = [{"kind": kind, **null._asdict()} for kind, null in result.chance.nulls.items()]
    return pd.DataFrame(rows)


def legs_table(result: StudyResult) -> pd.DataFrame:
    """Return one row a leg of the verdict: kind, p, least_p, reached, sets, stopped; noise floor and exact legs too."""
    columns = ["measure", "kind", "p", "least_p", "reached", "sets", "stopped"]
    rows: list[tuple[Any, ...]] = [(ANSWERS, *_leg(leg)) for leg in result.chance.verdict.legs]
    if result.effect.exact is not None:
        rows += [("exact probabilities", *_leg(leg)) for leg in result.effect.exact.legs]
    noise = result.chance.verdict.noise
    if noise is not None:
        rows.append((ANSWERS, RESAMPLED, noise.p, noise.least_p, None, len(noise.retests), False))
    return pd.DataFrame(rows, columns=columns)


def _leg(leg: ControlLeg) -> tuple[str, float, float, int, int, bool]:
    return leg.kind, leg.p, leg.least_p, leg.reached, leg.sets, leg.stopped


def effect_table(result: StudyResult) -> pd.DataFrame:
    """Return the sizes of the effect, a row each: what, value, low, high, rows, units."""
    found = result.effect
    rows: list[tuple[Any, ...]] = []
    if found.net is not None:
        one = found.net
        rows.append(("net fall of the class's share", one.net, one.low, one.high, one.rows, one.units_that_count))
    if found.flips is not None:
        share = found.flips
        rows.append((FLIPS, share.share, share.low, share.high, share.rows, share.units))
    if found.stay is not None:
        stay = found.stay
        rows.append(("others that enter the class", stay.change, stay.low, stay.high, stay.rows, stay.units))
    if found.exact is not None:
        rows.append(("fall of the exact probability", found.exact.fall, None, None, found.exact.prompts, None))
    return pd.DataFrame(rows, columns=["what", "value", "low", "high", "rows", "units"])


def _examples(result: StudyResult) -> pd.DataFrame:
    rows = [
        (one.prompt_id, one.pick, one.before.label, one.after.label, visible(one.before.raw), visible(one.after.raw))
        for one in result.examples
    ]
    return pd.DataFrame(rows, columns=["prompt_id", "pick", "label_before", "label_after", "before", "after"])


def beside_the_paper(result: StudyResult, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """Return the paper's figures beside ours, where the setting is the same: this task, as many experts as it tuned.

    Columns: what, hits, total, share, low, high, paper, about, section. Where nothing is the same, no row.
    """
    columns = ["what", "hits", "total", "share", "low", "high", "paper", "about", "section"]
    recipe = manifest["recipe"]
    if len(result.experts.distinctive) != paper.TUNED or result.asked.given:
        return pd.DataFrame(columns=columns)
    rows = []
    for figure in paper.FIGURES:
        if figure.experiment == _EXPERIMENTS.get(recipe["task"]["name"], recipe["task"]["name"]):
            profile = {
                "suppress top 10": result.asked.tuned,
                "suppress random 10": "random-uniform",
                "stimulate top 10": "stimulate-10",
            }[figure.profile]
            # The rules write languages in lower case.
            names = [_ours(name, result.asked.classes) for name in (figure.from_class, figure.to_class)]
            ours = _share(result, str(profile), *names)
            if ours is not None:
                what = f"{figure.profile}: {_class(figure.from_class)} → {_class(figure.to_class)}"
                # Prompts of pooled random sets are not independent: no interval.
                limits = (None, None) if "random" in figure.profile else (ours.low, ours.high)
                numbers = (ours.hits, ours.total, ours.share, *limits)
                rows.append((what, *numbers, figure.share, figure.approximate, figure.section))
    return pd.DataFrame(rows, columns=columns)


_EXPERIMENTS: Final = {"ccp_sensitive": "sensitive_1360"}
"""The paper's names of tasks. Our own sensitive questions are not the paper's, so they have none."""


def _ours(name: str, classes: tuple[str, ...]) -> str:
    return name.lower() if name.lower() in classes else name


def _class(name: str) -> str:
    """``REFUSED`` of ``0-REFUSED``, ``not REFUSED`` of ``not 0-REFUSED``."""
    head, _, tail = name.rpartition(" ")
    return f"{head} {short(tail)}".strip()


def _share(result: StudyResult, profile: str, before: str, after: str) -> Rate | None:
    """Our share of the same transition; broken text is no class, so it is never "not REFUSED"."""
    matrix = result.changes.matrices.get((profile, result.asked.view))
    if matrix is None:
        return None
    classes = [str(name) for name in matrix.index if name not in STATES]

    def chosen(text: str) -> list[str]:
        excluded = text.removeprefix("not ")
        return [name for name in classes if name != excluded] if text.startswith("not ") else [text]

    rows = matrix.loc[chosen(before)]
    total = int(rows.to_numpy().sum())
    return rate(int(rows[chosen(after)].to_numpy().sum()), total) if total else None
