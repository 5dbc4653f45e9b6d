"""Studies whose classes a function of the user's gives, from recipe to report; and runs of strangers that name one."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from rich.console import Console
from typer.testing import CliRunner

import mote
from mote.harness.cli.main import app
from mote.harness.engine.trust import Own, trusted_function
from mote.harness.errors import MoteError
from mote.harness.experts.asking import Asking
from mote.harness.experts.rankings import read_halves
from mote.harness.recipe.json_schema import recipe_schema
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.manifest import MANIFEST_NAME, read_manifest
from mote.harness.recipe.schema import Recipe, load_recipe, recipe_of
from mote.harness.report import make_report
from mote.harness.store.run import RunStore
from mote.harness.study.run import check, run
from mote.harness.study.session import Session, open_session
from mote.patches import Profile
from tests.harness.study import scripted_engine
from tests.harness.study.scripted_engine import ScriptedEngine, study_of

CODE = '''
"""Whether an answer is sorry."""

from dataclasses import dataclass
from pathlib import Path

Path(__file__ + ".ran").touch()


@dataclass
class Seen:
    answer: str


def classify(answer: str, *, reasoning: str, question: str = "") -> str:
    assert "</think>" not in answer
    assert question
    return "SORRY" if Seen(answer).answer.startswith("I am sorry") else "TELLS"
'''
NAMES = ["SORRY", "TELLS"]


def recipe(folder: Path, code: str = CODE, name: str = "classify", **classes: Any) -> Recipe:
    (folder / "mine.py").write_text(code)
    content = scripted_engine.recipe_of(limit=96, controls={"mass": 4, "layers": 4}, exact=False).model_dump(
        mode="json"
    )
    del content["task"]["label"], content["study"]["target"]
    content["task"]["classes"] = {"function": f"mine.py:{name}", "names": NAMES} | classes
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return load_recipe(str(folder / "recipe.yaml"))


def said_of(caught: pytest.ExceptionInfo[MoteError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run and its report; its function's file, which would leave a trace, is there."""
    folder = tmp_path_factory.mktemp("function")
    study_of(folder / "run", recipe(folder), ScriptedEngine(), force=True)
    (folder / "mine.py.ran").unlink()
    make_report(folder / "run")
    return folder


def test_a_study_goes_by_the_classes_of_a_function(finished: Path, tmp_path: Path) -> None:
    found = recipe(tmp_path)
    assert found.task.classes is not None
    assert found.study.target == "SORRY"
    opened_run = mote.open(finished / "run")
    assert opened_run.classes == ("SORRY", "TELLS")
    assert opened_run.judge == f"mine.py:classify@{str(found.task.classes.sha256)[:8]}"
    assert set(opened_run.generations["label"]) == {*NAMES}
    sorry = opened_run.labels[opened_run.labels["label"] == "SORRY"].iloc[0]
    assert (sorry["rule"], sorry["span"]) == ("mine.py:classify", "I am sorry, I cannot answer that question.")
    assert read_manifest(finished / "run")["recipe"]["task"]["classes"]["sha256"] == found.task.classes.sha256
    # The file may lie elsewhere at the next start, and be no other file once experts are chosen.
    study_of(finished / "run", found, ScriptedEngine(kill_after=0), force=True)
    with pytest.raises(MoteError, match=r"task\.classes\.sha256: "):
        study_of(finished / "run", recipe(tmp_path, f"{CODE}\n"), ScriptedEngine(), force=True)
    with pytest.raises(MoteError, match=r"task\.classes\.function: "):
        study_of(
            finished / "run", recipe(tmp_path, f"{CODE}\nother = classify\n", "other"), ScriptedEngine(), force=True
        )


