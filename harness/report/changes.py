"""The transitions of a run: labels before and after, matrices and flip rates, a row a profile or kind of control.

A transition counts only where the prompt has a label under the profile and under the baseline. What a profile does to
the prompts that did not choose its experts is in the view ``measured``; what it does to those that did is in the view
``in-sample``. A run without a split has the view ``all`` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mote.harness.preconditions import STATES
from mote.harness.report.asked import Asked
from mote.harness.science.controls import BASELINE, RANDOM
from mote.harness.science.inference import mcnemar_exact, stuart_maxwell
from mote.harness.science.transitions import FlipRates, flip_rates, transition_matrix


@dataclass(frozen=True)
class Changes:
    """The transitions of a run, for the sections "What changed" and "What broke"; frames are ready for CSV.

    ``paired``: one row a prompt and profile: prompt_id, profile, kind, view, before, after. ``labels``: counts by
    profile, view and label, before and after. ``effects``: one row a profile and view: flips and reverse flips with
    exact intervals, broken answers by state, paired tests. ``summary``: one row a group of profiles, for the terminal's
    table. ``matrices``: counts by (profile, view), of a kind of control pooled by (kind, view); ``rates``: their flips.
    """

    paired: pd.DataFrame
    labels: pd.DataFrame
    effects: pd.DataFrame
    summary: pd.DataFrame
    matrices: Mapping[tuple[str, str], pd.DataFrame]
    rates: Mapping[tuple[str, str], FlipRates]


def changes_of(paired: pd.DataFrame, profiles: pd.DataFrame, whole: set[str], asked: Asked) -> Changes:
    """Count the transitions of ``pair``; controls count once they are ``whole``, with every planned answer labelled."""
    matrices = _matrices(paired, asked.classes, whole)
    rates = {key: flip_rates(matrix, asked.target) for key, matrix in matrices.items() if matrix.to_numpy().sum()}
    values = shares_of_sets(rates, profiles[profiles["profile"].isin(whole)], asked.view)
    return Changes(
        paired=paired,
        labels=_labels(paired),
        effects=_effects(matrices, rates, profiles),
        summary=_summary(rates, matrices, profiles, values, asked.view),
        matrices=matrices,
        rates=rates,
    )


def _names(profiles: pd.DataFrame) -> list[tuple[str, str]]:
    return [(str(name), str(kind)) for name, kind in zip(profiles["profile"], profiles["kind"], strict=True)]


def pair(frame: pd.DataFrame, split: bool) -> pd.DataFrame:
    """Set each label under a profile beside the baseline's of the same prompt; see ``Changes.paired``."""
    labelled = frame[frame["label"].notna()]
    before = labelled.loc[labelled["profile"] == BASELINE].set_index("prompt_id")["label"].rename("before")
    after = labelled.loc[labelled["profile"] != BASELINE]
    paired = after.join(before, on="prompt_id", how="inner").rename(columns={"label": "after"})
    names = {"measure": "measured", "select": "in-sample"}
    paired["view"] = paired["part"].map(names) if split else "all"
    columns = ["prompt_id", "profile", "kind", "view", "before", "after"]
    return paired.dropna(subset=["view"])[columns].reset_index(drop=True)


def _matrices(paired: pd.DataFrame, classes: tuple[str, ...], whole: set[str]) -> dict[tuple[str, str], pd.DataFrame]:
    """Count each profile's transitions by view, and pool the random sets of a kind; a set that's half there waits."""
    matrices: dict[tuple[str, str], pd.DataFrame] = {}
    for names, rows in paired.groupby(["profile", "kind", "view"], sort=False):
        profile, kind, view = map(str, names)
        indexed = rows.set_index("prompt_id")
        matrix = transition_matrix(indexed["before"], indexed["after"], classes)
        matrices[profile, view] = matrix
        if kind.startswith(RANDOM) and profile in whole:
            pooled = matrices.get((kind, view))
            matrices[kind, view] = matrix if pooled is None else pooled + matrix
    return matrices


