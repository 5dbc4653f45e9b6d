"""``mote search RUN``: the search of a run and those of its null, on the run's own model, and the ruling.

Experts, factor and winner are chosen on the run's choosing half alone; the held half measures each search's winner
once. What was asked is stored as it comes, proposals follow from seeds and from what is stored, so the same command
goes on with a search that was stopped, and asks nothing for one that is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mote.harness.engine.servers import engine_starter
from mote.harness.engine.trust import NOTHING_OWN, Own
from mote.harness.errors import MoteError
from mote.harness.experts.rankings import CAUSAL, Halves, causal_ranking, pick_rankings, read_halves, seen_rankings
from mote.harness.experts.scan import Tokeniser, spread
from mote.harness.preconditions import DataError
from mote.harness.recipe.manifest import read_manifest
from mote.harness.science.clustered import ClusteredShare, korn_graubard
from mote.harness.science.searching import Arm, Found, Ruling, conduct, draw_arms, rule
from mote.harness.search.measures import EngineMeasures, Held, profile_of
from mote.harness.search.options import SearchOptions
from mote.harness.store.run import RunStore
from mote.harness.store.scans import Scans
from mote.harness.study.session import Session, StartsEngine, open_session
from mote.patches import Profile


class Search(NamedTuple):
    """What ``mote search`` found.

    ``found`` has the run's own search first; ``harms`` the divergence of each one's winner on the held prompts (nats a
    token), in the same order; ``left`` the share of the held prompts of the class that left it under the run's winner,
    with its interval over units; ``profile`` that winner. ``held`` counts the held prompts of the class, and others.
    """

    target: str
    options: SearchOptions
    found: tuple[Found, ...]
    ruling: Ruling
    harms: tuple[float, ...]
    left: ClusteredShare
    held: tuple[int, int]
    unit: str
    profile: Profile


class _Ready(NamedTuple):
    """Everything that is known before an engine is started."""

    halves: Halves
    arms: list[Arm]
    held: Held


def plan_search(folder: Path, options: SearchOptions, console: Console) -> list[Arm]:
    """Say what a search costs and which pool it has, and return its searches; asks nothing, writes nothing.

    Raises MoteError for what is wrong with the run or the options.
    """
    manifest = read_manifest(folder)
    with RunStore(folder, read_only=True) as store:
        ready = _ready(store, manifest, options)
    _announce(ready, manifest, options, console)
    named = ", ".join(f"({layer}, {expert})" for layer, expert in ready.arms[0].pool)
    console.print(f"Pool, the leading experts by {options.by}: {named}", soft_wrap=True)
    return ready.arms


def search_run(
    folder: Path,
    options: SearchOptions,
    console: Console,
    *,
    engine: StartsEngine = engine_starter,
    own: Own = NOTHING_OWN,
    first_tokens: Tokeniser | None = None,
) -> Search:
    """Search a run's experts, or go on with it, and return what was found. Says its cost before it starts.

    Raises MoteError for what is wrong with the run, the options or the engine, before anything is asked.
    """
    import optuna  # noqa: F401 - what is missing is said before an engine is started

    with open_session(folder, console, engine, own) as session:
        ready = _ready(session.store, session.manifest, options)
        session.check_engine()
        measures = EngineMeasures(session, ready.halves, ready.held, options.opening, first_tokens)
        _announce(ready, session.manifest, options, console)
        found = conduct(ready.arms, options.plan, measures)
        return _result(session, ready, options, measures, found)


def _result(
    session: Session, ready: _Ready, options: SearchOptions, measures: EngineMeasures, found: Sequence[Found]
) -> Search:
    harms = measures.held_harm(one.winner for one in found)
    ours = found[0].winner
    left = measures.left(ours) if ours.experts else np.zeros(len(ready.held.targets), dtype=bool)
    units = [ready.halves.units.get(key, key) for key in ready.held.targets]
    return Search(
        target=ready.halves.target,
        options=options,
        found=tuple(found),
        ruling=rule(found),
        harms=tuple(harms[one.winner] for one in found),
        left=korn_graubard(left.astype(float), units),
        held=(len(ready.held.targets), len(ready.held.others)),
        unit=ready.halves.unit,
        profile=profile_of(ours, session.model.layout),
    )


def _ready(store: RunStore, manifest: Mapping[str, Any], options: SearchOptions) -> _Ready:
    halves = read_halves(store, manifest)
    if halves.sides.contrast:
        raise MoteError(
            f"{store.folder} chooses experts by a contrast of prompts; a search shuffles the classes of answers: make a"
            " run without study.contrast."
        )
    halves.check_chosen("a search", 2)
    held = _held(store, halves, options)
    try:
        arms = _arms(store, halves, options)
    except DataError as error:
        raise MoteError(f"--pool {options.pool} of {options.by}: {error}") from None
    return _Ready(halves, arms, held)


def _held(store: RunStore, halves: Halves, options: SearchOptions) -> Held:
    split = store.split()
    rest = [key for key, label in halves.labels.items() if split.get(key) == "measure" and label != halves.target]
    if not halves.measured or not rest:
        of = halves.target if not halves.measured else f"another class than {halves.target}"
        raise MoteError(f"no prompt of the measuring half is of {of}: there is nothing to measure a winner on.")
    some = (
        spread(keys, halves.units, len(keys) if count is None else count, options.seed)
        for keys, count in ((halves.measured, options.held), (rest, options.held_others))
    )
    return Held(*some)


def _arms(store: RunStore, halves: Halves, options: SearchOptions) -> list[Arm]:
    labels = {key: halves.labels[key] for key in halves.ids}
    if all(label == halves.target for label in labels.values()):
        raise MoteError(f"every prompt that chooses is {halves.target}: there is none to bound the harm on.")
    ours = _ranking(store, halves, options)

    def rank(classes: Sequence[str]) -> NDArray[np.float64]:
        if list(classes) == list(labels.values()):
            return ours
        marks = dict(zip(labels, classes, strict=True))
        return seen_rankings(replace(halves, sides=replace(halves.sides, marks=marks)))[options.by]

    def pick(targets: Sequence[str], others: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        return (
            spread(targets, halves.units, options.prompts, options.seed),
            spread(others, halves.units, options.others, options.seed),
        )

    return draw_arms(
        labels, halves.target, rank, pick, halves.mass, halves.layers, options.pool, options.nulls, options.seed
    )


def _ranking(store: RunStore, halves: Halves, options: SearchOptions) -> NDArray[np.float64]:
    if options.by != CAUSAL:
        return pick_rankings(seen_rankings(halves), [options.by])[options.by]
    if options.shuffles:
        raise MoteError(
            "--by causal: a scan is of the class's own prompts, and shuffled classes have none. Take --shuffles 0, or"
            " another ranking."
        )
    return np.nan_to_num(pick_rankings(causal_ranking(halves, Scans(store)), [CAUSAL])[CAUSAL], nan=0.0)


def _announce(ready: _Ready, manifest: Mapping[str, Any], options: SearchOptions, console: Console) -> None:
    kinds = [arm.kind for arm in ready.arms]
    said = f"1 + {kinds.count('shuffled')} of shuffled classes + {kinds.count('pool')} in random pools"
    own = ready.arms[0]
    passes = sum(options.trials * (len(arm.targets) + len(arm.others)) for arm in ready.arms)
    each = options.checked * (len(own.targets) + len(own.others)) + len(ready.held.targets) + len(ready.held.others)
    answers = len(ready.arms) * each
    seconds = manifest.get("seconds_an_answer")
    time = f", {answers * seconds / 60:.0f} min as the baseline's were answered" if seconds else ""
    console.print(
        f"Search: {len(ready.arms)} searches ({said}) x {options.trials} trials x ({len(own.targets)} openings of"
        f" {options.opening} tokens + {len(own.others)} answers) = {passes:,} passes at most; then {options.checked} x"
        f" {len(own.targets) + len(own.others)} and 1 x {len(ready.held.targets) + len(ready.held.others)} answers of"
        f" each: {answers:,} at most{time}. Seed {options.seed}",
        soft_wrap=True,
    )
    for kind, asked in options.nulls.items():
        if (there := kinds.count(kind)) < asked:
            console.print(
                f"! Of {asked} random pools of the same mass only {there} differ from each other.", soft_wrap=True
            )
