"""The figures of a demo checkpoint, the bounds they have to keep, and the rule that chooses the packaged one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mote.harness.demo.questions import CLASSES


@dataclass(frozen=True, slots=True)
class Quality:
    """The figures of a checkpoint; every share is of the number of examples named beside it."""

    class_seen: float
    class_seen_of: int
    class_held_out: float
    class_held_out_of: int
    classes: dict[str, int]
    language: float
    language_of: int
    language_held_out: float
    sums: float
    general: float
    general_of: int
    general_by_task: dict[str, float]
    twins_refused_sensitive: float
    twins_refused_harmless: float
    broken: float
    broken_of: int

    def passes(self) -> list[str]:
        """The bounds that are missed, each as a sentence; empty when all hold."""
        bounds = (
            ("class accuracy on seen cells", self.class_seen, 0.90),
            ("class accuracy on held-out cells", self.class_held_out, 0.85),
            ("reasoning language as asked", self.language, 0.90),
            ("general exact match", self.general, 0.70),
            ("share of unbroken text", 1.0 - self.broken, 0.99),
            ("classes present", float(all(self.classes.get(name) for name in CLASSES)), 1.0),
        )
        return [f"{name} is {value:.3f}, below {bound}" for name, value, bound in bounds if value < bound]

    def to_json(self) -> str:
        """The figures as JSON, floats rounded to four places."""
        rounded = json.loads(json.dumps(asdict(self)), parse_float=lambda text: round(float(text), 4))
        return json.dumps(rounded, indent=2, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Quality:
        """The figures that `to_json` wrote."""
        return Quality(**json.loads(text))


def choose(measured: Mapping[int, Quality]) -> int:
    """The seed whose checkpoint is packaged; fixed before any effect of an expert was measured on any of them.

    Of the seeds that pass every bound, the one with the highest general exact match on held-out sentences; of equals
    the one with the higher class accuracy on held-out cells; of equals still, the smallest seed. Raises ValueError
    when none passes.
    """
    passing = [seed for seed, quality in measured.items() if not quality.passes()]
    if not passing:
        raise ValueError(f"no seed passes every bound: { ({seed: q.passes() for seed, q in measured.items()}) }")
    return min(passing, key=lambda seed: (-measured[seed].general, -measured[seed].class_held_out, seed))
