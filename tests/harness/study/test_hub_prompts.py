"""Prompts of a Hugging Face dataset, here a folder of its files; the hub itself is asked for nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from jsonschema import Draft202012Validator

from mote.harness.errors import MoteError
from mote.harness.recipe.json_schema import recipe_schema
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.schema import Recipe, load_recipe
from mote.harness.study.plan_ahead import plan_by_run
from mote.harness.study.prompts import prompts_of
from mote.harness.study.run import check
from tests.harness.study import scripted_engine
from tests.harness.study.scripted_engine import ScriptedEngine, study_of


@pytest.fixture(autouse=True)
def _cached_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets  # type: ignore[import-untyped]

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def rows(number: int = 60, of: str = "kind") -> list[dict[str, Any]]:
    return [{"qid": f"q{at}", "question": f"Did a thing of {of} {at} happen?", "topic": f"t{at // 4}"}
            for at in range(number)]  # fmt: skip


def recipe(folder: Path, hub: dict[str, Any] | None = None, **task: Any) -> Recipe:
    content = scripted_engine.recipe_of(controls={"mass": 2, "layers": 2}, exact=False).model_dump(mode="json")
    columns = {"prompt": "question", "id": "qid", "unit": "topic"}
    content["task"] = {"hub": {"dataset": "My-set", "split": "train"} | (hub or {}), "columns": columns} | task
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return load_recipe(str(folder / "recipe.yaml"))


def written(folder: Path, found: list[dict[str, Any]], suffix: str = "jsonl") -> None:
    (folder / "My-set").mkdir(exist_ok=True)
    path = folder / "My-set" / f"train.{suffix}"
    if suffix == "parquet":
        pd.DataFrame(found).to_parquet(path)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in found))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_prompts_come_from_a_split_of_a_dataset(tmp_path: Path, suffix: str) -> None:
    written(tmp_path, rows(), suffix)
    found = prompts_of(recipe(tmp_path))
    assert len(found) == 60
    assert (found[5].prompt_id, found[5].task, found[5].attributes) == ("my_set/q5", "my_set", {"unit": "t1"})
    assert found[5].messages == [{"role": "user", "content": "Did a thing of kind 5 happen?"}]
    assert len(prompts_of(recipe(tmp_path, {"split": "train[:20]"}, limit=10))) == 10


def test_a_check_reads_the_dataset_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    written(tmp_path, rows())
    reads: list[Any] = []
    load = datasets.load_dataset

    def counted(*given: Any, **named: Any) -> Any:
        reads.append(given)
        return load(*given, **named)

    monkeypatch.setattr(datasets, "load_dataset", counted)
    found = check(recipe(tmp_path))
    assert len(found.prompts) == 60
    assert len(found.manifest["prompts"]["rows_sha256"]) == 64
    assert len(reads) == 1


def test_a_study_goes_on_with_the_same_rows_alone(tmp_path: Path) -> None:
    written(tmp_path, rows())
    found = recipe(tmp_path)
    with pytest.raises(scripted_engine.Killed):
        study_of(tmp_path / "run", found, ScriptedEngine(kill_after=30), force=True)
    told = read_manifest(tmp_path / "run")["prompts"]
    assert (told["task"], told["count"], len(told["rows_sha256"])) == ("my_set", 60, 64)
    # Where the folder lies may change, and how its rows are packed.
    (tmp_path / "moved").mkdir()
    written(tmp_path / "moved", rows(), "parquet")
    moved = recipe(tmp_path / "moved")
    engine = ScriptedEngine(kill_after=40)
    with pytest.raises(scripted_engine.Killed):
        study_of(tmp_path / "run", moved, engine, force=True)
    assert {one.prompt_id for one in engine.asked} <= {f"my_set/q{at}" for at in range(60)}
    (tmp_path / "other").mkdir()
    written(tmp_path / "other", rows(of="sort"))
    other = recipe(tmp_path / "other")
    with pytest.raises(MoteError, match="prompts: rows_sha256"):
        study_of(tmp_path / "run", other, ScriptedEngine(), force=True)
    with pytest.raises(MoteError, match=r"asks the prompts of another file than .*/other/My-set, train is now"):
        plan_by_run(other, tmp_path / "run")


@pytest.mark.parametrize(
    ("hub", "task", "said"),
    [
        ({"dataset": "owner/nowhere"}, {}, "task.hub.revision is missing: owner/nowhere is no folder here"),
        (
            {"dataset": "owner/nowhere", "revision": "0123abc"},
            {},
            "`HF_HUB_OFFLINE=0 mote recipe check RECIPE` fetches",
        ),
        ({"revision": "main"}, {}, "/My-set is a folder, which has none; leave it out"),
        ({"split": "tset"}, {}, "can't be had: Unknown split \"tset\". Should be one of ['train']."),
        ({"splt": "train"}, {}, "'task.hub.splt' is not a part of a recipe. Did you mean 'split'?"),
        ({}, {"columns": {"prompt": "qestion"}}, "/My-set, train, row 1 has no 'qestion'. Did you mean 'question'?"),
        ({}, {"file": "a.jsonl"}, "file and hub both say where the prompts are"),
        ({}, {"name": "refusal_grid"}, "the name 'refusal_grid' is the packaged task's"),
        ({}, {"limit": 61}, "task.limit: 61, but my_set has 60 prompts"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, hub: dict[str, Any], task: dict[str, Any], said: str) -> None:
    written(tmp_path, rows())
    with pytest.raises(MoteError) as caught:
        check(recipe(tmp_path, hub, **task))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_that_say_something_twice_are_named_by_their_row(tmp_path: Path) -> None:
    written(tmp_path, [*rows(4), rows(4)[1]])
    with pytest.raises(MoteError, match="train, row 5: the id 'q1' is that of row 2 as well"):
        prompts_of(recipe(tmp_path))


def test_the_schema_takes_a_dataset(tmp_path: Path) -> None:
    written(tmp_path, rows())
    content = recipe(tmp_path).model_dump(mode="json")
    Draft202012Validator(recipe_schema()).validate(content)
    assert os.path.isabs(content["task"]["hub"]["dataset"])
