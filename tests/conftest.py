"""Engines for tests: the real vLLM, in this process, on tiny random models, each started once per session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # Two engines that both take every core slow each other tenfold: a worker, and all that it starts, has one core.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

Engines = Callable[..., Any]

# On a busy machine an example may take any time; a deadline would fail tests for the wrong reason.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``checkpoints(family, **config)``: a tiny random checkpoint, written once per session and configuration."""
    from tests.tiny_models import make_model

    made: dict[str, Path] = {}

    def checkpoint(family: str, **over: Any) -> Path:
        key = repr((family, sorted(over.items())))
        if key not in made:
            made[key] = make_model(family, tmp_path_factory.mktemp(family), **over)
        return made[key]

    return checkpoint


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """``engines(folder, **options)``: an ``LLM`` in this process, eager, float32, kept for the session."""
    running: dict[str, Any] = {}
    patch = pytest.MonkeyPatch()

    def engine(folder: Path, **options: Any) -> Any:
        from vllm import LLM
        from vllm.v1.engine import core

        # An engine that goes takes the process's groups along, those of the engines that stay too.
        patch.setattr(core, "cleanup_dist_env_and_memory", lambda *_, **__: None)
        key = repr((folder, sorted(options.items())))
        if key not in running:
            usual: dict[str, Any] = {
                "enforce_eager": True,
                "dtype": "float32",
                "max_model_len": 256,
                "max_num_seqs": 16,
                # Of tiny models, and all of it is in memory: a gigabyte for each engine of a session is too much.
                "kv_cache_memory_bytes": 128 << 20,
            }
            with pytest.MonkeyPatch.context() as aside:
                # It would go before the bytes above.
                aside.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
                running[key] = LLM(str(folder), **usual | options)
        return running[key]

    yield engine
    running.clear()
    patch.undo()


@pytest.fixture(scope="session")
def engine(engines: Engines, checkpoints: Callable[..., Path]) -> Any:
    """The engine most tests use: a tiny random GLM4-MoE, experts in layers 1 to 3, 16 in each, 4 chosen."""
    return engines(checkpoints("glm4"))
