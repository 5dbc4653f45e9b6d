"""The GPU's kernel against its twin and the slow rule, in Triton's interpreter or on a GPU; and compiled for others.

``make test`` has no Triton (vLLM for CPUs does without, and it is 700 MB); ``make kernel`` puts it apart and runs
this file in the interpreter, ``make gpu`` on a GPU. CI skips it, with that reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.patches.interpreted  # noqa: F401  (skips this file, or names the interpreter as a device)
from mote.patches import ModelLayout, Profile
from mote.patches.capture import Capture
from mote.patches.device import DeviceState
from mote.patches.host import HostState
from mote.patches.kernel import launch
from mote.patches.messages import KEY, Ticket
from mote.patches.selfcheck import check
from mote.patches.worker import WorkerState
from tests.patches import kernel_twin
from tests.patches.asking import random_profile
from tests.patches.interpreted import DEVICE
from tests.patches.test_device import same_report

CPU = torch.device("cpu")


def params(profile: Profile, capture: Capture | None) -> Any:
    entry = Ticket(profile.spec, None if capture is None else capture.to_list()).to_extra()
    return SimpleNamespace(extra_args={KEY: entry})


@settings(max_examples=150)
@given(st.data())
def test_the_kernel_is_its_twin(data: st.DataObject) -> None:
    """One step of two tuned requests and one without: routing, kept choice, and every count."""
    k = data.draw(st.integers(1, 9), "k")
    layout = ModelLayout("Glm4MoeForCausalLM", (1, 3), data.draw(st.integers(k, 24), "experts"), k)
    seed = data.draw(st.integers(0, 10**6), "seed")
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), "dtype")
    integers = data.draw(st.sampled_from([torch.int32, torch.int64, torch.int16]), "ids")
    capture = data.draw(st.sampled_from([None, Capture("rows"), Capture("prompt", True)]), "capture")
    strided = data.draw(st.booleans(), "strided")
    draw = np.random.default_rng(seed)
    states: tuple[WorkerState, ...] = (
        HostState(layout, 3, 16),
        DeviceState(layout, 3, 16, CPU, kernel_twin.launch),
        DeviceState(layout, 3, 16, DEVICE, launch),
    )
    devices = CPU, CPU, DEVICE
    counts = draw.integers(1, 4, 3)
    actions = "all" if k > 1 else "stimulate"  # where a token takes one expert, scale is refused
    profiles = [random_profile(layout, seed + n, int(draw.integers(0, 30)), actions) for n in range(2)]
    tokens, rows = int(counts.sum()), int(counts.sum()) + 2
    computed = draw.integers(0, 3, 3)
    for state in states:
        for name, profile in zip("ab", profiles, strict=True):
            state.admit(name, params(profile, capture), 2)
        state.begin(["a", "b", "c"], computed, counts.astype(np.int32))
    for layer in range(2):
        given_weights = torch.tensor(draw.integers(0, 9, (rows, k)) / 7).to(dtype)  # zeros and ties occur
        given_ids = torch.tensor(np.array([draw.permutation(layout.experts)[:k] for _ in range(rows)])).to(integers)
        given_ids[tokens:] = -1
        results = []
        for state, device in zip(states, devices, strict=True):
            weights, ids = given_weights.to(device, copy=True), given_ids.to(device, copy=True)
            if strided:
                weights, ids = weights.t().contiguous().t(), ids.t().contiguous().t()
            state.route(layer, weights, ids)
            results.append((weights.cpu(), ids.cpu()))
        for weights, ids in results[1:]:
            close: dict[str, Any] = {"rtol": 2e-7, "atol": 0.0} if dtype == torch.float32 else {}
            torch.testing.assert_close(weights, results[0][0], **close)
            assert torch.equal(ids, results[0][1])
            assert torch.equal(weights[tokens:], given_weights[tokens:])
    host, _, kernel = (None if pending is None else pending.resolve() for pending in [state.end() for state in states])
    same_report(host, kernel)


def test_a_routing_of_another_k_than_the_tables_is_an_error() -> None:
    layout = ModelLayout("Glm4MoeForCausalLM", (0, 1), 8, 2)
    state = DeviceState(layout, 2, 8, DEVICE, launch)
    with pytest.raises(RuntimeError, match="the model's layout says 2 a token"):
        state.route(0, torch.ones(4, 3, device=DEVICE), torch.zeros(4, 3, dtype=torch.int32, device=DEVICE))


def test_the_users_check_passes_with_the_kernel() -> None:
    layout = ModelLayout("Glm4MoeForCausalLM", (0, 1, 2), 40, 6)
    passed, says = check(DeviceState(layout, 2, 64, DEVICE, launch), 3)
    assert passed, says


_COMPILE = """
import json, re, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mote.patches.kernel import route_kernel

types = json.loads(sys.argv[1])
sizes = {"layers": 58, "experts": 256, "k": 8, "gains": 1025, "width": 32}
signature = {name: types.get(name, "constexpr") for name in route_kernel.arg_names}
source = ASTSource(fn=route_kernel, signature=signature, constexprs=sizes)
found = {}
for arch in (80, 90, 100):
    built = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 1})
    ptx = built.asm["ptx"]
    atomics = sorted(set(re.findall(r"(?:atom|red)\\.global[.\\w]*", ptx)))
    found[arch] = {"cubin": len(built.asm["cubin"]), "atomics": atomics, "division": "div.rn.f64" in ptx}
print(json.dumps(found))
"""
_TYPES = {
    "control": "*i32",
    "number": "*i16",
    "gain": "*fp32",
    "wanted": "*i16",
    "touches": "*i8",
    "sums": "*fp64",
    "kept_ids": "*i16",
    "kept_weights": "*fp32",
} | dict.fromkeys(("layer", "weights_row", "weights_column", "ids_row", "ids_column"), "i32")


@pytest.mark.parametrize(
    ("weights", "ids"), [("*fp32", "*i32"), ("*fp32", "*i64"), ("*bf16", "*u32"), ("*fp16", "*i32")]
)
def test_it_compiles_for_nvidia_gpus(weights: str, ids: str) -> None:
    """Down to machine code for Ampere, Hopper and Blackwell: Triton brings the assembler along and needs no GPU."""
    types = json.dumps(_TYPES | {"weights": weights, "ids": ids})
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", _COMPILE, types], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for built in json.loads(done.stdout).values():
        assert built["cubin"] > 10_000
        assert built["atomics"] == ["atom.global.gpu.relaxed.add.f64"]
        assert built["division"]
