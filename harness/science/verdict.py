"""The verdict of a study: are the tuned experts special, by every test that could say they are not?

``above`` needs all of: more flips than random sets matched by mass and than sets of the same layers (both named by
`DECISIVE`), and than every other kind that was drawn; the class less often than under the untouched model with other
seeds (`noise`); enough target prompts, in enough units. As each leg must hold, none needs a correction for the others:
the chance that all hold by chance is at most the chance of any one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from mote.harness.preconditions import DataError
from mote.harness.science.inference import Interval, clopper_pearson
from mote.harness.science.noise import RETESTS, NoiseFloor
from mote.harness.science.sequential import FamilyProgress

ALPHA: Final = 0.05
DECISIVE: Final = ("mass", "layers")
"""The controls without which nothing is above: by how often the experts are chosen, and by where they lie."""

PROMPTS: Final = 10
"""The fewest target prompts of a verdict, unless forced."""

UNITS: Final = 3
"""The fewest units: with three retests two units can't reach p = 0.05 (1 / 16), and an interval of one has no width."""

NEAR_ALPHA: Final = 0.9
"""The level at which a p-value's Monte Carlo interval is held against alpha."""

Kind = Literal["above", "not-above", "few", "too-few-prompts", "unknown"]


class ControlLeg(NamedTuple):
    """The tuned set among the random sets of one kind: `reached` of `sets` distinct ones flip at least as many.

    `p` is nan while sets are missing. `least_p` is 1 / (planned + 1). `stopped`: the family ended early, significance
    being out of reach; its p is then an upper part of what the whole would give, on the same side of alpha.
    """

    kind: str
    p: float
    least_p: float
    reached: int
    sets: int
    stopped: bool = False

    @property
    def monte_carlo(self) -> Interval:
        """The exact 90% interval of the share of all sets of this kind that flip as many."""
        return clopper_pearson(self.reached, self.sets, NEAR_ALPHA)

    def near(self, alpha: float = ALPHA) -> bool:
        """Return whether other draws of the sets may well have put p on the other side of alpha."""
        low, high = self.monte_carlo
        return self.sets > 0 and low <= alpha <= high


class Verdict(NamedTuple):
    """What a study shows. `p` is the largest of its legs' (nan where one is unknown), `least_p` the largest least one.

    `reason` says it in words, one sentence. `legs` are the control legs, `noise` the noise floor. `forced`: fewer
    prompts or units than a verdict asks for were let pass.
    """

    kind: Kind
    reason: str
    p: float
    least_p: float
    legs: tuple[ControlLeg, ...]
    noise: NoiseFloor | None
    prompts: int
    units: int
    forced: bool = False


def control_leg(kind: str, observed: float, null: Sequence[float], planned: int | None = None) -> ControlLeg:
    """Return the leg of one kind from the effect of the tuned set and those of its distinct random sets.

    Effects are flips, shares or exact probabilities; equal ones count as reached (to nine digits, so that a sum's
    order is no difference). With fewer than `planned` sets at hand the leg's p is nan.
    """
    sets = len(null)
    if not all(math.isfinite(value) for value in [observed, *null]):
        raise DataError(f"The effects of the '{kind}' controls hold a value that is not finite.")
    whole = sets if planned is None else planned
    slack = 1e-9 * max(1.0, abs(observed))
    reached = sum(value >= observed - slack for value in null)
    p = (1 + reached) / (1 + sets) if sets and sets >= whole else math.nan
    return ControlLeg(kind, p, 1 / (1 + whole), reached, sets)


def sequential_leg(kind: str, family: FamilyProgress) -> ControlLeg:
    """Return the leg of one kind from its sequential progress."""
    least = 1 / (1 + family.planned)
    return ControlLeg(kind, family.p, least, family.reached, family.sets, family.stopped)


def verdict(
    legs: Sequence[ControlLeg],
    noise: NoiseFloor | None,
    prompts: int,
    units: int,
    *,
    alpha: float = ALPHA,
    force: bool = False,
) -> Verdict:
    """Return the verdict of control legs, noise floor, and the numbers of target prompts and of units that count.

    In this order: ``too-few-prompts`` (fewer than `PROMPTS`, or than `UNITS` units, and not `force`); ``not-above``
    where any leg fails with a least p that would have let it hold; ``unknown`` where a leg is missing or not finished
    (a decisive kind not drawn, fewer than `RETESTS` retests); ``few`` where the legs that fail could not have held,
    having too few distinct sets or units; else ``above``.
    """
    known = [(leg.kind, leg.p, leg.least_p) for leg in legs]
    if noise is not None and len(noise.retests) >= RETESTS:
        known.append(("noise", noise.p, noise.least_p))
    p = max((p for _, p, _ in known), default=math.nan)
    if any(math.isnan(value) for _, value, _ in known):
        p = math.nan
    least = max((value for _, _, value in known), default=math.nan)
    short = prompts < PROMPTS or units < UNITS
    kind, reason = _decide(legs, noise, known, alpha, prompts, units, short and not force)
    return Verdict(kind, reason, p, least, tuple(legs), noise, prompts, units, short and force)


def _decide(
    legs: Sequence[ControlLeg],
    noise: NoiseFloor | None,
    known: Sequence[tuple[str, float, float]],
    alpha: float,
    prompts: int,
    units: int,
    short: bool,
) -> tuple[Kind, str]:
    if short:
        return "too-few-prompts", (
            f"{prompts} target prompts in {units} units are too few for a verdict, which needs {PROMPTS} in {UNITS}."
        )
    failed = [(name, p, least) for name, p, least in known if p > alpha]
    fair = [(name, p) for name, p, least in failed if least <= alpha]
    if fair:
        said = " and ".join(f"{_WORDS.get(name, name)} (p = {p:.3f})" for name, p in fair)
        return "not-above", f"The tuned experts do no more than {said}."
    missing = [kind for kind in DECISIVE if kind not in {leg.kind for leg in legs}]
    if missing:
        return "unknown", f"No {' and no '.join(_WORDS[kind] for kind in missing)} were drawn."
    if noise is None or len(noise.retests) < RETESTS:
        there = 0 if noise is None else len(noise.retests)
        return "unknown", f"The noise floor needs {RETESTS} retests of the untouched model; there are {there}."
    unfinished = [name for name, p, _ in known if math.isnan(p)]
    if unfinished:
        return "unknown", f"Not finished: {' and '.join(_WORDS.get(name, name) for name in unfinished)}."
    if failed:
        said = " and ".join(f"{_WORDS.get(name, name)} (p is at least {least:.3f})" for name, _, least in failed)
        return "few", f"Too few distinct sets, units or retests to tell the tuned experts from {said}."
    return "above", (
        "The tuned experts do more than "
        + ", ".join(_WORDS.get(name, name) for name, _, _ in known[:-1])
        + f" and {_WORDS['noise']} (largest p = {max(p for _, p, _ in known):.3f})."
    )


_WORDS: Final[Mapping[str, str]] = {
    "mass": "random sets chosen as often",
    "layers": "random sets of the same layers",
    "frequency": "random sets of like experts",
    "uniform": "random sets of any layers",
    "noise": "sampling anew",
}
