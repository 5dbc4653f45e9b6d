"""The GPU's state inside the real engine, on CPU tensors: both model runners, against the Hugging Face reference.

With V1 the kernel is its twin in Python. With Model Runner V2, where Triton's interpreter is at hand, all is as on a
GPU but the device: vLLM's own V2 kernels and the patch's run interpreted, outputs are asynchronous, preempted requests
come back as new ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mote.patches import EMPTY_PROFILE, ModelLayout
from tests.conftest import Engines
from tests.patches.asking import Ask, ask, judge, random_profile, random_prompt, watch_preemptions
from tests.patches.reference import Reference

WAYS: dict[str, dict[str, Any]] = {
    "whole": {"block_size": 32, "num_gpu_blocks_override": 64},
    "chunked": {"block_size": 32, "num_gpu_blocks_override": 64, "max_num_batched_tokens": 32, "max_num_seqs": 8},
    "preempted": {"block_size": 32, "num_gpu_blocks_override": 9, "max_num_seqs": 6, "enable_prefix_caching": False},
}
NO_TRITON = pytest.mark.skipif("TRITON_INTERPRET" not in os.environ, reason="needs Triton: run `make kernel`")


def _ahead(original: Callable[[Any], None]) -> Callable[[Any], None]:
    """Schedule asynchronously, which vLLM turns off on a CPU: a step starts before the last one's output is read."""

    def update(config: Any) -> None:
        original(config)
        config.scheduler_config.async_scheduling = True

    return update


@pytest.fixture(scope="module", params=["v1", pytest.param("v2", marks=NO_TRITON)])
def llms(
    request: pytest.FixtureRequest, engines: Engines, checkpoints: Callable[..., Path]
) -> Iterator[Callable[..., Any]]:
    """Engines whose worker has the GPU's state."""
    from vllm.platforms import current_platform

    from mote.patches import guards, runners
    from mote.patches.device import DeviceState
    from tests.patches import kernel_twin

    launch: Any = kernel_twin.launch
    patch = pytest.MonkeyPatch()
    if request.param == "v2":
        import tests.patches.interpreted  # noqa: F401
        from mote.patches.kernel import launch as kernel

        launch = kernel
        patch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
        patch.setattr(guards, "_on_gpu", lambda _config: True)
        patch.setattr(current_platform, "check_and_update_config", _ahead(current_platform.check_and_update_config))

    def state(layout: ModelLayout, requests: int, tokens: int, _device: Any) -> DeviceState:
        return DeviceState(layout, requests, tokens, torch.device("cpu"), counted)

    launches: list[int] = []

    def counted(buffers: Any, layer: int, *routing: Any) -> None:
        launches.append(layer)
        launch(buffers, layer, *routing)

    patch.setattr(runners, "make_state", state)
    served_model_name = f"device-{request.param}"  # the session's other engines have the CPU's state

    def start(way: str) -> Any:
        llm = engines(checkpoints("glm4"), served_model_name=served_model_name, **WAYS[way])
        config = llm.llm_engine.vllm_config
        assert config.use_v2_model_runner == (request.param == "v2")
        assert config.max_concurrent_batches == (2 if request.param == "v2" else 1)
        return llm

    yield start
    patch.undo()
    assert set(launches) == {0, 1, 2}, "the GPU's state was in these engines"


@pytest.fixture(scope="module")
def reference(checkpoints: Callable[..., Path]) -> Reference:
    return Reference(checkpoints("glm4"))


@pytest.mark.parametrize("way", list(WAYS))
def test_answers_are_the_references(
    way: str, llms: Callable[..., Any], reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five requests at a time, which grow past a block: more would take minutes where every kernel is interpreted."""
    llm = llms(way)
    preempted = watch_preemptions(llm, monkeypatch)
    asks = [Ask(random_prompt(0, 30), max_tokens=6), Ask(random_prompt(1, 30), EMPTY_PROFILE, "prompt", 6)]
    asks += [Ask(random_prompt(seed, 30), random_profile(reference.layout, seed), "prompt", 6) for seed in range(2, 4)]
    asks.append(Ask(random_prompt(9, 30), random_profile(reference.layout, 9), "rows", 6))
    for sent, got in zip(asks, ask(llm, asks), strict=True):
        judge(reference, sent, got)
    assert bool(preempted) == (way == "preempted")


def test_the_check_in_the_worker(llms: Callable[..., Any]) -> None:
    [(passed, says)] = llms("whole").collective_rpc("mote_check", args=(0,))
    assert passed, says
