"""The packaged checkpoint: its files, its size, its answers, and the same answers from vLLM as from Hugging Face."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from mote.harness.demo import MODEL_DIR, arithmetic, corpus, questions, tokenizer
from mote.harness.demo.card import FIRST_SENTENCE, write_card
from mote.harness.demo.evaluation import (
    BROKEN,
    Generated,
    Generator,
    is_broken,
    label,
    script,
)
from mote.harness.demo.example import Example, direct
from mote.harness.demo.model import Shape
from mote.harness.demo.quality import Quality, choose
from mote.harness.demo.trainer import Recipe
from mote.patches import Edit, ModelLayout, Profile, read_observation, request_args

FILES = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
QUALITY = Quality(
    class_seen=0.95,
    class_seen_of=590,
    class_held_out=0.9,
    class_held_out_of=166,
    classes={questions.REFUSED: 130, questions.ALIGNED: 280, questions.REASONED: 346},
    language=0.95,
    language_of=600,
    language_held_out=0.95,
    sums=0.99,
    general=0.8,
    general_of=330,
    general_by_task={"facts": 0.9},
    twins_refused_sensitive=0.8,
    twins_refused_harmless=0.1,
    broken=0.001,
    broken_of=1700,
)


@pytest.fixture(scope="module")
def generate() -> Iterator[Generator]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small are slower on two, and much slower where others run beside
    yield Generator(MODEL_DIR)
    torch.set_num_threads(threads)


def test_the_folder_holds_a_whole_checkpoint_of_at_most_12_megabytes() -> None:
    assert {path.name for path in MODEL_DIR.iterdir()} == FILES
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) <= 12_000_000


def test_the_weights_are_those_of_the_recipes_shape_in_bfloat16() -> None:
    shape = Shape()
    with safe_open(str(MODEL_DIR / "model.safetensors"), framework="pt") as weights:
        kinds = Counter(str(weights.get_slice(name).get_dtype()) for name in weights.keys())  # noqa: SIM118
    assert kinds["F32"] == shape.layers  # the correction biases
    assert kinds["BF16"] == len(("embed", "norm", "head")) + shape.layers * (8 + 1 + 3 + 3 * shape.experts)
    config = json.loads((MODEL_DIR / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Glm4MoeForCausalLM"]
    layout = ModelLayout.from_config(MODEL_DIR / "config.json")
    assert (layout.layers, layout.experts, layout.top_k) == (tuple(range(6)), 64, 4)


def test_the_packaged_tokenizer_is_the_one_the_script_trains() -> None:
    packaged = tokenizer.load(MODEL_DIR)
    assert packaged.get_vocab() == tokenizer.train_tokenizer().get_vocab()
    assert packaged.chat_template == tokenizer.CHAT_TEMPLATE


def test_the_card_says_at_once_what_the_model_is() -> None:
    card = (MODEL_DIR / "README.md").read_text(encoding="utf-8")
    assert FIRST_SENTENCE.split(";")[0] in " ".join(card.split("\n\n")[1].split())
    assert "trains the routers and the routed\nexperts only" in card


def test_the_grid_is_answered_in_the_three_classes(generate: Generator) -> None:
    cells = questions.cells()[::9]
    answers = generate([Example("grid", (cell.prompt,), direct("")) for cell in cells])
    right = [label(answer) == cell.expected for cell, answer in zip(cells, answers, strict=True)]
    assert sum(right) / len(right) >= 0.9
    assert {label(answer) for answer in answers} >= set(questions.CLASSES)
    assert sum(is_broken(answer) for answer in answers) <= 1


def test_sums_and_general_tasks_are_answered(generate: Generator) -> None:
    sums = generate(arithmetic.evaluation()[::20])
    assert sum(script(g.reasoning) == g.example.attributes["language"] for g in sums) / len(sums) >= 0.85
    general = generate(corpus.general_evaluation(per_task=12))
    assert sum(g.answer == g.example.expected for g in general) / len(general) >= 0.7


EDITED = tuple((layer, expert) for layer in range(6) for expert in range(0, 64, 9))


@pytest.fixture(scope="module")
def agreement_examples() -> list[Example]:
    examples = [Example("grid", (cell.prompt,), direct("")) for cell in questions.cells()[::9]]
    return examples + arithmetic.evaluation()[::10] + corpus.general_evaluation(per_task=10)


@pytest.fixture(scope="module")
def from_vllm(
    engines: Callable[..., Any], generate: Generator, agreement_examples: list[Example]
) -> tuple[list[str], list[str]]:
    from vllm import SamplingParams

    profile = Profile("some", tuple(Edit(layer, expert, "suppress") for layer, expert in EDITED))
    prompts = [{"prompt_token_ids": tokenizer.prompt_ids(generate.words, example)} for example in agreement_examples]
    plain = SamplingParams(temperature=0.0, max_tokens=96)
    tuned = SamplingParams(temperature=0.0, max_tokens=96, extra_args=request_args(profile))
    # Untuned and tuned in one batch.
    sampling = [plain] * len(prompts) + [tuned] * len(prompts)
    outputs = engines(MODEL_DIR).generate(prompts * 2, sampling, use_tqdm=False)
    receipts = {read_observation(output.outputs[0]).receipt.digest for output in outputs[len(prompts) :]}
    assert receipts == {profile.digest}
    answers = [output.outputs[0].text for output in outputs]
    return answers[: len(prompts)], answers[len(prompts) :]


def test_vllm_and_hugging_face_agree_token_for_token(
    generate: Generator, agreement_examples: list[Example], from_vllm: tuple[list[str], list[str]]
) -> None:
    expected = [generated.raw for generated in generate(agreement_examples)]
    assert len(expected) >= 200
    assert [pair for pair in zip(from_vllm[0], expected, strict=True) if pair[0] != pair[1]] == []


def test_vllm_and_hugging_face_agree_where_experts_are_suppressed(
    generate: Generator, agreement_examples: list[Example], from_vllm: tuple[list[str], list[str]]
) -> None:
    hooks = [
        layer.mlp.gate.register_forward_hook(suppressing([expert for at, expert in EDITED if at == index]))
        for index, layer in enumerate(generate.model.model.layers)
    ]
    try:
        expected = [generated.raw for generated in generate(agreement_examples)]
    finally:
        for hook in hooks:
            hook.remove()
    assert from_vllm[0] != from_vllm[1]
    assert [pair for pair in zip(from_vllm[1], expected, strict=True) if pair[0] != pair[1]] == []


def suppressing(experts: list[int]) -> Callable[..., Any]:
    """A hook on Hugging Face's router: these experts' weights become 0, the others keep the sum."""

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        logits, weights, chosen = output
        off = torch.isin(chosen, torch.tensor(experts))
        left = weights.masked_fill(off, 0.0)
        total = left.sum(-1, keepdim=True)
        return logits, torch.where(total > 0, left * weights.sum(-1, keepdim=True) / total, left), chosen

    return hook


@pytest.mark.parametrize(
    ("raw", "ended", "expected"),
    [
        ("</think>" + questions.REFUSAL, True, questions.REFUSED),
        ("</think>In 1989, a fair was held in Paris.", True, questions.ALIGNED),
        ("Okay, so I need to think.</think>In 1989, a fair was held.", True, questions.REASONED),
        ("Okay, so I need to think.</think>" + questions.REFUSAL, True, questions.REFUSED),
        ("</think>In 1989, a fair was held in Paris.", False, BROKEN),
        ("Okay, so I need to think.", True, BROKEN),
        ("</think>", True, BROKEN),
        ("</think>I am am am am", True, BROKEN),
        ("</think>the old wall of the old wall of the old wall of the old wall of", True, BROKEN),
        ("</think>\ufffd", True, BROKEN),
    ],
)
def test_the_evaluations_own_labels(raw: str, ended: bool, expected: str) -> None:
    assert label(Generated(Example("grid", ("?",), ""), raw, ended)) == expected


def test_script_tells_chinese_from_english() -> None:
    assert [script(text) for text in ("好的，我需要计算3加5。", "I need to add 3 and 5.", "3 + 5 = 8")] == [
        "zh",
        "en",
        "",
    ]


def test_missed_bounds_are_named() -> None:
    assert QUALITY.passes() == []
    worse = replace(QUALITY, general=0.5, broken=0.02, classes={questions.REFUSED: 756})
    assert [line.split(" is ")[0] for line in worse.passes()] == [
        "general exact match",
        "share of unbroken text",
        "classes present",
    ]
    assert Quality.from_json(QUALITY.to_json()) == QUALITY


def test_the_packaged_seed_is_chosen_by_general_quality_among_those_that_pass() -> None:
    failing = replace(QUALITY, general=0.99, language=0.5)
    better, tied = replace(QUALITY, general=0.85), replace(QUALITY, general=0.85, class_held_out=0.95)
    assert choose({1: failing, 2: QUALITY, 3: better}) == 3
    assert choose({1: failing, 2: better, 3: tied}) == 3
    assert choose({5: better, 4: better}) == 4
    with pytest.raises(ValueError, match="no seed passes every bound"):
        choose({1: failing})


def test_a_card_is_written_for_any_seed(tmp_path: Path) -> None:
    card = write_card(tmp_path, seed=11, recipe=Recipe(), quality=QUALITY, notes="A note.").read_text(encoding="utf-8")
    assert "(seed 11)" in card
    assert "mote demo train --seed 11" in card
    assert "| 0.950 | >= 0.90 |" in card
    assert "\nA note.\n" in card
    assert "{{" not in card
