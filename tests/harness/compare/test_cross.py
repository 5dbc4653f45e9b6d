"""Cross-fitting: two runs that choose on each other's halves, made by the scripted engine, as one verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mote.harness.cli.main import app
from mote.harness.compare.cross import Crossed, cross
from mote.harness.errors import MoteError
from mote.harness.recipe.manifest import read_manifest, write_manifest
from mote.harness.store.run import RunStore
from tests.harness.study.scripted_engine import ScriptedEngine, recipe_of, study_of

ECONOMY = {"whole": 10, "others": 2, "sequential": False}


def runs(folder: Path, engine: ScriptedEngine, **study: Any) -> tuple[Path, Path]:
    for fold in (1, 2):
        study_of(folder / str(fold), recipe_of(fold=fold, economy=ECONOMY, **study), engine)
    return folder / "1", folder / "2"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return runs(tmp_path_factory.mktemp("planted"), ScriptedEngine())


@pytest.fixture(scope="module")
def crossed(planted: tuple[Path, Path]) -> Crossed:
    return cross(*planted)


def splits(folder: Path) -> dict[str, str]:
    with RunStore(folder, read_only=True) as store:
        return store.split()


def test_the_second_fold_measures_what_chose_in_the_first(planted: tuple[Path, Path]) -> None:
    one, two = map(splits, planted)
    other = {"select": "measure", "measure": "select"}
    assert two == {prompt: other[part] for prompt, part in one.items()}


def test_every_target_prompt_is_measured_once_and_the_folds_are_pooled(crossed: Crossed) -> None:
    first, second = crossed.folds
    assert not {*first.tuned} & {*second.tuned}
    assert crossed.verdict.prompts == len(first.tuned) + len(second.tuned)
    assert crossed.verdict.kind == "above"
    (mass, layers) = crossed.verdict.legs
    assert (mass.kind, layers.kind) == ("mass", "layers")
    assert (mass.sets, layers.sets) == (20, 20)
    # Joined by hand: the n-th set of one fold with the n-th of the other.
    observed = sum(first.tuned.values()) + sum(second.tuned.values())
    joined = [a + b for a, b in zip(first.sets["mass"], second.sets["mass"], strict=True)]
    assert mass.reached == sum(flips >= observed for flips in joined)
    assert mass.p == (1 + mass.reached) / 21
    assert crossed.effect.net > 0
    assert crossed.effect.rows == 120


def test_nothing_planted_is_not_above(tmp_path: Path) -> None:
    found = cross(*runs(tmp_path, ScriptedEngine(effect=0.0, rest=0.1)))
    assert found.verdict.kind != "above"


def test_the_command_prints_both_folds(planted: tuple[Path, Path]) -> None:
    shown = CliRunner().invoke(app, ["cross", *map(str, planted)])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("above: The tuned experts do more than random sets chosen as often")
    assert "joined sets flip as many" in shown.output
    document = json.loads(CliRunner().invoke(app, ["cross", *map(str, planted), "--json"]).stdout)
    assert document["verdict"] == "above"
    assert [fold["of"] for fold in document["folds"]] == [len(fold.tuned) for fold in cross(*planted).folds]


def test_what_are_no_two_folds_is_refused_in_a_line(planted: tuple[Path, Path], tmp_path: Path) -> None:
    one, _ = planted
    with pytest.raises(MoteError, match=r"study\.fold 1 and 1: make the second one with --set study\.fold=2"):
        cross(one, one)
    study_of(tmp_path / "early", recipe_of(fold=2), ScriptedEngine())
    with pytest.raises(MoteError, match=r"are of two recipes: study\.economy"):
        cross(one, tmp_path / "early")
    study_of(tmp_path / "first", recipe_of(), ScriptedEngine())
    with pytest.raises(MoteError, match=r"--set study\.economy\.sequential=false"):
        cross(tmp_path / "first", tmp_path / "early")


def test_another_models_run_is_refused(planted: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(planted[1], tmp_path / "other"))
    manifest = read_manifest(folder)
    manifest["model"]["files"] = dict.fromkeys(manifest["model"]["files"], "0" * 64)
    write_manifest(folder, manifest)
    with pytest.raises(MoteError, match="are of different models"):
        cross(planted[0], folder)
