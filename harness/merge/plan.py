"""The plan of a merge: for every byte of the child, where it comes from. Made and checked from headers alone."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from mote.harness.errors import MoteError
from mote.harness.files import digest_of
from mote.harness.merge.agreement import check_agreement, check_names
from mote.harness.merge.checkpoint import FLOATS, FP8, Checkpoint, open_checkpoint
from mote.harness.merge.groups import SCALE, Place, place_of
from mote.harness.merge.rules import Decision, Rules
from mote.harness.merge.schema import BakeRecipe, MergeRecipe, Threshold
from mote.harness.merge.sources import Finder, Range, Source
from mote.harness.tensors import TensorEntry

RULES_VERSION = 1
"""Goes into a child's digest: raised when the same recipe would give other bytes."""


class Copy(NamedTuple):
    """Bytes taken over as they are, to ``start`` of the child's data in this shard."""

    source: Range
    start: int


class Mix(NamedTuple):
    """A tensor, or one expert of a fused one, that is computed from its parents.

    ``sources`` has one entry a parent that counts, with its weight; the base's comes first, also at weight 0 (the
    threshold measures against it). ``start`` and ``scale_start`` are places in the child's data of this shard, -1 for
    what is not written here: a weight and its block scales may lie in two shards.
    """

    name: str
    place: Place
    target: Source
    start: int
    scale_start: int
    sources: tuple[tuple[float, Source], ...]
    threshold: Threshold | None

    @property
    def nbytes(self) -> int:
        """The bytes that this writes."""
        return _nbytes(self)


class Scale(NamedTuple):
    """The base's own tensor, or one expert of a fused one, times ``factor``; places are as in ``Mix``.

    An FP8 weight keeps its codes and has its block scales multiplied; the factor 0 makes its codes zeros.
    """

    name: str
    target: Source
    start: int
    scale_start: int
    factor: float

    @property
    def nbytes(self) -> int:
        """The bytes that this writes."""
        return _nbytes(self)


Step = Copy | Mix | Scale


@dataclass
class Plan:
    """What is to be done: ``shards[i]`` are the steps of the base's i-th file.

    ``tensors`` and ``bytes`` count by (group, what is done: kept, copied, mixed, converted, scaled); experts of a fused
    tensor that are planned apart count each. ``digest`` names the child: the sha256 of its recipe, with rankings
    resolved to experts, and of its parents' headers.
    """

    recipe: MergeRecipe | BakeRecipe
    parents: list[Checkpoint]
    base: Checkpoint
    shards: list[list[Step]] = field(default_factory=list)
    tensors: Counter[tuple[str, str]] = field(default_factory=Counter)
    bytes: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    digest: str = ""

    @property
    def total(self) -> int:
        """The bytes of the child's weights."""
        return sum(self.bytes.values())

    def bytes_of(self, kind: str) -> int:
        """Return the bytes of what is ``kept``, ``copied``, ``mixed``, ``converted`` or ``scaled``."""
        return sum(count for (_, what), count in self.bytes.items() if what == kind)


def make_plan(recipe: MergeRecipe) -> Plan:
    """Open the parents, check that they can be merged by the recipe, and plan the child.

    Raises MoteError, one line, for anything that headers and configurations show to be wrong.
    """
    # A hundred thousand tensors are a million small objects and no cycles; looking for those doubles the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        parents: list[Checkpoint] = []
        for name, parent in recipe.parents.items():
            parents.append(open_checkpoint(name, parent, parents[0] if parents else None))
        base = parents[list(recipe.parents).index(recipe.base)]
        notes = [note for other in parents if other is not base for note in check_agreement(base, other)]
        plan = Plan(recipe, parents, base, notes=notes)
        _Planner(plan, recipe).run()
    finally:
        if collecting:
            gc.enable()
    return plan


