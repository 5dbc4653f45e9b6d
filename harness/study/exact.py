"""What is teacher-forced after the answers: exact probabilities of the class, and how far the tuned model has moved.

The chance that an answer opens as the class's answers do (`science.stems`) is summed over a few openings learned from
the baseline's own answers: a prefill each, and no sampling noise. The divergence from the untouched model is measured
on the baseline's own answers to prompts outside the class. Both are of the distribution that answers are drawn from:
engines give log-probabilities at temperature 1, and with those of the likeliest tokens of each place they are known
within bounds at any lower one (`science.tempered`). Where the bounds are too wide, or the sampling truncates, both are
left out, which the manifest says under ``stems``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from mote.harness.engine.vllm import Scored, Scoring
from mote.harness.files import digest_of
from mote.harness.preconditions import STATES
from mote.harness.progress import step
from mote.harness.recipe.manifest import write_manifest
from mote.harness.recipe.schema import SamplingPart
from mote.harness.science.controls import BASELINE, RANDOM
from mote.harness.science.splits import evenly
from mote.harness.science.stems import class_chance
from mote.harness.science.tempered import Bounds, text_at_temperature
from mote.harness.store.chances import (
    ChanceRow,
    DivergenceRow,
    add_chances,
    add_divergences,
    chances_there,
    divergences_there,
)
from mote.harness.store.run import ProfileRow
from mote.harness.study.controls import target_prompts, tuned_row
from mote.harness.study.openings import learn_openings
from mote.harness.study.plan import profile_of
from mote.harness.study.session import Session
from mote.patches import EMPTY_PROFILE

TOP: Final = 20
"""Likeliest tokens asked for of each place: vLLM's default most."""
WIDEST: Final = 0.02
"""The widest bounds of a chance that is stored."""
TEXTS: Final = 40
"""Prompts outside the class whose answers' divergence is measured, evenly spread."""
DIVERGENT_SETS: Final = 5
"""Sets of each family whose divergence is measured beside the tuned profile's."""
MOST_TOKENS: Final = 128
"""An answer's divergence is measured over so many tokens at most."""


def measure_exactly(session: Session) -> None:
    """Measure what of exact chances and divergences is missing; answers under all profiles have to be labelled.

    Raises MoteError for whatever the engine refuses.
    """
    if not session.recipe.study.exact:
        return
    reason = unbounded(session.recipe.sampling)
    if reason:
        _note(session, {"openings": [], "coverage": 0.0, "enough": False, "left_out": reason})
        return
    found = session.manifest.get("stems")
    if not found:
        found = learn_openings(session, session.store.generations_frame(session.labels.judge))
        _note(session, found)
    if found["enough"]:
        _chances(session, found["openings"])
    _divergences(session)


def unbounded(sampling: SamplingPart) -> str:
    """Return why no log-probability at this sampling can be bounded; empty if it can."""
    if not 0 < sampling.temperature <= 1:
        return f"chances are bounded at temperatures above 0 and up to 1, not at {sampling.temperature:g}"
    return "" if sampling.top_p == 1 else f"sampling is truncated (top_p {sampling.top_p:g})"


def _note(session: Session, stems: dict[str, Any]) -> None:
    session.manifest["stems"] = stems
    write_manifest(session.folder, session.manifest)


class _Item(NamedTuple):
    """A chance that is missing: its prompt, its profile, and where its openings lie among the requests."""

    prompt: str
    row: ProfileRow


def _chances(session: Session, openings: Sequence[str]) -> None:
    """Measure the class's chance of each target prompt under the untouched, the tuned and all random sets."""
    store, digest = session.store, digest_of(list(openings))
    frame = store.labels_frame(session.labels.judge)
    targets = target_prompts(frame, store.split(), session.recipe.study.target)
    rows = store.profiles()
    tuned = tuned_row(rows).name
    chosen = [row for row in rows if row.name in (BASELINE, tuned) or row.kind.startswith(RANDOM)]
    there = chances_there(store, digest)
    items = [_Item(prompt, row) for row in chosen for prompt in targets if (prompt, row.name) not in there]
    messages = {row.prompt_id: row.messages for row in store.prompts()}
    profiles = {row.name: profile_of(row) for row in chosen}
    requests = [
        Scoring(item.prompt, messages[item.prompt], profiles[item.row.name], text, TOP)
        for item in items
        for text in openings
    ]
    found: dict[int, dict[int, Bounds | None]] = {}
    with step(session.console, "Exact chances", len(requests)) as advance:
        for some in _scored(session, requests):
            done = []
            for index, scored in some:
                at, opening = divmod(index, len(openings))
                found.setdefault(at, {})[opening] = _bounds(session, scored) if scored else None
                if len(found[at]) == len(openings):
                    item = items[at]
                    chance = _chance(list(found.pop(at).values()))
                    done.append(ChanceRow(item.prompt, item.row.name, digest, chance))
            add_chances(store, done)
            advance(len(some))


