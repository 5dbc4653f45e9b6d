"""Worlds to search in: prompts with classes and maps, experts that matter to all of them alike, or some to one class.

Nothing here has an engine: what a set of experts does follows from how often each prompt chooses them. Busy experts do
more, harm grows faster than the set, and answers are drawn once a prompt, so that an effect of chance stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mote.harness.science.removed import target_mass
from mote.harness.science.resonance import resonance
from mote.harness.science.searching import (
    Answered,
    Arm,
    Candidate,
    Plan,
    Proposer,
    Ruling,
    Screened,
    conduct,
    draw_arms,
    rule,
)

LAYERS, EXPERTS = (0, 1, 2, 3), 32
CLASS, REST = "class", "rest"
PROMPTS = 120
"""Of each half."""


@dataclass
class World:
    """Prompts of two halves. ``planted`` experts are chosen more by the class, and carry its answers alone."""

    seed: int
    planted: int = 0
    asked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        ids = [f"{half}{at}" for half in ("chooses", "held") for at in range(PROMPTS)]
        self.place = {key: at for at, key in enumerate(ids)}
        self.of_class = rng.random(len(ids)) < 0.25
        self.chooses, self.held = ids[:PROMPTS], ids[PROMPTS:]
        busy = rng.lognormal(1.0, 0.7, len(LAYERS) * EXPERTS)
        rates = np.tile(busy, (len(ids), 1))
        carriers = rng.choice(busy.size, self.planted, replace=False)
        rates[np.ix_(self.of_class, carriers)] *= 1.6
        self.maps = rng.poisson(rates).astype(np.int32)
        # Effects a choice: of any prompt's answer, and of the class's alone.
        self.any = rng.exponential(0.015, busy.size)
        self.own = np.zeros(busy.size)
        self.own[carriers] = 0.12
        self.hurts = rng.exponential(0.004, busy.size)
        self.margin = rng.normal(2.0, 0.5, len(ids))
        self.draw = rng.random((3, len(ids)))

    def labels(self) -> dict[str, str]:
        return {key: CLASS if self.of_class[self.place[key]] else REST for key in self.chooses}

    def rank(self, labels: Sequence[str]) -> NDArray[np.float64]:
        return resonance(self._shaped(), labels, CLASS)

    def mass(self) -> NDArray[np.float64]:
        return target_mass(self._shaped(), list(self.labels().values()), CLASS)

    def _shaped(self) -> NDArray[np.int32]:
        return self.maps[:PROMPTS].reshape(PROMPTS, len(LAYERS), EXPERTS)

    def _at(self, keys: Sequence[str]) -> NDArray[np.int64]:
        return np.array([self.place[key] for key in keys])

    def _off(self, one: Candidate) -> NDArray[np.float64]:
        off = np.zeros(len(LAYERS) * EXPERTS)
        off[[LAYERS.index(layer) * EXPERTS + expert for layer, expert in one.experts]] = 1 - one.factor
        return off

    def _chances(self, one: Candidate, at: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How likely each prompt's own answer is, untouched and under a candidate."""
        off = self._off(one)
        fall = self.maps[at] @ (self.any * off) + self.of_class[at] * (self.maps[at] @ (self.own * off))
        before, after = self.margin[at], self.margin[at] - fall
        return 1 / (1 + np.exp(-before)), 1 / (1 + np.exp(-after))

    def _harm(self, one: Candidate, at: NDArray[np.int64]) -> float:
        return float(((self.maps[at] @ (self.hurts * self._off(one))) ** 2).mean())

    def screen(self, asked: Sequence[tuple[Arm, Candidate]]) -> list[Screened]:
        self.asked.append(len(asked))
        found = []
        for arm, one in asked:
            before, after = self._chances(one, self._at(arm.targets))
            found.append(Screened(float((before - after).mean()), self._harm(one, self._at(arm.others))))
        return found

    def check(self, asked: Sequence[tuple[Arm, Candidate]]) -> list[Answered]:
        return [self._answered(one, self._at(arm.targets), self._at(arm.others)) for arm, one in asked]

    def hold(self, asked: Sequence[Candidate]) -> list[Answered]:
        at = self._at(self.held)
        return [self._answered(one, at[self.of_class[at]], at[~self.of_class[at]]) for one in asked]

    def _answered(self, one: Candidate, targets: NDArray[np.int64], others: NDArray[np.int64]) -> Answered:
        before, after = self._chances(one, targets)
        # Untouched every prompt gives its own answer: the draw lies below its chance.
        left = float((self.draw[0, targets] * before > after).mean())
        harm = self._harm(one, others)
        return Answered(left, float((self.draw[1, others] < harm).mean()), float((self.draw[2, others] < harm).mean()))


@dataclass
class AnySubset:
    """Proposes sets at random and learns nothing: quick, where it does not matter how well a search searches."""

    arm: Arm
    plan: Plan

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.arm.seed)

    def ask(self, count: int) -> list[Candidate]:
        return [self._one() for _ in range(count)]

    def tell(self, screened: Sequence[Screened]) -> None:
        pass

    def _one(self) -> Candidate:
        there = self._rng.random(len(self.arm.pool)) < self._rng.random()
        experts = tuple(sorted(one for one, is_there in zip(self.arm.pool, there, strict=True) if is_there))
        return Candidate(experts, float(self._rng.choice(self.plan.factors))) if experts else Candidate((), 1.0)


def searched(
    world: World, plan: Plan, proposer: Callable[[Arm, Plan], Proposer], nulls: int = 19, pool: int = 8
) -> Ruling:
    """Search a world with nulls of both kinds, and rule."""
    arms = draw_arms(
        world.labels(), CLASS, world.rank, lambda ours, rest: (ours[:24], rest[:16]), world.mass(), LAYERS, pool,
        {"shuffled": nulls, "pool": nulls}, world.seed,
    )  # fmt: skip
    return rule(conduct(arms, plan, world, proposer))
