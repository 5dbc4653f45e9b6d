"""``mote cross RUN RUN``: two runs that choose on each other's halves, pooled into one verdict (``science.crossfit``).

The second run is the first one's recipe with ``study.fold: 2``: what chose experts there measures here. Each fold has
its own experts and its own random sets; no prompt is measured under experts that it helped to choose. The result is
about the way of choosing experts, not about one set of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mote.harness.errors import MoteError
from mote.harness.files import digest_of
from mote.harness.preconditions import STATES
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.schema import differences, recipe_of
from mote.harness.science.clustered import NetEffect
from mote.harness.science.controls import BASELINE
from mote.harness.science.crossfit import FoldRows, pooled_effect, pooled_null
from mote.harness.science.noise import NoiseFloor, noise_floor
from mote.harness.science.splits import units_of
from mote.harness.science.verdict import Verdict, control_leg, verdict
from mote.harness.store.run import RunStore
from mote.harness.study.controls import (
    answers_end,
    answers_of,
    design_of,
    flips_of_sets,
    stays_of_retests,
    target_prompts,
    tuned_row,
)

_MAY_DIFFER = ("name:", "study.fold:", "model.path:", "model.servers")


class Fold(NamedTuple):
    """What one run measured: the target prompts' flips, tuned and by random set (kind -> flips of each), and all rows.

    ``retests`` says of each retest whether the target prompts stayed; ``rows`` are of all measured prompts.
    """

    name: str
    experts: str
    tuned: Mapping[str, bool]
    sets: Mapping[str, Sequence[int]]
    retests: Sequence[Sequence[bool]]
    rows: FoldRows


class Crossed(NamedTuple):
    """The pooled verdict, net effect, and the folds that they are of."""

    verdict: Verdict
    effect: NetEffect
    folds: tuple[Fold, Fold]
    unit: str


def cross(first: Path, second: Path) -> Crossed:
    """Pool two runs of one recipe with ``study.fold`` 1 and 2.

    Raises MoteError where they are no such two, where one is not finished, and where control families were ended early:
    sets are joined by number, and how many there are must not depend on what they did.
    """
    manifests = [read_manifest(folder) for folder in (first, second)]
    _check([first, second], manifests)
    folds: list[Fold] = []
    units: dict[str, Hashable] = {}
    unit = ""
    for folder, manifest in zip((first, second), manifests, strict=True):
        fold, groups, unit = _read(folder, manifest)
        folds.append(fold)
        units |= groups
    one, two = folds
    if shared := sorted({*one.rows.prompt_ids} & {*two.rows.prompt_ids}):
        raise MoteError(f"{first} and {second} both measure '{shared[0]}': these are not the two folds of one split.")
    asked = [*one.tuned, *two.tuned]
    places = [units.get(prompt, prompt) for prompt in asked]
    legs = []
    for kind in one.sets:
        observed, null = pooled_null(
            {fold.name: sum(fold.tuned.values()) for fold in folds}, {fold.name: fold.sets[kind] for fold in folds}
        )
        legs.append(control_leg(kind, observed, null.tolist()))
    noise = _noise(folds, places)
    return Crossed(
        verdict(legs, noise, len(asked), len(set(places))),
        pooled_effect([fold.rows for fold in folds], units or None),
        (one, two),
        unit,
    )


def _noise(folds: Sequence[Fold], units: Sequence[Hashable]) -> NoiseFloor | None:
    """The folds' retests have the same seeds: the n-th of both is one run of the untouched model over all prompts."""
    number = min(len(fold.retests) for fold in folds)
    if not number:
        return None
    stayed = [[stay for fold in folds for stay in fold.retests[at]] for at in range(number)]
    return noise_floor([not flip for fold in folds for flip in fold.tuned.values()], stayed, units)


def _check(folders: Sequence[Path], manifests: Sequence[Mapping[str, Any]]) -> None:
    recipes = [recipe_of(manifest["recipe"]) for manifest in manifests]
    numbers = sorted(recipe.study.fold for recipe in recipes)
    if numbers != [1, 2]:
        raise MoteError(
            f"{folders[0]} and {folders[1]} are of study.fold {numbers[0]} and {numbers[1]}: make the second one with"
            " --set study.fold=2."
        )
    found = differences(recipes[0].model_dump(mode="json"), recipes[1].model_dump(mode="json"))
    if others := [line for line in found if not line.startswith(_MAY_DIFFER)]:
        raise MoteError(f"{folders[0]} and {folders[1]} are of two recipes: {others[0]}.")
    for name, of in (("models", "model"), ("prompts", "prompts")):
        one, two = (manifest[of].get("files", manifest[of].get("digest")) for manifest in manifests)
        if digest_of(one) != digest_of(two):
            raise MoteError(f"{folders[0]} and {folders[1]} are of different {name}.")
    if recipes[0].study.economy.sequential or (
        recipes[0].study.economy.curtailed and not all(answers_end(manifest) for manifest in manifests)
    ):
        raise MoteError(
            "random sets that end early can't be joined: make both runs with --set study.economy.sequential=false"
            " --set study.economy.curtailed=false."
        )


def _read(folder: Path, manifest: Mapping[str, Any]) -> tuple[Fold, dict[str, Hashable], str]:
    study = recipe_of(manifest["recipe"]).study
    with RunStore(folder, read_only=True) as store:
        frame = store.labels_frame(label_set(manifest["recipe"]).judge)
        split, profiles = store.split(), store.profiles()
        unit, units = units_of({row.prompt_id: row.attributes for row in store.prompts()})
    targets = target_prompts(frame, split, study.target)
    answers = answers_of(frame, study.target)
    tuned = tuned_row(profiles)
    missing = [prompt for prompt in targets if (tuned.name, prompt) not in answers]
    if not targets or missing:
        raise MoteError(f"{folder} has no labelled tuned answers yet: finish it with mote run.")
    flips = {prompt: answers[tuned.name, prompt] for prompt in targets}
    design = design_of(study, flips, targets, profiles, ended=answers_end(manifest))
    sets = flips_of_sets(design, answers)
    for kind, names in design.families.items():
        if missing_sets := len(names) - len(sets[kind]):
            raise MoteError(f"{folder}: {missing_sets} {kind} sets are not done: finish it with mote run.")
    experts = " ".join(f"({edit['layer']},{edit['expert']})" for edit in tuned.spec["edits"])
    stayed = stays_of_retests(answers, targets, profiles)
    each = {kind: list(found.values()) for kind, found in sets.items()}
    return Fold(str(folder), experts, flips, each, stayed, _rows(frame, split, tuned.name, study.target)), units, unit


def _rows(frame: pd.DataFrame, split: Mapping[str, str], tuned: str, target: str) -> FoldRows:
    """Return each measured prompt with a class before and after; a broken text is neither in the class nor out."""
    wide = frame.pivot(index="prompt_id", columns="profile", values="label")[[BASELINE, tuned]].dropna()
    wide = wide[~wide.isin(STATES).any(axis="columns")]
    wide = wide[[split[str(prompt)] == "measure" for prompt in wide.index]]
    return FoldRows([str(prompt) for prompt in wide.index], wide[BASELINE] == target, wide[tuned] == target)
