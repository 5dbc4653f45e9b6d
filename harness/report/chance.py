"""The test against chance: the tuned profile among random sets and beside sampling anew, and the verdict.

Control answers were asked for in the order of a ``science.sequential.Design``; the same design is built here from the
same rows, so that a set that was stopped early counts for what it decided and for no more. Only sets that answered
every target prompt have a share that can be drawn: that of a stopped set is censored.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from mote.harness.recipe.study_part import StudyPart
from mote.harness.report.asked import Asked
from mote.harness.science.controls import RANDOM
from mote.harness.science.inference import Null, against_controls
from mote.harness.science.noise import NoiseFloor, noise_floor
from mote.harness.science.sequential import Answers, Ask, Design, ask, progress
from mote.harness.science.verdict import ALPHA, Verdict, sequential_leg, verdict
from mote.harness.store.run import ProfileRow
from mote.harness.study.controls import answers_of, design_of, flips_of_sets, stays_of_retests, target_prompts

LEVEL = ALPHA
"""The p-value up to which an effect is called more than chance."""

SETS = ("kind", "profile", "flips", "of", "share")


@dataclass(frozen=True)
class Chance:
    """The effect beside what chance does, for the section "More than chance?".

    ``targets`` are the measured prompts of the class, ``units`` theirs (the prompt itself where nothing is shared);
    ``tuned`` says of each that the tuned profile answered, with a label, whether it flipped.
    ``sets``: one row a random set that answered all of them: kind, profile, flips, of, share; ``nulls``: the tuned
    profile's share among those of each kind. ``stopped`` counts, by kind, sets that were ended early once decided.
    ``missing``: control answers that the design still asks for.
    """

    verdict: Verdict
    targets: tuple[str, ...] = ()
    units: tuple[Hashable, ...] = ()
    tuned: Mapping[str, bool] = field(default_factory=dict)
    sets: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(SETS)))
    nulls: Mapping[str, Null] = field(default_factory=dict)
    stopped: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[Ask, ...] = ()


def chance_of(
    frame: pd.DataFrame,
    split: Mapping[str, str],
    profiles: Sequence[ProfileRow],
    study: StudyPart,
    asked: Asked,
    groups: Mapping[str, Hashable],
    *,
    force: bool = False,
    ended: bool = False,
) -> Chance:
    """Set the tuned profile beside random sets and retests, by the labels of ``frame``.

    ``frame`` is ``RunStore.generations_frame`` of the judge; ``groups`` are the units that prompts share, empty where
    a task has none. ``force``: the run went on below the least number of target prompts. ``ended``: control answers
    were ended at their opening (``study.controls.answers_end``).
    """
    targets = target_prompts(frame, split, asked.target)
    units = [groups.get(prompt, prompt) for prompt in targets]
    answers = answers_of(frame, asked.target)
    tuned = {p: answers[str(asked.tuned), p] for p in targets if (str(asked.tuned), p) in answers}
    if not targets or len(tuned) < len(targets):
        nothing = verdict([], None, len(targets), len(set(units)), force=True)
        return Chance(nothing, tuple(targets), tuple(units), tuned)
    design = design_of(study, tuned, targets, profiles, ended=ended)
    legs = [sequential_leg(kind, family) for kind, family in progress(design, answers).items()]
    noise = _noise(tuned, answers, targets, units, profiles)
    sets = _sets(design, answers)
    shares = sets.groupby("kind", sort=False)["share"]
    return Chance(
        verdict=verdict(legs, noise, len(targets), len(set(units)), force=force),
        targets=tuple(targets),
        units=tuple(units),
        tuned=tuned,
        sets=sets,
        nulls={str(kind): against_controls(design.observed / len(targets), found) for kind, found in shares},
        stopped=_stopped(design, answers, set(sets["profile"])),
        missing=tuple(_missing(design, answers)),
    )


def _noise(
    tuned: Mapping[str, bool],
    answers: Answers,
    targets: Sequence[str],
    units: Sequence[Hashable],
    profiles: Sequence[ProfileRow],
) -> NoiseFloor | None:
    """Return the noise floor over the retests that answered every target prompt; broken text stays in the class."""
    stayed = stays_of_retests(answers, targets, profiles)
    return noise_floor([not tuned[prompt] for prompt in targets], stayed, units) if stayed else None


def _sets(design: Design, answers: Answers) -> pd.DataFrame:
    total = len(design.prompts)
    rows = [
        (f"{RANDOM}{kind}", name, flips, total, flips / total)
        for kind, sets in flips_of_sets(design, answers).items()
        for name, flips in sets.items()
    ]
    return pd.DataFrame(rows, columns=list(SETS))


def _stopped(design: Design, answers: Answers, whole: set[str]) -> dict[str, int]:
    begun = {profile for profile, _ in answers}
    return {
        f"{RANDOM}{kind}": sum(name in begun and name not in whole for name in names)
        for kind, names in design.families.items()
    }


def _missing(design: Design, answers: Answers) -> list[Ask]:
    everything = sum(map(len, design.families.values())) * len(design.prompts)
    return ask(design, answers, max(everything, 1), block=len(design.prompts))
