"""Sham profiles: the edits of a profile on random experts, matched to it as the controls of a study are.

What a profile does to a task says little as long as random experts may do the same. A sham has the profile's edits,
one for one, on experts that ``science.controls`` draws; the n-th sham of a profile, kind and seed is the same wherever
it is made, so that a log names it by its number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mote.harness.compare.run_answers import split_run
from mote.harness.errors import MoteError, nearest
from mote.harness.experts.rankings import read_halves
from mote.harness.preconditions import DataError
from mote.harness.recipe.manifest import read_manifest
from mote.harness.science.controls import KINDS, MOST_SETS, ControlKind, Expert, random_experts
from mote.harness.store.run import RunStore
from mote.patches import Edit, ModelLayout, Profile

BY_LAYER: tuple[ControlKind, ...] = ("layers", "frequency")
"""The kinds that draw as many experts of each layer as the profile edits there, so that edits find their places."""


class Sham(NamedTuple):
    """Which sham of a profile: ``of`` is the profile's digest, ``number`` counts from 1."""

    of: str
    number: int
    kind: str
    seed: int


def check_kind(kind: str, option: str) -> ControlKind:
    """Return a kind of random sets; raise MoteError, with the nearest, for what is none."""
    if kind not in KINDS:
        raise MoteError(f"{option}{kind} is no kind of random experts.{nearest(kind, KINDS)}")
    return kind


def sham_profiles(
    profile: Profile, layout: ModelLayout, kind: ControlKind, count: int, seed: int, source: str
) -> list[Profile]:
    """Return ``count`` shams of a profile, named ``PROFILE-sham-1`` and so on.

    ``source`` is what named the profile: kinds by how busy experts are (frequency, mass) need ``RUN:PROFILE``, for the
    maps of the run's choosing prompts. Raises MoteError for a profile without edits, for mixed edits where the kind
    does not keep their layers, and where the model has fewer other sets.
    """
    if not profile.canonical:
        raise MoteError(f"profile '{profile.name}' edits nothing, so it has no shams.")
    if not 1 <= count <= MOST_SETS:
        raise MoteError(f"{count} shams: there are from 1 to {MOST_SETS}.")
    actions = {(edit.action, edit.factor) for edit in profile.canonical}
    if len(actions) > 1 and kind not in BY_LAYER:
        raise MoteError(
            f"profile '{profile.name}' mixes {len(actions)} kinds of edits, which shams of the kind '{kind}' can't be"
            f" given one for one: take {' or '.join(BY_LAYER)}."
        )
    tuned = [(edit.layer, edit.expert) for edit in profile.canonical]
    try:
        drawn = random_experts(kind, tuned, _busy(kind, source, layout), layout.layers, count, seed)
    except DataError as error:
        raise MoteError(f"shams of '{profile.name}': {error}") from None
    if len(drawn) < count:
        raise MoteError(f"the model has only {len(drawn)} other sets of the kind '{kind}', not {count}.")
    return [
        Profile(f"{profile.name}-sham-{number}", _edits(profile, experts), layout, profile.tokens)
        for number, experts in enumerate(drawn, start=1)
    ]


def _edits(profile: Profile, experts: list[Expert]) -> tuple[Edit, ...]:
    """The profile's edits on other experts: in each layer one for one where they differ, else the same for all."""
    edits = profile.canonical
    if len(experts) != len(edits):
        # By mass a set has a size of its own; its edits are all alike.
        return tuple(Edit(layer, expert, edits[0].action, edits[0].factor) for layer, expert in experts)
    return tuple(
        Edit(layer, expert, edit.action, edit.factor)
        for (layer, expert), edit in zip(sorted(experts), edits, strict=True)
    )


def _busy(kind: ControlKind, source: str, layout: ModelLayout) -> NDArray[np.float64]:
    """Mean activations of each expert, [layers, experts]; zeros for kinds that read none."""
    if kind in ("uniform", "layers"):
        return np.zeros((len(layout.layers), layout.experts))
    folder, name = split_run(source)
    if name is None or not folder.is_dir():
        raise MoteError(
            f"shams of the kind '{kind}' are matched to how busy experts are, which a run knows: name the profile as"
            " RUN:PROFILE, or take layers or uniform."
        )
    with RunStore(folder, read_only=True) as store:
        return read_halves(store, read_manifest(folder)).mass
