"""The commands for studies of one's own: label, recipe, export, ls; what each prints, and a mistake in each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from mote.harness.cli.main import app
from mote.harness.errors import MoteError
from tests.harness.study.scripted_engine import ScriptedEngine, recipe_of, study_of

RECIPE = """
name: praise
model: {path: demo}
task:
  file: prompts.jsonl
  classes:
    patterns: {PRAISES: ['^(great|good) question'], HEDGES: perhaps}
    otherwise: PLAIN
    ignore_case: true
"""
ANSWERS = (
    {"id": "a", "answer": "Great question! It [b]rained[/b]."},
    {"id": "b", "answer": "It may have rained, perhaps in the evening of that day, as it often does in the north."},
    {"id": "c", "answer": "It rained."},
    {"id": "d", "answer": "Good question, but it is", "finish_reason": "length"},
)


def mote(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "praise.yaml").write_text(RECIPE)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Did it rain?"}\n{"prompt": "Did it snow?"}\n')
    (tmp_path / "answers.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in ANSWERS))
    return tmp_path


def test_label_shows_the_label_and_what_decided_it(folder: Path) -> None:
    done = mote("label", str(folder / "answers.jsonl"), "--labels", str(folder / "praise.yaml"))
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert "a PRAISES PRAISES-1 [Great question]! It [b]rained[/b]." in lines
    assert any(line.startswith("b HEDGES HEDGES-1 It may have rained, [perhaps] in the evening") for line in lines)
    assert "c PLAIN no-pattern [It rained.]" in lines
    assert "4 answers by patterns@" in done.output
    assert "PRAISES 1, HEDGES 1, PLAIN 1, TRUNCATED 1" in done.output
    counted = mote("label", str(folder / "answers.jsonl"), "--labels", str(folder / "praise.yaml"), "--limit", "0")
    assert len(counted.output.splitlines()) == 1


def test_label_takes_a_run_and_the_packaged_classes(tmp_path: Path) -> None:
    study_of(tmp_path / "run", recipe_of(limit=60, controls={"mass": 2, "layers": 2}), ScriptedEngine(), force=True)
    done = mote("label", str(tmp_path / "run"), "--labels", "demo", "--limit", "2")
    assert done.exit_code == 0, done.output
    assert "60 answers by rules+classifier: 0-REFUSED" in done.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("task.classes.patterns={PRAISES: '('}", "is no regular expression"),
        ("judges.llm={model: m, kind: classes, prompt: compliance-class}", "task.classes PRAISES"),
    ],
)
def test_a_mistake_in_the_recipe_of_labels_is_said(folder: Path, change: str, said: str) -> None:
    done = mote("label", str(folder / "answers.jsonl"), "--labels", str(folder / "praise.yaml"), "--set", change)
    assert isinstance(done.exception, MoteError)
    assert said in str(done.exception)


def test_classes_of_a_language_model_have_no_dry_run(folder: Path) -> None:
    change = "judges.llm={model: m, kind: classes, prompt: compliance-class}"
    done = mote("label", str(folder / "answers.jsonl"), "--labels", "demo", "--set", change)
    assert "are given by a language model (m/compliance-class@" in str(done.exception)


def test_recipe_show_prints_what_reads_back_as_the_same(folder: Path) -> None:
    done = mote("recipe", "show", str(folder / "praise.yaml"), "--set", "study.top_k=5")
    shown = yaml.safe_load(done.output)
    assert shown["study"]["top_k"] == 5
    assert shown["study"]["target"] == "PRAISES"
    assert [one["name"] for one in shown["task"]["classes"]["patterns"]] == ["PRAISES", "HEDGES"]
    (folder / "again.yaml").write_text(done.output.replace(str(folder), "."))
    again = yaml.safe_load(mote("recipe", "show", str(folder / "again.yaml")).output)
    assert again == shown


def test_recipe_check_names_what_would_run_and_what_is_wrong(folder: Path) -> None:
    done = mote("recipe", "check", str(folder / "praise.yaml"))
    assert done.exit_code == 0, done.output
    assert done.output.startswith("praise: 2 prompts of prompts to demo; PRAISES of PRAISES, HEDGES, PLAIN, by")
    (folder / "prompts.jsonl").write_text('{"prompt": "Did it rain?"}\n{"prompt": ""}\n')
    wrong = mote("recipe", "check", str(folder / "praise.yaml"))
    assert "line 2: its 'prompt' is blank" in str(wrong.exception)


def test_recipe_schema_is_json() -> None:
    assert json.loads(mote("recipe", "schema").output)["title"] == "A recipe of MoTE Harness"


def test_ls_and_export_for_scripts(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    study_of(run, recipe_of(limit=60, controls={"mass": 2, "layers": 2}), ScriptedEngine(), force=True)
    (line,) = json.loads(mote("ls", str(tmp_path / "runs"), "--json").output)
    assert {"run": "one", "model": "demo", "task": "refusal_grid", "state": "finished"}.items() <= line.items()
    assert line["generations"] > 60
    done = mote("export", str(run), "--table", "flips", "--profile", "suppress-3", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "flips.csv").read_text().startswith("prompt_id,unit,part,profile,kind,before,after,flip")
    wrong = mote("export", str(run), "--profile", "suppress-3")
    assert "name one with --table" in str(wrong.exception)
