"""The analysis of a run: ``analyse`` returns the ``StudyResult`` that every table and figure of the report is made of.

Rows of the store come in, frames go out; nothing is written and nothing is drawn. An unfinished run gives what its rows
allow, and ``Record.progress`` says what is missing. Only generations with a label count.

Experts are chosen on the prompts of part ``select``. Random controls are compared on the prompts of the result, which
are those of part ``measure`` where the run has a split.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mote.harness.preconditions import STATES
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.sides import Sides, sides_of
from mote.harness.recipe.study_part import StudyPart
from mote.harness.report.asked import Asked, asked_of
from mote.harness.report.chance import Chance, chance_of
from mote.harness.report.changes import Changes, changes_of, pair
from mote.harness.report.curve_tables import CurveTables, curve_tables
from mote.harness.report.effect import Effect, effect_of
from mote.harness.report.examples import Example, choose_examples
from mote.harness.report.pair_signs import pair_signs
from mote.harness.report.tuned_experts import TunedExperts, rank
from mote.harness.science.controls import BASELINE, RANDOM
from mote.harness.science.maps import ranked_maps
from mote.harness.science.mechanism import coverage_table, summed_mechanism
from mote.harness.science.splits import units_of
from mote.harness.science.transitions import FlipRates
from mote.harness.store.run import RunStore
from mote.harness.study.controls import answers_end


@dataclass(frozen=True)
class Record:
    """How far a run is and what vouches for it, for the banner and the sections "Which experts" and "Provenance".

    ``progress``: planned, generated and labelled answers of each profile. ``coverage``: over how many tokens the
    baseline's maps were counted. ``mechanism``: what each profile's edits did. ``judges``: the judges that have
    labelled answers of this run, with how many, and how often they agree with the one whose labels are used.
    """

    progress: pd.DataFrame
    coverage: pd.DataFrame
    mechanism: pd.DataFrame
    judges: pd.DataFrame

    @property
    def complete(self) -> bool:
        """Whether every planned generation is there and labelled."""
        return bool(len(self.progress)) and bool((self.progress["labelled"] >= self.progress["planned"]).all())


@dataclass(frozen=True)
class StudyResult:
    """All that a run says, grouped by the report's sections; None stands for what the rows do not allow.

    ``curves`` has dose, direction and layers' share; ``examples`` the answers that are shown before and after.
    ``sides`` are the prompts that experts were ranked by; ``pairs`` what the tuned experts do within pairs of them.
    """

    asked: Asked
    record: Record
    changes: Changes
    chance: Chance
    effect: Effect
    experts: TunedExperts
    sides: Sides
    pairs: pd.DataFrame
    curves: CurveTables
    examples: tuple[Example, ...]

    def rate_of(self, profile: str | None, view: str | None = None) -> FlipRates | None:
        """Return the flip rates of a profile or pooled kind in a view (default: that of the result)."""
        return self.changes.rates.get((profile or "", view or self.asked.view))


def analyse(
    store: RunStore, manifest: Mapping[str, Any], judge: str | None = None, frame: pd.DataFrame | None = None
) -> StudyResult:
    """Compute everything that a run's rows allow, by the labels of one judge (default: that of the run's label set).

    ``frame`` is the store's ``generations_frame`` of that judge, where it was read already.
    """
    study = manifest["recipe"]["study"]
    judge = judge or label_set(manifest["recipe"]).judge
    frame, split = store.generations_frame(judge) if frame is None else frame, store.split()
    planned = store.profiles()
    profiles = pd.DataFrame(
        [_profile_row(p.name, p.kind, p.part, p.spec) for p in planned],
        columns=["profile", "kind", "plan", "action", "k", "factor", "experts"],
    )
    unit, groups = _units(frame)
    asked = asked_of(manifest, judge, set(frame["label"].dropna()), profiles, split=bool(split), unit=unit)
    part = StudyPart.model_validate(study)
    how = {"force": bool(manifest.get("forced")), "ended": answers_end(manifest)}
    chance = chance_of(frame, split, planned, part, asked, groups, **how)
    progress = _progress(frame, profiles, len(store.prompts()), split, Counter(one.set for one in chance.missing))
    whole = _whole(progress, chance)
    changes = changes_of(pair(frame, bool(split)), profiles, whole, asked)
    ids, maps, counted = store.maps(BASELINE, str(study["role"]))
    tuned = profiles.set_index("profile")["experts"].get(asked.tuned, ()) if asked.tuned else ()
    baseline = frame[frame["profile"] == BASELINE].set_index("prompt_id")
    labels = {str(key): str(label) for key, label in baseline["label"].dropna().items()}
    sides = sides_of(labels, {str(key): json.loads(text) for key, text in baseline["attributes"].items()}, part)
    ranked = ranked_maps(part.ranking, maps, [seen for seen, _ in counted])
    ranking = rank(ids, ranked, sides.marks, split, sides.target, len(tuned), groups or None, sides.pairs or None)
    measured = profiles[profiles["profile"].isin(whole)]
    return StudyResult(
        asked=asked,
        record=Record(
            progress=progress,
            coverage=coverage_table(str(study["role"]), counted),
            mechanism=summed_mechanism(store.mechanisms()),
            judges=_judges(store, judge, frame, asked.classes),
        ),
        changes=changes,
        chance=chance,
        effect=effect_of(store, frame, planned, study, asked, chance, groups),
        experts=ranking.tuned(tuned, asked.layers),
        sides=sides,
        pairs=pair_signs(ids, ranked, sides, split, tuned, asked.layers),
        curves=curve_tables(measured, changes.matrices, asked.tuned, asked.view, asked.target),
        examples=choose_examples(frame, changes.paired, asked.tuned, asked.target, asked.view),
    )


def _judges(store: RunStore, judge: str, frame: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Count each judge's labels; of others, those that the first judge labelled too, and how often they agree.

    ``classes`` are those of the first judge; how often a judge of other classes agrees is nan, not 0.
    """
    ours = frame.set_index("generation_id")["label"].dropna()
    rows = []
    for name in store.judges():
        theirs = store.labels_of(name)
        both = ours.index.intersection(theirs.index)
        named = set(theirs) - set(STATES)
        asked = len(both) and not (named and named.isdisjoint(classes))
        same = float((ours[both] == theirs[both]).mean()) if asked else math.nan
        rows.append((name, len(theirs), len(both), same))
    frame = pd.DataFrame(rows, columns=["judge", "labels", "shared", "same"])
    # The one whose labels are used first, then by how much they labelled.
    order = frame.assign(first=frame["judge"] != judge).sort_values(["first", "labels"], ascending=[True, False])
    return order.drop(columns="first").reset_index(drop=True)


