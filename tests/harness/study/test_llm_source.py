"""A language model as the source of a study's labels: an endpoint, stopped by its budget and killed; the model itself.

The endpoint is a scripted server, the model under study a written engine; the last two tests ask the real one.
"""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mote.harness.engine.model import resolve_model
from mote.harness.engine.servers import engine_starter
from mote.harness.engine.turns import Turns
from mote.harness.engine.vllm import Answer, Engine, Request, Scored, Scoring
from mote.harness.errors import MoteError
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.schema import Recipe, load_recipe
from mote.harness.report.analysis import analyse
from mote.harness.store.run import RunStore
from mote.harness.study.run import check, run
from mote.judges import JUDGE, STATES
from mote.judges.llm.prompt import PROMPTS
from mote.patches import EMPTY_PROFILE, Observation, Receipt
from mote.patches.observation import ActivationMap
from tests.harness.study.test_run import ENVIRONMENT, ROOT
from tests.judges.scripted_judge import Fail, Say, ScriptedJudge, Step, scripted_judge

QUIET = Console(quiet=True)
LAYOUT = resolve_model("demo").layout
SMALL = (
    "task.limit=24", "study.doses=[]", "study.stimulate=false", "study.factors=[]", "study.thirds=false",
    "study.tokens=0", "study.top_k=3", "study.exact=false", "judges.surprise=false",
    *(f"study.controls.{kind}=1" for kind in ("retest", "mass", "uniform", "layers", "frequency")),
)  # fmt: skip

ONE_BY_ONE = "judges.llm.concurrency=2"


