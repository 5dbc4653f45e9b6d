"""The size of an effect: net change, exact probabilities, dose, and what happened to the prompts outside the class.

Each figure has its unit and its interval; prompts that share a place (or subject) are taken together.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from mote.harness.preconditions import STATES
from mote.harness.report.asked import Asked
from mote.harness.report.chance import Chance
from mote.harness.science.clustered import ClusteredShare, NetEffect, korn_graubard, net_effect
from mote.harness.science.controls import BASELINE, RANDOM, RETEST
from mote.harness.science.equivalence import Divergence, Equivalence, divergence, equivalent_shares
from mote.harness.science.removed import removed
from mote.harness.science.splits import name_of_unit
from mote.harness.science.verdict import ControlLeg, control_leg
from mote.harness.store.run import ProfileRow, RunStore


class ExactEffect(NamedTuple):
    """P(target class) by teacher forcing, mean over the target prompts: no sampling noise.

    ``sets``: kind, profile, fall of each random set; ``legs``: the tuned set's fall among those of each kind.
    """

    untouched: float
    tuned: float
    prompts: int
    sets: pd.DataFrame
    legs: tuple[ControlLeg, ...]

    @property
    def fall(self) -> float:
        """The fall of the class's probability under the tuned profile."""
        return self.untouched - self.tuned


class Named(NamedTuple):
    """Of the tuned profile's flips, how many do not name the unit that was asked about."""

    elsewhere: int
    flips: int


@dataclass(frozen=True)
class Effect:
    """The size of the tuned profile's effect; None stands for what the rows do not allow.

    ``net``: fall of the class's share over all measured prompts, against the untouched model with every seed.
    ``flips``: share of target prompts that flipped, Korn-Graubard over units. ``stay``: whether the prompts outside
    the class keep out of it, within the margin. ``divergence``: KL a token by profile: profile, kind, kl, low, high,
    tokens. ``dose``: what each set takes away on the target prompts (``removed``), with the column kind.
    """

    net: NetEffect | None
    flips: ClusteredShare | None
    stay: Equivalence | None
    margin: float
    exact: ExactEffect | None
    divergence: pd.DataFrame
    dose: pd.DataFrame
    named: Named | None


def effect_of(
    store: RunStore,
    frame: pd.DataFrame,
    profiles: Sequence[ProfileRow],
    study: Mapping[str, Any],
    asked: Asked,
    chance: Chance,
    groups: Mapping[str, Hashable],
) -> Effect:
    """Measure the tuned profile's effect by the labels of ``frame`` (``RunStore.generations_frame``)."""
    margin = float(study.get("margin", 0.05))
    classed = _classed(frame, asked)
    net = _net(classed, profiles, asked, groups)
    return Effect(
        net=net,
        flips=_flips(chance),
        stay=_stay(classed, asked, chance, groups, margin),
        margin=margin,
        exact=_exact(store, profiles, asked, chance),
        divergence=_divergences(store, profiles, groups),
        dose=_dose(store, profiles, study, asked, chance),
        named=_named(frame, asked, chance),
    )


def _classed(frame: pd.DataFrame, asked: Asked) -> dict[str, pd.Series[Any]]:
    """Return by profile: label by measured prompt."""
    known = frame[frame["label"].notna()]
    if asked.view == "measured":
        known = known[known["part"] == "measure"]
    return {str(name): rows.set_index("prompt_id")["label"] for name, rows in known.groupby("profile", sort=False)}


def _net(
    labels: Mapping[str, pd.Series[Any]],
    profiles: Sequence[ProfileRow],
    asked: Asked,
    groups: Mapping[str, Hashable],
) -> NetEffect | None:
    """A row is a prompt under one seed of the untouched model, beside the tuned answer; broken answers are no class."""
    ours = labels.get(asked.tuned or "")
    untouched = [row.name for row in profiles if row.kind in (BASELINE, RETEST) and row.name in labels]
    if ours is None or BASELINE not in untouched:
        return None
    before, after, units = [], [], []
    for name in untouched:
        both = pd.concat([labels[name].rename("before"), ours.rename("after")], axis="columns", join="inner")
        # A broken text is neither in the class nor out of it: the pair can't tell.
        both = both[~both.isin(STATES).any(axis="columns")]
        before += (both["before"] == asked.target).tolist()
        after += (both["after"] == asked.target).tolist()
        units += [groups.get(str(prompt), prompt) for prompt in both.index]
    return net_effect(before, after, units) if before else None


def _flips(chance: Chance) -> ClusteredShare | None:
    if not chance.targets or len(chance.tuned) < len(chance.targets):
        return None
    return korn_graubard([chance.tuned[prompt] for prompt in chance.targets], chance.units)