def _profile_row(name: str, kind: str, part: str, spec: Mapping[str, Any]) -> tuple[Any, ...]:
    edits = spec.get("edits", [])
    actions = sorted({str(edit["action"]) for edit in edits})
    experts = tuple((int(edit["layer"]), int(edit["expert"])) for edit in edits)
    return name, kind, part, "+".join(actions), len(edits), _factor(edits), experts


def _factor(edits: Sequence[Mapping[str, Any]]) -> float:
    """Return the factor that scales all experts of a profile: inf for stimulation, nan where the factors differ."""
    if not edits:
        return 1.0
    found = {
        {"suppress": 0.0, "stimulate": math.inf}.get(edit["action"], float(edit.get("factor", 0))) for edit in edits
    }
    return found.pop() if len(found) == 1 else math.nan


def _progress(
    frame: pd.DataFrame,
    profiles: pd.DataFrame,
    prompts: int,
    split: Mapping[str, str],
    missing: Mapping[str, int],
) -> pd.DataFrame:
    """Return planned, generated and labelled answers a profile; random sets are planned as far as the design asks."""
    measure = sum(part == "measure" for part in split.values())
    there = frame.groupby("profile").agg(generated=("generation_id", "size"), labelled=("label", "count"))
    progress = profiles[["profile", "kind"]].copy()
    progress = progress.join(there, on="profile").fillna({"generated": 0, "labelled": 0})
    progress["planned"] = [
        prompts if plan == "all" else measure if plan != "targets" else int(labelled) + missing.get(name, 0)
        for name, plan, labelled in zip(profiles["profile"], profiles["plan"], progress["labelled"], strict=True)
    ]
    columns = ["profile", "kind", "planned", "generated", "labelled"]
    return progress[columns].astype({"generated": int, "labelled": int})


def _whole(progress: pd.DataFrame, chance: Chance) -> set[str]:
    """Return the profiles whose matrix is of all prompts that they were meant for: no set that was stopped early."""
    done = progress.loc[progress["labelled"] >= progress["planned"]]
    plain = done.loc[~done["kind"].str.startswith(RANDOM), "profile"]
    return {*map(str, plain), *chance.sets["profile"].astype(str)}


def _units(frame: pd.DataFrame) -> tuple[str, dict[str, Hashable]]:
    texts = frame.drop_duplicates("prompt_id").set_index("prompt_id")["attributes"]
    return units_of({str(key): json.loads(text) for key, text in texts.items()})
