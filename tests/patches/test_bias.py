"""Edits before the choice: every proven family against the independent reference, beside untuned and other profiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mote.patches import EMPTY_PROFILE
from mote.patches.families import choice_groups
from tests.conftest import Engines
from tests.patches.asking import Ask, ask, judge, random_bias, random_profile, random_prompt
from tests.patches.reference import Reference
from tests.patches.test_parity import FAMILIES
from tests.tiny_models import OTHERS


@pytest.mark.parametrize(
    "family",
    [*FAMILIES, *(pytest.param(family, marks=pytest.mark.slow) for family in OTHERS if family != "qwen3-next")],
)
def test_parity(family: str, checkpoints: Callable[..., Path], engines: Engines) -> None:
    """Edits before the choice, after it, and none, in one batch: each answer is its own reference's."""
    folder = checkpoints(family.split()[0], **FAMILIES.get(family, {}))
    llm, reference = engines(folder), Reference(folder)
    groups = choice_groups(reference.config)
    plain = [Ask(random_prompt(seed, 5 + 7 * (seed % 5)), EMPTY_PROFILE if seed % 2 else None) for seed in range(4)]
    tuned = []
    for seed in range(10):
        edits = [4, 10, 30][seed % 3]
        profile = (
            random_bias(reference.layout, seed, edits, groups) if seed < 8 else random_profile(reference.layout, seed)
        )
        tuned.append(Ask(random_prompt(seed, 5 + 7 * (seed % 5)), profile, ["prompt", "rows", None][seed % 3]))
    mixed = ask(llm, [*plain, *tuned])
    for sent, got in zip([*plain, *tuned], mixed, strict=True):
        judge(reference, sent, got)
    backwards = list(reversed([*tuned, *plain]))
    again = list(reversed(ask(llm, backwards)))
    assert [answer.tokens for answer in again] == [answer.tokens for answer in [*mixed[4:], *mixed[:4]]]
