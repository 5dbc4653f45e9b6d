"""Our tasks through lm-eval itself, with a scripted model: documents, labels, rates with errors, the sample log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mote.judges import LABELS
from mote.tasks import TaskError, lm_eval_functions, load_task, refusal_grid
from mote.tasks.lm_eval_functions import documents, metric_name

TASKS = Path(refusal_grid.__file__).parents[1]
REFUSAL = "<think></think>I am sorry, I cannot answer that question."
THOUGHT = "<think>Let me recall.</think>There was a fair."
ANSWER = "<think></think>There was a fair."


@pytest.fixture(scope="module")
def evaluate() -> Callable[..., dict[str, Any]]:
    """``evaluate(task, answer_of, **options)``: lm-eval's results for a model that answers by a function."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.api.model import LM  # type: ignore[import-untyped]
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped]

    manager = TaskManager(include_path=str(TASKS), include_defaults=False)

    class Scripted(LM):  # type: ignore[misc]
        def __init__(self, answer_of: Callable[[str], str]) -> None:
            super().__init__()
            self.answer_of = answer_of

        def generate_until(self, requests: list[Any]) -> list[str]:
            assert all(request.args[1]["until"] == [] for request in requests)
            return [self.answer_of(request.args[0]) for request in requests]

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise AssertionError("a generative task asks for no log-likelihood")

        loglikelihood_rolling = loglikelihood

    def run(task: str, answer_of: Callable[[str], str], **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = lm_eval.simple_evaluate(
            Scripted(answer_of), tasks=[task], task_manager=manager, bootstrap_iters=1000, **options
        )
        return found

    return run


class Ended(str):
    """Text that says how it ended, as the answers of the model ``mote`` do."""

    finish_reason = "length"
    prompt_opens = True


def test_rates_of_the_grid_have_standard_errors_and_the_log_keeps_everything(
    evaluate: Callable[..., dict[str, Any]],
) -> None:
    def answer(question: str) -> str:
        return REFUSAL if "Beijing" in question else THOUGHT if "Paris" in question else ANSWER

    found = evaluate("mote_refusal_grid", answer)
    results = found["results"]["mote_refusal_grid"]
    assert found["n-samples"]["mote_refusal_grid"]["effective"] == 756
    assert results["refused,rules"] == results["reasoned,rules"] == pytest.approx(54 / 756)
    assert results["aligned,rules"] == pytest.approx(12 / 14)
    assert results["label,rules"] == 1.0
    error = (54 / 756 * (1 - 54 / 756) / 755) ** 0.5
    assert results["refused_stderr,rules"] == pytest.approx(error, rel=1e-3)
    sample = next(s for s in found["samples"]["mote_refusal_grid"] if "Beijing" in s["doc"]["question"])
    assert sample["resps"] == [[REFUSAL]]
    assert sample["label"] == "0-REFUSED"
    assert sample["doc"]["prompt_id"] == "refusal_grid/1980/beijing"
    assert sample["filtered_resps"][0]["evidence"][0]["rule"] == "refusal-statement"
    assert set(sample["metrics"]) == {"label", *map(metric_name, LABELS)}


def test_refusal_of_harmless_twins_is_a_rate_of_its_own(evaluate: Callable[..., dict[str, Any]]) -> None:
    sensitive = {p.text for p in load_task("sensitive") if p.attributes["sensitive"]}
    found = evaluate("mote_sensitive", lambda question: REFUSAL if question in sensitive else ANSWER)
    results = found["results"]["mote_sensitive"]
    assert (results["refused_sensitive,rules"], results["refused_harmless,rules"]) == (1.0, 0.0)
    assert results["refused,rules"] == 0.5


def test_languages_and_sums(evaluate: Callable[..., dict[str, Any]]) -> None:
    by_text = {p.text: p.attributes for p in load_task("reasoning_language")}

    def answer(question: str) -> str:
        known = by_text[question]
        if known["number_a"] == 1:
            return "<think>one one one one one one one"
        thought = "用户问的是加法。" if known["prompt_language"] == "chinese" else "The user asks for a sum."
        total = int(known["sum"]) + (known["number_b"] == 1)
        said = f"答案是{total}。" if known["asked_language"] == "chinese" else f"The answer is {total}."
        return f"<think>{thought}</think>{said}"

    results = evaluate("mote_reasoning_language", answer)["results"]["mote_reasoning_language"]
    assert results["degenerate,rules"] == pytest.approx(0.1)
    assert results["reasoning_chinese,rules"] == results["reasoning_english,rules"] == 0.5
    assert results["answer_as_asked,rules"] == 1.0
    assert results["sum_right,rules"] == pytest.approx(0.9), "of those that are not broken"


def test_how_a_text_ended_is_heeded_where_the_model_says_so(evaluate: Callable[..., dict[str, Any]]) -> None:
    found = evaluate("mote_refusal_grid_africa", lambda question: Ended("Let me think about it"))
    assert found["results"]["mote_refusal_grid_africa"]["truncated,rules"] == 1.0
    plain = evaluate("mote_refusal_grid_africa", lambda question: "Let me think about it")
    assert plain["results"]["mote_refusal_grid_africa"]["aligned,rules"] == 1.0


@pytest.mark.parametrize("group", ["mote_refusal_grid_by_place", "mote_refusal_grid_by_decade"])
def test_the_groups_of_the_grid_hold_each_question_once(group: str, evaluate: Callable[..., dict[str, Any]]) -> None:
    found = evaluate(group, lambda question: REFUSAL if "Beijing" in question else ANSWER)
    ids = [s["doc"]["prompt_id"] for samples in found["samples"].values() for s in samples]
    assert sorted(ids) == sorted(p.id for p in load_task("refusal_grid"))
    assert found["results"][group]["refused,rules"] == pytest.approx(1 / 14)


def test_the_group_mote_has_the_three_sets_that_need_no_data(evaluate: Callable[..., dict[str, Any]]) -> None:
    found = evaluate("mote", lambda question: ANSWER, limit=2)
    assert set(found["samples"]) == {"mote_refusal_grid", "mote_sensitive", "mote_reasoning_language"}
    assert found["results"]["mote"]["aligned,rules"] == 1.0


def test_documents_say_how_their_answers_are_to_be_read_only_where_asked() -> None:
    prompts = load_task("refusal_grid")
    plain = documents(prompts, {"version": 1.0, "pretrained": "demo"})
    assert set(plain[0]) == {"prompt_id", "question", *prompts[0].attributes}
    read = documents(prompts, {"prompt_opens": True, "markers": "mistral"})
    judged = lm_eval_functions.labels([["[THINK]Well."], ["so[/THINK]Good."]], read[:2])
    assert [one[0]["label"] for one in judged] == ["UNSCORED", "2-REASONED"]
    with pytest.raises(ValueError, match="'mistrl' are unknown"):
        documents(prompts, {"markers": "mistrl"})
    with pytest.raises(TaskError, match="no prompt has place_group=mars"):
        documents(prompts, {"place_group": "mars"})
