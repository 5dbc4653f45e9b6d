"""Halving: all experts on a few prompts by one opening, the better part on further prompts, the last on all openings.

A round edits each expert that is left on new prompts, at least as many as the first round had, and scores the prompt's
own opening alone. If p is its probability, ln p - ln(1 - p) falls as the margin against all other openings does: the
passes for the alternatives are saved until few experts are left. What a schedule costs is bounded before it starts.
Successive halving: Karnin, Koren & Somekh (2013), ICML 28(3), 1238-1246; theirs keeps a half, and its arms cost alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mote.harness.preconditions import DataError

KEPT: Final = 0.3
"""The part of the experts that a round leaves. On the demo 0.2 to 0.5 do equally well."""
_LEAST_FALL: Final = 1e-7
"""The probability that is left to other texts at least: a float32's logarithm of a probability near 1 is no finer."""


class Round(NamedTuple):
    """One round: the prompts, by their places [first, end), and the number of experts that are edited on each."""

    first: int
    end: int
    experts: int


class Schedule(NamedTuple):
    """The rounds, how many experts are then measured on all prompts and openings, and the passes at most."""

    rounds: tuple[Round, ...]
    finalists: int
    passes: int


def own_logit(logprobs: ArrayLike) -> NDArray[np.float64]:
    """Return ln p - ln(1 - p) of texts from their natural log-probabilities ln p."""
    values = np.minimum(np.asarray(logprobs, dtype=np.float64), -_LEAST_FALL)
    return np.asarray(values - np.log(-np.expm1(values)), dtype=np.float64)


def plan_halving(
    budget: int, choosing: Sequence[int], openings: Sequence[int], experts: int, finalists: int
) -> Schedule:
    """Return the schedule with the most prompts in the first round, then in later ones, that ``budget`` passes allow.

    ``choosing`` has for each prompt the number of experts that its tokens choose: a pass for another would change
    nothing and is not made. ``openings`` has the number of openings that a finalist is scored on, after each prompt.
    Raises `DataError` where not even one prompt a round is paid for, with the least budget.
    """
    if not 1 <= finalists <= experts:
        raise DataError(f"Between 1 and {experts:,} experts can be left for the end, not {finalists:,}.")
    plan = partial(_schedule, choosing=choosing, openings=openings, experts=experts, finalists=finalists)
    sizes = range(1, len(choosing) + 1)
    if plan(1, 1).passes > budget:
        raise DataError(f"{budget:,} passes are too few for one prompt a round: that takes {plan(1, 1).passes:,}.")
    first = max(size for size in sizes if plan(size, size).passes <= budget)
    # What is left over buys further prompts for the better part.
    return plan(first, max(size for size in sizes if size >= first and plan(first, size).passes <= budget))


def _schedule(
    first: int, later: int, choosing: Sequence[int], openings: Sequence[int], experts: int, finalists: int
) -> Schedule:
    rounds: list[Round] = []
    left, at = experts, 0
    while left > finalists and at < len(choosing):
        end = min(at + (later if rounds else first), len(choosing))
        rounds.append(Round(at, end, left))
        left, at = max(finalists, int(left * KEPT)), end
    passes = sum(min(one.experts, choosing[place]) for one in rounds for place in range(one.first, one.end))
    seen = rounds[-1].end if rounds else 0
    last = [min(finalists, count) for count in choosing]
    passes += sum(count * scored for count, scored in zip(last, openings, strict=True)) - sum(last[:seen])
    return Schedule(tuple(rounds), finalists, passes)
