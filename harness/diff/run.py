"""``mote diff RUN OTHER``: what a sibling of a model does otherwise, by two finished runs of one recipe.

Classes, maps and routes are read from the runs. Effects are asked: both models answer the prompts that chose nothing,
untouched and under the same edits, with seeds other than the baselines' (whose answers chose the prompts). Answers are
stored in both runs as they come, so the same command goes on, and asks nothing when all is there.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console

from mote.harness.diff.baselines import Classes, class_changes, map_tables, scan_difference
from mote.harness.diff.effects import Labels, effect_tables
from mote.harness.diff.engines import one_at_a_time
from mote.harness.diff.plan import DiffOptions, Plan, make_plan
from mote.harness.diff.sides import Side, check_layout, models_of, notes_of, read_sides
from mote.harness.engine.trust import NOTHING_OWN, Own
from mote.harness.experts.asking import Asking
from mote.harness.experts.rankings import read_halves
from mote.harness.progress import step
from mote.harness.recipe.schema import Recipe
from mote.harness.science.verdict import PROMPTS, UNITS
from mote.harness.study.run import check
from mote.harness.study.run import run as run_study
from mote.harness.study.session import StartsEngine, open_session


class Diff(NamedTuple):
    """What ``mote diff`` found: two models' names, and everything set side by side.

    ``maps`` has the columns of ``map_difference.MAP_COLUMNS`` and ``routing``; ``tops`` those of ``TOP_COLUMNS``;
    ``effects`` and ``sets`` those of ``diff.effects``; ``experts`` is None unless both runs have like scans.
    """

    names: tuple[str, str]
    classes: Classes
    maps: pd.DataFrame
    tops: pd.DataFrame
    effects: pd.DataFrame
    sets: pd.DataFrame
    experts: pd.DataFrame | None
    unit: str
    notes: tuple[str, ...]
    settings: dict[str, Any]


def diff_runs(
    folder: Path,
    other: Path,
    options: DiffOptions,
    console: Console,
    *,
    dry_run: bool = False,
    engine: StartsEngine | None = None,
    own: tuple[Own, Own] = (NOTHING_OWN, NOTHING_OWN),
) -> Diff | None:
    """Set two finished runs side by side, or go on with it; None for a dry run. Says its cost before it asks.

    Raises MoteError for runs that differ in more than the model, and for what is wrong with a run, the options or the
    engine, before anything is asked.
    """
    first, second = read_sides(folder, other)
    models_of((first, second), own)
    plan = make_plan(first, second, options)
    notes = notes_of(first, second)
    _announce(first, second, plan, notes, console)
    if dry_run:
        return None
    starter = engine or one_at_a_time()
    # The other's first: where a study of it was just made, its engine is the one at hand.
    theirs = _ask(second, plan, console, starter, own[1])
    ours = _ask(first, plan, console, starter, own[0])
    halves = first.halves
    maps, tops = map_tables(first, second, options.seed)
    effects, sets = effect_tables(plan, ours, theirs, halves.units, halves.target)
    return Diff(
        (first.name, second.name), class_changes(first, second), maps, tops, effects, sets,
        scan_difference(first, second), halves.unit, tuple(notes), plan.settings(options),
    )  # fmt: skip


def run_both(
    recipes: tuple[Recipe, Recipe], folders: tuple[Path, Path], console: Console, starter: StartsEngine
) -> None:
    """Run one recipe on two models, or go on with it; both are checked first. Raises MoteError as ``study.run``."""
    studies = [check(recipe) for recipe in recipes]
    first, second = (study.manifest["model"] for study in studies)
    check_layout((recipes[0].model.path, recipes[1].model.path), first["layout"], second["layout"])
    for study, folder in zip(studies, folders, strict=True):
        # What a verdict would be too small for is said beside the difference instead.
        run_study(study, folder, console, engine=starter, force=True)


def _announce(first: Side, second: Side, plan: Plan, notes: list[str], console: Console) -> None:
    say = partial(console.print, soft_wrap=True, markup=False)
    sets = sum(len(one.controls) for one in plan.edits)
    say(
        f"{first.name} against {second.name}: {len(plan.edits)} edits x {len(plan.seeds)} seeds and {sets} random sets"
        f" on {len(plan.prompts)} prompts, {plan.cost:,} answers of each model at most."
    )
    for one in plan.edits:
        say(f"  {one.name}: {' '.join(map(str, one.experts))}")
    units = {first.halves.units.get(key, key) for key in plan.prompts}
    if len(plan.prompts) < PROMPTS or len(units) < UNITS:
        say(f"! {len(plan.prompts)} prompts in {len(units)} units are too few to say that an effect changed.")
    for note in notes:
        say(f"! {note}")


def _ask(side: Side, plan: Plan, console: Console, engine: StartsEngine, own: Own) -> Labels:
    """Return a model's labels under every profile and seed of the plan; what is missing is asked and stored."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    with open_session(side.folder, console, engine, own) as session:
        halves = read_halves(session.store, session.manifest)
        session.check_engine()
        for seed, profiles in plan.asked():
            asking = Asking(session, halves, "ranking", seed)
            if missing := asking.missing(profiles, plan.prompts):
                with step(console, f"{side.name}, seed {seed}", len(missing)) as advance:
                    for count in asking.ask(missing):
                        advance(count)
            frame = asking.labelled(profiles, plan.prompts)
            for digest, prompt, label in zip(frame["profile_digest"], frame["prompt_id"], frame["label"], strict=True):
                found.setdefault((str(digest), seed), {})[str(prompt)] = str(label)
    return found
