"""The edit on a GPU: one Triton kernel for one layer's routing, over tokens and their k slots.

It holds the rule of ``mote.patches.edit`` a third time, for tensors that a CUDA graph may replay: everything that
changes between steps is read from buffers that never move (``mote.patches.buffers.DeviceBuffers``), nothing is decided
on the host, nothing is allocated. One program handles one token, so an untouched one costs one load to four:

- rows from the batch's size on (the padding of a CUDA graph, and every row of a batch without profiles) leave after
  the first load, with their weights and ids unread: vLLM may have put -1 there;
- tokens of slot 0 leave after the third, unless the step captures;
- tokens whose profile does not touch this layer leave after the fourth, unless the step captures; then they leave once
  the router's choice is kept.

The router's own choice is kept before the edit. Sums are taken in float64 like the pure function's; the k values are
added in another order, which can differ from it by one rounding of the result to float32, no more: every weight is a
float32, so the float64 sums differ by parts in 10^15. Ids come from comparisons of exact values and are equal.
What is counted goes by atomic additions of float64 to rows of (request, edit): counts are whole numbers and exact,
sums of weights depend on the order of additions in their last bits.

This module needs Triton, so only a GPU's state imports it. Tests run it in Triton's interpreter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]

if TYPE_CHECKING:
    from mote.patches.buffers import DeviceBuffers

LANES = 32
"""Least width of the kernel's vectors: a whole warp, so that no lane holds an element twice."""


# One compiled form for every layer, stride and address: a variant that a warm-up has not met would have to be compiled
# while a graph is recorded, which CUDA forbids.
@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["layer", "weights_row", "weights_column", "ids_row", "ids_column"],
    do_not_specialize_on_alignment=["weights", "ids"],
)
def route_kernel(  # type: ignore[no-untyped-def]
    weights,
    ids,
    control,
    number,
    gain,
    wanted,
    touches,
    sums,
    kept_ids,
    kept_weights,
    layer,
    weights_row,
    weights_column,
    ids_row,
    ids_column,
    layers: tl.constexpr,
    experts: tl.constexpr,
    k: tl.constexpr,
    gains: tl.constexpr,
    width: tl.constexpr,
):
    """Keep, edit and count one token's routing. ``control`` is [tokens, capture, 0, 0] and (slot, base) per token."""
    token = tl.program_id(0).to(tl.int64)
    if token >= tl.load(control):
        return
    capture = tl.load(control + 1)
    slot = tl.load(control + 4 + 2 * token).to(tl.int64)
    if (slot == 0) & (capture == 0):
        return
    place = slot * layers + layer
    touched = tl.load(touches + place)
    if (touched == 0) & (capture == 0):
        return
    lane = tl.arange(0, width)
    valid = lane < k
    weight_at = weights + token * weights_row + lane * weights_column
    id_at = ids + token * ids_row + lane * ids_column
    chosen = tl.load(id_at, mask=valid, other=0).to(tl.int32)
    light = tl.load(weight_at, mask=valid, other=0.0).to(tl.float32)
    if capture != 0:
        kept = (token * layers + layer) * k + lane
        tl.store(kept_ids + kept, chosen.to(tl.int16), mask=valid)
        if capture > 1:
            tl.store(kept_weights + kept, light, mask=valid)
    if touched == 0:
        return
    known = tl.load(number + place * experts + chosen, mask=valid & (chosen >= 0) & (chosen < experts), other=0)
    known = known.to(tl.int32)
    want = tl.load(wanted + place * k + lane, mask=valid, other=-1).to(tl.int32)
    if (tl.max(known, axis=0) == 0) & (tl.max(want, axis=0) < 0):
        return

    factor = tl.load(gain + slot * gains + known, mask=valid, other=1.0)
    before = light.to(tl.float64)
    total = tl.sum(before, axis=0)
    largest = tl.max(before, axis=0)
    stimulated = factor == float("inf")
    after = tl.where(stimulated, largest, before * tl.where(stimulated, 1.0, factor).to(tl.float64))

    # Stimulated experts that the router did not choose, numbered in ascending order. The table holds the k lowest
    # numbers of the layer: of those p may be present, and no more than k - p slots can be given up.
    there = tl.sum(((chosen[:, None] == want[None, :]) & valid[:, None]).to(tl.int32), axis=0)
    absent = ((want >= 0) & (there == 0)).to(tl.int32)
    turn = tl.sum(tl.where(lane[:, None] < lane[None, :], absent[:, None], 0), axis=0)
    free = tl.sum((valid & (factor != float("inf"))).to(tl.int32), axis=0)
    enters = (absent != 0) & (turn < free)
    # The order in which slots are given up: suppressed, then others, then stimulated; light first; high number first.
    group = tl.where(valid, tl.where(stimulated, 2, tl.where(factor == 0.0, 0, 1)), 3)
    same_group = group[:, None] == group[None, :]
    same_weight = light[:, None] == light[None, :]
    sooner = (group[:, None] < group[None, :]) | (
        same_group & ((light[:, None] < light[None, :]) | (same_weight & (chosen[:, None] > chosen[None, :])))
    )
    order = tl.sum(sooner.to(tl.int32), axis=0)
    takes = enters[:, None] & valid[None, :] & (turn[:, None] == order[None, :])
    newcomer = tl.sum(tl.where(takes, want[:, None] + 1, 0), axis=0) - 1
    taken = newcomer >= 0

    after = tl.where(taken, largest, after)
    remaining = tl.sum(after, axis=0)
    scale = tl.where(remaining > 0.0, total / tl.where(remaining > 0.0, remaining, 1.0), 1.0)
    result = (after * scale).to(tl.float32)
    tl.store(weight_at, result.to(weights.dtype.element_ty), mask=valid)
    tl.store(id_at, tl.where(taken, newcomer, chosen).to(ids.dtype.element_ty), mask=valid)

    base = tl.load(control + 5 + 2 * token).to(tl.int64)
    if base < 0:  # computed again after a preemption: edited, not counted
        return
    one = tl.full([width], 1.0, tl.float64)
    heavy = result.to(tl.float64)
    hit = valid & (known > 0)
    row = sums + (base + known - 1) * 4
    tl.atomic_add(row, one, mask=hit, sem="relaxed")
    tl.atomic_add(row + 2, before, mask=hit, sem="relaxed")
    tl.atomic_add(row + 3, heavy, mask=hit & (newcomer < 0) & (result > 0.0), sem="relaxed")
    entry = tl.load(number + place * experts + newcomer, mask=taken, other=1).to(tl.int32)
    row = sums + (base + entry - 1) * 4
    tl.atomic_add(row + 1, one, mask=taken, sem="relaxed")
    tl.atomic_add(row + 3, heavy, mask=taken, sem="relaxed")


