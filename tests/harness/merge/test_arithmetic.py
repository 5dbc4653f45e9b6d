"""Mixing against float64, and DeepSeek's FP8 there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mote.harness.merge.arithmetic import dequantise, is_finite, mix, mix_dequantised, quantise, squares

HALVES = {torch.bfloat16: (8, -133), torch.float16: (11, -24), torch.float32: (24, -149)}
"""Digits of a significand, and the exponent of the smallest positive value."""


def ulp(value: np.ndarray[Any, Any], dtype: torch.dtype) -> np.ndarray[Any, Any]:
    """Return the distance of neighbouring numbers of a type at each value."""
    digits, smallest = HALVES[dtype]
    _, exponent = np.frexp(np.abs(value))
    return np.asarray(np.ldexp(1.0, np.maximum(exponent - digits, smallest)))


def numbers(seed: int, wide: bool, count: int = 4096) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, count, generator=generator)
    if wide:  # magnitudes from 2^-12 to 2^12, and pairs that nearly cancel
        first = first * torch.exp2(torch.randint(-12, 13, (count,), generator=generator).float())
        second = torch.where(torch.rand(count, generator=generator) < 0.3, -first * 1.01, second)
    return first, second


@given(
    seed=st.integers(0, 10_000),
    share=st.floats(2**-10, 1 - 2**-10),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    wide=st.booleans(),
)
def test_two_parents_lie_within_one_unit_of_float64(seed: int, share: float, dtype: torch.dtype, wide: bool) -> None:
    share = float(np.float32(share))
    first, second = (one.to(dtype) for one in numbers(seed, wide))
    got = mix([first, second], [1 - share, share], dtype).double().numpy()
    a, b = first.double().numpy(), second.double().numpy()
    exact = a + share * (b - a)
    assert np.all(np.abs(got - exact) <= ulp(exact, dtype))


@given(
    seed=st.integers(0, 10_000),
    shares=st.lists(st.floats(0.05, 1), min_size=3, max_size=5),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
)
def test_many_parents_lie_within_one_unit_of_float64(seed: int, shares: list[float], dtype: torch.dtype) -> None:
    weights = [share / sum(shares) for share in shares]
    parents = [numbers(seed + number, wide=False)[0].to(dtype) for number in range(len(shares))]
    got = mix(parents, weights, dtype).double().numpy()
    terms = [weight * parent.double().numpy() for weight, parent in zip(weights, parents, strict=True)]
    exact = np.sum(terms, axis=0)
    # Where terms cancel, the reference itself is only as good as float64.
    assert np.all(np.abs(got - exact) <= ulp(exact, dtype) + 2.0**-50 * np.abs(terms).max())


def test_parents_of_other_types_are_mixed_into_the_base_s() -> None:
    first, second = numbers(1, wide=False)
    got = mix([first.bfloat16(), second], [0.25, 0.75], torch.bfloat16)
    exact = 0.25 * first.bfloat16().double() + 0.75 * second.double()
    assert got.dtype == torch.bfloat16
    assert np.all(np.abs((got.double() - exact).numpy()) <= ulp(exact.numpy(), torch.bfloat16))


@given(rows=st.integers(1, 300), columns=st.integers(1, 300), seed=st.integers(0, 100))
def test_fp8_goes_there_and_back_within_its_digits(rows: int, columns: int, seed: int) -> None:
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02
    codes, scales = quantise(values)
    assert codes.dtype == torch.float8_e4m3fn
    assert codes.shape == values.shape
    assert scales.shape == (-(-rows // 128), -(-columns // 128))
    back = dequantise(codes, scales)
    spread = scales.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
    # Half a step of three binary digits, or of the smallest code, 2^-9.
    assert torch.all((back - values).abs() <= values.abs() / 16 + spread * 2**-10 * 1.0001)
    assert torch.equal(dequantise(codes, scales), codes.float() * spread)


def test_codes_are_read_as_torch_reads_them() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).view(2, 128)
    got = dequantise(every, torch.ones(1, 1))
    assert torch.equal(torch.nan_to_num(got, 9e9), torch.nan_to_num(every.float(), 9e9))


def test_blocks_of_zeros_and_of_the_smallest_numbers_stay_finite() -> None:
    values = torch.zeros(256, 128)
    values[128:] = 1e-44
    codes, scales = quantise(values)
    assert torch.isfinite(scales).all()
    assert is_finite(dequantise(codes, scales))


def test_quantised_mixes_keep_their_digits_and_beat_mixed_codes() -> None:
    generator = torch.Generator().manual_seed(3)
    spread = torch.exp2(torch.randint(-3, 3, (4, 4), generator=generator).float()).repeat_interleave(128, 0)
    spread = spread.repeat_interleave(128, 1)
    first, second = (torch.randn(512, 512, generator=generator) * 0.02 * one for one in (1.0, spread))
    pairs = [quantise(first), quantise(second)]
    plain = [dequantise(codes, scales) for codes, scales in pairs]
    exact = 0.5 * plain[0].double() + 0.5 * plain[1].double()
    child = dequantise(*quantise(mix_dequantised(plain, [0.5, 0.5])))
    error = float((child.double() - exact).norm() / exact.norm())
    raw_codes = (0.5 * pairs[0][0].float() + 0.5 * pairs[1][0].float()).to(torch.float8_e4m3fn)
    raw = dequantise(raw_codes, 0.5 * pairs[0][1] + 0.5 * pairs[1][1])
    assert error <= 0.027
    assert error * 2 <= float((raw.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_one_value_that_is_none_is_seen_and_large_ones_are_not_taken_for_it(dtype: torch.dtype) -> None:
    values = torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(values)  # though their sum is not
    for bad in (float("nan"), float("inf"), -float("inf")):
        broken = torch.ones(1000, dtype=dtype)
        broken[617] = bad
        assert not is_finite(broken)


def test_distances_are_summed_in_float64() -> None:
    first, second = numbers(5, wide=False, count=10_000)
    apart, own = squares(first, second)
    assert apart == pytest.approx(float(((second - first).double() ** 2).sum()), rel=1e-12)
    assert own == pytest.approx(float((first.double() ** 2).sum()), rel=1e-12)
