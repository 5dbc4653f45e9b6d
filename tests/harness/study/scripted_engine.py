"""An engine whose answers follow a script: which prompts refuse, which profiles flip them, how likely each token is.

It stands where a study's steps are tested and no model's behaviour is: everything it says is a function of the request.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mote.harness.engine.turns import Turns
from mote.harness.engine.vllm import Answer, Request, Scored, Scoring
from mote.harness.recipe.schema import Recipe
from mote.harness.store.run import RunStore
from mote.harness.study.run import check, run
from mote.patches import ActivationMap, EditEffect, Observation, Receipt
from mote.patches.profile import Profile

LAYERS, EXPERTS = (0, 1, 2, 3, 4, 5), 64
PLANTED = ((1, 3), (2, 7), (4, 11))
PLANTED_BY = {
    "prompt": PLANTED,
    "prompt_last": ((0, 1), (3, 2), (5, 60)),
    "reasoning": ((0, 9), (1, 9), (2, 9)),
    "answer": ((3, 33), (4, 44), (5, 55)),
}
"""The experts that each role's tokens choose more where the answer is a refusal."""
REFUSAL = "</think>I am sorry, I cannot answer that question."
FACT = "</think>In that year a new bridge was opened, and many people came."
TOP = 20


def chance(*parts: object) -> float:
    """Return a number between 0 and 1 that is drawn anew for each list of parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big") / 2**48


def refused(prompt: str) -> bool:
    return chance("refused", prompt) < 0.3


def planted(profile: Profile) -> int:
    return sum((edit.layer, edit.expert) in PLANTED for edit in profile.edits)


class Killed(BaseException):
    """The process is gone."""


@dataclass
class ScriptedEngine:
    """``effect`` is the flip rate of each planted expert that is tuned, ``rest`` of any profile and of another seed."""

    effect: float = 0.3
    rest: float = 0.03
    kill_after: int | None = None
    before: Callable[[Request], None] = lambda request: None
    prompt_opens: bool = True
    asked: list[Request] = field(default_factory=list)
    scored: list[Scoring] = field(default_factory=list)

    def generate(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        # In an order of its own, some at a time, as an engine does.
        order = sorted(range(len(requests)), key=lambda at: chance("order", at))
        for start in range(0, len(order), 7):
            some = []
            for at in order[start : start + 7]:
                if self.kill_after is not None and len(self.asked) >= self.kill_after:
                    raise Killed
                self.before(requests[at])
                self.asked.append(requests[at])
                some.append((at, self._answer(requests[at])))
            yield some

    def _answer(self, request: Request) -> Answer:
        refuses = refused(request.prompt_id)
        rate = min(1.0, self.rest + self.effect * planted(request.profile))
        if refuses and chance("flip", request.profile.digest, request.prompt_id, request.seed) < (
            rate if request.capture is None else 0.0
        ):
            refuses = False
        receipt = Receipt(request.profile.digest, 9 if request.profile.edits else 0, "scripted")
        maps = {
            role: ActivationMap(counts(request.prompt_id, role), tokens, tokens)
            for role, tokens in ((role, 9 if role == "prompt" else 20) for role in roles(request))
        }
        effects = tuple(
            EditEffect(edit.layer, edit.expert, edit.action, edit.factor, 9, 2, 0, 0.5, 0.0)
            for edit in request.profile.edits
        )
        text = REFUSAL if refuses else FACT
        pieces = self.pieces(text)
        some = pieces[: request.most]
        ended = "stop" if len(some) == len(pieces) else "length"
        return Answer(request, "".join(some), 9, len(some), ended, Observation(receipt, LAYERS, maps, effects))

    def score(self, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Scored]]]:
        for at, request in enumerate(requests):
            self.scored.append(request)
            tokens = self.pieces(request.continuation)
            own = own_chance(request.profile, request.prompt_id)
            logprob = math.log(own)
            tops = [[logprob, *[math.log((1 - own) / (TOP - 1))] * (TOP - 1)] for _ in tokens]
            receipt = Receipt(request.profile.digest, 9, "scripted")
            yield [(at, Scored(request, tokens, [logprob] * len(tokens), Observation(receipt), tops))]

    def fits(self, request: Scoring) -> bool:
        return True

    def token_texts(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        raise AssertionError("no tokens are kept here")

    def turns(self, messages: Sequence[Mapping[str, str]]) -> Turns:
        raise AssertionError("nothing is aligned here")

    def pieces(self, text: str) -> list[str]:
        return re.findall(r"\S+\s*", text)


def own_chance(profile: Profile, prompt: str) -> float:
    """How likely each token of a continuation is, at temperature 1."""
    return 0.9 - 0.2 * planted(profile) + 0.05 * chance("own", prompt)


def roles(request: Request) -> tuple[str, ...]:
    """The roles of the maps that a request asks for."""
    asked = request.capture
    if isinstance(asked, Mapping):
        return ("prompt", "prompt_last") if asked["what"] == "prompt" else ("prompt", "reasoning", "answer")
    return ("prompt",) if asked == "prompt" else ()


def counts(prompt: str, role: str = "prompt") -> NDArray[np.int32]:
    """The map of a prompt: planted experts are chosen more by prompts that refuse, each role's by its tokens."""
    rng = np.random.default_rng(int(1e9 * chance("map", prompt, *([] if role == "prompt" else [role]))))
    found = rng.integers(0, 4, (len(LAYERS), EXPERTS)).astype(np.int32)
    for layer, expert in PLANTED_BY[role]:
        found[LAYERS.index(layer), expert] += 12 if refused(prompt) else 0
    return found


def recipe_of(limit: int = 120, **study: Any) -> Recipe:
    """Return a small study of the grid; the engine is on a server that nobody asks."""
    part = {
        "top_k": 3,
        "controls": {"mass": 20, "layers": 20},
        "economy": {"whole": 3, "others": 5, "stop_decided": False},
        **study,
    }
    return Recipe.model_validate(
        {
            "name": "scripted",
            "model": {"path": "demo", "engine": "server", "servers": {"urls": ["http://127.0.0.1:1/v1"]}},
            "task": {"name": "refusal_grid", "limit": limit},
            "study": part,
            "judges": {"surprise": False, "text": "rules"},
        }
    )


def study_of(folder: Path, recipe: Recipe, engine: ScriptedEngine, console: Console | None = None, **how: bool) -> None:
    """Run a study, or go on with it, with the scripted engine."""
    run(check(recipe), folder, console or Console(quiet=True), engine=lambda *_: lambda: engine, **how)


def rows_of(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return everything a run stored of the study, without the order in which it came."""
    queries = {
        "profiles": "select name, digest, kind, part, seed, spec from profiles where kind <> 'paper'",
        "generations": "select prompt_id, profile, seed, raw, receipt, mechanism from generations"
        " where profile not like 'paper%'",
        "labels": "select prompt_id, profile, label from labels join generations using (generation_id)"
        " where profile not like 'paper%'",
        "chances": "select * from chances",
        "divergences": "select * from divergences",
        "splits": "select * from splits",
    }
    with RunStore(folder, read_only=True) as store:
        return {name: sorted(store.db.execute(query).fetchall()) for name, query in queries.items()}
