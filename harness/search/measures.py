"""What measures a search's candidates on the engine: passes that screen, answers that check and hold.

A trial is screened by teacher-forced passes at temperature 1, one a prompt: after prompts of the class, how much less
likely the first tokens of the prompt's own untouched answer become; after other prompts, by how many nats a token the
model is more surprised at its own untouched answer (an estimate of the Kullback-Leibler divergence, of the model at
temperature 1). Checks and the held measurement are answers, drawn and labelled as the run's own. "Left" is an answer
of another class than the prompt's own untouched one, "entered" one of the class under study where that was not.
Passes and answers are stored as they come, and nothing is asked twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mote.harness.engine.vllm import Scoring
from mote.harness.experts.asking import Asking
from mote.harness.experts.rankings import Halves
from mote.harness.experts.scan import Tokeniser, opening, tokenizer_of
from mote.harness.progress import step
from mote.harness.science.searching import UNTOUCHED, Answered, Arm, Candidate, Screened
from mote.harness.search.options import TEXT_TOKENS
from mote.harness.store.search_passes import PassKey, PassRow, add_passes, read_passes
from mote.harness.study.session import Session
from mote.judges import STATES
from mote.patches import Edit, ModelLayout, Profile


def profile_of(one: Candidate, layout: ModelLayout, name: str = "searched") -> Profile:
    """Return the profile of a candidate; a factor of 0 is a suppression."""
    if one.factor == 0:
        return Profile(name, tuple(Edit(*expert, "suppress") for expert in one.experts), model=layout)
    return Profile(name, tuple(Edit(*expert, "scale", one.factor) for expert in one.experts), model=layout)


class Held:
    """The prompts that took no part: those of the class under study, and others."""

    def __init__(self, targets: Sequence[str], others: Sequence[str]) -> None:
        self.targets, self.others = tuple(targets), tuple(others)


class EngineMeasures:
    """Measures candidates on a run's own model. ``opening_tokens``: of how many tokens a prompt's own chance is."""

    def __init__(
        self,
        session: Session,
        halves: Halves,
        held: Held,
        opening_tokens: int,
        first_tokens: Tokeniser | None = None,
    ) -> None:
        self._session, self._halves, self.held, self._opening = session, halves, held, opening_tokens
        self._asking = Asking(session, halves, "search")
        self._first_tokens = first_tokens
        self._known = read_passes(session.store)
        self._profile: Callable[[Candidate], Profile] = cache(partial(profile_of, layout=session.model.layout))
        self._text = cache(self._cut)
        self._rounds = 0

    def screen(self, asked: Sequence[tuple[Arm, Candidate]]) -> list[Screened]:
        """Return how much less likely own answers become, and how much more surprising those to other prompts."""
        candidates = [(arm, each) for arm, one in asked for each in (UNTOUCHED, one)]
        self._pass({key: one for arm, one in candidates for key in self._keys(one, arm.targets, arm.others)})
        return [Screened(self.falls(one, arm.targets), self.divergence(one, arm.others)) for arm, one in asked]

    def falls(self, one: Candidate, prompts: Sequence[str]) -> float:
        """Return the mean fall of the chance of the prompts' own openings."""
        before, after = (np.exp(self._logprobs(each, prompts, self._opening)) for each in (UNTOUCHED, one))
        return float((before - after).mean())

    def divergence(self, one: Candidate, prompts: Sequence[str]) -> float:
        """Return the nats a token by which own answers become less likely."""
        before, after = (self._logprobs(each, prompts, TEXT_TOKENS) for each in (UNTOUCHED, one))
        tokens = sum(self._known[self._key(UNTOUCHED, prompt, TEXT_TOKENS)][0] for prompt in prompts)
        return float((before - after).sum() / tokens)

    def held_harm(self, winners: Iterable[Candidate]) -> dict[Candidate, float]:
        """Return each winner's divergence on the held prompts of other classes."""
        wanted = [one for one in dict.fromkeys(winners) if one.experts]
        each = [UNTOUCHED, *wanted] if wanted else []
        self._pass({self._key(one, prompt, TEXT_TOKENS): one for one in each for prompt in self.held.others})
        return {UNTOUCHED: 0.0} | {one: self.divergence(one, self.held.others) for one in wanted}

    def check(self, asked: Sequence[tuple[Arm, Candidate]]) -> list[Answered]:
        """Return the answers to the prompts that choose."""
        return self._answered([(one, arm.targets, arm.others) for arm, one in asked], "Checks")

    def hold(self, asked: Sequence[Candidate]) -> list[Answered]:
        """Return the answers to the held prompts."""
        return self._answered([(one, self.held.targets, self.held.others) for one in asked], "Held")

    def left(self, one: Candidate) -> NDArray[np.bool_]:
        """Return for each held prompt of the class whether the (stored) answer has left it."""
        found = self._labels([(one, self.held.targets, ())])
        return np.array([self._has_left(found[self._profile(one).digest, key], key) for key in self.held.targets])

    def _answered(self, asked: Sequence[tuple[Candidate, Sequence[str], Sequence[str]]], title: str) -> list[Answered]:
        wanted = dict.fromkeys((self._profile(one), key) for one, *sides in asked for side in sides for key in side)
        # One look at the store for all of them.
        lacking = set(self._asking.missing({profile for profile, _ in wanted}, {key for _, key in wanted}))
        missing = [each for each in wanted if each in lacking]
        if missing:
            with step(self._session.console, title, len(missing)) as advance:
                for count in self._asking.ask(missing):
                    advance(count)
        found = self._labels(asked)
        return [self._shares(found, self._profile(one).digest, targets, others) for one, targets, others in asked]

    def _shares(
        self, labels: Mapping[tuple[str, str], str], digest: str, targets: Sequence[str], others: Sequence[str]
    ) -> Answered:
        target = self._halves.target
        left = [self._has_left(labels[digest, key], key) for key in targets]
        entered = [labels[digest, key] == target != self._halves.labels[key] for key in others]
        broken = [labels[digest, key] in STATES for key in (*targets, *others)]
        return Answered(float(np.mean(left)), float(np.mean(entered)), float(np.mean(broken)))

    def _has_left(self, label: str, prompt: str) -> bool:
        return label not in (self._halves.labels[prompt], *STATES)

    def _labels(self, asked: Sequence[tuple[Candidate, Sequence[str], Sequence[str]]]) -> dict[tuple[str, str], str]:
        profiles = {self._profile(one).digest: self._profile(one) for one, _, _ in asked}
        prompts = dict.fromkeys(key for _, *sides in asked for side in sides for key in side)
        frame = self._asking.labelled(profiles.values(), list(prompts))
        columns = (frame[name] for name in ("profile_digest", "prompt_id", "label"))
        return {(str(digest), str(key)): str(label) for digest, key, label in zip(*columns, strict=True)}

    def _key(self, one: Candidate, prompt: str, length: int) -> PassKey:
        return PassKey(prompt, self._profile(one).digest, length)

    def _keys(self, one: Candidate, targets: Sequence[str], others: Sequence[str]) -> list[PassKey]:
        return [
            *(self._key(one, prompt, self._opening) for prompt in targets),
            *(self._key(one, prompt, TEXT_TOKENS) for prompt in others),
        ]

    def _logprobs(self, one: Candidate, prompts: Sequence[str], length: int) -> NDArray[np.float64]:
        return np.array([self._known[self._key(one, prompt, length)][1] for prompt in prompts])

    def _pass(self, asked: Mapping[PassKey, Candidate]) -> None:
        """Make the passes that are not stored."""
        keys = [key for key in asked if key not in self._known]
        if not keys:
            return
        profiles = [self._profile(asked[key]) for key in keys]
        requests = [
            Scoring(
                key.prompt_id,
                self._halves.prompts[key.prompt_id].messages,
                profile,
                self._text(key.prompt_id, key.length),
            )
            for key, profile in zip(keys, profiles, strict=True)
        ]
        self._rounds += 1
        with step(self._session.console, f"Passes, round {self._rounds}", len(requests)) as advance:
            for some in self._session.engine.score(requests):
                rows = [
                    PassRow(
                        keys[at], profiles[at], len(one.tokens), math.fsum(one.logprobs),
                        one.observation.receipt.tokens_edited,
                    )
                    for at, one in some
                ]  # fmt: skip
                add_passes(self._session.store, rows)
                advance(len(rows))
        # As they are stored: a search that goes on after a kill must see the same digits.
        self._known = read_passes(self._session.store)

    def _cut(self, prompt: str, length: int) -> str:
        if self._first_tokens is None:
            self._first_tokens = partial(opening, self._tokenizer())
        return self._first_tokens(self._halves.raws[prompt], length)

    def _tokenizer(self) -> Any:
        return tokenizer_of(self._session.recipe, self._session.model.path)
