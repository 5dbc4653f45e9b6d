"""What is asked of both models: sets of experts with their random sets, seeds, and prompts that chose nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from mote.harness.diff.sides import Side
from mote.harness.errors import MoteError
from mote.harness.experts.scan import spread
from mote.harness.preconditions import DataError
from mote.harness.science.controls import MOST_SETS, Expert, random_experts
from mote.harness.science.model_difference import MOST_SEEDS
from mote.harness.take_home.source import check_layout, run_layout
from mote.patches import EMPTY_PROFILE, Edit, Profile

BOTH: Final = "both models' own"


@dataclass(frozen=True)
class DiffOptions:
    """``seeds`` other seeds, ``sets`` random sets for each edit, ``profiles`` beside the models' own.

    ``prompts`` bounds how many prompts of the class are asked. ``seed`` draws the random sets, and the halves of the
    prompts that maps are set against.
    """

    seeds: int = 3
    sets: int = 39
    profiles: tuple[Profile, ...] = ()
    prompts: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise MoteError for numbers that there can't be."""
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise MoteError(f"--seeds {self.seeds}: from 1 to {MOST_SEEDS}.")
        if not 0 <= self.sets <= MOST_SETS:
            raise MoteError(f"--sets {self.sets}: from 0 to {MOST_SETS}.")


class EditSet(NamedTuple):
    """An edit whose effect is set side by side: what it is called, its profile, and random sets edited the same way."""

    name: str
    profile: Profile
    controls: tuple[Profile, ...]

    @property
    def experts(self) -> list[Expert]:
        """The edited experts, (layer, expert)."""
        return [(edit.layer, edit.expert) for edit in self.profile.edits]


class Plan(NamedTuple):
    """What both models are asked: ``edits`` on ``prompts`` with each of ``seeds``; random sets with the first alone.

    ``prompts`` are those answered by the class in both baselines, in neither run's choosing half.
    """

    edits: tuple[EditSet, ...]
    prompts: list[str]
    seeds: list[int]

    def asked(self) -> Iterator[tuple[int, list[Profile]]]:
        """Yield each seed with the profiles that are asked with it."""
        edited = [EMPTY_PROFILE, *(one.profile for one in self.edits)]
        controls = {one.digest: one for each in self.edits for one in each.controls}
        for at, seed in enumerate(self.seeds):
            yield seed, [*edited, *(controls.values() if at == 0 else ())]

    @property
    def cost(self) -> int:
        """How many answers a model gives in all."""
        return sum(len({one.digest for one in profiles}) for _, profiles in self.asked()) * len(self.prompts)

    def settings(self, options: DiffOptions) -> dict[str, Any]:
        """Return what is written of the plan."""
        kept = {key: value for key, value in asdict(options).items() if key not in ("profiles", "prompts")}
        edits = [{"name": one.name, "digest": one.profile.digest, "experts": one.experts} for one in self.edits]
        return {**kept, "sampling_seeds": self.seeds, "prompts": len(self.prompts), "edits": edits}


def make_plan(first: Side, second: Side, options: DiffOptions) -> Plan:
    """Choose edits, random sets, seeds and prompts.

    Raises MoteError where the models share too few prompts of the class that chose nothing, and for a profile that the
    model has not, or of which no random sets can be drawn.
    """
    theirs = set(second.halves.measured)
    prompts = [key for key in first.halves.measured if key in theirs]
    if len(prompts) < 2:
        raise MoteError(
            f"{len(prompts)} prompts that chose no experts are answered {first.halves.target} by both models, and a"
            " difference of effects needs two at least: ask more prompts."
        )
    sampling = first.manifest["recipe"]["sampling"]
    # Without a temperature another seed is the same answer again.
    count = options.seeds if sampling["temperature"] > 0 else 1
    return Plan(
        tuple(_edit(name, side, profile, options) for name, side, profile in _profiles(first, second, options)),
        spread(prompts, first.halves.units, options.prompts or len(prompts), options.seed),
        [int(sampling["seed"]) + number for number in range(1, count + 1)],
    )


def _profiles(first: Side, second: Side, options: DiffOptions) -> list[tuple[str, Side, Profile]]:
    same = first.tuned.digest == second.tuned.digest
    own = [(BOTH if same else f"{first.name}'s own", first, first.tuned)]
    own += [] if same else [(f"{second.name}'s own", second, second.tuned)]
    named = [(profile.name, first, profile) for profile in options.profiles]
    layout = run_layout(first.manifest)
    found: dict[str, tuple[str, Side, Profile]] = {}
    for name, side, profile in [*own, *named]:
        if not profile.canonical:
            raise MoteError(
                f"--profile {profile.name} edits nothing: the untouched models are set side by side anyway."
            )
        check_layout(profile, layout)
        found.setdefault(profile.digest, (name, side, profile))
    return list(found.values())


def _edit(name: str, side: Side, profile: Profile, options: DiffOptions) -> EditSet:
    kinds = {(edit.action, edit.factor) for edit in profile.edits}
    if len(kinds) > 1 and options.sets:
        raise MoteError(
            f"--profile {profile.name} edits its experts in {len(kinds)} ways: no random set can be edited as it is;"
            " take --sets 0, or a profile of one action."
        )
    experts = sorted((edit.layer, edit.expert) for edit in profile.edits)
    halves = side.halves
    stream = np.random.default_rng([options.seed, *(number for expert in experts for number in expert)])
    try:
        drawn = (
            random_experts("mass", experts, halves.mass, halves.layers, options.sets, stream) if options.sets else []
        )
    except DataError as error:
        raise MoteError(f"random sets for {name}: {error}") from None
    return EditSet(
        name, profile, tuple(_as(profile, f"{profile.name}-random-{i + 1}", one) for i, one in enumerate(drawn))
    )


def _as(profile: Profile, name: str, experts: Sequence[Expert]) -> Profile:
    first = profile.edits[0]
    edits = tuple(Edit(layer, expert, first.action, first.factor) for layer, expert in experts)
    return Profile(name, edits, tokens=profile.tokens, model=profile.model)
