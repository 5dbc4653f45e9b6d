from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("vllm")
pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # type: ignore[import-untyped]
from lm_eval.api.model import CacheHook  # type: ignore[import-untyped]

from mote.harness.engine.vllm import request_seed
from mote.harness.errors import MoteError
from mote.harness.lm_eval import model as model_module
from mote.harness.lm_eval.answers import Rendered, Text
from mote.harness.lm_eval.model import MoteLM
from mote.harness.lm_eval.sampling import cut_at, generation
from mote.patches import Edit, Profile
from tests.harness.lm_eval.fakes import OPTIONS, FakeBatch

QUESTION = [{"role": "user", "content": "What is 3 plus 4 equal to?"}]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(model_module, "Batch", FakeBatch)
    monkeypatch.setattr(FakeBatch, "seen", [])
    return lambda **given: MoteLM(**{**OPTIONS, **given})


def asked(context: str, given: dict[str, Any] | None = None, doc: dict[str, Any] | None = None) -> Instance:
    return Instance("generate_until", doc or {}, (context, {"until": [], **(given or {})}), 0, ("task", 0, 1))


def scored(context: str, continuation: str) -> Instance:
    return Instance("loglikelihood", {}, (context, continuation), 0, ("task", 0, 1))


def test_a_prompt_of_ours_has_the_tokens_and_the_seed_of_a_study(make: Any) -> None:
    lm = make(seed=5)
    context = lm.apply_chat_template(QUESTION)
    lm.generate_until([asked(context, doc={"id": "refusal_grid/1989/beijing"})], disable_tqdm=True)
    (job,) = FakeBatch.seen
    text = lm.tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    assert list(job.tokens) == lm.tokenizer.encode(text, add_special_tokens=False)
    assert job.params["seed"] == request_seed(5, "refusal_grid/1989/beijing")
    assert job.params["skip_special_tokens"] is False
    assert job.params["stop"] == []
    assert job.prompt_opens


def test_answers_come_back_in_order_with_a_note_each(make: Any) -> None:
    lm = make()
    requests = [asked(f"What is {n} plus 1 equal to?") for n in range(5)]
    texts = lm.generate_until(requests, disable_tqdm=True)
    assert [text.rpartition(" ")[2] for text in texts] == ["1.", "2.", "3.", "4.", "5."]
    for request in requests:
        (note,) = request.args[-1]["mote"]
        assert (note["profile"], note["digest"]) == ("baseline", lm.arguments.profile.digest)
        assert "raw" not in note


def test_repeats_of_a_request_draw_other_noise_and_share_its_notes(make: Any) -> None:
    lm = make()
    one, two = asked("2 and 2?", doc={"n": 1}), asked("2 and 2?", doc={"n": 2})
    lm.generate_until([one, one, two], disable_tqdm=True)
    seeds = [job.params["seed"] for job in FakeBatch.seen]
    assert len(set(seeds)) == 3
    assert [note["seed"] for note in one.args[-1]["mote"]] == seeds[:2]
    assert len(two.args[-1]["mote"]) == 1
    lm.generate_until([asked("2 and 2?", doc={"n": 2})], disable_tqdm=True)
    assert FakeBatch.seen[-1].params["seed"] == seeds[2]


def test_a_score_is_the_sum_over_the_continuation(make: Any) -> None:
    lm = make()
    request = scored("What is 3 plus 4 equal to?", " It is 7.")
    ((total, greedy),) = lm.loglikelihood([request], disable_tqdm=True)
    before = len(lm.tok_encode("What is 3 plus 4 equal to?"))
    places = range(before, len(lm.tok_encode("What is 3 plus 4 equal to? It is 7.")))
    assert total == pytest.approx(sum(-place / 4 for place in places))
    assert greedy is False
    assert request.args[-1]["mote"][0]["seed"] is None


def test_one_token_at_an_even_place_is_the_greedy_one(make: Any) -> None:
    lm = make()
    (score,) = lm._loglikelihood_tokens([(("", "x"), [5, 6], [7])], disable_tqdm=True)
    assert score == (-0.5, True)
    (score,) = lm._loglikelihood_tokens([(("", "x"), [5], [7])], disable_tqdm=True)
    assert score == (-0.25, False)


def test_a_context_of_blanks_is_scored_from_the_first_token(make: Any) -> None:
    lm = make()
    before, after = lm._encode_pair(" ", "London")
    assert before == [lm.prefix_token_id]
    assert after == lm.tok_encode(" London")


