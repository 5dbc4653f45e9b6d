"""Mixing tensors: weighted sums, DeepSeek's FP8 there and back, distances. Pure functions of torch tensors.

Two 16-bit parents go through one fused multiply-add in float32, everything else through float64. Both round once
to float32 and once to the type of the result, so a child lies within one unit in the last place of the exact sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Final

import numpy as np
import torch

from mote.harness.merge.checkpoint import BLOCK

DTYPES: Final = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
}
LARGEST_FP8: Final = 448.0


def mix(values: Sequence[torch.Tensor], weights: Sequence[float], dtype: torch.dtype) -> torch.Tensor:
    """Return the weighted sum of tensors of one shape, in ``dtype``; weights add up to 1."""
    used = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight]
    (first, _), (second, weight) = used[0], used[-1]
    halves = (torch.bfloat16, torch.float16)
    if len(used) == 2:
        if first.dtype == second.dtype == dtype and dtype in halves:
            return torch.lerp(first, second, weight)
        return torch.lerp(first.to(torch.float64), second.to(torch.float64), weight).to(torch.float32).to(dtype)
    total = torch.zeros(first.shape, dtype=torch.float64)
    for value, share in used:
        total.add_(value.to(torch.float64), alpha=share)
    return total.to(torch.float32).to(dtype)


def mix_dequantised(values: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return the weighted sum of float32 tensors in float32: as exact as what is quantised afterwards can hold."""
    used = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight]
    if len(used) == 2:
        return torch.lerp(used[0][0], used[1][0], used[1][1])
    total = torch.zeros_like(used[0][0])
    for value, share in used:
        total.add_(value, alpha=share)
    return total


def is_finite(values: torch.Tensor) -> bool:
    """Return whether no value is NaN or infinite."""
    # A sum is ten times as fast as asking each value; where it overflows by itself, each is asked.
    return isfinite(float(values.sum())) or bool(torch.isfinite(values).all())


def dequantise(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return float32 values [rows, columns] of FP8 codes and their scales, one for each block of 128 x 128."""
    rows, columns = codes.shape
    # A look-up in a table of 256 values takes half the time of torch's own conversion.
    values = torch.from_numpy(np.take(_DECODED, codes.view(torch.uint8).numpy()))
    spread = scales.to(torch.float32).repeat_interleave(BLOCK, 1)[:, :columns]
    for block in range(scales.shape[0]):
        values[block * BLOCK : min((block + 1) * BLOCK, rows)] *= spread[block]
    return values


def quantise(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return FP8 codes of float32 values [rows, columns], and float32 scales of their 128 x 128 blocks.

    A block's scale puts its largest value on the largest code, 448, as DeepSeek's own scales do; a block of zeros has
    the scale 1.
    """
    rows, columns = values.shape
    down, across = -(-rows // BLOCK), -(-columns // BLOCK)
    padded = torch.nn.functional.pad(values, (0, across * BLOCK - columns, 0, down * BLOCK - rows))
    blocks = padded.view(down, BLOCK, across, BLOCK)
    largest = blocks.abs().amax(dim=(1, 3))
    scales = torch.where(largest > 0, largest / LARGEST_FP8, torch.ones_like(largest))
    # The smallest blocks' scales would be denormal, and values over them beyond 448.
    scales = scales.clamp_min(torch.finfo(torch.float32).tiny)
    scaled = (blocks / scales[:, None, :, None]).clamp_(-LARGEST_FP8, LARGEST_FP8)
    codes = scaled.reshape(down * BLOCK, across * BLOCK)[:rows, :columns].to(torch.float8_e4m3fn)
    return codes.contiguous(), scales


def squares(base: torch.Tensor, other: torch.Tensor) -> tuple[float, float]:
    """Return the sums of squares of ``other - base`` and of ``base``, in float64 from float32 differences."""
    start = base.to(torch.float32)
    step = other.to(torch.float32) - start
    return _sum_of_squares(step), _sum_of_squares(start)


def _sum_of_squares(values: torch.Tensor) -> float:
    wide = values.reshape(-1).to(torch.float64)
    return float(torch.dot(wide, wide))  # a third of the time of a norm in float64


_DECODED: Final = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).to(torch.float32).numpy()
