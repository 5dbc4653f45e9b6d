"""The options of ``mote search``, held to what can be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from mote.harness.errors import MoteError
from mote.harness.science.searching import Kind, Plan

MOST_FACTOR: Final = 8.0
TEXT_TOKENS: Final = 64
"""Tokens of an answer over which the divergence is measured, at most."""


@dataclass(frozen=True)
class SearchOptions:
    """Where to search: the top ``pool`` experts of the ranking ``by``, each set of them scaled by one of ``factors``.

    ``harm`` bounds the divergence (nats a token), ``broken`` the share of broken answers. ``prompts`` of the class and
    ``others`` choose; ``held`` and ``held_others`` of the other half measure the winner, None all. ``opening`` is how
    many tokens of a prompt's own answer its chance is of.
    """

    by: str = "resonance"
    pool: int = 12
    factors: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    trials: int = 24
    harm: float = 0.02
    broken: float = 0.05
    prompts: int = 24
    others: int = 16
    checked: int = 2
    held: int | None = None
    held_others: int | None = 60
    shuffles: int = 19
    pools: int = 19
    opening: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise MoteError for what can't be."""
        if not self.factors:
            raise MoteError("--factors: name at least one, for instance --factors 0,0.25,0.5.")
        for factor in self.factors:
            if not math.isfinite(factor) or not 0 <= factor <= MOST_FACTOR:
                raise MoteError(f"--factors: {factor:g} is none; a factor lies between 0 and {MOST_FACTOR:g}.")
            if factor == 1:
                raise MoteError("--factors: 1 changes nothing; take it out.")
        if len(set(self.factors)) < len(self.factors):
            raise MoteError("--factors: one of them is there twice.")
        if not math.isfinite(self.harm) or self.harm <= 0:
            raise MoteError(f"--kl {self.harm:g}: the bound on the divergence lies above 0, in nats a token.")
        if not 0 <= self.broken < 1:
            raise MoteError(f"--broken {self.broken:g}: the bound on broken answers is a share from 0 to below 1.")
        if not self.shuffles and not self.pools:
            raise MoteError("--shuffles 0 --pools 0: without a null the best of many trials says nothing.")

    @cached_property
    def plan(self) -> Plan:
        """How each search goes."""
        factors = tuple(sorted(self.factors))
        return Plan(self.trials, max(1, min(8, self.trials // 2)), factors, self.harm, self.broken, self.checked)

    @property
    def nulls(self) -> dict[Kind, int]:
        """How many null searches of each kind."""
        return {"shuffled": self.shuffles, "pool": self.pools}
