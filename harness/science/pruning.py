"""Greedy pruning: from a profile that works to the few experts of it that are needed.

Backward elimination. In each round every expert of the profile is left out once, the effect of each smaller profile
is measured, and the one that keeps most stays, as long as it keeps enough. This module plans and remembers; whoever
has an engine measures all candidates of a round in one batch.

    state = start(experts, effect)
    while candidates(state):
        state = advance(state, {candidate: measure(candidate) for candidate in candidates(state)})
    state.experts

Every candidate is measured on the same prompts, and the best of many is picked: the kept effect is too good by
selection. Measure the pruned profile on prompts that took no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mote.harness.preconditions import DataError
from mote.harness.science.controls import Expert

Candidate = tuple[Expert, ...]


@dataclass(frozen=True)
class Round:
    """One round: the expert left out and the effect without it."""

    dropped: Expert
    effect: float


@dataclass(frozen=True)
class Pruning:
    """Where the pruning stands: the experts still in the profile, its effect, and the rounds so far.

    `floor` is the effect below which nothing more is left out; `done` is true once every further step would.
    """

    experts: Candidate
    effect: float
    floor: float
    rounds: tuple[Round, ...] = ()
    done: bool = False


def start(experts: Sequence[Expert], effect: float, keep: float = 0.9) -> Pruning:
    """Begin with a profile's experts and its effect (say the flip share), of which the share `keep` is to remain.

    Raises `DataError` for an effect that is not positive: there is nothing to keep.
    """
    if not experts or len(set(experts)) != len(experts):
        raise DataError("Pruning needs at least one expert, each listed once.")
    if not math.isfinite(effect) or effect <= 0:
        raise DataError(f"Pruning keeps a positive effect; this profile's is {effect}.")
    if not 0 < keep <= 1:
        raise DataError(f"The share of the effect to keep lies above 0 and up to 1, not {keep}.")
    return Pruning(tuple(sorted(experts)), effect, keep * effect)


def candidates(state: Pruning) -> list[Candidate]:
    """Return the profiles to measure next, each without one expert of the present one; none when pruning is done."""
    if state.done or len(state.experts) == 1:
        return []
    return [tuple(e for e in state.experts if e != left_out) for left_out in state.experts]


def advance(state: Pruning, effects: Mapping[Candidate, float]) -> Pruning:
    """Return the state after a round, given the effect of every candidate.

    The candidate with the greatest effect is taken, of equal ones that which leaves out the last expert by layer and
    number; if even that falls below the floor, the profile stays as it is and pruning is done. Raises `DataError` when
    an effect is missing or not finite, or is given for a profile that was not asked for.
    """
    asked = candidates(state)
    if not asked:
        raise DataError("Pruning is done; there is no further round.")
    for candidate in asked:
        if candidate not in effects:
            raise DataError(f"The effect of the profile {list(candidate)} is missing.")
        if not math.isfinite(effects[candidate]):
            raise DataError(f"The effect of the profile {list(candidate)} is not finite.")
    if len(effects) != len(asked):
        extra = next(candidate for candidate in effects if candidate not in asked)
        raise DataError(f"The profile {list(extra)} is no candidate of this round.")
    best = max(range(len(asked)), key=lambda at: (effects[asked[at]], at))
    effect = effects[asked[best]]
    # A share times an effect rounds; an effect that is just the share asked for is enough.
    if effect < state.floor * (1 - 1e-12):
        return replace(state, done=True)
    rounds = (*state.rounds, Round(state.experts[best], effect))
    return Pruning(asked[best], effect, state.floor, rounds, done=len(asked[best]) == 1)


def rounds_cost(experts: int) -> int:
    """Return how many profiles pruning measures at most, beside the first: n + (n - 1) + ... + 2."""
    return experts * (experts + 1) // 2 - 1
