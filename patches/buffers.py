"""The static tensors of a GPU's state: ``mote.patches.device`` fills them, ``mote.patches.kernel`` edits by them.

The kernel knows these buffers and not the state that owns them. The kernel needs Triton, this module does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from mote.patches.guards import DEVICE_EDITS
from mote.patches.layout import ModelLayout

CONTROL_HEADER = 4
"""Numbers of ``DeviceBuffers.control`` before the first row's."""


class DeviceBuffers(NamedTuple):
    """What the kernel reads and writes. Nothing here is ever allocated again: graphs hold the addresses.

    Attributes:
        control: int32 [4 + 2 * tokens]: rows mapped, capture (0 no, 1 ids, 2 ids and weights), two unused; then for
            each row its slot and the row of ``sums`` where its request's first edit is counted, -1 for not at all.
        number: int16 [slots, layers, experts]: 0 for an expert that is not edited, else the edit's number plus one.
        gain: float32 [slots, edits + 1]: by number plus one, 1 at index 0; see ``mote.patches.edit``.
        wanted: int16 [slots, layers, k]: the k lowest stimulated experts, ascending, padded with -1. More can never
            enter: of the k lowest some may be chosen already, and each of those keeps a slot from the others.
        touches: int8 [slots, layers]: whether the slot's profile edits the layer.
        sums: float64 [requests * edits, 4]: selected, entered, weight before, weight after.
        kept_ids: int16 [tokens, layers, k], the bits of uint16.
        kept_weights: float32 [tokens, layers, k].
    """

    control: torch.Tensor
    number: torch.Tensor
    gain: torch.Tensor
    wanted: torch.Tensor
    touches: torch.Tensor
    sums: torch.Tensor
    kept_ids: torch.Tensor
    kept_weights: torch.Tensor

    @classmethod
    def allocate(cls, layout: ModelLayout, requests: int, tokens: int, device: torch.device) -> DeviceBuffers:
        """Allocate for batches of so many requests and tokens, with ``SlotTable``'s slots; no row is mapped."""
        slots = requests + 2
        layers, k = len(layout.layers), layout.top_k

        def zeros(dtype: torch.dtype, *shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            zeros(torch.int32, CONTROL_HEADER + 2 * tokens),
            zeros(torch.int16, slots, layers, layout.experts),
            zeros(torch.float32, slots, DEVICE_EDITS + 1).fill_(1.0),
            zeros(torch.int16, slots, layers, k).fill_(-1),
            zeros(torch.int8, slots, layers),
            zeros(torch.float64, requests * DEVICE_EDITS, 4),
            zeros(torch.int16, tokens, layers, k),
            zeros(torch.float32, tokens, layers, k),
        )

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(tensor.nbytes for tensor in self)


Launch = Callable[[DeviceBuffers, int, torch.Tensor, torch.Tensor], None]
"""Edits one layer's routing in place by what the buffers say: (buffers, layer, weights [rows, k], ids [rows, k])."""
