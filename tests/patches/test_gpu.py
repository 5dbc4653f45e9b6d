"""The patch on an NVIDIA GPU: the real kernels, CUDA graphs and streams, against the Hugging Face reference.

``make gpu`` runs this file once for each of vLLM's model runners, since a process has one. Where there is no GPU the
file is skipped, with that reason. All is float32 and no product is rounded to TF32, so that an edit's effect can be
compared exactly; DeepSeek's latent attention has no float32 kernel on a GPU and is left to ``mote verify``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mote.patches import EMPTY_PROFILE
from mote.patches.verify import verify
from tests.conftest import Engines
from tests.patches.asking import WEIGHED, Ask, ask, judge, random_profile, random_prompt, watch_preemptions
from tests.patches.reference import Reference
from tests.patches.test_parity import FAMILIES

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU: run `make gpu` where there is one", allow_module_level=True)

os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")

EAGER: dict[str, Any] = {"enforce_eager": True}
GRAPHS: dict[str, Any] = {
    "enforce_eager": False,
    "compilation_config": {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64]},
}
CHUNKED: dict[str, Any] = {"max_num_batched_tokens": 32, "max_num_seqs": 8}
PREEMPTED: dict[str, Any] = {"num_gpu_blocks_override": 18, "max_num_seqs": 6, "enable_prefix_caching": False}
WAYS: dict[str, dict[str, Any]] = {
    "eager": EAGER,
    "graphs": GRAPHS,
    "graphs, chunked": GRAPHS | CHUNKED,
    "graphs, preempted": GRAPHS | PREEMPTED,
}
CASES = [("glm4", way) for way in WAYS]
CASES += [(family, "graphs") for family in ("qwen3", "qwen3 raw", "olmoe", "mixtral")]
Start = Callable[[str, str], tuple[Any, Reference]]


@pytest.fixture(scope="module")
def start(engines: Engines, checkpoints: Callable[..., Path]) -> Start:
    """``start(family, way)``: an engine on the GPU, a twentieth of its memory, and the reference on the CPU."""

    def start(family: str, way: str) -> tuple[Any, Reference]:
        folder = checkpoints(family.split()[0], **FAMILIES[family])
        llm = engines(folder, gpu_memory_utilization=0.05, **WAYS[way])
        config = llm.llm_engine.vllm_config
        assert config.use_v2_model_runner == (os.environ.get("VLLM_USE_V2_MODEL_RUNNER", "1") == "1")
        return llm, Reference(folder)

    return start


@pytest.mark.parametrize(("family", "way"), CASES)
def test_answers_are_the_references(family: str, way: str, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuned and untuned requests in one batch, then the same in two other orders."""
    llm, reference = start(family, way)
    preempted = watch_preemptions(llm, monkeypatch)
    asks = []
    for seed in range(12):
        profile = [None, EMPTY_PROFILE][seed] if seed < 2 else random_profile(reference.layout, seed)
        capture = ["prompt", "rows", None, "prompt", WEIGHED, None][seed % 6]
        asks.append(Ask(random_prompt(seed, 5 + 11 * (seed % 5)), profile, capture if profile else None, 16))
    mixed = ask(llm, asks)
    for sent, got in zip(asks, mixed, strict=True):
        judge(reference, sent, got)
    order = np.random.default_rng(0).permutation(len(asks)).tolist()
    for batch in (list(reversed(range(len(asks)))), order):
        for sent, got in zip([asks[index] for index in batch], ask(llm, [asks[index] for index in batch]), strict=True):
            judge(reference, sent, got)
    assert bool(preempted) == way.endswith("preempted")


@pytest.mark.parametrize("way", ["eager", "graphs"])
def test_the_users_check_passes(way: str, start: Start) -> None:
    llm, reference = start("glm4", way)
    report = verify(llm, reference.layout, rounds=1)
    assert report.passed, report.to_markdown()
