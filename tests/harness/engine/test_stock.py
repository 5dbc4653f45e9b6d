"""vLLM without the patch, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mote.harness.engine.stock import stock_answers
from mote.harness.errors import MoteError
from mote.patches.verify import ask_stock
from tests.conftest import Engines

OPTIONS = {"enforce_eager": True, "dtype": "float32", "max_model_len": 256, "max_num_seqs": 16, "block_size": 32}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["glm4", "deepseek-v3"])
def test_its_answers_are_those_of_untuned_requests(
    family: str, checkpoints: Callable[..., Path], engines: Engines, tmp_path: Path
) -> None:
    folder = checkpoints(family)
    found = stock_answers(str(folder), OPTIONS | {"kv_cache_memory_bytes": 128 << 20}, 1, tmp_path / "log")
    assert found.tokens == ask_stock(engines(folder, block_size=32), rounds=1).tokens


def test_one_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MoteError, match="or go without by --no-stock"):
        stock_answers(str(tmp_path / "nowhere"), {}, 1, tmp_path / "log")
    assert "nowhere" in (tmp_path / "log").read_text()
