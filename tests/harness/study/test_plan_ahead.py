"""Plans without a run: the same power and cost as the run's own, and the fewest words for what can't be told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mote.harness.cli import main as cli
from mote.harness.errors import MoteError
from mote.harness.recipe.manifest import read_manifest
from mote.harness.study.foresight import guessed_units
from mote.harness.study.plan_ahead import plan_by_guess, plan_by_run
from tests.harness.study.scripted_engine import ScriptedEngine, recipe_of, study_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ahead") / "run"
    study_of(folder, recipe_of(doses=[1, 2], stimulate=True, factors=[2], exact=False), ScriptedEngine())
    return folder


def test_a_plan_by_a_runs_baseline_is_that_of_the_run(run: Path) -> None:
    recipe = recipe_of(doses=[1, 2], stimulate=True, factors=[2], exact=False)
    ahead, own = plan_by_run(recipe, run), read_manifest(run)["plan"]
    for part in ("recipe", "primary", "target", "margin", "alpha", "stopping", "power", "cost"):
        assert ahead[part] == own[part], part
    assert ahead["controls"]["sets"] == own["controls"]["sets"]


def test_a_larger_design_costs_more_and_finds_no_less(run: Path) -> None:
    few, many = (plan_by_run(recipe_of(controls={"mass": n, "layers": n}), run) for n in (19, 100))
    assert few["cost"]["answers"]["controls"] < many["cost"]["answers"]["controls"]
    assert few["power"]["prompts"] == many["power"]["prompts"]


def test_a_guess_spreads_the_class_over_the_units_and_halves_it() -> None:
    assert guessed_units(["a", "b", "c", "d"] * 5, 0.5, half=True) == [0, 0, 1, 2, 3]
    assert guessed_units(["a", "b", "c", "d"] * 5, 0.5, half=True, most=2) == [0, 0, 0, 1, 1]
    assert guessed_units(["a"] * 10, 0.01, half=True) == []
    plan = plan_by_guess(recipe_of(limit=120), 0.5, 5)
    assert plan["target"] == {"class": "0-REFUSED", "prompts": 30, "units": 5}
    assert plan["cost"]["tokens"] is None
    assert plan["cost"]["minutes"] is None


def test_a_run_that_asks_otherwise_tells_nothing(run: Path) -> None:
    recipe = recipe_of()
    other = recipe.model_copy(update={"task": recipe.task.model_copy(update={"name": "reasoning_language"})})
    with pytest.raises(MoteError, match="asks the task refusal_grid, the recipe reasoning_language"):
        plan_by_run(other, run)


def test_the_command_prints_power_and_cost_and_writes_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    monkeypatch.setattr(sys, "argv", ["mote", "plan", "demo", "--share", "0.16", "--units", "5", "--out", str(out)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert "60 measured 0-REFUSED prompts in 5 units" in said
    # The packaged demo's whole cost, beside its 756 baseline answers: 20,000 at most in all.
    assert "The rest costs at most 14,682 answers" in said
    assert json.loads(out.read_text())["cost"]["answers"]["total"] == 14682