class WrittenEngine:
    """Refuses half of what is asked, a little less with experts off; as a judge it chooses what it is told to."""

    prompt_opens = False

    def __init__(self, stop_after: int = 10**9) -> None:
        self.stop_after = stop_after
        self.chosen: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        for index, request in enumerate(requests):
            text = str(request.messages[-1]["content"])
            if request.choices:
                if len(self.chosen) >= self.stop_after:
                    raise KeyboardInterrupt
                self.chosen.append(request)
                raw = "REFUSED" if "sorry" in judged(text) else "ANSWERED"
            else:
                number = zlib.crc32(text.encode())
                refuses = number % 2 and not (request.profile.canonical and number % 5 == 0)
                raw = f"{'I am sorry, I cannot say' if refuses else 'It rained that year'}. Code {number % 3}"
            counts = np.full((len(LAYOUT.layers), LAYOUT.experts), 2, dtype=np.int32)
            counts[:, len(text) % LAYOUT.experts] += 5
            maps = {"prompt": ActivationMap(counts, 9, 9)} if request.capture else {}
            observation = Observation(Receipt(request.profile.digest, 9, "test"), LAYOUT.layers, maps)
            yield [(index, Answer(request, raw, 9, 4, "stop", observation))]

    def score(self, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Scored]]]:
        raise AssertionError("no surprise is asked for")

    def fits(self, request: Scoring) -> bool:
        return "does not fit" not in str(request.messages)

    def pieces(self, text: str) -> list[str]:
        raise AssertionError("no opening is asked for")

    def token_texts(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        raise AssertionError("no tokens are asked for")

    def turns(self, messages: Sequence[Mapping[str, str]]) -> Turns:
        raise AssertionError("nothing is aligned here")


def judged(text: str) -> str:
    return text.partition("<<<ANSWER ")[2].partition("<<<END OF ANSWER")[0]


def honest(body: dict[str, Any], number: int) -> Step:
    return Say("[[REFUSED]]" if "sorry" in judged(body["messages"][-1]["content"]) else "[[ANSWERED]]")


def recipe(*overrides: str, **llm: Any) -> Recipe:
    given = [f"judges.llm.{name}={value}" for name, value in llm.items()]
    return load_recipe("demo", [*SMALL, *overrides, *given])


def study(folder: Path, found: Recipe, engine: Engine | None = None, console: Console = QUIET) -> None:
    run(check(found), folder, console, engine=lambda *_: lambda: engine or WrittenEngine(), force=True)


def at(server: ScriptedJudge, **llm: Any) -> Recipe:
    return recipe(**{"model": "scripted", "url": server.url, "structured": "text", **llm})


def table(folder: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        return list(db.execute(query, values))


def labels(folder: Path) -> dict[tuple[str, str], str]:
    """(prompt, profile) -> label by the run's own judge."""
    judge = label_set(read_manifest(folder)["recipe"]).judge
    query = "select prompt_id, profile, label from labels join generations using (generation_id) where judge = ?"
    return {(prompt, profile): label for prompt, profile, label in table(folder, query, judge)}


def as_told(folder: Path) -> bool:
    """Whether every label is what the judge says of that text, and none is missing."""
    texts = {
        (prompt, profile): raw
        for prompt, profile, raw in table(folder, "select prompt_id, profile, raw from generations")
    }
    return labels(folder) == {key: "0-REFUSED" if "sorry" in raw else "1-ALIGNED" for key, raw in texts.items()}


def test_a_study_by_an_endpoint_ends_with_its_budget_is_killed_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def slow(body: dict[str, Any], number: int) -> Step:
        time.sleep(0.05)
        return honest(body, number)

    with scripted_judge(slow, judged) as server:
        with pytest.raises(MoteError, match=r"\d+ answers wait .* budget of 5 .*raise judges.llm.budget") as caught:
            study(folder, at(server, budget=5, concurrency=2))
        assert "\n" not in str(caught.value)
        assert len(server.requests) == 5
        assert [name for (name,) in table(folder, "select name from profiles")] == ["baseline"]
        # The same budget is spent, whoever starts again.
        with pytest.raises(MoteError, match="budget of 5 replies"):
            study(folder, at(server, budget=5))
        assert len(server.requests) == 5

        changes = [*SMALL, "judges.llm.model=scripted", f"judges.llm.url={server.url}", "judges.llm.structured=text"]
        program = [sys.executable, str(Path(__file__).with_name("killed_run.py")), "none", "run", "demo"]
        process = subprocess.Popen(
            [*program, "--force", "--out", str(folder), *(f"--set={one}" for one in (*changes, ONE_BY_ONE))],
            cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 200
            while len(server.requests) < 8 and time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        stored = table(folder, "select count(*) from judgments")[0][0]
        killed_at = len(server.requests)
        assert 5 < stored <= killed_at

        study(folder, at(server, budget=1000, max_tokens=100, timeout=60))
        assert as_told(folder)
        # Of what was stored nothing was asked for twice.
        total, distinct = table(folder, "select count(*), count(distinct text_sha256) from judgments")[0]
        assert total == distinct == stored + len(server.requests) - killed_at
        asked = len(server.requests)
        study(folder, at(server))
        assert len(server.requests) == asked
    assert len(labels(folder)) == table(folder, "select count(*) from generations")[0][0]
    assert len(table(folder, "select name from profiles")) > 4
    # The rules' labels stand beside them.
    assert JUDGE in {name for (name,) in table(folder, "select distinct judge from labels")}
    with RunStore(folder, read_only=True) as store:
        found = analyse(store, read_manifest(folder))
    assert found.asked.judge.startswith("scripted/refusal-class@")
    assert found.rate_of("suppress-3") is not None


def test_another_judge_is_another_run_but_not_another_patience(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with scripted_judge(honest, judged) as server:
        study(folder, at(server))
        for changed, said in (
            ({"model": "other"}, "judges.llm.model: 'scripted' -> 'other'"),
            ({"structured": "json"}, "judges.llm.structured"),
            ({"name": "mine"}, "judges.llm.name"),
        ):
            with pytest.raises(MoteError, match=re.escape(said)):
                study(folder, at(server, **changed))
        study(folder, at(server, budget=0, concurrency=1, timeout=1, max_tokens=9, missing="unscored"))
        with pytest.raises(MoteError, match=r"judges\.llm"):
            study(folder, recipe())


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Say("[[REFUSED]] and on", "length"), "were cut off at 2048 tokens: raise judges.llm.max_tokens"),
        (Fail(400, {"error": {"message": "too long"}}), "got no reply: they are asked for again"),
    ],
)
def test_labels_that_are_missing_stop_the_study_unless_told_otherwise(tmp_path: Path, step: Step, said: str) -> None:
    folder = tmp_path / "run"

    def script(body: dict[str, Any], number: int) -> Step:
        text = body["messages"][-1]["content"]
        return step if "sorry" in judged(text) and "Code 1" in text else honest(body, number)

    with scripted_judge(script, judged) as server:
        with pytest.raises(MoteError, match=said) as caught:
            study(folder, at(server))
        assert "judges.llm.missing=unscored" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert set(Counter(labels(folder).values())) == {"0-REFUSED", "1-ALIGNED"}
        study(folder, at(server, missing="unscored"))
    assert Counter(labels(folder).values())["UNSCORED"] > 0
    assert len(labels(folder)) == table(folder, "select count(*) from generations")[0][0]


def test_a_judge_that_rambles_or_speaks_otherwise_is_counted_in_one_line(tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"

    def script(body: dict[str, Any], number: int) -> Step:
        text = body["messages"][-1]["content"]
        return Say("Das Modell antwortet nicht.") if "Code 1" in text else honest(body, number)

    with scripted_judge(script, judged) as server, log.open("w") as file:
        study(folder, at(server), console=Console(file=file, width=200, force_terminal=False))
    said = [line for line in log.read_text().splitlines() if "no verdict as the prompt asks for" in line]
    assert 1 <= len(said) <= 2
    assert Counter(labels(folder).values())["UNSCORED"] > 0


def test_the_model_itself_chooses_under_the_empty_profile_once_a_text(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = WrittenEngine(stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        study(folder, recipe("judges.llm=self"), first)
    second = WrittenEngine()
    with pytest.raises(MoteError, match="budget of 7 replies is spent"):
        study(folder, recipe(model="self", budget=7), second)
    assert len(second.chosen) == 3
    third = WrittenEngine()
    study(folder, recipe("judges.llm=self"), third)
    assert as_told(folder)
    asked = [str(one.messages) for engine in (first, second, third) for one in engine.chosen]
    assert len(asked) == len(set(asked)) == table(folder, "select count(*) from judgments")[0][0]
    for request in (*first.chosen, *second.chosen, *third.chosen):
        assert request.profile == EMPTY_PROFILE
        assert request.choices == ("REFUSED", "ANSWERED", "BROKEN")
    rows = table(folder, "select distinct url, model, structured, state, finish_reason from judgments")
    assert rows == [("self", "demo", 0, "scored", "stop")]
    # The same texts are put in the same words at every start.
    other = tmp_path / "other"
    whole = WrittenEngine()
    study(other, recipe("judges.llm=self"), whole)
    assert {str(one.messages) for one in whole.chosen} == set(asked)
    assert labels(other) == labels(folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["judges.llm={model: self, url: 'http://127.0.0.1:9/v1'}"], "judges.llm.url is for a judge at an endpoint"),
        (["judges.llm=itself"], "judges.llm"),
        (["judges.llm={model: x, promt: y}"], "Did you mean 'prompt'"),
        (["judges.llm={model: x, kind: language}"], "makes no labels of the set 'refusal'"),
        (["judges.llm={model: x, prompt: nowhere.yaml}"], "neither a file nor one of"),
        (["judges.llm={model: x, url: 'ftp://x'}"], "judges.llm: judge URL"),
        (["judges.llm={model: x, key_env: NO_SUCH_KEY}"], "NO_SUCH_KEY is not set"),
        (["judges.llm={model: x, name: rules}"], "judges.llm.name 'rules' is kept for the rules"),
        (["judges.llm={model: x, max_tokens: 0}"], "judges.llm.max_tokens"),
        (["judges.llm={model: self, prompt: MINE}"], r"names the verdicts \[SYCOPHANTIC, HONEST\]; the kind 'refusal'"),
    ],
)
def test_a_mistake_about_the_judge_is_one_line_before_anything_is_asked(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    mine = tmp_path / "mine.yaml"
    text = (PROMPTS / "refusal-class.yaml").read_text()
    mine.write_text(text.replace("[REFUSED, ANSWERED, BROKEN]", "[SYCOPHANTIC, HONEST]"))
    with pytest.raises(MoteError, match=message) as caught:
        check(load_recipe("demo", [*SMALL, *(one.replace("MINE", str(mine)) for one in overrides)]))
    assert "\n" not in str(caught.value)


REAL = (
    "task.limit=24", "study.controls.layers=0", "study.controls.frequency=0", "model.options.max_model_len=1024",
    "model.options.max_num_seqs=24", "sampling.max_tokens=96",
)  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Callable[[], Engine]]:
    """What starts the demo's real engine, once for both studies."""
    log = tmp_path_factory.mktemp("real") / "vllm.log"
    started = engine_starter(recipe(*REAL), resolve_model("demo"), log, QUIET)
    return lambda *_: started


def test_the_real_model_judges_itself_in_its_own_engine(
    tmp_path: Path, real: Callable[..., Callable[[], Engine]]
) -> None:
    """Transport and counting: the demo's model can choose a verdict, and knows nothing of judging."""
    folder = tmp_path / "run"
    with pytest.raises(MoteError, match="budget of 5 replies is spent"):
        run(check(recipe(*REAL, model="self", budget=5)), folder, QUIET, engine=real, force=True)
    assert table(folder, "select count(*) from judgments") == [(5,)]
    # It may call all of its answers alike, and then there is nothing to compare.
    with suppress(MoteError):
        run(check(recipe(*REAL, "judges.llm=self")), folder, QUIET, engine=real, force=True)
    states = dict(table(folder, "select state, count(*) from judgments group by state"))
    assert set(states) <= {"scored", "unusable"}
    assert states["scored"] >= 6
    assert set(table(folder, "select verdict from judgments where state = 'scored'")) <= {
        ("REFUSED",), ("ANSWERED",), ("BROKEN",)
    }  # fmt: skip
    total, distinct = table(folder, "select count(*), count(distinct text_sha256) from judgments")[0]
    assert total == distinct
    assert len(labels(folder)) == table(folder, "select count(*) from generations")[0][0]
    classes = set(labels(folder).values()) - set(STATES)
    assert read_manifest(folder)["finished"] or len(classes) < 2 or "0-REFUSED" not in classes


def test_a_study_of_the_real_model_goes_by_an_endpoints_labels(
    tmp_path: Path, real: Callable[..., Callable[[], Engine]]
) -> None:
    folder = tmp_path / "run"

    def every_other(body: dict[str, Any], number: int) -> Step:
        odd = zlib.crc32(judged(body["messages"][-1]["content"]).partition("\n")[2].encode()) % 2
        return Say("[[REFUSED]]" if odd else "[[ANSWERED]]")

    with scripted_judge(every_other, judged) as server:
        given = {"model": "scripted", "url": server.url, "structured": "text"}
        with pytest.raises(MoteError, match="budget of 4 replies is spent"):
            run(check(recipe(*REAL, **given, budget=4)), folder, QUIET, engine=real, force=True)
        run(check(recipe(*REAL, **given, budget=500)), folder, QUIET, engine=real, force=True)
        assert len(server.requests) == table(folder, "select count(*) from judgments")[0][0]
    assert read_manifest(folder)["finished"]
    assert len(labels(folder)) == table(folder, "select count(*) from generations")[0][0]
    assert {"0-REFUSED"} < set(labels(folder).values())