class _Planner:
    """Plans a child tensor by tensor; holds what all of them need."""

    def __init__(self, plan: Plan, recipe: MergeRecipe) -> None:
        self.plan = plan
        self.base = plan.base
        self.rules = Rules(recipe, self.base.layers)
        self.finders = [Finder(number, parent) for number, parent in enumerate(plan.parents)]
        self.own = self.finders[plan.parents.index(self.base)]
        self.layers = self.base.layers
        self.places: dict[str, Place] = {}
        self.others = [parent.tensors for parent in plan.parents if parent is not plan.base]
        self._names_differ = any(parent.tensors.keys() != self.base.tensors.keys() for parent in plan.parents)
        self.missing: list[list[str]] = [[] for _ in plan.parents]
        self.pairs: set[tuple[int, int]] = set()

    def run(self) -> None:
        for number, shard in enumerate(self.base.shards):
            steps: list[Step] = []
            for name in shard.tensors:
                weight = name.removesuffix(SCALE)
                if weight == name or weight not in self.base.tensors:
                    self._tensor(name, number, steps)
                elif self.base.tensors[weight].file != number:
                    self._tensor(weight, number, steps)
            self.plan.shards.append(steps)
        self.rules.check(self.places, self.pairs, self.base.tied)
        for finder, missing in zip(self.finders, self.missing, strict=True):
            if finder is not self.own and finder.checkpoint.tensors.keys() != self.base.tensors.keys():
                self.plan.notes += check_names(self.base, finder.checkpoint, missing, finder.used)
        self._check_tied_head()
        self.plan.digest = digest_of(
            {
                "version": RULES_VERSION,
                "recipe": self.plan.recipe.digest,
                "experts": [None if named is None else sorted(named) for named in self.rules.experts],
                "parents": {parent.name: parent.header_digest for parent in self.plan.parents},
            }
        )

    def _tensor(self, name: str, shard: int, steps: list[Step]) -> None:
        """Plan what of a tensor and its scales lies in a shard."""
        place, entry = place_of(name, self.layers), self.base.tensors[name]
        self.places[name] = place
        if not place.fused:
            if place.expert is not None and place.layer is not None:
                self.pairs.add((place.layer, place.expert))
            decision = self.rules.decide(name, place, place.expert)
            if entry.file != shard or not self._copied_alike(name, place, entry, decision, steps):
                self._part(name, place, None, decision, shard, steps)
            return
        experts = range(entry.shape[0] if entry.shape else 0)
        self.pairs.update((place.layer or 0, expert) for expert in experts)
        decisions = [self.rules.decide(name, place, expert) for expert in experts]
        # An expert's block scales may end within a block of rows, so FP8 goes expert by expert in whoever has it.
        owns = [(finder.checkpoint.tensors, finder.holds(name)) for finder in self.finders]
        whole = all(own is not None and tensors[own].dtype != FP8 for tensors, own in owns)
        if whole and len(set(decisions)) == 1 and decisions[0].threshold is None:
            self._part(name, place, None, decisions[0], shard, steps)
            return
        for expert, decision in zip(experts, decisions, strict=True):
            self._part(name, place, expert, decision, shard, steps)

    def _copied_alike(self, name: str, place: Place, entry: TensorEntry, decision: Decision, steps: list[Step]) -> bool:
        """Plan the usual case in the shortest way: all parents alike, one of them taken over as it is."""
        if decision.threshold is not None or 1.0 not in decision.weights:
            return False
        dtype, shape = entry.dtype, entry.shape
        own = self.base.tensors[name + SCALE] if dtype == FP8 else None
        for tensors in self.others:
            other = tensors.get(name)
            if other is None or other.dtype != dtype or other.shape != shape:
                return False
            if own is not None and (own.file != entry.file or tensors[name + SCALE].dtype != own.dtype):
                return False
        number = decision.weights.index(1.0)
        tensors = self.plan.parents[number].tensors
        data = self.base.shards[entry.file].data_start
        nbytes, one = entry.nbytes, tensors[name]
        steps.append(Copy(Range(number, one.file, one.start, nbytes), entry.start - data))
        if own is not None:
            nbytes, one = nbytes + own.nbytes, tensors[name + SCALE]
            steps.append(Copy(Range(number, one.file, one.start, own.nbytes), own.start - data))
        kind = "kept" if tensors is self.base.tensors else "copied"
        self.plan.tensors[place.group, kind] += 1
        self.plan.bytes[place.group, kind] += nbytes
        for finder in self.finders if self._names_differ else ():
            finder.used.update((name, name + SCALE))
        return True

    def _part(
        self, name: str, place: Place, expert: int | None, decision: Decision, shard: int, steps: list[Step]
    ) -> None:
        """Plan one tensor, or one expert of a fused one."""
        target = self.own.find(name, place, expert)
        if target is None:
            raise AssertionError(f"the base does not find its own '{name}'")
        sources: list[tuple[float, Source]] = []
        base_weight = 0.0
        for finder, weight in zip(self.finders, decision.weights, strict=True):
            if finder is self.own:
                base_weight = weight
                continue
            source = self._source(finder, name, place, expert, target, weight)
            if source is not None and weight:
                sources.append((weight, source))
        label = name if expert is None else f"{name}[{expert}]"
        step = self._mix(label, place, target, [(base_weight, target), *sources], decision.threshold, shard)
        if not sources:
            kind = "kept"
        elif len(sources) == 1 and not base_weight and decision.threshold is None:
            kind = "copied" if _same_layout(sources[0][1], target) else "converted"
        else:
            kind = "mixed"
        if kind in ("kept", "copied"):
            steps += _copies(step, sources[0][1] if sources else target)
        elif target.dtype in (*FLOATS, FP8):
            steps.append(step)
        else:
            raise MoteError(
                f"'{label}' is of the type {target.dtype}, which cannot be mixed: let a rule before keep the base's."
            )
        self.plan.tensors[place.group, kind] += step.start >= 0
        self.plan.bytes[place.group, kind] += step.nbytes

    def _mix(
        self,
        label: str,
        place: Place,
        target: Source,
        sources: list[tuple[float, Source]],
        threshold: Threshold | None,
        shard: int,
    ) -> Mix:
        data = self.base.shards[shard].data_start
        codes, scales = target.ranges[0], target.scale_ranges
        start = codes.start - data if codes.shard == shard else -1
        scale_start = scales[0].start - data if scales and scales[0].shard == shard else -1
        return Mix(label, place, target, start, scale_start, tuple(sources), threshold)

    def _source(
        self, finder: Finder, name: str, place: Place, expert: int | None, target: Source, weight: float
    ) -> Source | None:
        """Return where a parent has it; None, and noted as missing, where it hasn't."""
        parent = finder.checkpoint
        try:
            source = finder.find(name, place, expert)
            if source is None and place.group == "head" and parent.tied:
                embeddings = next((one for one in self.base.tensors if one.endswith("embed_tokens.weight")), "")
                source = finder.find(embeddings, place, None)
        except MoteError as error:
            raise MoteError(f"parent '{parent.name}': {error}") from None
        if source is None:
            # A parent without the layers that predict further tokens may leave them to the base.
            if place.group != "mtp":
                self.missing[self.finders.index(finder)].append(name)
            elif weight:
                raise MoteError(f"parent '{parent.name}' has no '{name}', of which the rules take {weight:g}.")
            return None
        if source.shape != target.shape:
            raise MoteError(
                f"parent '{parent.name}' has '{name}' in the shape {list(source.shape)}, the base '{self.base.name}'"
                f" in {list(target.shape)}."
            )
        return source

    def _check_tied_head(self) -> None:
        """Refuse rules that would part a head from the embeddings that it is tied to, where both are stored."""
        head, embeddings = "lm_head.weight", "model.embed_tokens.weight"
        if not self.base.tied or head not in self.places or embeddings not in self.places:
            return
        left, right = (self.rules.decide(name, self.places[name], None) for name in (head, embeddings))
        if left.weights != right.weights:
            raise MoteError(
                f"the base '{self.base.name}' ties its head to the embeddings, and the rules give the two other"
                " weights: name both groups, embeddings and head, in one rule."
            )


def _nbytes(step: Mix | Scale) -> int:
    codes = sum(one.nbytes for one in step.target.ranges) if step.start >= 0 else 0
    return codes + (sum(one.nbytes for one in step.target.scale_ranges) if step.scale_start >= 0 else 0)


def _same_layout(source: Source, target: Source) -> bool:
    return source.dtype == target.dtype and source.scale_dtype == target.scale_dtype


def _copies(step: Mix, source: Source) -> list[Copy]:
    found = []
    for start, ranges in ((step.start, source.ranges), (step.scale_start, source.scale_ranges)):
        if start < 0:
            continue
        for one in ranges:
            found.append(Copy(one, start))
            start += one.nbytes
    return found
