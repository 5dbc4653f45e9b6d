"""The provider under Inspect itself, before an HTTP server that answers as vLLM with the patch does, or should not."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("openai")
pytest.importorskip("inspect_ai")

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import get_model
from inspect_ai.scorer import match
from inspect_ai.solver import generate

from mote.harness.compare.sources import read_answers
from mote.harness.errors import MoteError
from mote.harness.inspect_ai import register
from mote.harness.inspect_ai.family import families, table_of
from mote.harness.inspect_ai.model import MoteAPI, Numbers
from mote.harness.inspect_ai.run import Evaluation, evaluate
from mote.patches import EMPTY_PROFILE, Edit, ModelLayout, Profile, read_observation
from tests.harness.engine.test_client import packet, served

LAYOUT = ModelLayout("Qwen3MoeForCausalLM", (0, 1), 32, 4)
TUNED = Profile("tuned", (Edit(1, 3, "suppress"), Edit(1, 7, "suppress")), LAYOUT)
TASKS = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate

@task
def yes(count: int = 3) -> Task:
    samples = [Sample(id=f"q{number}", input=f"Is {number} a number?", target="Yes.") for number in range(count)]
    return Task(dataset=samples, solver=generate(), scorer=match())
"""


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The provider is known, and no test starts a server of its own.

    Inspect looks a model up by the name in its log, without its arguments, and keeps what goes wrong there to itself.
    """
    started: list[Any] = []

    def refuse(*given: Any) -> None:
        started.append(given)
        raise AssertionError("a server was to be started")

    register()
    monkeypatch.setattr("mote.harness.inspect_ai.model.own_server", refuse)
    yield
    assert not started


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    TUNED.write(tmp_path / "tuned.json")
    return tmp_path / "tuned.json"


def no_under_the_profile(reply: dict[str, Any]) -> dict[str, Any]:
    """A server whose model says no under the profile alone, and reasons aloud."""
    (choice,) = reply["choices"]
    under = read_observation(choice).receipt.digest
    said = "No." if under == TUNED.digest else "Yes."
    return {**reply, "choices": [{**choice, "message": {"role": "assistant", "content": f"Hm.</think>{said}"}}]}


def asked_of(url: str, file: Path, tuned: Path, logs: Path, **more: Any) -> Evaluation:
    return Evaluation(
        **{
            "task": str(file),
            "model": "demo",
            "profile": str(tuned),
            "shams": 3,
            "kind": "layers",
            "sham_seed": 0,
            "url": url,
            "arguments": {},
            "logs": logs,
            "task_arguments": {},
            "config": {},
            **more,
        }
    )


def test_a_task_runs_under_the_profile_and_its_shams_with_receipts(tmp_path: Path, tuned: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    with served(no_under_the_profile) as (url, bodies):
        paths = evaluate(
            asked_of(url, tmp_path / "tasks.py", tuned, tmp_path / "logs", task_arguments={"count": 4}, epochs=2,
                     config={"temperature": 0.5, "max_tokens": 9})
        )  # fmt: skip
    assert len(paths) == 5
    (family,) = families(paths)
    (row,) = table_of(family).to_dict("records")
    assert (row["samples"], row["baseline"], row["tuned"], row["shams"]) == (4, 1.0, 0.0, 3)
    assert row["p_permutation"] == pytest.approx(1 / 4)
    # What Inspect itself reads is what is read without it.
    for path in paths:
        log, mine = read_eval_log(str(path)), read_answers(str(path))
        notes = [sample.output.metadata["mote"] for sample in log.samples or [] if sample.output.metadata]
        assert {note["digest"] for note in notes} == mine.digests
        assert len(notes) == len(mine.rows) == 8
        assert set(mine.rows["raw"]) <= {"<think>Hm.</think>Yes.", "<think>Hm.</think>No."}
        assert {sample.output.completion for sample in log.samples or []} <= {"Yes.", "No."}
        assert log.eval.model.startswith(f"mote/demo@{mine.profile}-")
    # Each profile was asked the same, with the same seeds, an epoch's apart from the other's.
    seeds: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for body in bodies:
        under = Profile.from_request(json.loads(body["vllm_xargs"]["mote"])["profile"]).digest
        seeds[under].add((body["messages"][0]["content"], body["seed"]))
        assert (body["temperature"], body["max_tokens"]) == (0.5, 9)
    assert len(seeds) == 5
    assert all(mine == seeds[EMPTY_PROFILE.digest] and len(mine) == 8 for mine in seeds.values())


def test_all_profiles_are_under_way_at_once(tmp_path: Path, tuned: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    together = threading.Barrier(5 * 3, timeout=60)

    def wait_for_all(reply: dict[str, Any]) -> dict[str, Any]:
        # Passes only if the requests of all five profiles wait here together.
        together.wait()
        return reply

    with served(wait_for_all) as (url, bodies):
        evaluate(asked_of(url, tmp_path / "tasks.py", tuned, tmp_path / "logs"))
    assert len(bodies) == 15


def test_an_answer_under_another_profile_ends_the_evaluation(tmp_path: Path, tuned: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")

    def untouched(reply: dict[str, Any]) -> dict[str, Any]:
        return {**reply, "choices": [{**reply["choices"][0], "routed_experts": packet(EMPTY_PROFILE)}]}

    with served(untouched) as (url, _), pytest.raises(MoteError, match=r"did not end well.*was answered under profile"):
        evaluate(asked_of(url, tmp_path / "tasks.py", tuned, tmp_path / "logs", shams=0))


def test_a_tool_call_comes_through(tuned: Path) -> None:
    from inspect_ai.tool import Tool, tool

    @tool  # type: ignore[untyped-decorator]
    def add() -> Tool:
        async def execute(x: int, y: int) -> int:
            """Add two numbers.

            Args:
                x: One.
                y: The other.
            """
            return x + y

        return execute

    def calls(reply: dict[str, Any]) -> dict[str, Any]:
        (choice,) = reply["choices"]
        call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1, "y": 2}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {**reply, "choices": [{**choice, "message": message, "finish_reason": "tool_calls"}]}

    async def ask(url: str) -> Any:
        model = get_model("mote/demo", base_url=url, profile=str(tuned))
        return await model.generate("1 + 2?", tools=[add()])

    import asyncio

    with served(calls) as (url, bodies):
        output = asyncio.run(ask(url))
    (call,) = output.message.tool_calls
    assert (call.function, call.arguments) == ("add", {"x": 1, "y": 2})
    assert output.metadata["mote"]["digest"] == TUNED.digest
    (told,) = bodies[0]["tools"]
    assert set(told["function"]["parameters"]["properties"]) == {"x", "y"}


def test_a_model_that_the_server_does_not_have_is_one_line() -> None:
    with served() as (url, _), pytest.raises(MoteError, match="has no model 'dem': name it as the server does, demo"):
        get_model("mote/dem", base_url=url)


def test_a_log_can_be_made_in_one_call_of_inspects_own(tmp_path: Path, tuned: Path) -> None:
    task = Task(dataset=[Sample(id="a", input="Is it?", target="Yes.")], solver=generate(), scorer=match())
    with served() as (url, _):
        (log,) = eval(
            task, model="mote/demo", model_base_url=url, model_args={"profile": str(tuned), "sham": 2},
            log_dir=str(tmp_path / "logs"), display="none",
        )  # fmt: skip
    assert log.status == "success"
    assert read_answers(log.location).sham_of == TUNED.digest


def test_a_logs_name_without_its_profile_is_not_taken_for_the_untouched_model() -> None:
    model = get_model("mote/demo@tuned-0123abcd")
    with pytest.raises(MoteError, match="'demo@tuned-0123abcd' is a log's name of 'demo': give its profile"):
        cast(MoteAPI, model.api).connect()


def _numbers(numbers: Numbers, *fails: bool) -> Iterator[int]:
    for failing in fails:
        try:
            with numbers.taken("q") as number:
                yield number
                if failing:
                    raise ValueError
        except ValueError:
            pass


def test_a_request_that_failed_is_repeated_under_its_own_number() -> None:
    numbers = Numbers()
    assert list(_numbers(numbers, False, True, False, False)) == [0, 1, 1, 2]
    with numbers.taken("q") as first, numbers.taken("q") as second, numbers.taken("other") as third:
        assert (first, second, third) == (3, 4, 0)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"task": "none.py"}, "there is no file of tasks none.py"),
        ({"shams": -1}, "--shams -1: there are from 0 to 200"),
        ({"kind": "layer"}, "Did you mean 'layers'"),
        ({"profile": "baseline"}, "evaluated in any case"),
        ({"arguments": {"sham": 1}}, "-M sham: give --shams"),
        ({"config": {"temprature": 0}}, "-G temprature is no option.*Did you mean 'temperature'"),
        ({"task": "nothing_of_the_kind"}, "nothing_of_the_kind: No inspect tasks were found"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path: Path, tuned: Path, more: dict[str, Any], said: str) -> None:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    with served() as (url, _), pytest.raises(MoteError, match=said):
        evaluate(asked_of(url, tmp_path / "tasks.py", tuned, tmp_path / "logs", **more))
