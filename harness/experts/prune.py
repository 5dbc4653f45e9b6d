"""``mote prune RUN``: which of the distinctive experts are needed for their effect, on the engine.

Experts are taken out one by one (``pruning``), on the prompts of the class under study that chose them, of a contrast
those of its first set; what is left is then measured on those of the other half, which took no part. Every answer is
stored as it comes, so the same command goes on with a pruning that was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from mote.harness.engine.servers import engine_starter
from mote.harness.engine.trust import NOTHING_OWN, Own
from mote.harness.errors import MoteError
from mote.harness.experts.asking import Asking, switched_off
from mote.harness.experts.rankings import read_halves, seen_rankings
from mote.harness.preconditions import STATES, DataError
from mote.harness.progress import step
from mote.harness.science.controls import Expert
from mote.harness.science.pruning import Candidate, Pruning, advance, candidates, rounds_cost, start
from mote.harness.science.resonance import distinctive_experts
from mote.harness.store.prunings import COLUMNS, add_pruning
from mote.harness.study.session import StartsEngine, open_session


def prune_run(
    folder: Path,
    k: int,
    keep: float,
    console: Console,
    *,
    engine: StartsEngine = engine_starter,
    own: Own = NOTHING_OWN,
) -> pd.DataFrame:
    """Prune the top ``k`` of a run's own ranking to those that keep the share ``keep`` of its flips; return the rounds.

    The frame has the columns of ``store.prunings.COLUMNS``, a row a round, the first of them with all experts. Says its
    cost first. Raises MoteError for a run without a split, a k that the ranking lacks, and no effect at all.
    """
    if not 0 < keep <= 1:
        raise MoteError(f"--keep {keep:g}: the share of the effect that is to remain lies above 0 and up to 1.")
    with open_session(folder, console, engine, own) as session:
        halves = read_halves(session.store, session.manifest)
        halves.check_chosen("a pruning", 1)
        try:
            ranked = distinctive_experts(seen_rankings(halves)[session.recipe.study.ranking], k, halves.layers)
        except DataError as error:
            raise MoteError(f"--k {k}: {error}") from None
        experts = tuple(sorted((score.layer, score.expert) for score in ranked))
        session.check_engine()
        console.print(
            f"Pruning: at most 1 + {rounds_cost(k):,} profiles x {len(halves.chosen):,} prompts, and 2 x"
            f" {len(halves.measured):,} to measure what is left;"
            f" {(1 + rounds_cost(k)) * len(halves.chosen) + 2 * len(halves.measured):,} answers at most",
            soft_wrap=True,
        )
        rounds = _prune(Asking(session, halves, "pruning"), experts, keep)
        settings = {"experts": [list(expert) for expert in experts], "keep": keep, "target": halves.target}
        add_pruning(session.store, {**settings, "judge": halves.label_set.judge}, rounds)
    return rounds


def _prune(asking: Asking, experts: Candidate, keep: float) -> pd.DataFrame:
    chosen, measured = asking.halves.chosen, asking.halves.measured
    whole = _flips(asking, [experts], chosen)[experts]
    if not whole:
        raise MoteError(
            f"the top {len(experts)} flip none of the {len(chosen)} prompts that chose them: there is nothing to keep."
            " Take a larger --k."
        )
    state = start(experts, whole / len(chosen), keep)
    while asked := candidates(state):
        flips = _flips(asking, asked, chosen)
        state = advance(state, {one: flips[one] / len(chosen) for one in asked})
    unseen = _flips(asking, [experts, state.experts], measured) if measured else {}
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


def _flips(asking: Asking, sets: Sequence[Candidate], prompts: Sequence[str]) -> dict[Candidate, int]:
    """Return how many prompts leave the class under each set of experts; all sets in one batch."""
    profiles = {one: switched_off("pruned", one, asking.session.model.layout) for one in sets}
    missing = asking.missing(profiles.values(), prompts)
    if missing:
        title = f"{len(sets)} profiles of {len(sets[-1])} experts"
        with step(asking.session.console, title, len(missing)) as advance_bar:
            for count in asking.ask(missing):
                advance_bar(count)
    frame = asking.labelled(profiles.values(), prompts)
    flipped = frame[~frame["label"].isin([asking.halves.target, *STATES])]
    counts = flipped.groupby("profile_digest").size()
    return {one: int(counts.get(profile.digest, 0)) for one, profile in profiles.items()}
