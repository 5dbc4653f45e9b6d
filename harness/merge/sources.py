"""Where a tensor of the base lies in a parent: as ranges of bytes, whatever layout the parent has.

Experts are stored one a tensor, or fused along the first axis (transformers 5: ``gate_up_proj`` [experts, 2 x width,
hidden], the gate's rows before the up's). Both are row-major, so an expert's gate, up or down projection is one range
of bytes in either, and the rows of a fused expert are the gate's range followed by the up's.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mote.harness.errors import MoteError
from mote.harness.merge.checkpoint import BLOCK, FP8, Checkpoint
from mote.harness.merge.groups import SCALE, Place, spellings
from mote.harness.tensors import TensorEntry

_TRANSPOSED: Final = {"gpt_oss", "llama4", "llama4_text"}
"""Fused layouts with the input along the rows; no per-expert form of theirs is published."""


class Range(NamedTuple):
    """Bytes of one shard of one parent."""

    parent: int
    shard: int
    start: int
    nbytes: int


class Source(NamedTuple):
    """A tensor, or one expert of a fused one, in one parent: ``ranges`` one after another are its values row by row."""

    dtype: str
    shape: tuple[int, ...]
    ranges: tuple[Range, ...]
    scale_dtype: str = ""
    scale_shape: tuple[int, ...] = ()
    scale_ranges: tuple[Range, ...] = ()


class Finder:
    """Finds tensors of the base in one parent, and remembers which of the parent's were of use."""

    def __init__(self, parent: int, checkpoint: Checkpoint) -> None:
        self.parent = parent
        self.checkpoint = checkpoint
        self.used: set[str] = set()
        self._transposed = checkpoint.text_config.get("model_type") in _TRANSPOSED

    def holds(self, name: str) -> str | None:
        """Return the parent's own name of a tensor that it stores in the same layout, or None."""
        tensors = self.checkpoint.tensors
        if name in tensors:
            return name
        return next((other for other in spellings(name)[1:] if other in tensors), None)

    def find(self, name: str, place: Place, expert: int | None) -> Source | None:
        """Return where a tensor of the base lies; with ``expert``, that expert's slice of a fused one."""
        own = self.holds(name)
        if own is not None:
            self.used.add(own)
            whole = self._whole(own)
            return whole if expert is None else _rows(whole, expert, self.checkpoint.tensors[own])
        if place.group not in ("routed_experts", "mtp") or self._transposed:
            return None
        if expert is not None:
            return self._assembled(name, expert)
        return self._cut_out(name)

    def _whole(self, name: str) -> Source:
        entry = self.checkpoint.tensors[name]
        found = Source(entry.dtype, entry.shape, (self._range(entry),))
        if entry.dtype != FP8:
            return found
        self.used.add(name + SCALE)
        scale = self.checkpoint.tensors[name + SCALE]
        return Source(*found[:3], scale.dtype, scale.shape, (self._range(scale),))

    def _range(self, entry: TensorEntry) -> Range:
        return Range(self.parent, entry.file, entry.start, entry.nbytes)

    def _assembled(self, name: str, expert: int) -> Source | None:
        """Return an expert of a fused tensor from a parent with one expert a tensor."""
        stem, _, part = name.rpartition(".experts.")
        parts = ("gate_proj", "up_proj") if part == "gate_up_proj" else (part,)
        owns = [self.holds(f"{stem}.experts.{expert}.{one}.weight") for one in parts]
        if None in owns:
            return None
        self.used.update(own for own in owns if own)
        return _joined([self._whole(own) for own in owns if own], name)

    def _cut_out(self, name: str) -> Source | None:
        """Return one expert's projection from a parent with fused experts."""
        plain = next((one for one in spellings(name) if ".mlp.experts." in one), name)
        stem, _, rest = plain.rpartition(".experts.")
        number, _, part = rest.partition(".")
        part = part.removesuffix(".weight")
        fused = f"{stem}.experts.{'down_proj' if part == 'down_proj' else 'gate_up_proj'}"
        if not number.isdigit() or part not in ("gate_proj", "up_proj", "down_proj"):
            return None
        located = self.checkpoint.tensors.get(fused)
        if located is None or len(located.shape) != 3 or int(number) >= located.shape[0]:
            return None
        self.used.add(fused)
        expert = _rows(self._whole(fused), int(number), located)
        if part == "down_proj":
            return expert
        return _half(expert, second=part == "up_proj", name=fused)


def _rows(whole: Source, expert: int, entry: TensorEntry) -> Source:
    """Return the slice of one expert along the first axis."""
    experts = entry.shape[0] if entry.shape else 0
    if expert >= experts:
        raise MoteError(f"expert {expert} of a tensor with {experts} experts")
    shape = whole.shape[1:]
    scales = tuple(_slice(one, expert, experts) for one in whole.scale_ranges)
    return Source(
        whole.dtype,
        shape,
        tuple(_slice(one, expert, experts) for one in whole.ranges),
        whole.scale_dtype,
        whole.scale_shape[1:],
        scales,
    )


def _half(expert: Source, *, second: bool, name: str) -> Source:
    rows = expert.shape[0] // 2
    if expert.dtype == FP8 and rows % BLOCK:
        raise MoteError(f"'{name}' is FP8, and a block of 128 rows spans its gate and up: write it out in bfloat16.")
    return Source(
        expert.dtype,
        (rows, *expert.shape[1:]),
        tuple(_slice(one, int(second), 2) for one in expert.ranges),
        expert.scale_dtype,
        (expert.scale_shape[0] // 2, *expert.scale_shape[1:]) if expert.scale_shape else (),
        tuple(_slice(one, int(second), 2) for one in expert.scale_ranges),
    )


def _joined(parts: list[Source], name: str) -> Source:
    first = parts[0]
    if len(parts) == 1:
        return first
    if any(part.dtype != first.dtype or part.shape != first.shape for part in parts):
        raise MoteError(f"'{name}': the experts' gate and up differ in type or shape")
    if first.dtype == FP8 and first.shape[0] % BLOCK:
        raise MoteError(f"'{name}' is FP8, and its gate has no whole blocks of 128 rows: write it out in bfloat16.")
    return Source(
        first.dtype,
        (sum(part.shape[0] for part in parts), *first.shape[1:]),
        tuple(one for part in parts for one in part.ranges),
        first.scale_dtype,
        (sum(part.scale_shape[0] for part in parts), *first.scale_shape[1:]) if first.scale_shape else (),
        tuple(one for part in parts for one in part.scale_ranges),
    )


def _slice(whole: Range, number: int, of: int) -> Range:
    step = whole.nbytes // of
    return whole._replace(start=whole.start + number * step, nbytes=step)