def _stay(
    labels: Mapping[str, pd.Series[Any]],
    asked: Asked,
    chance: Chance,
    groups: Mapping[str, Hashable],
    margin: float,
) -> Equivalence | None:
    """Test that the prompts outside the class stay outside, within the margin: one row a prompt."""
    ours, before = labels.get(asked.tuned or ""), labels.get(BASELINE)
    if ours is None or before is None:
        return None
    both = pd.concat([before.rename("before"), ours.rename("after")], axis="columns", join="inner")
    both = both[(both["before"] != asked.target) & ~both.isin(STATES).any(axis="columns")]
    units = [groups.get(str(prompt), prompt) for prompt in both.index]
    if len(set(units)) < 2:
        return None
    return equivalent_shares([0.0] * len(both), (both["after"] == asked.target).tolist(), margin, units)


def _exact(store: RunStore, profiles: Sequence[ProfileRow], asked: Asked, chance: Chance) -> ExactEffect | None:
    table = store.chances_frame()
    if table.empty or asked.tuned is None or not chance.targets:
        return None
    wide = table.pivot_table(index="prompt_id", columns="profile", values="chance").reindex(list(chance.targets))
    if BASELINE not in wide or asked.tuned not in wide:
        return None
    # Prompts whose bounds were too wide for one of the two are left out for all.
    wide = wide[wide[BASELINE].notna() & wide[asked.tuned].notna()]
    if wide.empty:
        return None
    base = float(wide[BASELINE].mean())
    whole = [
        row for row in profiles if row.kind.startswith(RANDOM) and row.name in wide and wide[row.name].notna().all()
    ]
    sets = pd.DataFrame(
        [(row.kind, row.name, base - float(wide[row.name].mean())) for row in whole],
        columns=["kind", "profile", "fall"],
    )
    tuned = float(wide[asked.tuned].mean())
    legs = tuple(
        control_leg(str(kind).removeprefix(RANDOM), base - tuned, falls.tolist())
        for kind, falls in sets.groupby("kind", sort=False)["fall"]
    )
    return ExactEffect(base, tuned, len(wide), sets, legs)


_DIVERGENCE = ["profile", "kind", "kl", "low", "high", "tokens", "units"]


def _divergences(store: RunStore, profiles: Sequence[ProfileRow], groups: Mapping[str, Hashable]) -> pd.DataFrame:
    """Return KL(untouched || profile) a token for each profile that was measured on two units or more."""
    table = store.divergences_frame()
    kinds = {row.name: row.kind for row in profiles}
    rows = []
    for name, one in table.groupby("profile", sort=False):
        units = [groups.get(str(prompt), prompt) for prompt in one["prompt_id"]]
        if len(set(units)) > 1:
            found = _divergence(one, units)
            rows.append((str(name), kinds.get(str(name), ""), *found))
    return pd.DataFrame(rows, columns=_DIVERGENCE)


def _divergence(rows: pd.DataFrame, units: Sequence[Hashable]) -> Divergence:
    # Stored is a text's sum; spread over its tokens the sums that the estimate is made of are the same.
    untouched = [[total / n] * n for total, n in zip(rows["logp_untouched"], rows["tokens"], strict=True)]
    edited = [[total / n] * n for total, n in zip(rows["logp_tuned"], rows["tokens"], strict=True)]
    return divergence(untouched, edited, units)


def _dose(
    store: RunStore, profiles: Sequence[ProfileRow], study: Mapping[str, Any], asked: Asked, chance: Chance
) -> pd.DataFrame:
    """Return what the tuned set and each random set take away on the target prompts, in activations."""
    wanted = [row for row in profiles if row.name == asked.tuned or row.kind.startswith(RANDOM)]
    ids, maps, counted = store.maps(BASELINE, str(study["role"]), set(chance.targets))
    if not ids or not wanted:
        return pd.DataFrame(columns=["set", "experts", "activations", "activations_token", "weight_token", "kind"])
    sets = {row.name: [(int(e["layer"]), int(e["expert"])) for e in row.spec.get("edits", [])] for row in wanted}
    table = removed(sets, maps, [seen for seen, _ in counted], asked.layers)
    return table.assign(kind=[row.kind for row in wanted])


def _named(frame: pd.DataFrame, asked: Asked, chance: Chance) -> Named | None:
    """Count flips whose answer does not name the unit asked about; None where prompts name no unit."""
    flipped = [prompt for prompt, flip in chance.tuned.items() if flip]
    flips = frame[(frame["profile"] == asked.tuned) & frame["prompt_id"].isin(flipped)]
    if not asked.unit or flips.empty:
        return None
    names = [name_of_unit(json.loads(text).get(asked.unit, "")) for text in flips["attributes"]]
    if not all(names):
        return None
    named = sum(name in str(answer).casefold() for name, answer in zip(names, flips["answer"], strict=True))
    return Named(len(flips) - named, len(flips))
