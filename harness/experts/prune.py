"""``mote prune RUN``: which of the distinctive experts are needed for their effect, on the engine.

Experts are taken out one by one (``pruning``), on the prompts of the class under study that chose them; what is left is
then measured on those of the other half, which took no part. Every answer is stored as it comes, so the same command
goes on with a pruning that was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from mote.harness.engine.log import EngineLog
from mote.harness.engine.vllm import Engine, check_engine
from mote.harness.errors import MoteError
from mote.harness.experts.comparison import answer_judge, answer_missing
from mote.harness.experts.rankings import Halves, read_halves
from mote.harness.experts.scan import OpenRun, engine_of, open_run
from mote.harness.preconditions import STATES, DataError
from mote.harness.progress import step
from mote.harness.science.controls import Expert
from mote.harness.science.pruning import Candidate, Pruning, advance, candidates, rounds_cost, start
from mote.harness.science.resonance import distinctive_experts, resonance
from mote.harness.store.answers import RankingAnswers
from mote.harness.store.prunings import COLUMNS, add_pruning
from mote.harness.store.run import RunStore
from mote.patches import Edit, Profile


class _Bench(NamedTuple):
    """What measures a profile: flips among prompts, from stored answers or new ones."""

    run: OpenRun
    halves: Halves
    answers: RankingAnswers
    engine: Callable[[], Engine]
    console: Console
    judge: Callable[[pd.DataFrame], list[str]]


def prune_run(
    folder: Path,
    k: int,
    keep: float,
    console: Console,
    *,
    engine: Callable[[OpenRun, Console], Callable[[], Engine]] = engine_of,
) -> pd.DataFrame:
    """Prune the top ``k`` of a run's resonance to those that keep the share ``keep`` of its flips; return the rounds.

    The frame has the columns of ``store.prunings.COLUMNS``, a row a round, the first of them with all experts. Says its
    cost first. Raises MoteError for a run without a split, a k that the ranking lacks, and no effect at all.
    """
    if not 0 < keep <= 1:
        raise MoteError(f"--keep {keep:g}: the share of the effect that is to remain lies above 0 and up to 1.")
    run = open_run(folder)
    with RunStore(folder, existing=True) as store, EngineLog(console) as log:
        log.keep(folder / "vllm.log")
        halves = read_halves(store, run.manifest)
        try:
            ranked = distinctive_experts(resonance(halves.maps, halves.classes, halves.target), k, halves.layers)
        except DataError as error:
            raise MoteError(f"--k {k}: {error}") from None
        experts = tuple(sorted((score.layer, score.expert) for score in ranked))
        check_engine(run.recipe, run.model.path)
        console.print(
            f"Pruning: at most 1 + {rounds_cost(k):,} profiles x {len(halves.chosen):,} prompts, and 2 x"
            f" {len(halves.measured):,} to measure what is left;"
            f" {(1 + rounds_cost(k)) * len(halves.chosen) + 2 * len(halves.measured):,} answers at most",
            soft_wrap=True,
        )
        with RankingAnswers(store.path) as answers:
            starter = engine(run, console)
            judge = answer_judge(store.path, run, halves, starter, console)
            bench = _Bench(run, halves, answers, starter, console, judge)
            rounds = _prune(bench, experts, keep)
        settings = {"experts": [list(expert) for expert in experts], "keep": keep, "target": halves.target}
        add_pruning(store.path, {**settings, "judge": halves.label_set.judge}, rounds)
    return rounds


def _prune(bench: _Bench, experts: Candidate, keep: float) -> pd.DataFrame:
    chosen, measured = bench.halves.chosen, bench.halves.measured
    whole = _flips(bench, [experts], chosen)[experts]
    if not whole:
        raise MoteError(
            f"the top {len(experts)} flip none of the {len(chosen)} prompts that chose them: there is nothing to keep."
            " Take a larger --k."
        )
    state = start(experts, whole / len(chosen), keep)
    while asked := candidates(state):
        flips = _flips(bench, asked, chosen)
        state = advance(state, {one: flips[one] / len(chosen) for one in asked})
    unseen = _flips(bench, [experts, state.experts], measured) if measured else {}
    return _rounds(
        state, experts, whole / len(chosen), keep, (unseen.get(state.experts), unseen.get(experts)), len(measured)
    )


def _rounds(
    state: Pruning, experts: Candidate, whole: float, keep: float, unseen: tuple[int | None, int | None], measured: int
) -> pd.DataFrame:
    left = [(0, len(experts), whole, "")]
    left += [
        (number, len(experts) - number, one.effect, _name(one.dropped))
        for number, one in enumerate(state.rounds, start=1)
    ]
    kept = " ".join(map(_name, state.experts))
    hits, all_hits = unseen
    share = hits / measured if hits is not None and measured else None
    rest = (state.floor, keep, kept, hits, measured, share, all_hits)
    rows = [(number, size, effect, dropped, *rest) for number, size, effect, dropped in left]
    return pd.DataFrame(rows, columns=COLUMNS)


def _name(expert: Expert) -> str:
    return f"({expert[0]}, {expert[1]})"


def _flips(bench: _Bench, sets: Sequence[Candidate], prompts: Sequence[str]) -> dict[Candidate, int]:
    """Return how many prompts leave the class under each set of experts; all sets in one batch."""
    profiles = {
        one: Profile("pruned", tuple(Edit(*e, "suppress") for e in one), model=bench.run.model.layout) for one in sets
    }
    done = bench.answers.done()
    missing = [(p, key) for p in profiles.values() for key in prompts if (p.digest, key) not in done]
    if missing:
        with step(bench.console, f"{len(sets)} profiles of {len(sets[-1])} experts", len(missing)) as advance_bar:
            for count in answer_missing(missing, bench.halves, bench.answers, bench.run, bench.engine()):
                advance_bar(count)
    return _counted(bench, {profile.digest: one for one, profile in profiles.items()}, set(prompts))


def _counted(bench: _Bench, sets: dict[str, Candidate], prompts: set[str]) -> dict[Candidate, int]:
    frame = bench.answers.answers()
    frame = frame[frame["profile_digest"].isin(set(sets)) & frame["prompt_id"].isin(prompts)]
    frame = frame.assign(label=bench.judge(frame))
    flipped = frame[~frame["label"].isin([bench.halves.target, *STATES])]
    counts = flipped.groupby("profile_digest").size()
    return {one: int(counts.get(digest, 0)) for digest, one in sets.items()}
