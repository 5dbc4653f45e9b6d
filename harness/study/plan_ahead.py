"""A plan without a run: from the baseline of a run that is there, or from a guess. Nothing is generated or stored."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mote.harness.errors import MoteError
from mote.harness.files import digest_of
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.manifest import now, read_manifest
from mote.harness.recipe.schema import Recipe
from mote.harness.recipe.study_part import StudyPart
from mote.harness.science.controls import BASELINE, RANDOM, RETEST
from mote.harness.science.splits import units_of
from mote.harness.science.verdict import ALPHA
from mote.harness.store.run import RunStore
from mote.harness.study.controls import ORDER, target_prompts
from mote.harness.study.foresight import (
    Speed,
    cost_of,
    costs,
    foretell,
    guessed_units,
    primary_endpoint,
    size_of,
    stopping_rule,
)
from mote.harness.study.plan import part_that_measures, parts_of_retests, split_of
from mote.harness.study.prompts import prompts_of, source_of


def plan_by_run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Return the plan of a recipe on the baseline of a run, split as a run of the recipe would split it.

    Raises MoteError where the run asks other prompts, or its baseline is not there whole and labelled.
    """
    manifest = read_manifest(folder)
    judge = label_set(recipe.model_dump(mode="json")).judge
    with RunStore(folder, read_only=True) as store:
        prompts = store.prompts()
        frame = store.generations_frame(judge)
    if manifest["recipe"]["task"]["name"] != recipe.task.name:
        raise MoteError(
            f"{folder} asks the task {manifest['recipe']['task']['name']}, the recipe {recipe.task.name}: a baseline"
            " tells nothing of other prompts."
        )
    for name, digest in source_of(recipe).items():
        if name.endswith("sha256") and digest != manifest["prompts"].get(name):
            source = recipe.task.file or (recipe.task.hub and recipe.task.hub.called)
            raise MoteError(f"{folder} asks the prompts of another file than {source} is now.")
    baseline = frame[(frame["profile"] == BASELINE) & frame["label"].notna()]
    if len(baseline) < len(prompts) or not prompts:
        raise MoteError(
            f"{folder}: {len(baseline)} of {len(prompts)} baseline answers are labelled by '{judge}'; `mote run` goes"
            " on with it."
        )
    labels = dict(zip(baseline["prompt_id"].map(str), baseline["label"].map(str), strict=True))
    attributes = {row.prompt_id: row.attributes for row in prompts}
    units, contrast = units_of(attributes)[1], recipe.study.contrast
    split = split_of(recipe.study, labels, units, None if contrast is None else contrast.marks(attributes))
    targets = target_prompts(baseline, split, recipe.study.target)
    measured = [prompt for prompt in labels if not split or split[prompt] == "measure"]
    speed = Speed(float(baseline["generated_tokens"].mean()), manifest.get("seconds_an_answer", math.nan))
    where = [units.get(prompt, prompt) for prompt in targets]
    return _plan(recipe, targets, measured, len(labels), where, speed)


def plan_by_guess(recipe: Recipe, share: float, units: int | None = None) -> dict[str, Any]:
    """Return the plan of a recipe whose class is guessed to have a share of the prompts, in so many units.

    Raises MoteError for prompts that are not there, as ``prompts_of``.
    """
    asked = prompts_of(recipe)
    known = units_of({one.prompt_id: one.attributes for one in asked})[1]
    half = recipe.study.split != "none"
    where = guessed_units([known.get(one.prompt_id, one.prompt_id) for one in asked], share, half, units)
    measured = [one.prompt_id for one in asked][: math.ceil(len(asked) / (2 if half else 1))]
    return _plan(recipe, measured[: len(where)], measured, len(asked), where, Speed(math.nan, math.nan))


def _plan(
    recipe: Recipe,
    targets: Sequence[str],
    measured: Sequence[str],
    prompts: int,
    units: Sequence[Hashable],
    speed: Speed,
) -> dict[str, Any]:
    study = recipe.study
    tuned = f"suppress-{len(study.experts) if study.experts is not None else study.top_k}"
    decided: dict[str, Any] = {
        "recipe": recipe.digest,
        "primary": primary_endpoint(study, tuned),
        "target": {"class": study.target, "prompts": len(targets), "units": len(set(units))},
        "tuned": {"profile": tuned},
        "controls": {
            "sets": {kind: count for kind in ORDER if (count := getattr(study.controls, kind))},
            "retests": study.controls.retest,
        },
        "margin": study.margin,
        "alpha": ALPHA,
        "stopping": stopping_rule(study),
    }
    cost = costs(study, _profiles(study), prompts, measured, targets)
    return {
        "digest": digest_of(decided),
        "written": now(),
        **decided,
        "power": foretell(size_of(study, units)),
        "cost": cost_of(cost, speed),
    }


def _profiles(study: StudyPart) -> Mapping[str, str]:
    """Return name -> part of the profiles that a recipe asks for, before their experts are known."""
    part = part_that_measures(study)
    doses = set() if study.experts is not None else set(study.doses) - {study.top_k}
    retests = {f"{RETEST}-{at}": where for at, where in enumerate(parts_of_retests(study))}
    whole = ["suppress", *(f"dose-{k}" for k in doses)]
    some = [*(f"scale-{factor:g}" for factor in set(study.factors)), *(["early", "middle", "late"] * study.thirds)]
    found = dict.fromkeys([*whole, *(["stimulate"] * study.stimulate)], "all") | dict.fromkeys(some, part)
    sets = {f"{RANDOM}{kind}-{at}": part for kind in ORDER for at in range(getattr(study.controls, kind))}
    return retests | found | sets
