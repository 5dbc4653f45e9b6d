"""Baked models in the real engine and in Hugging Face, beside the patched engine and an independent reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mote.harness.engine.model import resolve_model
from mote.harness.engine.trust import Own
from mote.harness.errors import MoteError
from mote.harness.merge.verify import check_child
from mote.harness.take_home.bake import plan_of, write_bake
from mote.patches import Edit, Profile
from tests.conftest import Engines
from tests.patches.asking import Ask, ask, random_prompt

PROMPTS = [random_prompt(seed, 6 + 5 * seed) for seed in range(6)]


def file_of(folder: Path, model: Path, edits: list[Edit]) -> Path:
    Profile("baked", tuple(edits), resolve_model(str(model)).layout).write(folder / "profile.json")
    return folder / "profile.json"


def bake(model: Path, edits: list[Edit], folder: Path, *, approximate: bool = False) -> tuple[Path, Profile]:
    path = file_of(folder, model, edits)
    write_bake(plan_of(str(path), Own(str(model)), approximate=approximate), folder / "out")
    check_child(folder / "out")
    return folder / "out", Profile.read(path)


def greedy_by_transformers(folder: Path, prompt: list[int]) -> list[int]:
    from transformers import AutoModelForCausalLM

    load: Any = AutoModelForCausalLM.from_pretrained
    model = load(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        found = model.generate(torch.tensor([prompt]), max_new_tokens=10, do_sample=False, eos_token_id=None)
    return [int(token) for token in found[0, len(prompt) :]]


CASES: dict[str, tuple[str, dict[str, Any], Callable[[Any], list[Edit]]]] = {
    "one expert a token": (
        "qwen3",
        {"num_experts_per_tok": 1},
        lambda layout: [Edit(layer, expert, "suppress") for layer in layout.layers for expert in range(0, 16, 2)],
    ),
    "a whole layer, biases too": (
        "gpt-oss",
        {},
        lambda layout: [Edit(2, expert, "suppress") for expert in range(layout.experts)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_where_it_is_exact_the_baked_model_says_what_the_patched_one_says(
    case: str, checkpoints: Callable[..., Path], engines: Engines, tmp_path: Path
) -> None:
    family, config, edits = CASES[case]
    model = checkpoints(family, **config)
    out, profile = bake(model, edits(resolve_model(str(model)).layout), tmp_path)
    patched = ask(engines(model), [Ask(prompt, one) for prompt in PROMPTS for one in (profile, None)])
    found = ask(engines(out), [Ask(prompt) for prompt in PROMPTS])
    assert [answer.tokens for answer in found] == [answer.tokens for answer in patched[::2]]
    assert [answer.tokens for answer in found] != [answer.tokens for answer in patched[1::2]], "the edit does nothing"
    assert greedy_by_transformers(out, PROMPTS[3]) == found[3].tokens


def test_where_it_is_not_exact_the_engine_and_transformers_agree_on_what_it_does_instead(
    checkpoints: Callable[..., Path], engines: Engines, tmp_path: Path
) -> None:
    model = checkpoints("glm4")
    edits = [Edit(layer, expert, "suppress") for layer in (1, 2, 3) for expert in (1, 4, 7, 10)]
    with pytest.raises(MoteError, match="cannot be baked exactly"):
        plan_of(str(file_of(tmp_path, model, edits)), Own(str(model)))
    out, profile = bake(model, [*edits, Edit(1, 0, "scale", 0.5)], tmp_path, approximate=True)
    patched = ask(engines(model), [Ask(prompt, profile) for prompt in PROMPTS])
    found = ask(engines(out), [Ask(prompt) for prompt in PROMPTS])
    assert [answer.tokens for answer in found] != [answer.tokens for answer in patched]
    for number in (0, 3):
        assert greedy_by_transformers(out, PROMPTS[number]) == found[number].tokens