def test_states_come_before_the_function_and_a_module_is_named_as_well(tmp_path: Path) -> None:
    found = recipe(tmp_path)
    labels = label_set(found.model_dump(mode="json"), check(found).function)
    for raw, reason, label in (
        ("I am sorry", "length", "TRUNCATED"),
        ("I am sorry", "abort", "UNSCORED"),
        ("<think>hm</think>", "stop", "UNSCORED"),
        ("word " * 200, "stop", "DEGENERATE"),
        ("<think>hm</think> I am sorry.", "stop", "SORRY"),
    ):
        assert labels.label(raw, finish_reason=reason, question="Why?").label == label
    # A standard module, whose function returns what it was given.
    found = recipe(tmp_path, function="textwrap:dedent")
    with pytest.raises(Exception, match=r"textwrap:dedent returned 'x y', none of SORRY, TELLS"):
        label_set(found.model_dump(mode="json"), check(found).function).label("x y", finish_reason="stop")


def test_a_function_that_fails_is_mended_before_experts_are_chosen(tmp_path: Path) -> None:
    broken = recipe(tmp_path, CODE.replace("assert question", "raise KeyError('mood')"))
    with pytest.raises(MoteError) as caught:
        study_of(tmp_path / "run", broken, ScriptedEngine(), force=True)
    assert said_of(caught).startswith("task.classes.function: refusal_grid/")
    assert "mine.py:classify raised KeyError: 'mood'" in said_of(caught)
    engine = ScriptedEngine()
    study_of(tmp_path / "run", recipe(tmp_path), engine, force=True)
    # The baseline is not asked again.
    assert all(one.capture is None for one in engine.asked)
    assert set(mote.open(tmp_path / "run").generations["label"]) == {*NAMES}


def test_a_function_that_fails_later_leaves_answers_unscored(tmp_path: Path) -> None:
    code = f"{CODE.replace('    assert question', '    if BROKEN: return chr(83)')}\nBROKEN = []\n"
    found = recipe(tmp_path, code)

    class Breaking(ScriptedEngine):
        def _answer(self, request: Any) -> Any:
            if request.profile.edits:
                assert checked is not None
                vars_of = checked.__globals__
                vars_of["BROKEN"].append(1)
            return super()._answer(request)

    study = check(found)
    checked = study.function
    run(study, tmp_path / "run", Console(quiet=True), engine=lambda *_: lambda: Breaking(), force=True)
    with RunStore(tmp_path / "run", read_only=True) as store:
        rows = store.generations_frame(label_set(found.model_dump(mode="json")).judge)
    broken = rows[rows["label"] == "UNSCORED"]
    assert len(broken)
    assert "function-returned-no-class" in broken["evidence"].iloc[0]
    assert set(rows.loc[rows["profile"] == "baseline", "label"]) == {*NAMES}


def test_a_strangers_run_never_makes_its_function_run(finished: Path, tmp_path: Path) -> None:
    assert mote.open(finished / "run").classes == ("SORRY", "TELLS")
    own = Own(servers=("http://127.0.0.1:1/v1",))
    with opened(finished / "run", own) as session:
        halves = read_halves(session.store, session.manifest)
        with pytest.raises(MoteError) as caught:
            Asking(session, halves, "ranking")
    assert "name it with --function FILE.py:NAME" in said_of(caught)
    assert not (finished / "mine.py.ran").exists()
    (tmp_path / "mine.py").write_text(f"{CODE}\n")
    changed = own._replace(function=f"{tmp_path / 'mine.py'}:classify")
    with pytest.raises(MoteError) as caught, opened(finished / "run", changed):
        pass
    assert "its labels would not go with the run's" in said_of(caught)
    assert not (tmp_path / "mine.py.ran").exists()
    # The file of that digest, named by the user, labels what is asked anew.
    (tmp_path / "mine.py").write_text(CODE)
    named = own._replace(function=f"{tmp_path / 'mine.py'}:classify")
    with opened(finished / "run", named) as session:
        asking = Asking(session, read_halves(session.store, session.manifest), "ranking")
        profile, prompts = Profile("none", ()), asking.halves.chosen[:3]
        list(asking.ask(asking.missing([profile], prompts)))
        assert set(asking.labelled([profile], prompts)["label"]) <= {*NAMES}
    with pytest.raises(MoteError, match="are not given by a function"):
        trusted_function(scripted_engine.recipe_of(), tmp_path, named)
    stranger = recipe_of(read_manifest(finished / "run")["recipe"])
    with pytest.raises(MoteError, match=r"--function: the function 'mine' is neither FILE\.py:NAME nor"):
        trusted_function(stranger, tmp_path, own._replace(function="mine"))