def test_a_long_text_is_scored_in_windows_that_cover_each_token_once(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = make()
    monkeypatch.setattr(FakeBatch, "each", -1.0)
    text = "Many things happened. " * 80
    request = Instance("loglikelihood_rolling", {}, (text,), 0, ("task", 0, 1))
    (total,) = lm.loglikelihood_rolling([request], disable_tqdm=True)
    count = len(lm.tok_encode(text))
    assert len(FakeBatch.seen) > 1
    assert len(request.args[-1]["mote"]) == len(FakeBatch.seen)
    assert all(len(job.tokens) < lm.max_length for job in FakeBatch.seen)
    assert total == -count


def test_a_prompt_too_long_is_cut_at_the_left_and_says_so(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    lm = make()
    request = asked("word " * 400 + "end")
    lm.generate_until([request], disable_tqdm=True)
    tokens = lm.tok_encode("word " * 400 + "end")
    assert list(FakeBatch.seen[0].tokens) == tokens[-255:]
    assert request.args[-1]["mote"][0]["cut"] == len(tokens) - 255
    assert "1 of 1 prompts are longer" in caplog.text


def test_answer_only_scores_the_answer_and_keeps_the_whole_text(make: Any) -> None:
    lm = make(answer_only=True)
    context = lm.apply_chat_template(QUESTION)
    request = asked(context, {"until": ["\n\n", "."]})
    (text,) = lm.generate_until([request], disable_tqdm=True)
    assert text == "It is 7"
    assert FakeBatch.seen[0].params["stop"] == []
    assert request.args[-1]["mote"][0]["raw"] == "I add the numbers.\n\nThat is all.</think>It is 7."
    (ours,) = lm.generate_until([asked(context, doc={"id": "refusal_grid/1989/beijing"})], disable_tqdm=True)
    assert ours.startswith("I add the numbers.")


def test_choices_are_never_scored_inside_an_open_reasoning(make: Any) -> None:
    lm = make()
    with pytest.raises(MoteError, match="the choices would be scored inside it"):
        lm.loglikelihood([scored(lm.apply_chat_template(QUESTION), " 7")])


def test_a_profile_of_generated_tokens_scores_nothing(make: Any, tmp_path: Any) -> None:
    Profile("late", (Edit(2, 3, "suppress"),), tokens="generated").write(tmp_path / "late.json")
    lm = make(profile=str(tmp_path / "late.json"))
    lm.generate_until([asked("2 and 2?")], disable_tqdm=True)
    with pytest.raises(MoteError, match="nothing would be tuned"):
        lm.loglikelihood([scored("2 and 2 is", " 4")], disable_tqdm=True)


def test_the_response_cache_is_refused_with_the_reason(make: Any) -> None:
    lm = make()
    lm.set_cache_hook(CacheHook(None))
    hook = CacheHook(None)
    hook.dbdict = {}
    with pytest.raises(MoteError, match="--use_cache is refused: lm_eval's cache knows an answer by its prompt alone"):
        lm.set_cache_hook(hook)


def test_the_results_file_names_profile_and_model(make: Any) -> None:
    info = make().get_model_info()["mote"]
    assert info["profile"] == "baseline"
    assert len(info["profile_digest"]) == 64
    assert "model.safetensors" in info["model"]["files"]


def test_a_template_that_refuses_the_messages_is_one_line(make: Any) -> None:
    lm = make()
    lm.tokenizer.chat_template = "{{ raise_exception('no system prompt') }}"
    with pytest.raises(MoteError, match="the chat template of demo did not take the messages: no system prompt"):
        lm.apply_chat_template(QUESTION)


@pytest.mark.parametrize(
    ("given", "params", "until"),
    [
        ({"until": ["\n\n", ""]}, {"temperature": 0.0, "max_tokens": 99}, ["\n\n"]),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0}, []),
        (
            {"temperature": 0.7, "top_p": 0.9, "max_gen_toks": 5},
            {"temperature": 0.7, "top_p": 0.9, "max_tokens": 5},
            [],
        ),
        ({"do_sample": True, "temperature": 1}, {"temperature": 1}, []),
        ({"max_tokens": 7, "until": "x"}, {"max_tokens": 7}, ["x"]),
    ],
)
def test_generation_kwargs_become_sampling_parameters(
    given: dict[str, Any], params: dict[str, Any], until: list[str]
) -> None:
    found = generation(given, 99)
    assert found.until == until
    assert {name: found.params[name] for name in params} == params
    assert "do_sample" not in found.params


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temprature": 1}, "temprature is not a sampling parameter of vLLM. Did you mean 'temperature'?"),
        ({"n": 2}, "n is not taken: lm_eval asks several times with the task's repeats"),
        ({"seed": 1}, "each request has its own"),
        ({"extra_args": {"mote": {}}}, "name the profile in model_args"),
        ({"max_gen_toks": 0}, "must be a whole number from 1"),
    ],
)
def test_a_wrong_generation_kwarg_is_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(MoteError, match="generation_kwargs") as raised:
        generation(given, 9)
    assert said in str(raised.value)


def test_text_is_cut_at_the_first_stop() -> None:
    assert cut_at("one. two; three", [";", "."]) == "one"
    assert cut_at("one", [";"]) == "one"


def test_values_survive_a_copy_with_their_notes(make: Any) -> None:
    (text,) = make().generate_until([asked("2 and 2?")], disable_tqdm=True)
    assert isinstance(text, Text)
    for other in (copy.copy(text), copy.deepcopy(text)):
        assert (other, other.note) == (text, text.note)
    assert isinstance(copy.copy(Rendered("x")), Rendered)
