from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from mote.harness.engine.vllm import Request
from mote.harness.errors import MoteError
from mote.harness.mt_bench.answers import answer_state
from mote.harness.mt_bench.commands import plan_models
from mote.harness.mt_bench.fastchat_files import export
from mote.harness.mt_bench.store import BenchStore, ModelRow
from mote.judges import Markers
from mote.judges.mt_bench import TEMPERATURES
from mote.patches import EMPTY_PROFILE, Profile
from tests.harness.mt_bench.parts import DIGEST, QUESTIONS, TUNED, WrittenEngine, answered, plain


def test_both_turns_of_every_model_with_fastchats_temperatures(tmp_path: Path) -> None:
    store, engine = answered(tmp_path / "b")
    with store:
        answers = store.answers()
    assert len(answers) == len(engine.asked) == 2 * 2 * len(QUESTIONS)
    assert set(answers["state"]) == {"answered"}
    for request, temperature in engine.asked:
        question = next(one for one in QUESTIONS if one.id == int(request.prompt_id.split("/")[1]))
        assert temperature == TEMPERATURES[question.category]
        assert not request.capture
    assert len({request.prompt_id for request, _ in engine.asked}) == len(engine.asked)
    assert set(answers["receipt"].map(lambda text: json.loads(text)["digest"])) == {EMPTY_PROFILE.digest, TUNED.digest}


def test_the_second_turn_has_the_first_answer_without_its_reasoning(tmp_path: Path) -> None:
    store, engine = answered(tmp_path / "b")
    store.close()
    second = [request for request, _ in engine.asked if len(request.messages) == 3]
    assert len(second) == 2 * len(QUESTIONS)
    for request in second:
        assert [message["role"] for message in request.messages] == ["user", "assistant", "user"]
        assert request.messages[1]["content"].startswith(f"{request.profile.name} says 1 to First of")
        assert "secret" not in str(request.messages)
        assert "think" not in str(request.messages)


def test_seeds_differ_by_choice_turn_and_question_but_not_by_profile(tmp_path: Path) -> None:
    store, _ = answered(tmp_path / "b", choices=2)
    with store:
        answers = store.answers()
    by_model = answers.groupby(["question_id", "choice", "turn"])["seed"]
    assert set(by_model.nunique()) == {1}
    assert by_model.first().nunique() == 2 * 2 * len(QUESTIONS)


def test_a_turn_without_an_answer_is_a_state_and_ends_the_conversation(tmp_path: Path) -> None:
    endings = {
        101: ("<think>and on and on", "length", "reasoning-cut-off"),
        102: ("<think>done</think>", "stop", "no-answer"),
        103: ("<think>done</think>A long", "length", "cut-off"),
        104: ("", "abort", "failed"),
        105: ("A plain answer without end", "length", "cut-off"),
    }

    def write(request: Request) -> tuple[str, str]:
        ending = endings.get(int(request.prompt_id.split("/")[1]))
        return ending[:2] if ending and len(request.messages) == 1 else plain(request)

    store, engine = answered(tmp_path / "b", WrittenEngine(write), tuned=False)
    with store:
        answers = store.answers().set_index(["question_id", "turn"])["state"]
        export(store)
    for number, (_, _, state) in endings.items():
        assert answers[number, 1] == state
        assert answers[number, 2] == ("answered" if state == "cut-off" else "no-first-answer")
    assert len(answers) == 2 * len(QUESTIONS)
    assert len(engine.asked) == 2 * len(QUESTIONS) - 3
    rows = [json.loads(line) for line in (tmp_path / "b/model_answer/m.jsonl").read_text().splitlines()]
    assert [row["question_id"] for row in rows] == [question.id for question in QUESTIONS]
    first = {row["question_id"]: row["choices"][0] for row in rows}
    assert first[101]["turns"] == ["", ""]
    assert first[101]["states"] == ["reasoning-cut-off", "no-first-answer"]
    assert first[103]["turns"][0] == "A long"


def test_where_the_prompt_opens_the_reasoning_an_unclosed_text_is_reasoning() -> None:
    assert answer_state("still thinking", "length", Markers(), True) == "reasoning-cut-off"
    assert answer_state("thought</think>So.", "length", Markers(), True) == "cut-off"
    assert answer_state("</think>So.", "stop", Markers(), True) == "answered"
    assert answer_state("never closed", "stop", Markers(), True) == "no-answer"
    assert answer_state("So", "length", Markers(), False) == "cut-off"


def test_a_prompt_that_leaves_no_room_is_not_sent(tmp_path: Path) -> None:
    store, engine = answered(tmp_path / "b", WrittenEngine(context=60), tuned=False)
    with store:
        states = Counter(zip(store.answers()["turn"], store.answers()["state"], strict=True))
    assert states == {(1, "answered"): len(QUESTIONS), (2, "prompt-too-long"): len(QUESTIONS)}
    assert len(engine.asked) == len(QUESTIONS)


def test_stopped_answering_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        answered(tmp_path / "b", WrittenEngine(stop_after=21))
    with BenchStore(tmp_path / "b", read_only=True) as stopped:
        assert len(stopped.answers()) == 21
    store, engine = answered(tmp_path / "b")
    with store:
        whole = store.answers()
    assert len(engine.asked) == 32 - 21
    fresh, _ = answered(tmp_path / "c")
    columns = ["model_id", "question_id", "turn", "seed", "temperature", "answer", "state"]
    with fresh:
        assert whole[columns].equals(fresh.answers()[columns])


def test_a_bench_keeps_to_its_questions_models_and_sampling(tmp_path: Path) -> None:
    store, _ = answered(tmp_path / "b")
    with store:
        with pytest.raises(MoteError, match="seed: 0 -> 1"):
            store.add_model(ModelRow("m", EMPTY_PROFILE.digest, EMPTY_PROFILE.to_dict(), {"seed": 1}))
        with pytest.raises(MoteError, match="under another profile"):
            store.add_model(ModelRow("m", TUNED.digest, TUNED.to_dict(), {"seed": 0}))
        with pytest.raises(MoteError, match="in use"):
            BenchStore(tmp_path / "b", questions=DIGEST)
    with pytest.raises(MoteError, match="other questions"):
        BenchStore(tmp_path / "b", questions="0" * 64)
    with pytest.raises(MoteError, match="answer first"):
        BenchStore(tmp_path / "nowhere", read_only=True)


def test_models_are_named_by_their_profiles() -> None:
    names = [name for name, _ in plan_models("m", [TUNED, EMPTY_PROFILE])]
    assert names == ["m", "m+suppress-1"]
    assert [name for name, _ in plan_models("m", [TUNED], original=False)] == ["m+suppress-1"]
    with pytest.raises(MoteError, match="two profiles are named 'suppress-1'"):
        plan_models("m", [TUNED, Profile("suppress-1", TUNED.edits, tokens="prompt")])