def test_a_manifest_without_the_digest_is_refused_and_reads_no_file(finished: Path, tmp_path: Path) -> None:
    manifest = json.loads((finished / "run" / MANIFEST_NAME).read_text())
    del manifest["recipe"]["task"]["classes"]["sha256"]
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(MoteError, match="sha256 is missing beside function"):
        read_manifest(tmp_path)


def test_label_tries_the_function(tmp_path: Path) -> None:
    recipe(tmp_path, CODE.replace("    assert question\n", ""))
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "a", "answer": "I am sorry."}\n{"id": "b", "answer": "It rained."}\n')
    tried = CliRunner().invoke(app, ["label", str(answers), "--labels", str(tmp_path / "recipe.yaml")])
    assert tried.exit_code == 0, tried.output
    assert "2 answers by mine.py:classify@" in tried.output
    assert "SORRY 1, TELLS 1" in tried.output
    recipe(tmp_path, CODE.replace('"TELLS"', '"TELL"').replace("    assert question\n", ""))
    tried = CliRunner().invoke(app, ["label", str(answers), "--labels", str(tmp_path / "recipe.yaml")])
    assert isinstance(tried.exception, MoteError)
    assert str(tried.exception) == ("task.classes.function: b: mine.py:classify returned 'TELL', none of SORRY, TELLS.")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"function": "mine"}, "'mine' is neither FILE.py:NAME nor package.module:NAME"),
        ({"function": "nowhere.py:classify"}, "nowhere.py is not there"),
        ({"function": "mote.nowhere:classify"}, "there is no module 'mote.nowhere' here"),
        ({"function": "mine.py:clasify"}, "has no function 'clasify'. Did you mean 'classify'?"),
        ({"names": ["SORRY"]}, "names needs two classes or more"),
        ({"names": ["A", "A"]}, "the class 'A' stands in names twice"),
        ({"names": ["A", "TRUNCATED"]}, "TRUNCATED is a state that mote gives"),
        ({"names": None}, "names is missing; classes are function and names, or patterns and otherwise"),
        ({"patterns": {"A": "x"}}, "patterns does not go with function; leave it out"),
        ({"ignore_case": True}, "ignore_case does not go with function"),
        ({"reads": "reasoning"}, "reads: reasoning does not go with function"),
        ({"nmes": ["A", "B"]}, "Did you mean 'names'?"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, classes: dict[str, Any], said: str) -> None:
    with pytest.raises(MoteError) as caught:
        check(recipe(tmp_path, **classes))
    assert said in said_of(caught)


def test_a_file_that_does_not_run_is_one_line(tmp_path: Path) -> None:
    for code, said in (
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ("def (", "SyntaxError"),
        ("exit(3)", "SystemExit"),
    ):
        with pytest.raises(MoteError) as caught:
            check(recipe(tmp_path, code))
        assert f"does not run: {said}" in said_of(caught)


def test_the_schema_takes_a_function(tmp_path: Path) -> None:
    schema = Draft202012Validator(recipe_schema())
    content = recipe(tmp_path).model_dump(mode="json")
    schema.validate(content)
    del content["task"]["classes"]["names"]
    assert not schema.is_valid(content)


def opened(folder: Path, own: Own) -> AbstractContextManager[Session]:
    return open_session(folder, Console(quiet=True), lambda *_: lambda: ScriptedEngine(), own)