def _chance(found: Sequence[Bounds | None]) -> float | None:
    """Return the middle of a chance's bounds; None where they are too wide to be called exact, or one is missing."""
    bounds = [one for one in found if one is not None]
    if len(bounds) < len(found):
        return None
    low = class_chance([[one.low] for one in bounds])
    high = min(1.0, math.fsum(math.exp(one.high) for one in bounds))
    return (low + high) / 2 if high - low <= WIDEST else None


def _divergences(session: Session) -> None:
    """Measure the baseline's own answers outside the class under the tuned profile and a few random sets."""
    store, study = session.store, session.recipe.study
    frame = store.generations_frame(session.labels.judge)
    split = store.split()
    baseline = frame[(frame["profile"] == BASELINE) & (frame["label"] != study.target) & ~frame["label"].isin(STATES)]
    texts = [
        (str(prompt), raw)
        for prompt, raw in zip(baseline["prompt_id"], baseline["raw"], strict=True)
        if not split or split[str(prompt)] == "measure"
    ]
    rows = store.profiles()
    tuned = tuned_row(rows)
    measured = [tuned, *_first_sets(rows)]
    there = divergences_there(store)
    picked = evenly(texts, TEXTS)
    wanted = [(prompt, row) for prompt, _ in picked for row in measured if (prompt, row.name) not in there]
    if not wanted:
        return
    messages = {row.prompt_id: row.messages for row in store.prompts()}
    cut = {prompt: "".join(session.engine.pieces(raw)[:MOST_TOKENS]) for prompt, raw in picked}
    asked = list(dict.fromkeys(prompt for prompt, _ in wanted))
    plain: dict[str, float] = {}
    for some in _scored(session, [Scoring(one, messages[one], EMPTY_PROFILE, cut[one], TOP) for one in asked]):
        plain |= {asked[at]: _middle(_bounds(session, scored)) for at, scored in some if scored}
    requests = [Scoring(prompt, messages[prompt], profile_of(row), cut[prompt], TOP) for prompt, row in wanted]
    with step(session.console, "Divergence from the untouched model", len(requests)) as advance:
        for some in _scored(session, requests):
            rows_done = []
            for at, scored in some:
                prompt, row = wanted[at]
                tuned_logp = _middle(_bounds(session, scored)) if scored else 0.0
                tokens = len(scored.tokens) if scored else 0
                rows_done.append(DivergenceRow(prompt, row.name, tokens, plain.get(prompt, 0.0), tuned_logp))
            add_divergences(store, rows_done)
            advance(len(some))


def _first_sets(rows: Sequence[ProfileRow]) -> list[ProfileRow]:
    counts: dict[str, int] = {}
    found = []
    for row in rows:
        if row.kind.startswith(RANDOM):
            counts[row.kind] = counts.get(row.kind, 0) + 1
            if counts[row.kind] <= DIVERGENT_SETS:
                found.append(row)
    return found


def _scored(session: Session, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Scored | None]]]:
    """Yield (index, scored) as they are done; first, and None, those that do not fit the context."""
    if not requests:
        return
    engine = session.engine
    fitting = [at for at, request in enumerate(requests) if engine.fits(request)]
    if unfit := sorted(set(range(len(requests))) - set(fitting)):
        yield [(at, None) for at in unfit]
    for some in engine.score([requests[at] for at in fitting]):
        yield [(fitting[index], scored) for index, scored in some]


def _bounds(session: Session, scored: Scored) -> Bounds:
    return text_at_temperature(scored.logprobs, scored.tops, TOP, session.recipe.sampling.temperature)


def _middle(bounds: Bounds) -> float:
    return (bounds.low + bounds.high) / 2
