"""How a group scan spends its passes: masks first, then looks at the leading experts alone, then the finalists.

A look is an expert alone on a few prompts, one of each place; the finalists are measured on all. What a stage costs is
known before it starts, and all of them together never cost more than the budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from mote.harness.preconditions import DataError
from mote.harness.science.group_testing import LEAST_MASKS

MASKS: Final = 0.4
"""The part of the budget that masks take. On the demo a quarter to a half do equally well."""
LOOKS: Final = 5
"""On how many prompts an expert is looked at alone."""


class Singles(NamedTuple):
    """How many experts are looked at, how many of them are measured on all prompts, and what both cost."""

    looked: int
    finalists: int
    passes: int


def mask_rounds(budget: int, telling: Mapping[str, Sequence[int]]) -> int:
    """Return how many masks each prompt gets: as many as the masks' part of the budget (in passes) pays for.

    `telling` gives the openings to score after each prompt. Raises `DataError` where that is fewer than forty masks in
    all, with the least budget.
    """
    per_round = sum(map(len, telling.values()))
    rounds = int(budget * MASKS // per_round)
    if rounds * len(telling) < LEAST_MASKS:
        least = -(-LEAST_MASKS // len(telling)) * per_round / MASKS
        raise DataError(f"A budget of {budget:,} passes is too small for {LEAST_MASKS} masks: they take {least:,.0f}.")
    return rounds


def plan_singles(left: int, look: int, whole: int, leading: int, experts: int) -> Singles:
    """Return how the passes `left` are spent on experts alone.

    `look` and `whole` are the passes of one expert on the prompts of a look and on all prompts. Up to `leading` experts
    become finalists, for at most half of what is left; the other half and what remains goes into looks.
    """
    rest = max(1, whole - look)
    finalists = max(0, min(leading, experts, left // 2 // rest))
    looked = max(0, min(experts, (left - finalists * rest) // look))
    finalists = min(finalists, looked)
    return Singles(looked, finalists, looked * look + finalists * rest)
