"""One tensor of a child: read from its parents piece by piece, mixed, handed on. A piece is small enough for a cache.

Pieces bound the memory whatever the tensor's size: a quarter of a million values, or 128 rows of an FP8 weight.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod, sqrt
from typing import Any, Final, NamedTuple

import torch

from mote.harness.errors import MoteError
from mote.harness.merge.arithmetic import DTYPES, dequantise, is_finite, mix, mix_dequantised, quantise, squares
from mote.harness.merge.checkpoint import BLOCK, FP8
from mote.harness.merge.plan import Mix
from mote.harness.merge.sources import Range, Source
from mote.harness.tensors import SIZES

PIECE: Final = 1 << 18
Files = Mapping[tuple[int, int], int]
"""Open files by (parent, shard)."""
Write = Callable[[torch.Tensor, int], None]
"""Takes contiguous values and the place of their first byte, counted from the tensor's (or its scales') start."""


class Distance(NamedTuple):
    """How far a parent's tensor lies from the base's: relative ||W-W0||/||W0||, and rms ||W-W0||/sqrt(n)."""

    relative: float
    rms: float


class Piece(NamedTuple):
    """Some rows of a tensor: the first, how many, and values a row. Tensors of one axis are one value a row."""

    first: int
    rows: int
    width: int


def pieces(source: Source) -> Iterator[Piece]:
    """Cut a tensor into pieces, at multiples of 128 rows where it is FP8."""
    rows, width = _matrix(source.shape)
    step = max(PIECE // max(width, 1), 1)
    if source.dtype == FP8:
        step = max(step // BLOCK, 1) * BLOCK
    for first in range(0, rows, step):
        yield Piece(first, min(step, rows - first), width)


def read_piece(files: Files, source: Source, piece: Piece, slot: int = 0) -> torch.Tensor:
    """Return the values of a piece [rows, width], float32 where the source is FP8, else in its own type.

    They lie in the thread's buffer of this ``slot``, and hold until its next use.
    """
    size = SIZES[source.dtype]
    codes = _read(files, source.ranges, piece.first * piece.width * size, piece.rows * piece.width * size, slot)
    values = codes.view(DTYPES[source.dtype]).view(piece.rows, piece.width)
    if source.dtype != FP8:
        return values
    across = source.scale_shape[-1]
    step = across * SIZES[source.scale_dtype]
    blocks = -(-piece.rows // BLOCK)
    raw = _read(files, source.scale_ranges, piece.first // BLOCK * step, blocks * step, -1)
    return dequantise(values, raw.view(DTYPES[source.scale_dtype]).view(blocks, across))


def squared_distance(files: Files, base: Source, other: Source) -> tuple[float, float, int]:
    """Return ||other - base||^2, ||base||^2 and the number of values of two tensors of one shape, summed in float64."""
    apart = own = 0.0
    # Pieces of an FP8 tensor lie on its blocks; those of the other may lie anywhere.
    for piece in pieces(other if other.dtype == FP8 else base):
        more, some = squares(read_piece(files, base, piece, 0), read_piece(files, other, piece, 1))
        apart, own = apart + more, own + some
    return apart, own, prod(base.shape)


def distance(files: Files, base: Source, other: Source) -> Distance:
    """Return the distance of two tensors of one shape; infinite where the base is all zeros and the other is not."""
    apart, own, count = squared_distance(files, base, other)
    relative = sqrt(apart) / sqrt(own) if own else (0.0 if not apart else float("inf"))
    return Distance(relative, sqrt(apart / max(count, 1)))


def parents_that_count(files: Files, step: Mix) -> tuple[list[float], list[Distance]]:
    """Return the weights after the threshold, in the order of the step's sources, and the parents' distances."""
    weights = [weight for weight, _ in step.sources]
    if step.threshold is None:
        return weights, []
    base = step.sources[0][1]
    found = [distance(files, base, source) for _, source in step.sources[1:]]
    for number, one in enumerate(found, start=1):
        measured = one.relative if step.threshold.distance == "relative" else one.rms
        if not measured > step.threshold.above:
            weights[0], weights[number] = weights[0] + weights[number], 0.0
    return weights, found


def lone_source(step: Mix, weights: Sequence[float]) -> Source | None:
    """Return the one source that all comes from, if its bytes can be taken over as they are."""
    counting = [source for weight, (_, source) in zip(weights, step.sources, strict=True) if weight]
    if len(counting) != 1:
        return None
    same = counting[0].dtype == step.target.dtype and counting[0].scale_dtype == step.target.scale_dtype
    return counting[0] if same else None


def compute(files: Files, step: Mix, weights: Sequence[float], codes: Write, scales: Write) -> None:
    """Mix a tensor piece by piece and hand on its values, and its block scales where it is FP8.

    Raises MoteError with the tensor's name where a result is NaN or infinite.
    """
    target = step.target
    used = [(weight, source) for weight, (_, source) in zip(weights, step.sources, strict=True) if weight]
    shares = [weight for weight, _ in used]
    cut = next((source for source in (target, *(one for _, one in used)) if source.dtype == FP8), target)
    for piece in pieces(cut):
        values = [read_piece(files, source, piece, slot) for slot, (_, source) in enumerate(used)]
        at = piece.first * piece.width * SIZES[target.dtype]
        if target.dtype == FP8:
            mixed = mix_dequantised([one.to(torch.float32) for one in values], shares)
            _check(mixed, step.name)
            quantised, blocks = quantise(mixed)
            codes(quantised, at)
            row = target.scale_shape[-1] * SIZES[target.scale_dtype]
            scales(blocks.to(DTYPES[target.scale_dtype]), piece.first // BLOCK * row)
        else:
            mixed = mix(values, shares, DTYPES[target.dtype])
            _check(mixed, step.name)
            codes(mixed, at)


def scaled(files: Files, name: str, source: Range, dtype: str, factor: float) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield the values of a range times ``factor``, piece by piece, each with the place of its first byte.

    The product is taken in float64 and rounded to float32 and to the type; 0 gives zeros, whatever the values are.
    Raises MoteError with the tensor's ``name`` where a product is NaN or infinite.
    """
    size = SIZES[dtype]
    for at in range(0, source.nbytes, PIECE * size):
        nbytes = min(PIECE * size, source.nbytes - at)
        if not factor:
            yield torch.zeros(nbytes, dtype=torch.uint8), at
            continue
        values = _read(files, (source,), at, nbytes, 0).view(DTYPES[dtype])
        product = (values.to(torch.float64) * factor).to(torch.float32).to(DTYPES[dtype])
        _check(product, name)
        yield product, at


