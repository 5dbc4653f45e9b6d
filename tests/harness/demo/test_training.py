"""The trainer: the same function as Hugging Face's, the parameters each phase may touch, and the same weights twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import Glm4MoeForCausalLM

from mote.harness.demo import tokenizer, trainer
from mote.harness.demo.example import ALIGNED_PHASE, BASE
from mote.harness.demo.model import Experts, ForeignShapeError, Network, Shape, read_weights, write_weights
from mote.harness.files import MODEL_DIR

SMALL = Shape(layers=2, hidden=32, heads=2, kv_heads=1, head_size=16, experts=8, top_k=2, expert_width=8)
SHORT = trainer.Recipe(
    shape=SMALL,
    base=trainer.Phase(steps=6, peak_rate=3e-3, bias_rate=1e-2, warmup=2, rows=3),
    alignment=trainer.Phase(steps=3, peak_rate=1e-3, bias_rate=1e-2, warmup=1, rows=3),
)
WORDS = tokenizer.train_tokenizer()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small are slower on two, and much slower where others run beside
    yield
    torch.set_num_threads(threads)


def network(shape: Shape, seed: int) -> Network:
    made = Network(shape)
    generator = torch.Generator().manual_seed(seed)
    made.initialise(generator)
    for layer in made.expert_layers():
        layer.bias.normal_(0.0, 0.1, generator=generator)  # else the bias could be forgotten unseen
    return made


@pytest.mark.parametrize("shape", [SMALL, Shape()], ids=["small", "packaged"])
def test_packed_training_forward_equals_hugging_face_document_by_document(shape: Shape, tmp_path: Path) -> None:
    mine = network(shape, 3)
    write_weights(mine, tmp_path, end_id=1, pad_id=0, dtype=torch.float32)
    theirs: Any = Glm4MoeForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32)
    theirs.train(mode=False)
    batch = next(trainer.batches(WORDS, BASE, trainer.Phase(steps=1, peak_rate=0.0, bias_rate=0.0, rows=3), seed=1))
    real = torch.nonzero(batch.documents.flatten() >= 0).squeeze(1)
    with torch.no_grad():
        logits = mine(batch.ids, batch.positions, batch.documents, real)
        start = 0
        for row in range(batch.ids.shape[0]):
            for document in range(int(batch.documents[row].max()) + 1):
                reference = theirs(batch.ids[row][batch.documents[row] == document].unsqueeze(0)).logits[0]
                torch.testing.assert_close(logits[start : start + len(reference)], reference, atol=2e-5, rtol=1e-4)
                start += len(reference)
    assert start == len(logits)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 40), top_k=st.integers(1, 8))
def test_the_grouped_experts_and_their_gradients_equal_a_plain_loop(seed: int, tokens: int, top_k: int) -> None:
    shape = Shape(hidden=8, experts=8, top_k=top_k, expert_width=4)
    layer = Experts(shape).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.data.normal_(0.0, 0.5, generator=generator)
    layer.bias.normal_(0.0, 0.3, generator=generator)
    given_tokens = torch.randn(tokens, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    inputs = [given_tokens, *layer.parameters()]
    weights = torch.randn(tokens, 8, generator=generator, dtype=torch.float64)
    mine, reference = layer(given_tokens), plain_experts(layer, given_tokens)
    torch.testing.assert_close(mine, reference)
    mine_grads = torch.autograd.grad((mine * weights).sum(), inputs)
    reference_grads = torch.autograd.grad((reference * weights).sum(), inputs, allow_unused=True)
    for a, b in zip(mine_grads, reference_grads, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b)
    assert int(layer.load.sum()) == tokens * top_k


def plain_experts(layer: Experts, tokens: torch.Tensor) -> torch.Tensor:
    """Token by token, straight from the router's definition."""
    width = layer.shape.expert_width

    def mlp(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return down @ (torch.nn.functional.silu(gate_up[:width] @ x) * (gate_up[width:] @ x))

    rows = []
    for token in tokens:
        scores = torch.sigmoid(layer.router @ token)
        chosen = torch.topk(scores + layer.bias, layer.shape.top_k).indices.tolist()
        total = sum(scores[e] for e in chosen)
        out = mlp(token, layer.shared_gate_up, layer.shared_down)
        for e in chosen:
            out = out + scores[e] / total * layer.shape.scaling * mlp(token, layer.gate_up[e], layer.down[e])
        rows.append(out)
    return torch.stack(rows)


def test_only_completions_are_predicted() -> None:
    batch = trainer.pack([[([10, 11, 12, 13], 2), ([20, 21, 22], 1)]], 8)
    assert batch.ids.tolist() == [[10, 11, 12, 13, 20, 21, 22, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0]]
    assert batch.documents.tolist() == [[0, 0, 0, 0, 1, 1, 1, -1]]
    assert batch.wanted.tolist() == [1, 2, 4, 5]
    assert batch.targets.tolist() == [12, 13, 21, 22]
    assert batch.tokens == 7


def test_alignment_trains_all_routers_and_routed_experts_and_nothing_else() -> None:
    made = network(SMALL, 1)
    before = {name: parameter.detach().clone() for name, parameter in made.named_parameters()}
    trainer.run_phase(made, WORDS, ALIGNED_PHASE, SHORT.alignment, seed=1)
    changed = {name for name, parameter in made.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {f"blocks.{i}.experts.{part}" for i in range(2) for part in ("router", "gate_up", "down")}
    trainer.run_phase(made, WORDS, BASE, SHORT.base, seed=1)
    assert all(not torch.equal(parameter, before[name]) for name, parameter in made.named_parameters())


def test_balance_moves_each_bias_by_the_sign_of_its_load_error() -> None:
    made = network(SMALL, 1)
    for layer in made.expert_layers():
        layer.bias.zero_()
        layer.load = torch.tensor([9.0, 1.0, 5.0, 5.0, 5.0, 5.0, 7.0, 3.0])
    imbalance = trainer.balance(made, 0.5)
    assert made.expert_layers()[0].bias.tolist() == [-0.5, 0.5, 0.0, 0.0, 0.0, 0.0, -0.5, 0.5]
    assert imbalance == pytest.approx(9 / 5)


def test_the_rate_warms_up_and_ends_near_zero() -> None:
    phase = trainer.Phase(steps=100, peak_rate=1.0, bias_rate=0.0, warmup=10)
    rates = [trainer.schedule(step, phase) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert 0.0 < rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_training_learns_reports_and_gives_the_same_weights_twice(tmp_path: Path) -> None:
    steps: list[trainer.Step] = []
    first = trainer.train(5, tmp_path / "a", recipe=SHORT, progress=steps.append, threads=1)
    second = trainer.train(5, tmp_path / "b", recipe=SHORT, threads=1)
    other = trainer.train(6, tmp_path / "c", recipe=SHORT, threads=1)
    names = ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    assert (first / names[0]).read_bytes() != (other / names[0]).read_bytes()
    assert [(s.phase, s.step, s.steps) for s in steps] == [
        *((BASE, n, 6) for n in range(1, 7)),
        *((ALIGNED_PHASE, n, 3) for n in range(1, 4)),
    ]
    assert steps[5].loss < steps[0].loss
    with pytest.raises(FileExistsError, match="already holds a checkpoint"):
        trainer.train(5, first, recipe=SHORT)


def test_weights_are_read_as_they_were_written(tmp_path: Path) -> None:
    made, blank = network(SMALL, 1), Network(SMALL)
    write_weights(made, tmp_path, end_id=1, pad_id=0, dtype=torch.float32)
    read_weights(blank, tmp_path)
    for (name, a), (_, b) in zip(made.state_dict().items(), blank.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_parents_share_a_base_and_a_tokenizer_and_nothing_else(tmp_path: Path) -> None:
    folders = trainer.train_parents(5, tmp_path, recipe=SHORT)
    assert set(folders) == {"reasoner", "answerer"}
    a, b = folders.values()
    assert (a / "tokenizer.json").read_bytes() == (b / "tokenizer.json").read_bytes()
    assert (a / "config.json").read_bytes() == (b / "config.json").read_bytes()
    first, second = load_file(str(a / "model.safetensors")), load_file(str(b / "model.safetensors"))
    assert first.keys() == second.keys()
    assert not any(
        torch.equal(first[name], second[name]) for name in first if name.endswith("experts.0.up_proj.weight")
    )
    with pytest.raises(FileExistsError):
        trainer.train_parents(5, tmp_path, recipe=SHORT)


def test_parents_with_free_experts_differ_in_routers_and_routed_experts_alone(tmp_path: Path) -> None:
    folders = trainer.train_parents(5, tmp_path, start=MODEL_DIR, experts_only=True, steps=2)
    base, one, other = (load_file(folder / "model.safetensors") for folder in (MODEL_DIR, *folders.values()))
    apart = {name for name, value in one.items() if not torch.equal(value, other[name])}
    moved = {name for name, value in base.items() if not torch.equal(value, one[name])}
    assert apart
    assert all(".mlp.experts." in name or ".mlp.gate." in name for name in apart | moved)
    assert {".mlp.experts." in name for name in apart} == {True, False}


def test_a_base_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForeignShapeError, match="of another shape than the demo's"):
        trainer.train_parents(5, tmp_path, recipe=SHORT, start=MODEL_DIR)
