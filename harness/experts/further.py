"""What a recipe has measured after its study: further rankings, the thirds' controls, and the other way to switch off.

The first ranking is the study's own and has the study's verdict. Each further one gets its top experts, as many, and
its own random sets, chosen as often in sum, on the same measuring prompts; their p is corrected for how many they are.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from mote.harness.engine.trust import Own
from mote.harness.experts.comparison import RankingOptions, rank_run
from mote.harness.experts.deactivated import deactivated_run
from mote.harness.experts.output import write_rankings, write_scan
from mote.harness.experts.rankings import CAUSAL, causal_effects
from mote.harness.experts.scan import ScanOptions, scan_run
from mote.harness.experts.thirds import thirds_run
from mote.harness.recipe.schema import Recipe
from mote.harness.store.run import RunStore
from mote.harness.store.scans import Scans
from mote.harness.study.session import StartsEngine


def further_rankings(recipe: Recipe, console: Console) -> tuple[str, ...]:
    """Return the rankings that a recipe names beside the study's own; says which are left out, and why."""
    study = recipe.study
    names = tuple(name for name in study.rankings if name != study.ranking)
    reasons = {
        "study.split none leaves no unseen prompt to measure them on": study.split == "none",
        "answers under further experts are labelled by rules alone, not by judges.llm": recipe.judges.llm is not None,
    }
    why = next((reason for reason, holds in reasons.items() if holds), None)
    if names and why is not None:
        console.print(f"! study.rankings: {', '.join(names)} left out: {why}.", soft_wrap=True)
        return ()
    return names


def measure_further(
    folder: Path, recipe: Recipe, names: tuple[str, ...], console: Console, engine: StartsEngine
) -> None:
    """Measure what a finished study's recipe names beside it, a causal scan first where one is named.

    ``recipe`` is the user's own, whose model and options are taken as they are. What was measured is stored as it
    comes, and the same call goes on. Raises MoteError as ``scan_run``, ``rank_run``, ``thirds_run`` and
    ``deactivated_run``.
    """
    own, study = _own(recipe), recipe.study
    if CAUSAL in names:
        scan = scan_run(folder, ScanOptions(prompts=study.scan_prompts), console, engine=engine, own=own)
        with RunStore(folder, read_only=True) as store:
            write_scan(causal_effects(Scans(store), scan), folder)
    if names:
        options = RankingOptions((study.top_k,), study.ranking_sets, names, seed=study.seed)
        write_rankings(rank_run(folder, options, console, engine=engine, own=own), folder)
    if study.thirds and study.third_sets:
        thirds_run(folder, study.third_sets, console, engine, own)
    if study.deactivated_sets:
        deactivated_run(folder, study.deactivated_sets, console, engine, own)


def _own(recipe: Recipe) -> Own:
    servers = recipe.model.servers
    return Own(
        None if recipe.model.path == "demo" else recipe.model.path,
        recipe.model.options,
        () if servers is None else tuple(servers.urls),
        None if servers is None else servers.key_env,
        None if recipe.task.classes is None else recipe.task.classes.function,
    )
