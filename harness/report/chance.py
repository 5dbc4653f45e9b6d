"""The test against chance: the tuned profile among random sets, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import pandas as pd

from mote.harness.report.asked import Asked
from mote.harness.report.changes import Changes, shares_of_sets
from mote.harness.science.inference import Null, against_controls
from mote.harness.science.transitions import ClusteredFlips, FlipRates, clustered_flips

LEVEL: Final = 0.05
"""The p-value up to which an effect is called more than chance."""


class Verdict(NamedTuple):
    """The answer to: does the tuned profile flip more than random experts do?

    ``above``: p <= 0.05 against every kind of control. ``few``: above every set of every kind, but there are too few
    sets for p <= 0.05. ``not-above``: else. ``unknown``: there are no controls, or not all of them are measured yet.
    ``p`` is the largest of the kinds (an effect must beat each of them, so no correction is due); ``least_p`` the
    smallest p there could be.
    """

    kind: Literal["above", "few", "not-above", "unknown"]
    p: float
    least_p: float


@dataclass(frozen=True)
class Chance:
    """The effect beside what chance does, for the section "More than chance?".

    ``sets``: one row a random set: kind, profile, flips, of, share. ``nulls``: the tuned profile's flip share among the
    sets of each kind. ``clustered``: its flips with intervals that resample whole groups of prompts.
    """

    sets: pd.DataFrame
    nulls: Mapping[str, Null]
    verdict: Verdict
    clustered: ClusteredFlips | None


def chance_of(
    changes: Changes, profiles: pd.DataFrame, whole: set[str], asked: Asked, groups: Mapping[str, Hashable]
) -> Chance:
    """Set the tuned profile beside the random sets that are whole; ``groups`` are the units that prompts share."""
    sets = shares_of_sets(changes.rates, profiles[profiles["profile"].isin(whole)], asked.view)
    nulls = _nulls(changes.rates.get((asked.tuned or "", asked.view)), sets)
    return Chance(
        sets=sets,
        nulls=nulls,
        verdict=_verdict(nulls, all_there=len(whole) == len(profiles)),
        clustered=_clustered(changes.paired, asked, groups),
    )


def _nulls(tuned: FlipRates | None, values: pd.DataFrame) -> dict[str, Null]:
    if tuned is None or not tuned.flips.total:
        return {}
    groups = values.groupby("kind", sort=False)["share"]
    return {str(kind): against_controls(tuned.flips.share, shares) for kind, shares in groups}


def _verdict(nulls: Mapping[str, Null], *, all_there: bool) -> Verdict:
    if not nulls or not all_there:
        return Verdict("unknown", math.nan, math.nan)
    p = max(null.p for null in nulls.values())
    least = max(1 / (null.controls + 1) for null in nulls.values())
    if p <= LEVEL:
        return Verdict("above", p, least)
    return Verdict(
        "few" if all(null.p <= 1 / (null.controls + 1) for null in nulls.values()) else "not-above", p, least
    )


def _clustered(paired: pd.DataFrame, asked: Asked, groups: Mapping[str, Hashable]) -> ClusteredFlips | None:
    """Return the tuned profile's flips with prompts of one place (or subject) taken as one unit."""
    rows = paired[(paired["profile"] == asked.tuned) & (paired["view"] == asked.view)].set_index("prompt_id")
    if rows.empty or not groups:
        return None
    units = pd.Series({key: groups[str(key)] for key in rows.index})
    return clustered_flips(rows["before"], rows["after"], units, asked.classes, asked.target)