def launch(buffers: DeviceBuffers, layer: int, weights: torch.Tensor, ids: torch.Tensor) -> None:
    """Run the kernel over a layer's routing, in place.

    A CUDA graph records this launch: the addresses of the buffers, the layer, the number of rows. A replay reads what
    the buffers hold then.

    Args:
        buffers: static tensors on the device of ``weights``.
        layer: row of the layout.
        weights: [rows, k], the router's weights, of any floating type and strides.
        ids: integers [rows, k].

    Raises:
        RuntimeError: the routing has another k than the tables; the kernel would read and keep other tokens' places.
    """
    rows, k = weights.shape
    if k != buffers.wanted.shape[2] or ids.shape != weights.shape:
        raise RuntimeError(
            f"the router of expert layer {layer} chose {tuple(ids.shape)} experts with weights {tuple(weights.shape)}, "
            f"the model's layout says {buffers.wanted.shape[2]} a token"
        )
    if rows == 0:
        return
    route_kernel[(rows,)](
        weights,
        ids,
        buffers.control,
        buffers.number,
        buffers.gain,
        buffers.wanted,
        buffers.touches,
        buffers.sums,
        buffers.kept_ids,
        buffers.kept_weights,
        layer,
        weights.stride(0),
        weights.stride(1),
        ids.stride(0),
        ids.stride(1),
        layers=buffers.number.shape[1],
        experts=buffers.number.shape[2],
        k=k,
        gains=buffers.gain.shape[1],
        width=max(LANES, triton.next_power_of_2(k)),
        num_warps=1,
    )
