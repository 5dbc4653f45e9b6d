"""What both models answer under the same edits, as tables: effects side by side, and random sets beside them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.diff.plan import EditSet, Plan
from mote.harness.preconditions import STATES
from mote.harness.science.model_difference import EffectDifference, among_sets, effect_difference, rule
from mote.harness.science.verdict import PROMPTS, UNITS
from mote.patches import EMPTY_PROFILE

Labels = Mapping[tuple[str, int], Mapping[str, str]]
"""(profile's digest, seed) -> prompt -> label."""

UNTOUCHED: Final = "untouched"
FLIPPED, BROKEN = "flipped", "broken"
MEASURES: Final = (FLIPPED, BROKEN)
"""Answers of another class than the one under study; texts without a class. Neither counts as the other."""
EFFECTS: Final = [
    *("edit", "experts", "measure", "share", "share_other", "effect", "effect_other", "difference", "low", "high"),
    *("p_seeds", "least_p_seeds", "sets", "first_seed", "sets_mean", "p_sets", "least_p_sets", "p", "p_holm", "said"),
    *("prompts", "units", "seeds", "digest"),
]
SETS: Final = ["edit", "set", "measure", "effect", "effect_other", "difference", "experts"]


def effect_tables(
    plan: Plan, first: Labels, second: Labels, units: Mapping[str, Hashable], target: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the effects of each edit in both models (``EFFECTS``), and those of the random sets (``SETS``).

    ``share`` is that of answers flipped (broken) under the edit, the ``effect`` by how much more than untouched with
    the same seeds, ``difference`` the other model's effect less this one's; ``first_seed`` is the difference by the
    first seed alone, which stands among those of the random sets. Rows of ``untouched`` have the untouched
    models' shares, and the test by seeds alone. Where prompts or units are fewer than a verdict needs, ``said`` is
    ``few``.
    """
    reader = _Reader(plan, (first, second), target)
    at = [units.get(key, key) for key in plan.prompts]
    short = len(plan.prompts) < PROMPTS or len(set(at)) < UNITS
    rows: list[dict[str, Any]] = []
    sets: list[dict[str, Any]] = []
    for measure in MEASURES:
        untouched = [reader.hits(side, EMPTY_PROFILE.digest, measure) for side in (0, 1)]
        rows.append(_row(UNTOUCHED, 0, measure, untouched, effect_difference(untouched[0], untouched[1], at), ""))
        mine = []
        for edit in plan.edits:
            of_sets = [_set_row(reader, edit, number, measure) for number in range(len(edit.controls))]
            sets += of_sets
            mine.append(_edit_row(reader, edit, measure, at, [row["difference"] for row in of_sets]))
        found = rule(
            [(row["p_seeds"], row["least_p_seeds"]) for row in mine],
            [(row["p_sets"], row["least_p_sets"]) for row in mine],
        )
        for row, said in zip(mine, found, strict=True):
            row |= {"p": said.p, "p_holm": said.p_holm, "said": "few" if short else said.said}
        rows += mine
    return pd.DataFrame(rows, columns=EFFECTS), pd.DataFrame(sets, columns=SETS)


class _Reader:
    """Reads both models' labels as hits [seeds, prompts]."""

    def __init__(self, plan: Plan, labels: tuple[Labels, Labels], target: str) -> None:
        self._plan, self._labels, self._target = plan, labels, target

    def hits(self, side: int, digest: str, measure: str, seeds: int | None = None) -> NDArray[np.int64]:
        """Return 1 where a model's answer is flipped (broken), for the first ``seeds`` of the plan."""
        return np.array(
            [
                [self._hit(self._labels[side][digest, seed][key], measure) for key in self._plan.prompts]
                for seed in self._plan.seeds[:seeds]
            ],
            dtype=np.int64,
        )

    def effects(self, digest: str, measure: str, seeds: int | None = None) -> list[NDArray[np.int64]]:
        """Return both models' effects of a profile."""
        return [
            self.hits(side, digest, measure, seeds) - self.hits(side, EMPTY_PROFILE.digest, measure, seeds)
            for side in (0, 1)
        ]

    def by_first_seed(self, digest: str, measure: str) -> tuple[float, float]:
        """Return both models' effects of a profile with the first seed alone, as random sets are asked."""
        ours, theirs = self.effects(digest, measure, 1)
        return float(ours.mean()), float(theirs.mean())

    def _hit(self, label: str, measure: str) -> bool:
        return label in STATES if measure == BROKEN else label != self._target and label not in STATES


def _edit_row(
    reader: _Reader, edit: EditSet, measure: str, at: Sequence[Hashable], of_sets: Sequence[float]
) -> dict[str, Any]:
    effects = reader.effects(edit.profile.digest, measure)
    found = effect_difference(effects[0], effects[1], at)
    ours, theirs = reader.by_first_seed(edit.profile.digest, measure)
    p, least = among_sets(theirs - ours, of_sets)
    shares = [reader.hits(side, edit.profile.digest, measure) for side in (0, 1)]
    row = _row(edit.name, len(edit.experts), measure, shares, found, edit.profile.digest)
    mean = float(np.mean(of_sets)) if of_sets else math.nan
    return row | {
        "sets": len(of_sets),
        "first_seed": theirs - ours,
        "sets_mean": mean,
        "p_sets": p,
        "least_p_sets": least,
    }


def _row(
    name: str,
    experts: int,
    measure: str,
    shares: Sequence[NDArray[np.int64]],
    found: EffectDifference,
    digest: str,
) -> dict[str, Any]:
    return {
        "edit": name, "experts": experts, "measure": measure,
        "share": float(shares[0].mean()), "share_other": float(shares[1].mean()),
        "effect": found.first, "effect_other": found.second,
        "difference": found.difference, "low": found.low, "high": found.high,
        "p_seeds": found.p, "least_p_seeds": found.least_p,
        "prompts": found.prompts, "units": found.units, "seeds": found.seeds, "digest": digest, "said": "",
    }  # fmt: skip


def _set_row(reader: _Reader, edit: EditSet, number: int, measure: str) -> dict[str, Any]:
    control = edit.controls[number]
    ours, theirs = reader.by_first_seed(control.digest, measure)
    experts = " ".join(f"({one.layer}, {one.expert})" for one in control.edits)
    return {
        "edit": edit.name, "set": number + 1, "measure": measure, "effect": ours, "effect_other": theirs,
        "difference": theirs - ours, "experts": experts,
    }  # fmt: skip