def _check(values: torch.Tensor, name: str) -> None:
    if not is_finite(values):
        raise MoteError(f"'{name}' comes out with NaN or infinite values: a parent's is broken, or its sum overflows.")


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    width = shape[-1] if len(shape) > 1 else 1
    return prod(shape) // max(width, 1), width


class _Buffers(threading.local):
    """Memory that a thread reads into again and again: fresh memory would cost as much time as the reading."""

    def __init__(self) -> None:
        self._held: dict[int, torch.Tensor] = {}

    def of(self, slot: int, nbytes: int) -> torch.Tensor:
        held = self._held.get(slot)
        if held is None or held.numel() < nbytes:
            held = self._held[slot] = torch.empty(nbytes, dtype=torch.uint8)
        return held[:nbytes]


_buffers = _Buffers()


def _read(files: Files, ranges: tuple[Range, ...], at: int, nbytes: int, slot: int) -> torch.Tensor:
    """Read bytes of a source, whose ranges follow one another."""
    buffer = _buffers.of(slot, nbytes)
    data: Any = buffer.numpy()
    view = memoryview(data)
    done = 0
    for one in ranges:
        if at >= one.nbytes:
            at -= one.nbytes
            continue
        while done < nbytes and at < one.nbytes:
            wanted = min(nbytes - done, one.nbytes - at)
            got = os.preadv(files[one.parent, one.shard], [view[done : done + wanted]], one.start + at)
            if not got:
                raise MoteError("a parent's file became shorter while it was read.")
            done, at = done + got, at + got
        at = 0
    return buffer
