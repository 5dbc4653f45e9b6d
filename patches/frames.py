"""Packets of bytes: a magic word, a JSON header, and raw little-endian arrays that the header describes.

vLLM has one field that carries an array from the engine to the caller. All that the patch sends there is framed like
this. Reading a frame executes nothing and allocates only what the header's shapes can justify.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEAD = struct.Struct("<5sII")  # magic, bytes of the header, bytes of the arrays
_DTYPES: dict[str, np.dtype[Any]] = {
    "i4": np.dtype("<i4"),
    "f4": np.dtype("<f4"),
    "f8": np.dtype("<f8"),
    "u1": np.dtype("u1"),
    "u2": np.dtype("<u2"),
}


class FrameError(ValueError):
    """Bytes that are no whole packet of the kind that was expected."""


def frame(magic: bytes, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Return one packet as uint8 [bytes]; ``arrays`` are described under ``arrays`` of the header."""
    described = [[name, array.dtype.str[-2:], list(array.shape)] for name, array in arrays.items()]
    head = json.dumps({**header, "arrays": described}, separators=(",", ":")).encode("ascii")
    body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    return np.frombuffer(_HEAD.pack(magic, len(head), len(body)) + head + body, dtype=np.uint8)


def is_frame(magic: bytes, data: NDArray[Any]) -> bool:
    """Return whether an array begins with a packet of this kind."""
    return data.dtype == np.uint8 and data.ndim == 1 and data[: len(magic)].tobytes() == magic


def unframe(magic: bytes, data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return header and arrays of the last of the packets that ``data`` holds.

    Raises:
        FrameError: the bytes are no packets, are cut off, or are packets of another kind or version.
        KeyError, TypeError, ValueError, IndexError: a packet is damaged.
    """
    start, head, body = 0, b"", b""
    while start < len(data):
        if len(data) - start < _HEAD.size:
            raise FrameError("is cut off")
        found, head_size, body_size = _HEAD.unpack_from(data, start)
        if found != magic:
            raise FrameError("is not one that this version of mote reads; use the server's version")
        middle = start + _HEAD.size + head_size
        start, end = middle + body_size, middle + body_size
        if end > len(data):
            raise FrameError("is cut off")
        head, body = data[middle - head_size : middle], data[middle:end]
    if not head:
        raise FrameError("is empty")
    header: dict[str, Any] = json.loads(head)
    return header, _arrays(header["arrays"], body)


def _arrays(described: Any, body: bytes) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    offset = 0
    for name, kind, shape in described:
        dtype, count = _DTYPES[kind], math.prod(shape)
        if any(size < 0 for size in shape) or offset + count * dtype.itemsize > len(body):
            raise ValueError(f"array {name} of shape {shape} is longer than the packet")
        found[name] = np.frombuffer(body, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
    return found