def _labels(paired: pd.DataFrame) -> pd.DataFrame:
    keys = ["profile", "view"]
    before = paired.rename(columns={"before": "label"}).groupby([*keys, "label"], sort=False).size().rename("before")
    after = paired.rename(columns={"after": "label"}).groupby([*keys, "label"], sort=False).size().rename("after")
    return pd.concat([before, after], axis="columns").fillna(0).astype(int).sort_index().reset_index()


def _outcome(name: str, view: str, rates: FlipRates, matrix: pd.DataFrame) -> dict[str, Any]:
    """Return a matrix as a row of numbers: rates, and answers with a class before that are broken after, by state."""
    usable = matrix.drop(index=list(STATES))
    reverse, flips = rates.reverse, rates.flips
    return {
        "profile": name,
        "view": view,
        "prompts": int(matrix.to_numpy().sum()),
        "flips": flips.hits,
        "of": flips.total,
        "share": flips.share,
        "low": flips.low,
        "high": flips.high,
        "reverse": reverse.hits,
        "reverse_of": reverse.total,
        "reverse_share": reverse.share,
        "reverse_low": reverse.low,
        "reverse_high": reverse.high,
        "usable": int(usable.to_numpy().sum()),
        **{state.lower(): int(usable[state].sum()) for state in STATES},
        "unusable_before": rates.unusable,
    }


def _effects(
    matrices: Mapping[tuple[str, str], pd.DataFrame],
    rates: Mapping[tuple[str, str], FlipRates],
    profiles: pd.DataFrame,
) -> pd.DataFrame:
    about = profiles.set_index("profile")[["kind", "k", "action"]].to_dict("index")
    rows = []
    for name, view in matrices:
        if name not in about or (name, view) not in rates:
            continue
        matrix, found = matrices[name, view], rates[name, view]
        row = _outcome(name, view, found, matrix) | {str(key): value for key, value in about[name].items()}
        row["mcnemar_p"] = mcnemar_exact(found.flips.hits, found.reverse.hits).p
        row["stuart_maxwell_p"] = stuart_maxwell(matrix.to_numpy()).p
        rows.append(row)
    return pd.DataFrame(rows)


def _summary(
    rates: Mapping[tuple[str, str], FlipRates],
    matrices: Mapping[tuple[str, str], pd.DataFrame],
    profiles: pd.DataFrame,
    values: pd.DataFrame,
    view: str,
) -> pd.DataFrame:
    """Return a row a group: each profile by itself, each kind of random sets pooled.

    Of random sets, ``least`` and ``most`` are the smallest and the largest share of a set: a pooled interval would
    take their prompts as independent, so theirs is left out.
    """
    rows = []
    for name in dict.fromkeys(kind if kind.startswith(RANDOM) else name for name, kind in _names(profiles)):
        for seen in (view, "in-sample"):
            if (name, seen) not in rates:
                continue
            row = {"group": name, **_outcome(name, seen, rates[name, seen], matrices[name, seen])}
            row["sets"] = 1
            if name.startswith(RANDOM):
                shares = values.loc[values["kind"] == name, "share"]
                row |= {"low": math.nan, "high": math.nan, "reverse_low": math.nan, "reverse_high": math.nan}
                row |= {"sets": len(shares), "least": shares.min(), "most": shares.max()}
            rows.append(row)
    return pd.DataFrame(rows).drop(columns="profile", errors="ignore")


def shares_of_sets(rates: Mapping[tuple[str, str], FlipRates], profiles: pd.DataFrame, view: str) -> pd.DataFrame:
    """Return the flip share of each random set in a view, one row a set: kind, profile, flips, of, share."""
    rows = [
        (kind, name, rates[name, view].flips.hits, rates[name, view].flips.total, rates[name, view].flips.share)
        for name, kind in _names(profiles)
        if kind.startswith(RANDOM) and (name, view) in rates and rates[name, view].flips.total
    ]
    return pd.DataFrame(rows, columns=["kind", "profile", "flips", "of", "share"])
