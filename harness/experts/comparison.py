"""``mote rankings RUN``: every ranking's top experts switched off, on prompts that chose no expert, among controls.

Rankings are made on the choosing half; their top k, and random sets matched to each, are generated on the measuring
half's prompts of the class under study, by the run's own model, sampling and seeds, so that a ranking's row says what
the run's report says of a profile with the same experts. Labels are those of the run's own judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from mote.harness.engine.servers import engine_starter
from mote.harness.engine.trust import NOTHING_OWN, Own
from mote.harness.engine.vllm import Request
from mote.harness.errors import MoteError
from mote.harness.experts.agreement import (
    LEAST,
    Agreement,
    TopSet,
    agreement,
    compared,
    falls_of,
    flips_table,
    overlap,
    plan_sets,
    reliability,
)
from mote.harness.experts.asking import Asking, Off, switched_off
from mote.harness.experts.maps import CAPTURE, CAPTURED, add_maps, captured
from mote.harness.experts.rankings import (
    CAUSAL,
    Halves,
    causal_ranking,
    causal_scan,
    frame_of,
    pick_rankings,
    read_halves,
    seen_rankings,
    unit_names,
)
from mote.harness.experts.scan import spread
from mote.harness.progress import step
from mote.harness.science.causal import scan_margins
from mote.harness.science.controls import Expert
from mote.harness.store.scans import Scans
from mote.harness.study.session import Session, StartsEngine, open_session
from mote.patches import EMPTY_PROFILE, ModelLayout, Profile

Labels = dict[tuple[Expert, ...], dict[str, str]]


class Answered(NamedTuple):
    """By set of experts: the label of each prompt, and the prompts whose answer names what they ask about."""

    labels: Labels
    named: dict[tuple[Expert, ...], set[str]] | None


@dataclass(frozen=True)
class RankingOptions:
    """What to compare: the top ``ks`` of the rankings ``names`` (None: all), each among ``sets`` matched sets.

    ``limit`` takes that many prompts of the measuring half; ``scan`` the causal scan of that number, None the largest.
    """

    ks: tuple[int, ...] = (5, 10, 20)
    sets: int = 20
    names: tuple[str, ...] | None = None
    limit: int | None = None
    seed: int = 0
    scan: int | None = None


class Rankings(NamedTuple):
    """What ``mote rankings`` found.

    ``table``: one row a ranking and k (``agreement.flips_table``) with spearman, spearman_low, spearman_high and
    experts_compared (nan without a scan), shared and chance (experts in common with the scan's top k).
    ``experts``: every expert's score and rank in every ranking. ``reliability`` of the scan, and the scan in words.
    """

    table: pd.DataFrame
    experts: pd.DataFrame
    reliability: float
    scan: str
    unit: str


class _Scan(NamedTuple):
    """A causal scan that rankings can be compared with: its name, its ranking, and each prompt's falls."""

    title: str
    ranking: NDArray[np.float64]
    falls: NDArray[np.float64]


class _Plan(NamedTuple):
    sets: list[TopSet]
    prompts: list[str]
    found: Mapping[str, NDArray[np.float64]]


def rank_run(
    folder: Path,
    options: RankingOptions,
    console: Console,
    *,
    engine: StartsEngine = engine_starter,
    own: Own = NOTHING_OWN,
) -> Rankings:
    """Generate what is missing of a run's comparison of rankings, and return the comparison. Says its cost first.

    Raises MoteError for what is wrong with the run, the options or the engine; what was generated is stored as it
    comes.
    """
    with open_session(folder, console, engine, own) as session:
        halves = read_halves(session.store, session.manifest)
        scan = _scan(halves, Scans(session.store), options.scan, console)
        causal = {} if scan is None else {CAUSAL: scan.ranking}
        _check(halves, causal, options)
        if halves.weights is None and (options.names is None or set(options.names) & set(CAPTURED)):
            _capture(session, halves)
            halves = read_halves(session.store, session.manifest)
        picked = pick_rankings({**seen_rankings(halves), **causal}, options.names)
        sets = plan_sets(picked, options.ks, options.sets, halves.mass, halves.layers, options.seed)
        plan = _Plan(sets, _measured(halves, options), picked)
        answered = answer_sets(Asking(session, halves, "ranking"), plan.sets, plan.prompts)
        with console.status("Statistics"):
            return _compare(plan, halves, scan, options, answered)


def _scan(halves: Halves, scans: Scans, number: int | None, console: Console) -> _Scan | None:
    """Return the scan of that number (None: the largest), or None, which is said, where it has too few experts yet."""
    scan = causal_scan(scans.scans(), number)
    if scan is None:
        return None
    falls = falls_of(scan_margins(scans.scores(scan.scan_id), scan.openings), halves.layers, halves.experts)
    ready = int(compared(halves, falls).sum()) if len(falls) else 0
    if ready < LEAST:
        console.print(
            f"Scan {scan.scan_id} ({scan.title}) is left out: {ready} of its experts were seen and are measured on all"
            f" prompts, and a comparison needs {LEAST}. mote scan goes on with it.",
            soft_wrap=True,
        )
        return None
    return _Scan(scan.title, causal_ranking(halves, scans, number)[CAUSAL], falls)


def _check(halves: Halves, causal: Mapping[str, NDArray[np.float64]], options: RankingOptions) -> None:
    """Refuse what can be told wrong before an engine is started."""
    known = {**seen_rankings(halves), **causal}
    picked = pick_rankings({**known, **dict.fromkeys(CAPTURED, halves.frequency)}, options.names)
    # Who is at the top of a ranking that is not captured yet is not known, nor are all the matched sets needed.
    there = {name: known[name] for name in picked if name in known}
    plan_sets(there, options.ks, 0, halves.mass, halves.layers, options.seed)
    _measured(halves, options)


def _capture(session: Session, halves: Halves) -> None:
    """Capture the maps that a run does not have by itself, of the prompts of the choosing half."""
    there = captured(session.store)
    missing = [key for key in halves.ids if key not in there]
    session.check_engine()
    session.console.print(f"Rankings: {len(missing):,} prompts for router weights and last tokens", soft_wrap=True)
    requests = [
        Request(key, halves.prompts[key].messages, EMPTY_PROFILE, session.seed_of(key), CAPTURE) for key in missing
    ]
    with step(session.console, "Router weights", len(missing)) as advance:
        for some in session.engine.generate(requests):
            add_maps(session.store, [answer for _, answer in some])
            advance(len(some))


def _measured(halves: Halves, options: RankingOptions) -> list[str]:
    if not halves.measured:
        raise MoteError(f"no prompt of the measuring half is {halves.target}: there is nothing to flip.")
    return spread(halves.measured, halves.units, options.limit or len(halves.measured), options.seed)


def answer_sets(asking: Asking, sets: Sequence[TopSet], prompts: Sequence[str], off: Off = "suppress") -> Answered:
    """Generate the answers under top sets and their controls that are not there, and label all; says the cost first."""
    session = asking.session
    profiles = _profiles(sets, session.model.layout, off)
    missing = asking.missing(profiles.values(), prompts)
    total = len(profiles) * len(prompts)
    controls = sum(len(one.controls) for one in sets)
    stored = f"; {total - len(missing):,} of them stored" if len(missing) < total else ""
    session.console.print(
        f"Rankings: {len(sets):,} top sets + {controls:,} matched sets = {len(profiles):,} different ones"
        f" x {len(prompts):,} prompts = {total:,} answers{stored}",
        soft_wrap=True,
    )
    if missing:
        session.check_engine()
        with step(session.console, "Answers", total, total - len(missing)) as advance:
            for count in asking.ask(missing):
                advance(count)
    return _answered(asking, profiles, prompts)


def _profiles(sets: Sequence[TopSet], layout: ModelLayout, off: Off) -> dict[tuple[Expert, ...], Profile]:
    """One profile a set of experts: first the top ones, then one control after another of all of them."""
    rounds = [[one.experts for one in sets]]
    most = max((len(one.controls) for one in sets), default=0)
    rounds += [[one.controls[at] for one in sets if at < len(one.controls)] for at in range(most)]
    wanted = dict.fromkeys(tuple(sorted(experts)) for each in rounds for experts in each)
    return {experts: switched_off(off, experts, layout, off) for experts in wanted}


def _answered(asking: Asking, profiles: Mapping[tuple[Expert, ...], Profile], prompts: Sequence[str]) -> Answered:
    frame = asking.labelled(profiles.values(), prompts)
    by_digest = {str(digest): rows.set_index("prompt_id") for digest, rows in frame.groupby("profile_digest")}
    answers = {experts: by_digest[profile.digest] for experts, profile in profiles.items()}
    labels = {
        experts: {str(key): str(label) for key, label in rows["label"].reindex(list(prompts)).items()}
        for experts, rows in answers.items()
    }
    names = unit_names(asking.halves)
    if not all(key in names for key in prompts):
        return Answered(labels, None)
    answer_of = cache(asking.answer_of)
    named = {
        experts: {
            key
            for key, raw, opens in rows[["raw", "prompt_opens"]].itertuples()
            if names[key] in answer_of(raw, opens).casefold()
        }
        for experts, rows in answers.items()
    }
    return Answered(labels, named)


def _compare(plan: _Plan, halves: Halves, scan: _Scan | None, options: RankingOptions, answered: Answered) -> Rankings:
    table = flips_table(
        plan.sets, answered.labels, halves.units, halves.mass, halves.layers, halves.target, answered.named
    )
    agreements: dict[str, Agreement] = {}
    own = float("nan")
    shared = pd.DataFrame(columns=["ranking", "k", "shared", "chance"])
    if scan is not None:
        agreements = agreement(halves, scan.falls, seed=options.seed)
        own = reliability(halves, scan.falls, seed=options.seed)
        shared = overlap({**plan.found, CAUSAL: scan.ranking}, options.ks)
    nothing = Agreement(0, float("nan"), float("nan"), float("nan"))
    each = [agreements.get(str(name), nothing) for name in table["ranking"]]
    table["experts_compared"] = [one.experts for one in each]
    table["spearman"], table["spearman_low"], table["spearman_high"] = (
        [one.spearman for one in each],
        [one.low for one in each],
        [one.high for one in each],
    )
    table = table.merge(shared, how="left", on=["ranking", "k"])
    table["reliability"], table["scan"] = own, "" if scan is None else scan.title
    experts = frame_of(plan.found, halves.layers)
    return Rankings(table, experts, own, "" if scan is None else scan.title, halves.unit)
