"""What is wrong in a sweep's recipe is one line that names it, before anything is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from mote.harness.demo.corpus import merge_evaluation
from mote.harness.errors import MoteError
from mote.harness.merge.difference import distances, open_pair, summed
from mote.harness.sweep.chosen import with_experts
from mote.harness.sweep.run import check
from mote.harness.sweep.schema import RECIPES, Subset, SweepRecipe, load_sweep
from tests.harness.sweep.scripted_sweep import content_of, recipe_of


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"base": "c"}, "base: 'c' is no parent"),
        ({"toward": "a"}, "toward: 'a' is the base"),
        ({"toward": {"b": 0.7, "a": 0.1}}, "toward: 'a' is the base"),
        (
            {"subsets": {"all": {"groups": ["routed_expert"]}}},
            "'routed_expert' is no group. Did you mean 'routed_experts'",
        ),
        ({"subsets": {"all": {}}}, "the rule names no tensors"),
        ({"subsets": {"base": {"groups": ["all"]}}}, "'base' is the name of the child at proportion 0"),
        ({"subsets": {"a/b": {"groups": ["all"]}}}, "subsets"),
        ({"proportions": [0.5, 0.2]}, "the proportions should ascend"),
        ({"proportions": [0, 1.5]}, "less than or equal to 1"),
        ({"refine": {"measure": "REASONED"}}, "'REASONED' is neither a class nor score. Did you mean '2-REASONED'"),
        ({"refine": {"measure": "score"}, "score": None}, "score needs the part score"),
        ({"judges": {"surprise": True}}, "a sweep has many"),
        ({"propotions": [0, 1]}, "'propotions' is not a part of a recipe. Did you mean 'proportions'"),
    ],
)
def test_a_wrong_recipe_is_one_line(parts: dict[str, Any], said: str, home: Path) -> None:
    path = home / "wrong.yaml"
    path.write_text(yaml.safe_dump(content_of(home, **parts)))
    with pytest.raises(MoteError) as raised:
        load_sweep(str(path))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"subsets": {"mtp": {"groups": ["mtp"]}}}, "mtp"),
        ({"score": {"attribute": "right"}}, "has no 'right'"),
        ({"profiles": ["nowhere.json"]}, "nowhere.json: no such profile file"),
        ({"parents": {"a": "nowhere", "b": "nowhere"}}, "parent 'a': 'nowhere' is neither a folder"),
    ],
)
def test_what_does_not_fit_the_parents_is_one_line(parts: dict[str, Any], said: str, home: Path) -> None:
    with pytest.raises(MoteError) as raised:
        check(SweepRecipe.model_validate(content_of(home, **parts)))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_others_are_all_but_the_subset() -> None:
    keeps, takes = Subset(groups=["head"], others=True).rules({"b": 0.5, "c": 0.5}, 0.5)
    assert (keeps.groups, keeps.keep) == (["head"], "base")
    assert (takes.groups, takes.weights) == (["all"], {"b": 0.25, "c": 0.25})


def test_where_parents_lie_and_how_engines_are_had_make_no_other_sweep(home: Path) -> None:
    one = recipe_of(home)
    assert one.digest == recipe_of(home, parents={"a": "elsewhere", "b": "there"}, model={"reload": False}).digest
    assert one.digest != recipe_of(home, proportions=[0, 1]).digest


def test_a_recipe_without_its_parents_says_how_to_name_them() -> None:
    with pytest.raises(MoteError, match="name the parent 'reasoner' with --parent reasoner=FOLDER"):
        load_sweep("demo", ["answerer=somewhere"])
    with pytest.raises(MoteError, match=r"There is no sweep 'dmo', neither a file nor a packaged one. Did you mean"):
        load_sweep("dmo")
    with pytest.raises(ValidationError):
        SweepRecipe.model_validate({})


def test_the_packaged_prompts_are_the_corpus_own_held_out_ones() -> None:
    lines = (RECIPES / "demo-prompts.jsonl").read_text(encoding="utf-8").splitlines()
    written = [(row["kind"], row["messages"], row["expected"]) for row in map(json.loads, lines)]
    assert written == [(one.task, one.messages, one.expected) for one in merge_evaluation()]


def test_experts_by_distance_and_random_ones_of_the_same_layers(home: Path) -> None:
    subsets = {
        "far": {"experts": {"by": "distance", "top": 12}},
        **{f"chance-{seed}": {"experts": {"by": "random", "top": 12, "seed": seed}} for seed in (1, 1 + 1)},
    }
    found = with_experts(recipe_of(home, subsets=subsets)).subsets
    experts = {name: list(part.experts) for name, part in found.items() if isinstance(part.experts, list)}
    frame = summed(
        distances(*open_pair(str(home_parent(home, "a")), str(home_parent(home, "b")))[:2]), ["layer", "expert"]
    )
    least = frame.set_index(["layer", "expert"])["rms"]
    chosen = least.loc[experts["far"]]
    assert len(chosen) == 12
    assert chosen.min() >= least.drop(experts["far"]).max()
    layers = {name: Counter(layer for layer, _ in one) for name, one in experts.items()}
    assert layers["far"] == layers["chance-1"] == layers["chance-2"]
    assert experts["chance-1"] != experts["chance-2"]
    assert all(len(set(one)) == 12 for one in experts.values())
    with pytest.raises(MoteError, match="top is 1000, and the model has 384 experts"):
        with_experts(recipe_of(home, subsets={"far": {"experts": {"by": "distance", "top": 1000}}}))


def home_parent(home: Path, name: str) -> Path:
    return Path(recipe_of(home).parents[name].path)
