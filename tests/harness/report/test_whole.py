"""``mote.study``: a whole study from Python, with the scripted engine; what it shares with ``mote run``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mote
from mote.harness.engine import once
from mote.harness.errors import MoteError
from mote.harness.recipe.schema import load_recipe, resolve_recipe
from mote.harness.report import whole
from mote.harness.report.whole import folder_of
from mote.harness.study import foresight
from tests.harness.study.scripted_engine import Killed, ScriptedEngine, recipe_of, rows_of

SMALL = {"study.controls": {"mass": 3, "layers": 3}, "task.limit": 60}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    found = ScriptedEngine()
    monkeypatch.setattr(once, "started_once", lambda: lambda *_: lambda: found)
    monkeypatch.setattr(foresight, "SIMULATIONS", 40)
    return found


def test_a_study_of_a_mapping_gives_the_run_with_its_report_and_goes_on_where_it_was_stopped(
    tmp_path: Path, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of().model_dump(mode="json")
    kept = str(recipe)
    engine.kill_after = 90
    with pytest.raises(Killed):
        mote.study(recipe, tmp_path / "run", changes=SMALL, force=True)
    engine.kill_after = None
    run = mote.study(recipe, tmp_path / "run", changes=SMALL, force=True)
    assert run.manifest["finished"]
    assert run.recipe["study"]["controls"]["mass"] == 3
    assert len(run.prompts) == 60
    assert (tmp_path / "run" / "report.html").is_file()
    assert "Baseline, with maps" in capfd.readouterr().out
    assert str(recipe) == kept, "the caller's mapping is as it was"
    # A report takes seconds, and one is enough.
    monkeypatch.setattr(whole, "write_report", lambda *_: None)
    at_once = mote.study(recipe_of(), str(tmp_path / "whole"), changes=SMALL, force=True, quiet=True)
    assert capfd.readouterr().out == ""
    assert rows_of(run.folder) == rows_of(at_once.folder)
    asked = len(engine.asked)
    mote.study(recipe, tmp_path / "run", changes=SMALL, force=True, quiet=True)
    assert len(engine.asked) == asked, "a finished run asks nothing again"


def test_the_papers_protocol_has_no_report(tmp_path: Path, engine: ScriptedEngine) -> None:
    run = mote.study(recipe_of(), tmp_path / "run", changes=SMALL, protocol="paper", quiet=True)
    assert "paper" in set(run.profiles["kind"])
    assert not (tmp_path / "run" / "report.html").exists()


def test_it_runs_beside_an_event_loop_as_in_a_notebook(tmp_path: Path, engine: ScriptedEngine) -> None:
    async def nothing() -> int:
        return 7

    def loops(*_: Any) -> None:
        # As the engine of a study on servers does.
        with asyncio.Runner() as runner:
            assert runner.run(nothing()) == 7

    engine.before = loops

    async def notebook() -> str:
        mote.study(recipe_of(), tmp_path / "run", changes=SMALL, protocol="paper", quiet=True)
        return asyncio.current_task().get_name() if asyncio.current_task() else ""  # type: ignore[union-attr]

    assert asyncio.run(notebook())
    assert engine.asked


@pytest.mark.parametrize(
    ("recipe", "how", "said"),
    [
        ("demmo", {}, "Did you mean 'demo'"),
        ("demo", {"changes": {"study.top_kk": 5}}, "Did you mean 'top_k'"),
        ("demo", {"changes": {"name.of": 5}}, "'name' has a value"),
        ("demo", {"limit": 0}, "task.limit"),
        ("demo", {"protocol": "papr"}, "Did you mean 'paper'"),
        ({"name": "x"}, {}, "'model' is missing"),
        (7, {}, "int is no recipe"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Any, how: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MoteError, match=said) as error:
        mote.study(recipe, **how)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_recipe_is_the_same_by_name_by_text_and_by_value() -> None:
    asked: Any = {"study.top_k": 5, "task.limit": 30}
    by_text = load_recipe("demo", ["study.top_k=5", "task.limit=30"])
    assert load_recipe("demo", asked) == by_text == resolve_recipe(load_recipe("demo"), asked)
    assert folder_of(by_text.name, None, 30) == Path("results/runs/demo-30")


def test_importing_mote_imports_none_of_it() -> None:
    code = "import sys, mote; print([name for name in sys.modules if name.startswith(('mote.', 'pandas', 'rich'))])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
