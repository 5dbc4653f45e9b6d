"""safetensors files by their headers alone: where each tensor lies, and a digest that names weights too large to hash.

Headers come from strangers, so everything that a reader relies on is checked: a header within its file, known types,
shapes that agree with their bytes, tensors that neither overlap nor leave gaps (the format's own rule).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from mote.harness.errors import MoteError
from mote.harness.files import digest_file
from mote.reading import UnreadableError, parse_json

SIZES: Final[Mapping[str, int]] = {
    dtype: size
    for size, dtypes in (
        (8, ("F64", "I64", "U64")),
        (4, ("F32", "I32", "U32")),
        (2, ("BF16", "F16", "I16", "U16")),
        (1, ("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL")),
    )
    for dtype in dtypes
}
"""Bytes of one value of each type; types of less than a byte (F4) are not among them."""

_LARGEST_HEADER: Final = 100_000_000
_WHOLE: Final = 1 << 28
_SAMPLE: Final = 1024
_STRIDE: Final = 1 << 22


class TensorEntry(NamedTuple):
    """One tensor: the number of its file, its type, shape, first byte (counted from the file's start) and bytes."""

    file: int
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


class TensorFile(NamedTuple):
    """One safetensors file: tensors in the order of their bytes, metadata, and the header's own bytes."""

    path: Path
    size: int
    data_start: int
    raw: bytes
    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]


def read_tensor_file(path: Path, number: int = 0, like: TensorFile | None = None) -> TensorFile:
    """Read a safetensors file's header, and nothing of its weights; entries carry the file's ``number``.

    ``like`` is a file of the same number that was read before: where the headers are the same, it is not read again.

    Raises MoteError, one line, where the file is missing, cut off, or its header says something impossible.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                raise MoteError(f"{path} is no safetensors file: of {size} bytes, its header claims {length}.")
            raw = file.read(length)
    except FileNotFoundError:
        raise MoteError(f"{path} is not there.") from None
    except OSError as error:
        raise MoteError(f"{path} cannot be read: {error.strerror}.") from None
    if like is not None and like.raw == raw and like.size == size:
        return like._replace(path=path)
    try:
        content = parse_json(raw, _LARGEST_HEADER)
    except UnreadableError as error:
        raise MoteError(f"{path}: its header {error}.") from None
    if not isinstance(content, dict):
        raise MoteError(f"{path}: its header is no JSON object.")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MoteError(f"{path}: the header's '__metadata__' is no mapping of strings.")
    tensors = {name: _entry(path, name, value, 8 + length, number) for name, value in content.items()}
    return TensorFile(path, size, 8 + length, raw, _in_order(path, tensors, 8 + length, size), metadata)


def _in_order(path: Path, tensors: dict[str, TensorEntry], data_start: int, size: int) -> dict[str, TensorEntry]:
    """Return tensors by their places, which must follow one another to the file's end."""
    starts = [entry.start for entry in tensors.values()]
    if any(first > second for first, second in pairwise(starts)):
        tensors = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)))
    at = data_start
    for name, entry in tensors.items():
        if entry.start != at:
            raise MoteError(f"{path}: '{name}' begins at byte {entry.start}, and the tensor before it ends at {at}.")
        at += entry.nbytes
    if at != size:
        raise MoteError(f"{path} has {size} bytes, and its tensors end at {at}: it is cut off or has more in it.")
    return tensors


@cache
def _bytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor, or -1 for a shape that is none. Models have few shapes and many tensors."""
    if not all(isinstance(axis, int) and axis >= 0 for axis in shape):
        return -1
    return prod(shape) * SIZES[dtype]


def _entry(path: Path, name: str, value: Any, data_start: int, number: int) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        right = _bytes_of(dtype, shape) == end - begin and begin >= 0
        entry = TensorEntry(number, dtype, shape, data_start + begin, end - begin)
    except KeyError:
        dtype = value.get("dtype") if isinstance(value, dict) else None
        if isinstance(dtype, str) and dtype not in SIZES:
            raise MoteError(f"{path}: '{name}' is of the type {dtype}, which is not known here.") from None
        raise MoteError(f"{path}: the header's entry of '{name}' is incomplete.") from None
    except (TypeError, ValueError):
        raise MoteError(f"{path}: the header's entry of '{name}' is incomplete.") from None
    if not right:
        raise MoteError(f"{path}: '{name}' is {dtype} of shape {list(shape)}, which are not {end - begin} bytes.")
    return entry


def digest_weights(path: Path) -> str:
    """Return the digest that names a file of weights: of all its bytes up to 256 MiB, beyond that of samples.

    Samples are the file's size, its whole header (names, types, shapes, places, metadata), and of every tensor the
    first and the last KiB and one KiB in each 4 MiB. Guaranteed: two files that differ in any of these have different
    digests, among them children of different recipes or parents, whose headers name what they were made from. Not
    guaranteed: a change beyond 256 MiB that touches no sampled byte is not seen.
    """
    if path.stat().st_size <= _WHOLE or path.suffix != ".safetensors":
        return f"sha256:{digest_file(path)}"
    file = read_tensor_file(path)
    digest = hashlib.sha256(file.raw)
    handle = os.open(path, os.O_RDONLY)
    try:
        for entry in file.tensors.values():
            for at in _samples(entry):
                digest.update(os.pread(handle, min(_SAMPLE, entry.start + entry.nbytes - at), at))
    finally:
        os.close(handle)
    return f"size:{file.size},sha256-of-header-and-samples:{digest.hexdigest()}"


def _samples(entry: TensorEntry) -> Iterator[int]:
    end = entry.start + entry.nbytes
    yield from range(entry.start, end, _STRIDE)
    if entry.nbytes > _SAMPLE:
        yield end - _SAMPLE
