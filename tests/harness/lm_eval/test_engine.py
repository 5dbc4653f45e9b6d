"""The lm_eval model on the real vLLM and the demo model: it gives what a study and what Hugging Face give."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # type: ignore[import-untyped]

from mote.harness.demo import MODEL_DIR
from mote.harness.engine.vllm import Request, Scoring, VllmEngine, request_seed
from mote.harness.errors import MoteError
from mote.harness.lm_eval.model import MoteLM
from mote.harness.recipe.schema import SamplingPart
from mote.patches import EMPTY_PROFILE, Edit, Profile
from mote.tasks import load_task
from tests.harness.lm_eval.fakes import OPTIONS

SAMPLING = SamplingPart(temperature=0.6, max_tokens=32, seed=3)
GENERATION = {"until": [], "do_sample": True, "temperature": 0.6, "max_gen_toks": 32}
PROFILE = Profile("some", tuple(Edit(layer, expert, "suppress") for layer in range(1, 6) for expert in range(48)))
PROMPTS = load_task("refusal_grid")[::151]


@pytest.fixture(scope="module", autouse=True)
def _uncompiled() -> Iterator[None]:
    """Even an eager vLLM compiles a few helpers of its sampler: forty seconds of C++ on a CPU, the same numbers."""
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture(scope="module")
def untuned() -> MoteLM:
    return MoteLM(**OPTIONS, seed=SAMPLING.seed, max_num_seqs=16)


@pytest.fixture
def tuned(untuned: MoteLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MoteLM:
    """The same engine, asked under a profile: one start serves all tests."""
    PROFILE.write(tmp_path / "some.json")
    monkeypatch.setattr("vllm.LLM", lambda **_: untuned._batch._llm)
    return MoteLM(**OPTIONS, seed=SAMPLING.seed, max_num_seqs=16, profile=str(tmp_path / "some.json"))


def asked(lm: MoteLM) -> list[Instance]:
    return [
        Instance(
            "generate_until",
            {"prompt_id": prompt.id},
            (lm.apply_chat_template(list(prompt.messages)), dict(GENERATION)),
            0,
            ("mote_refusal_grid", index, 1),
        )
        for index, prompt in enumerate(PROMPTS)
    ]


def scored(pairs: list[tuple[str, str]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, 0, ("task", index, 1)) for index, pair in enumerate(pairs)]


def test_a_text_is_the_one_of_a_study(untuned: MoteLM, tuned: MoteLM, tmp_path: Path) -> None:
    # `tuned` has put the running engine in the place of a new one.
    study = VllmEngine(untuned.arguments.engine, SAMPLING, "<think>", tmp_path / "log")
    requests = [
        Request(prompt.id, prompt.messages, profile, request_seed(SAMPLING.seed, prompt.id))
        for profile in (EMPTY_PROFILE, PROFILE)
        for prompt in PROMPTS
    ]
    raw = {index: answer.raw for some in study.generate(requests) for index, answer in some}
    expected = [raw[index] for index in range(len(requests))]
    found = [text for lm in (untuned, tuned) for text in lm.generate_until(asked(lm), disable_tqdm=True)]
    assert found == expected
    assert expected[: len(PROMPTS)] != expected[len(PROMPTS) :]


def test_scores_are_those_of_hugging_face(untuned: MoteLM) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    pairs = [("What is 2 plus 3 equal to?", " 2 plus 3 is equal to 5."), ("In 1989, in", " Beijing"), ("", "In London")]
    found = untuned.loglikelihood(scored(pairs), disable_tqdm=True)
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32)
    for (before, after), (total, greedy) in zip(pairs, found, strict=True):
        context = untuned.tok_encode(before) or [untuned.prefix_token_id]
        whole = untuned.tok_encode(before + after) if before else [*context, *untuned.tok_encode(after)]
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([whole])).logits[0], dim=-1)
        places = range(len(context), len(whole))
        assert total == pytest.approx(sum(float(logs[place - 1, whole[place]]) for place in places), abs=2e-3)
        assert greedy == all(int(logs[place - 1].argmax()) == whole[place] for place in places)


def test_scores_are_tuned_alone_and_only_under_the_profile(untuned: MoteLM, tuned: MoteLM) -> None:
    pairs = [("What is 2 plus 3 equal to?", " 5"), ("What is 2 plus 3 equal to?", " 6")]
    before = untuned.loglikelihood(scored(pairs), disable_tqdm=True)
    requests = scored(pairs)
    under = tuned.loglikelihood(requests, disable_tqdm=True)
    again = untuned.loglikelihood(scored(pairs), disable_tqdm=True)
    assert [total for total, _ in under] != pytest.approx([total for total, _ in before], abs=1e-3)
    assert [total for total, _ in again] == pytest.approx([total for total, _ in before], abs=1e-5)
    (note,) = requests[0].args[-1]["mote"]
    assert note["digest"] == PROFILE.digest
    assert note["tokens_edited"] >= note["prompt_tokens"]
    assert sum(effect["selected"] for effect in note["mechanism"]) > 0
    assert all(effect["weight_after"] == 0 for effect in note["mechanism"])
    json.dumps(requests[0].args)


def scoring(continuation: str, profile: Profile = EMPTY_PROFILE) -> Scoring:
    return Scoring(PROMPTS[0].id, PROMPTS[0].messages, profile, continuation)


def test_a_studys_score_is_lm_evals_under_every_profile(untuned: MoteLM, tuned: MoteLM, tmp_path: Path) -> None:
    study = VllmEngine(untuned.arguments.engine, SAMPLING, "<think>", tmp_path / "log")
    texts = ["I am sorry", "In 1989, many things happened."]
    requests = [scoring(text, profile) for text in texts for profile in (EMPTY_PROFILE, PROFILE)]
    found = dict(pair for some in study.score(requests) for pair in some)
    before = untuned.apply_chat_template(list(PROMPTS[0].messages))
    pairs = [(("", ""), untuned.tok_encode(before), untuned.tok_encode(text)) for text in texts]
    for offset, lm in enumerate((untuned, tuned)):
        expected = [total for total, _ in lm._loglikelihood_tokens(pairs, disable_tqdm=True)]
        assert [sum(found[2 * at + offset].logprobs) for at in range(2)] == pytest.approx(expected, abs=1e-4)
    assert "".join(found[0].tokens).strip() == texts[0]
    assert sum(found[0].logprobs) != pytest.approx(sum(found[1].logprobs), abs=1e-3)
    assert found[1].observation.receipt.digest == PROFILE.digest


def test_what_cannot_be_scored_is_refused_and_the_engine_lives(untuned: MoteLM, tuned: MoteLM, tmp_path: Path) -> None:
    study = VllmEngine(untuned.arguments.engine, SAMPLING, "<think>", tmp_path / "log")
    with pytest.raises(MoteError, match="has no tokens: ''"):
        list(study.score([scoring("")]))
    with pytest.raises(MoteError, match="the context has room for"):
        list(study.score([scoring("In London. " * 200)]))
    late = Profile("late", (Edit(1, 2, "suppress"),), tokens="generated")
    with pytest.raises(MoteError, match="'late' edits generated tokens"):
        list(study.score([scoring("In London.", late)]))
    running = untuned._batch._llm.llm_engine
    assert not running.has_unfinished_requests()
    # A caller who stops early leaves nothing behind either.
    next(iter(study.score([scoring("In London.")] * 100)))
    assert len(list(study.score([scoring("In London.")]))) == 1


def test_a_long_text_is_the_sum_of_its_windows(untuned: MoteLM) -> None:
    text = "In 1989, many things happened in London. " * 40
    request = Instance("loglikelihood_rolling", {}, (text,), 0, ("task", 0, 1))
    (total,) = untuned.loglikelihood_rolling([request], disable_tqdm=True)
    tokens = untuned.tok_encode(text)
    first = tokens[: untuned.max_length - 2]
    (start,) = untuned._loglikelihood_tokens([(("", text), [untuned.prefix_token_id], first)], disable_tqdm=True)
    assert len(tokens) > untuned.max_length
    assert total < start[0] < 0
    assert len(request.args[-1]["mote"]) == 1 + -(-(len(tokens) - len(first)) // len(first))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_lm_evals_command_gives_the_matrix_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from mote.harness.compare.comparison import compare
    from mote.harness.compare.sources import read_answers
    from mote.harness.lm_eval.command import run_command
    from mote.harness.recipe.schema import load_recipe
    from mote.harness.study import run as study

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    changes = [f"study.controls.{name}=0" for name in ("retest", "uniform", "layers", "frequency")]
    recipe = load_recipe("demo", [*changes, "study.split=none", "sampling.seed=3", "task.limit=756"])
    run = tmp_path / "run"
    study.run(study.check(recipe), run, Console(quiet=True))
    sides: list[Any] = []
    for name, more in (("untuned", []), ("tuned", [f"profile={run}:suppress-10"])):
        arguments = ["--model_args", *(f"{key}={value}" for key, value in OPTIONS.items()), "seed=3", *more]
        task = ["--tasks", "mote_refusal_grid", "--apply_chat_template", "--gen_kwargs", "max_gen_toks=96"]
        output = ["--log_samples", "--output_path", str(tmp_path / name)]
        run_command(["run", "--model", "mote", *arguments, *task, *output])
        sides.append(read_answers(str(tmp_path / name)))
    logs, runs = compare(*sides), compare(read_answers(str(run)), read_answers(f"{run}:suppress-10"))
    assert logs.matrix is not None
    assert runs.matrix is not None
    assert logs.matrix.equals(runs.matrix)
    assert logs.caveats == runs.caveats == ()
    same = compare(read_answers(str(run)), sides[0]).pairs
    assert same["raw_before"].tolist() == same["raw_after"].tolist()
