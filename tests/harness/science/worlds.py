"""Worlds in which the truth about experts is known, to hold the verdict against.

A refused prompt flips under a suppressed set with the chance 1 - 0.97 exp(-beta * sum of c_e * activations of e in the
prompt): experts do harm by being chosen, each by a constant c_e of its own (lognormal), which does not depend on the
class. So no expert is special, and a verdict that says "above" is wrong, in all worlds but those that are `special`,
where the planted experts' constants are multiplied. beta is such that ten random experts flip `random_flips` of the
prompts beside the noise of 3%. Maps come from `synthetic.synthetic_study`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from mote.harness.science.controls import ControlKind, Expert, random_experts
from mote.harness.science.noise import noise_floor
from mote.harness.science.power import Power, Study, power
from mote.harness.science.removed import target_mass
from mote.harness.science.resonance import distinctive_experts, resonance
from mote.harness.science.splits import stratified_half
from mote.harness.science.verdict import Verdict, control_leg, verdict
from mote.judges import REFUSED
from tests.harness.science.synthetic import SyntheticStudy, synthetic_study

NOISE: Final = 0.03
SETS: Final = 50
RETESTS: Final = 3


@dataclass(frozen=True)
class World:
    """A kind of study. `shape` goes to `synthetic_study`; `tuned` is how many experts are chosen.

    `special` multiplies the constants of the planted experts; `unequal` makes the g-th place g times as large;
    `place_spread` is the standard deviation of the log of a factor on beta that each place has.
    """

    name: str
    bound: float
    shape: dict[str, Any] = field(default_factory=dict)
    tuned: int = 10
    special: float = 1.0
    unequal: bool = False
    place_spread: float = 0.0
    random_flips: float = 0.05


MIXTRAL: Final[dict[str, Any]] = {"layers": tuple(range(32)), "experts": 8, "top_k": 2, "prompts": 160}
ONE_LAYER: Final[dict[str, Any]] = {"layers": (0,), "experts": 8, "top_k": 2, "planted": 4}
TOPIC: Final[dict[str, Any]] = {"planted": 0, "topical": 10, "topic_effect": 2.0, "place_decides": 0.7}

NULL_WORLDS: Final = (
    World("nothing planted", 0.06, {"effect": 0.0}),
    World("merely busier, effect 1", 0.10, {"effect": 1.0}),
    World("merely busier, effect 2", 0.10, {"effect": 2.0}),
    World("topic experts", 0.10, TOPIC),
    World("few and unequal units", 0.06, {"effect": 0.0, "places": 5}, unequal=True, place_spread=1.0),
    World("few and unequal units, effect 1", 0.10, {"effect": 1.0, "places": 5}, unequal=True, place_spread=1.0),
    World("narrow layers (32 x 8)", 0.06, {"effect": 0.0, **MIXTRAL}),
    World("narrow layers (32 x 8), effect 1", 0.10, {"effect": 1.0, **MIXTRAL}),
    World("one layer, 4 of 8", 0.06, {"effect": 0.0, **ONE_LAYER}, tuned=4),
    World("rare target", 0.06, {"effect": 0.0, "refused": 0.1}),
    World("rare target, effect 1", 0.10, {"effect": 1.0, "refused": 0.1}),
)


@dataclass(frozen=True)
class Made:
    """One study of a world: what a run would know, and the truth: `chance` of a set on the measured refused prompts."""

    study: SyntheticStudy
    tuned: tuple[Expert, ...]
    mass: NDArray[np.float64]
    measured: NDArray[np.int64]
    places: list[str]
    harm: NDArray[np.float64]

    def chance(self, experts: Sequence[Expert]) -> NDArray[np.float64]:
        """The flip chance of each measured refused prompt, [prompts]."""
        row = {number: i for i, number in enumerate(self.study.layers)}
        at = ([row[layer] for layer, _ in experts], [expert for _, expert in experts])
        return np.asarray(1 - (1 - NOISE) * np.exp(-self.harm[:, at[0], at[1]].sum(axis=1)))


def make(world: World, seed: int) -> Made:
    """Make a study: a baseline, experts chosen by resonance on one half, refused prompts of the other to measure on."""
    study = synthetic_study(seed, **world.shape)
    rng = np.random.default_rng([seed, 1])
    if world.unequal:
        names = sorted(set(study.places))
        size = np.arange(1, len(names) + 1) / sum(range(1, len(names) + 1))
        study = replace(study, places=[str(name) for name in rng.choice(names, len(study.places), p=size)])
    chosen = set(stratified_half(study.prompt_ids, study.labels, seed).select)
    picks = np.array([name in chosen for name in study.prompt_ids])
    refused = np.array([label == REFUSED for label in study.labels])
    labels = [label for label, pick in zip(study.labels, picks, strict=True) if pick]
    ranking = resonance(study.maps[picks], labels, REFUSED)
    # A narrow layer may have too few experts above 0; the order is what counts here.
    ranking -= ranking.min() - 1
    tuned = tuple((one.layer, one.expert) for one in distinctive_experts(ranking, world.tuned, study.layers))
    constants = rng.lognormal(0.0, 1.0, study.maps.shape[1:])
    row = {number: i for i, number in enumerate(study.layers)}
    for layer, expert in study.planted:
        constants[row[layer], expert] *= world.special
    measured = np.flatnonzero(~picks & refused)
    doses = study.maps[measured] * constants
    # Constants of a special world are not in beta: its random sets do as little as elsewhere.
    share = world.tuned / doses[0].size
    typical = study.maps[measured].sum(axis=(1, 2)).mean() * np.exp(0.5) * share
    beta = -np.log(1 - world.random_flips) / typical
    factor = {
        name: rng.lognormal(-(world.place_spread**2) / 2, world.place_spread) for name in sorted(set(study.places))
    }
    places = [study.places[i] for i in measured]
    harm = beta * doses * np.array([factor[name] for name in places])[:, None, None]
    return Made(study, tuned, target_mass(study.maps[picks], labels, REFUSED), measured, places, harm)


def judge(made: Made, seed: int, kinds: Sequence[str] = ("mass", "layers"), sets: int = SETS) -> Verdict:
    """Draw controls, let all sets answer, and return the verdict."""
    rng = np.random.default_rng([seed, 2])
    ours = rng.random(made.measured.size) < made.chance(made.tuned)
    legs = []
    for kind in kinds:
        drawn = random_experts(cast(ControlKind, kind), made.tuned, made.mass, made.study.layers, sets, rng)
        flips = [int((rng.random(made.measured.size) < made.chance(one)).sum()) for one in drawn]
        legs.append(control_leg(kind, int(ours.sum()), flips))
    retests = rng.random((RETESTS, made.measured.size)) >= NOISE
    floor = noise_floor(~ours, retests, made.places)
    return verdict(legs, floor, made.measured.size, len(set(made.places)))


SPECIAL: Final = tuple(
    World(f"planted experts do {times:g} times the harm", 1.0, {"effect": 2.0}, special=times, random_flips=0.02)
    for times in (2.0, 4.0, 8.0)
)
"""Worlds in which the verdict should be "above"; how often, `foretold` says."""


def foretold(made: Made, seed: int, *, kinds: Sequence[str] = ("mass", "layers"), simulations: int = 1000) -> Power:
    """Return the power of `judge` by `power`: told the true shares, of no prompt or set in particular."""
    nulls = []
    for kind in kinds:
        drawn = random_experts(cast(ControlKind, kind), made.tuned, made.mass, made.study.layers, 200, seed)
        nulls.append(tuple(float(made.chance(one).mean()) for one in drawn))
    sizes = tuple(Counter(made.places).values())
    study = Study(sizes, (SETS,) * len(kinds), RETESTS, NOISE, 0.0, tuple(nulls))
    return power(study, float(made.chance(made.tuned).mean()), simulations=simulations, seed=seed)
