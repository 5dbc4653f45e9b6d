"""Every model family against the independent reference, in mixed, reversed and shuffled batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mote.patches import EMPTY_PROFILE
from tests.conftest import Engines
from tests.patches.asking import ROWS, Ask, ask, judge, random_profile, random_prompt
from tests.patches.reference import Reference
from tests.tiny_models import OTHERS

FAMILIES: dict[str, dict[str, Any]] = {
    "glm4": {},
    "qwen3": {"norm_topk_prob": True},
    "qwen3 raw": {"norm_topk_prob": False},
    "olmoe": {},
    "mixtral": {},
    "gpt-oss": {},
    "deepseek-v2": {},
    "deepseek-v3": {},
    "kimi-k2": {},
}


@pytest.mark.parametrize("family", [*FAMILIES, *(pytest.param(family, marks=pytest.mark.slow) for family in OTHERS)])
def test_parity(family: str, checkpoints: Callable[..., Path], engines: Engines) -> None:
    folder = checkpoints(family.split()[0], **FAMILIES.get(family, {}))
    llm, reference = engines(folder), Reference(folder)
    asks = []
    for seed in range(12):
        profile = [None, EMPTY_PROFILE][seed] if seed < 2 else random_profile(reference.layout, seed)
        capture = ["prompt", "rows", None, "prompt", ROWS, None][seed % 6]
        asks.append(Ask(random_prompt(seed, 5 + 7 * (seed % 5)), profile, capture if profile else None))
    mixed = ask(llm, asks)
    for sent, got in zip(asks, mixed, strict=True):
        judge(reference, sent, got)
    order = np.random.default_rng(0).permutation(len(asks)).tolist()
    for batch in (list(reversed(range(len(asks)))), order):
        again = ask(llm, [asks[index] for index in batch])
        assert [answer.tokens for answer in again] == [mixed[index].tokens for index in batch]
