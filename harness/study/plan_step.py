"""The step between the baseline and the first tuned answer: experts, controls, power and cost, written down."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

from mote.harness.errors import MoteError
from mote.harness.files import write_atomic
from mote.harness.recipe.manifest import write_manifest
from mote.harness.science.controls import BASELINE, KINDS
from mote.harness.science.splits import units_of
from mote.harness.science.verdict import PROMPTS
from mote.harness.study.controls import target_prompts
from mote.harness.study.foresight import PLAN_NAME, Speed, as_json, costs, lines_of, plan_document
from mote.harness.study.plan import PAPER, make_plan
from mote.harness.study.session import Session


def plan_run(session: Session, labels: Mapping[str, str]) -> None:
    """Choose experts and draw controls, unless that was done; print and write the plan before any tuned answer.

    ``labels`` are those of the baseline. Raises MoteError for fewer target prompts than a verdict asks for, unless the
    manifest says ``forced``; then nothing is stored but the baseline.
    """
    store, manifest = session.store, session.manifest
    if not any(row.kind not in (BASELINE, PAPER) for row in store.profiles()):
        _choose(session, labels)
    if "plan" not in manifest and not _tuned_answers(session):
        _write(session)
    manifest["profiles"] = {row.name: row.digest for row in store.profiles()}
    write_manifest(session.folder, manifest)


def _choose(session: Session, known: Mapping[str, str]) -> None:
    store, recipe = session.store, session.recipe
    role = recipe.study.role
    ids, maps, counted = store.maps(BASELINE, role)
    if not ids:
        raise MoteError(f"study.role: no answer of the baseline has a token of the role '{role}': take another role.")
    labels = {row.prompt_id: known[row.prompt_id] for row in store.prompts()}
    contrast = recipe.study.contrast
    marks = None if contrast is None else contrast.marks(_attributes(session))
    tokens = [seen for seen, _ in counted]
    seed, layout = recipe.sampling.seed, session.model.layout
    plan = make_plan(recipe.study, layout, labels, maps, seed, _units(session), marks, tokens, ids)
    target = recipe.study.target
    count = sum(
        label == target and (not plan.split or plan.split[prompt] == "measure") for prompt, label in labels.items()
    )
    if count < PROMPTS and not session.manifest.get("forced"):
        raise MoteError(
            f"{count} {target} prompts to measure on (of {sum(label == target for label in labels.values())} in the"
            f" baseline); a verdict needs {PROMPTS}. Ask more prompts, or go on without a verdict with --force."
        )
    drawn = Counter(row.kind.removeprefix("random-") for row in plan.profiles)
    for kind in KINDS:
        asked: int = getattr(recipe.study.controls, kind)
        if drawn[kind] < asked:
            session.console.print(f"Only {drawn[kind]} distinct sets by {kind} were found, of {asked} asked for.")
    store.add_plan(plan.profiles, plan.split)


def _write(session: Session) -> None:
    store, manifest, study = session.store, session.manifest, session.recipe.study
    frame = store.generations_frame(session.labels.judge)
    baseline = frame[frame["profile"] == BASELINE]
    split = store.split()
    targets = target_prompts(frame, split, study.target)
    units = _units(session)
    rows = [row for row in store.profiles() if row.kind not in (BASELINE, PAPER)]
    measured = [str(prompt) for prompt in baseline["prompt_id"] if not split or split[str(prompt)] == "measure"]
    cost = costs(study, {row.name: row.part for row in rows}, len(baseline), measured, targets)
    speed = Speed(float(baseline["generated_tokens"].mean()), manifest.get("seconds_an_answer", math.nan))
    plan = plan_document(session.recipe, rows, targets, [units.get(one, one) for one in targets], cost, speed)
    for line in lines_of(plan):
        session.console.print(line, soft_wrap=True)
    manifest["plan"] = plan
    write_manifest(session.folder, manifest)
    write_atomic(session.folder / PLAN_NAME, as_json(plan))


def _tuned_answers(session: Session) -> bool:
    """Return whether answers under the plan's profiles are there: a plan that is written now would be none."""
    planned = {row.name for row in session.store.profiles() if row.kind not in (BASELINE, PAPER)}
    return any(profile in planned for _, profile in session.store.stored())


def _units(session: Session) -> dict[str, Hashable]:
    return units_of(_attributes(session))[1]


def _attributes(session: Session) -> dict[str, Mapping[str, Any]]:
    return {row.prompt_id: row.attributes for row in session.store.prompts()}
