"""What the GPU's kernel promises, said again in plain Python over the same buffers: its stand-in where Triton is not.

It reads nothing but the buffers and the routing, like the kernel, so a state that forgets to upload something is found
out here too. The rule itself comes from the pure function, one token at a time.
"""

from __future__ import annotations

import numpy as np
import torch

from mote.patches.buffers import DeviceBuffers
from mote.patches.edit import edit_rows


def launch(buffers: DeviceBuffers, layer: int, weights: torch.Tensor, ids: torch.Tensor) -> None:
    """Keep, edit and count one layer's routing."""
    control = buffers.control.numpy()
    for token in range(min(len(weights), int(control[0]))):
        capture, slot, base = int(control[1]), int(control[4 + 2 * token]), int(control[5 + 2 * token])
        if capture:
            buffers.kept_ids[token, layer] = ids[token].to(torch.int16)
        if capture > 1:
            buffers.kept_weights[token, layer] = weights[token].float()
        if buffers.touches[slot, layer]:
            _edit(buffers, layer, slot, base, weights[token], ids[token])


def _edit(buffers: DeviceBuffers, layer: int, slot: int, base: int, weights: torch.Tensor, ids: torch.Tensor) -> None:
    number = buffers.number.numpy()[slot, layer]
    chosen = ids.numpy().astype(np.int64)
    known = number[chosen]
    want = buffers.wanted.numpy()[slot, layer].astype(np.int32)
    if not known.any() and want[0] < 0:
        return
    before = weights.float().numpy()
    edited = edit_rows(before[None], chosen[None], buffers.gain.numpy()[slot, known][None], want[None])
    after, new = edited.weights[0], edited.ids[0]
    sums = buffers.sums.numpy()
    if base >= 0:
        for place in range(len(chosen)):
            if known[place]:
                kept = after[place] if new[place] == chosen[place] else 0.0
                sums[base + known[place] - 1] += [1, 0, before[place], kept]
            if new[place] != chosen[place]:
                sums[base + number[new[place]] - 1] += [0, 1, 0, after[place]]
    weights.copy_(torch.from_numpy(after))
    ids.copy_(torch.from_numpy(new))
