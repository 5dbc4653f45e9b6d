"""The plan of a bake: a model's own tensors, with the output projections of some experts multiplied.

An expert's output is its down projection, and its bias where it has one; both times a factor is the expert's output
times it, whatever its weight is. Everything else is kept, the router too.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from mote.harness.errors import MoteError
from mote.harness.files import digest_of
from mote.harness.merge.checkpoint import FLOATS, FP8, Checkpoint, open_checkpoint
from mote.harness.merge.groups import SCALE, Place, place_of
from mote.harness.merge.plan import Copy, Plan, Scale, Step
from mote.harness.merge.schema import BakeRecipe
from mote.harness.merge.sources import Finder, Range, Source

PLAN_VERSION: Final = 1
"""Goes into a bake's digest: raised when the same recipe would give other bytes."""
_OUTPUT: Final = re.compile(r"\.experts\.(?:\d+\.)?(?:down_proj|w2)(?:\.weight|(?P<bias>\.bias|_bias))?$")
_PARENT: Final = "model"


def as_stored(factor: float) -> float:
    """Return a factor as a float32 number, which the engine's own edit has it as."""
    return float(struct.unpack("f", struct.pack("f", factor))[0])


def plan_bake(recipe: BakeRecipe, experts: int) -> Plan:
    """Open the model and plan its copy with scaled experts; ``experts`` are those of each of its layers.

    Raises MoteError for what cannot be read or scaled, and where an expert's output projection is not found, or twice.
    """
    base = open_checkpoint(_PARENT, recipe.parent)
    plan = Plan(recipe, [base], base)
    planner = _Planner(plan, recipe, experts)
    for number, shard in enumerate(base.shards):
        plan.shards.append([step for name in shard.tensors for step in planner.steps(name, number)])
    planner.check()
    plan.digest = digest_of(
        {"version": PLAN_VERSION, "recipe": recipe.digest, "parents": {_PARENT: base.header_digest}}
    )
    return plan


class _Planner:
    def __init__(self, plan: Plan, recipe: BakeRecipe, experts: int) -> None:
        self.plan, self.base = plan, plan.base
        self.factors = {(layer, expert): factor for layer, expert, factor in recipe.scales}
        self.finder = Finder(0, self.base)
        self.experts = experts
        self.weights: Counter[tuple[int, int]] = Counter()

    def steps(self, name: str, shard: int) -> Iterator[Step]:
        """Yield what is written of a tensor, and of its block scales, in one shard."""
        weight = name.removesuffix(SCALE)
        if weight != name and weight in self.base.tensors:
            if self.base.tensors[weight].file == shard:
                return  # planned with its weight
            name = weight
        place = place_of(name, self.base.layers)
        output = _OUTPUT.search(name) if place.group == "routed_experts" else None
        counts = output is not None and not output["bias"] and self.base.tensors[name].file == shard
        for expert in self._parts(name, place, edited=output is not None):
            one = place.expert if expert is None else expert
            pair = (place.layer if place.layer is not None else -1, -1 if one is None else one)
            factor = self.factors.get(pair) if output is not None else None
            self.weights[pair] += counts
            source = self.finder.find(name, place, expert)
            if source is None:
                raise AssertionError(f"the model does not find its own '{name}'")
            yield from self._part(f"{name}[{expert}]" if expert is not None else name, place, source, factor, shard)

    def _parts(self, name: str, place: Place, *, edited: bool) -> Sequence[int | None]:
        """Return the experts that a tensor is planned by, each apart; None is the tensor as a whole."""
        if not (place.fused and edited and any(layer == place.layer for layer, _ in self.factors)):
            return (None,)
        shape = self.base.tensors[name].shape
        if not shape or shape[0] != self.experts:
            raise MoteError(f"'{name}' is of shape {list(shape)}, and should have the {self.experts} experts first.")
        return range(self.experts)

    def _part(self, label: str, place: Place, source: Source, factor: float | None, shard: int) -> Iterator[Step]:
        start, scale_start = (self._start(ranges, shard) for ranges in (source.ranges, source.scale_ranges))
        kind = "kept" if factor is None else "scaled"
        step = Scale(label, source, start, scale_start, 1.0 if factor is None else factor)
        self.plan.tensors[place.group, kind] += start >= 0
        self.plan.bytes[place.group, kind] += step.nbytes
        if factor is not None:
            if source.dtype not in (*FLOATS, FP8):
                raise MoteError(f"'{label}' is of the type {source.dtype}, which cannot be scaled.")
            yield step
            return
        for at, ranges in ((start, source.ranges), (scale_start, source.scale_ranges)):
            yield from (Copy(one, at) for one in ranges if at >= 0)

    def _start(self, ranges: Sequence[Range], shard: int) -> int:
        """Return where a model's own tensor, which is one range, lies in a shard's data; -1 where it lies elsewhere."""
        if not ranges or ranges[0].shard != shard:
            return -1
        return ranges[0].start - self.base.shards[shard].data_start

    def check(self) -> None:
        """Raise MoteError unless each expert that is scaled has one output projection."""
        for layer, expert in sorted(self.factors):
            found = self.weights[layer, expert]
            if found != 1:
                said = "is not found under a name that is known here" if not found else f"is there {found} times"
                raise MoteError(
                    f"the output projection of expert ({layer}, {expert}) {said}: a checkpoint of"
                    f" {_architecture(self.base)} is not baked."
                )


def _architecture(base: Checkpoint) -> str:
    named = base.config.get("architectures")
    return str(named[0])[:80] if isinstance(named, list) and named else "no architecture"
