"""Slots: the profiles that a worker holds ready, as arrays that the edit can index.

A request carries its own canonical edits, so nothing has to be registered or kept in step between API servers and
workers: the worker writes a profile into a slot when a batch first needs it and forgets the least recently used one.
There is one slot more than a batch has requests, so a free one always exists. Slot 0 is the untouched model.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from mote.patches.choice import CODES
from mote.patches.edit import STIMULATE
from mote.patches.layout import ModelLayout
from mote.patches.profile import Edit, Profile


class Spec:
    """A profile as a worker knows it: parsed once, however many requests carry it.

    Attributes:
        text: the canonical edits, as in :attr:`mote.patches.Profile.spec`.
        digest: sha256 of the text; what the receipt says.
        edits: canonical edits, in order; their position is the edit's number.
        tokens: ``all``, ``prompt`` or ``generated``.
        slot: where the profile was written last; it holds only while ``SlotTable.holds`` says so.
    """

    __slots__ = ("digest", "edits", "slot", "text", "tokens")

    def __init__(self, text: str, edits: tuple[Edit, ...], tokens: str) -> None:
        self.text, self.edits, self.tokens = text, edits, tokens
        self.digest = hashlib.sha256(text.encode("ascii")).hexdigest()
        self.slot = 0

    @classmethod
    def of(cls, profile: Profile) -> Spec:
        """Make the spec of a valid profile."""
        return cls(profile.spec, profile.canonical, profile.tokens if profile.canonical else "all")


class SlotTable:
    """Profiles in slots 1 to ``capacity``, and the arrays that describe them.

    Attributes:
        number: int32 [layers, slots, experts]: 0 for an expert that is not edited, else the edit's number plus one.
        gain: float32 [slots, edits + 1]: the gain of each edit, by number plus one; 1 at index 0. Of an edit before the
            choice it is the factor.
        code: int8 [slots, edits + 1]: what an edit before the choice does (``mote.patches.choice.CODES``), else 0.
        touches: bool [layers, slots]: whether the slot's profile edits what the router of that layer has chosen.
        biases: bool [layers, slots]: whether the slot's profile edits the scores by which that router chooses.
        wanted: for each layer, int32 [slots, n] of stimulated experts, ascending, padded with -1; n is 0 where no
            slot stimulates there.
    """

    def __init__(self, layout: ModelLayout, capacity: int) -> None:
        layers, slots = len(layout.layers), capacity + 1
        self._row_of_layer = {layer: row for row, layer in enumerate(layout.layers)}
        self._held: list[Spec | None] = [None] * slots
        self._last_used = np.zeros(slots, np.int64)
        self.number = np.zeros((layers, slots, layout.experts), np.int32)
        self.gain = np.ones((slots, 1), np.float32)
        self.code = np.zeros((slots, 1), np.int8)
        self.touches = np.zeros((layers, slots), np.bool_)
        self.biases = np.zeros((layers, slots), np.bool_)
        self.wanted: list[NDArray[np.int32]] = [np.full((slots, 0), -1, np.int32) for _ in range(layers)]

    def holds(self, spec: Spec) -> bool:
        """Whether the spec's slot is still its own."""
        return self._held[spec.slot] is spec

    @property
    def held(self) -> int:
        """How many profiles are in slots."""
        return sum(spec is not None for spec in self._held)

    def place(self, specs: list[Spec], step: int) -> list[int]:
        """Make sure that every spec is in a slot, mark it as used in ``step``, and return the slots that were written.

        Specs without edits need none: their slot is 0.

        Raises:
            RuntimeError: more different profiles at once than there are slots; a batch cannot have so many.
        """
        missing: list[Spec] = []
        for spec in specs:
            if not spec.edits:
                continue
            if self._held[spec.slot] is spec:
                self._last_used[spec.slot] = step
            else:
                missing.append(spec)
        written: list[int] = []
        for spec in missing:
            if self._held[spec.slot] is not spec:  # listed twice
                self._write(spec, step)
                written.append(spec.slot)
        return written

    def _write(self, spec: Spec, step: int) -> None:
        slot = 1 + int(np.argmin(self._last_used[1:]))
        if self._last_used[slot] >= step:
            raise RuntimeError(f"a batch carries more than {len(self._held) - 1} different profiles")
        self.number[:, slot] = 0
        self.touches[:, slot] = False
        self.biases[:, slot] = False
        for wanted in self.wanted:
            wanted[slot] = -1
        if len(spec.edits) >= self.gain.shape[1]:
            more = ((0, 0), (0, len(spec.edits) + 1 - self.gain.shape[1]))
            self.gain = np.pad(self.gain, more, constant_values=1)
            self.code = np.pad(self.code, more)
        stimulated: dict[int, list[int]] = {}
        for number, edit in enumerate(spec.edits, start=1):
            layer = self._row_of_layer[edit.layer]
            self.number[layer, slot, edit.expert] = number
            (self.biases if edit.before_choice else self.touches)[layer, slot] = True
            self.gain[slot, number] = {"suppress": 0.0, "stimulate": STIMULATE}.get(edit.action, edit.factor)
            self.code[slot, number] = CODES.get(edit.action, 0)
            if edit.action == "stimulate":
                stimulated.setdefault(layer, []).append(edit.expert)
        for layer, experts in stimulated.items():
            self._want(layer, slot, experts)
        self._held[slot], self._last_used[slot], spec.slot = spec, step, slot

    def _want(self, layer: int, slot: int, experts: list[int]) -> None:
        wanted = self.wanted[layer]
        if wanted.shape[1] < len(experts):
            grown = np.full((wanted.shape[0], len(experts)), -1, np.int32)
            grown[:, : wanted.shape[1]] = wanted
            self.wanted[layer] = wanted = grown
        wanted[slot, : len(experts)] = sorted(experts)
