"""vLLM's options as they are set where nothing says them."""

from __future__ import annotations

import psutil  # type: ignore[import-untyped]
import pytest

from mote.harness.engine.model import resolve_model
from mote.harness.engine.options import CPU_CACHE_BYTES, engine_arguments

pytest.importorskip("vllm")


@pytest.mark.parametrize(("free", "size"), [(100 << 30, CPU_CACHE_BYTES), (2 << 30, 1 << 29)])
def test_a_cpu_has_a_cache_of_its_own_size(monkeypatch: pytest.MonkeyPatch, free: int, size: int) -> None:
    """vLLM would ask for 92% of the memory, whoever holds it."""
    memory = psutil.virtual_memory()._replace(available=free)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    path = resolve_model("demo").path
    options = {"dtype": "float32", "enforce_eager": True, "max_model_len": 256}
    assert engine_arguments(path, options).kv_cache_memory_bytes == size
    assert engine_arguments(path, {**options, "kv_cache_memory_bytes": 1 << 28}).kv_cache_memory_bytes == 1 << 28
    assert engine_arguments(path, {**options, "gpu_memory_utilization": 0.2}).kv_cache_memory_bytes is None
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    assert engine_arguments(path, options).kv_cache_memory_bytes is None
