from __future__ import annotations

from pathlib import Path

import pytest

from mote.harness.errors import MoteError
from mote.harness.recipe.schema import Recipe, differences, load_recipe, recipe_names
from mote.judges import MARKERS, Markers


def test_every_packaged_recipe_is_valid_and_named_like_its_file() -> None:
    assert "demo" in recipe_names()
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_overrides_reach_any_depth_and_change_the_digest() -> None:
    recipe = load_recipe("demo", ["study.controls.uniform=3", "task.limit=20", "study.experts=[[1, 2]]"])
    assert recipe.study.controls.uniform == 3
    assert recipe.task.limit == 20
    assert recipe.study.experts == [(1, 2)]
    assert recipe.digest != load_recipe("demo").digest


def test_the_task_says_by_which_classes_it_is_studied_unless_the_recipe_does() -> None:
    assert load_recipe("demo-language").study.target == "english"
    assert load_recipe("demo", ["task.name=reasoning_language"]).study.target == "english"
    recipe = load_recipe("demo", ["task.label=language", "study.target=chinese", "task.name=reasoning_language"])
    assert (recipe.task.label, recipe.study.target) == ("language", "chinese")
    assert (load_recipe("demo").task.label, load_recipe("demo").study.target) == ("refusal", "0-REFUSED")


@pytest.mark.parametrize(
    "overrides", [[], ["model.markers=harmony"], ["model.markers=kimi-vl"], ["model.template={enable_thinking: false}"]]
)
def test_a_resolved_recipe_reads_back_as_itself(overrides: list[str]) -> None:
    recipe = load_recipe("demo", overrides)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_markers_go_by_the_names_of_the_judges() -> None:
    assert load_recipe("demo", ["model.markers=harmony"]).model.markers.reading == MARKERS["harmony"]
    assert load_recipe("demo", ["model.markers={name: hunyuan}"]).model.markers.reading == MARKERS["hunyuan"]
    own = load_recipe("demo", ["model.markers={start: '<a>', end: '</a>'}"]).model.markers
    assert own.reading == Markers("<a>", "</a>")


def test_what_a_recipe_does_not_say_leaves_its_digest_as_it_was() -> None:
    plain = load_recipe("demo")
    model = plain.model_dump(mode="json")["model"]
    assert model["markers"] == {"start": "<think>", "end": "</think>"}
    assert "template" not in model
    assert load_recipe("demo", ["model.markers=think", "model.template={}"]).digest == plain.digest
    assert load_recipe("demo", ["model.markers=hunyuan"]).digest != plain.digest


def test_every_row_keeps_the_arguments_of_the_chat_template() -> None:
    assert "template" not in load_recipe("demo").drawn
    drawn = load_recipe("demo", ["model.template={enable_thinking: false}"]).drawn
    assert drawn["template"] == {"enable_thinking": False}
    assert drawn["temperature"] == load_recipe("demo").sampling.temperature


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.markers=harmny"], "reasoning markers 'harmny' are unknown. Did you mean 'harmony'?"),
        (["model.markers={name: harmony, start: '<a>'}"], "'harmony' has start '<think>', not '<a>'"),
        (["model.template={tokenize: true}"], "template.tokenize is the harness's to give"),
        (["model.template={day: .inf}"], "has .inf, which is no number"),
        (["study.topk=5"], "'study.topk' is not a part of a recipe. Did you mean 'top_k'?"),
        (["modle.path=x"], "Did you mean 'model'?"),
        (["study.top_k=0"], "'study.top_k': Input should be greater than or equal to 1, not 0."),
        (["study.top_k=many"], "valid integer, not 'many'"),
        (["study.target=0-REFUSE"], "no class of the label set 'refusal'. Did you mean '0-REFUSED'?"),
        (["study.target=english"], "no class of the label set 'refusal'"),
        (["task.name=reasoning_language", "study.target=0-REFUSED"], "no class of the label set 'language'"),
        (["task.label=languages"], "'refusal', 'compliance', 'language' or 'classes', not 'languages'"),
        (["task.label=[language]"], "'refusal', 'compliance', 'language' or 'classes', not ['language']"),
        (["study.factors=[0.5,1]"], "study.factors.1: a factor of 1 is the untouched model"),
        (["study.factors=[0]"], "'study.factors.0': Input should be greater than 0"),
        (["sampling.temperature=0"], "sampling.temperature 0"),
        (["study.experts=[[1, -1]]"], "'study.experts.0.1'"),
        (["model.engine=sglang"], "'vllm'"),
        (["sampling.temperature=.inf"], "has .inf, which is no number"),
        (["sampling.seed=100000000000000000000000"], "'sampling.seed': Input should be less than or equal to"),
        (["study"], "write key.path=value"),
        (["name.first=x"], "'name' has a value"),
        (["study.top_k=[1"], "not a YAML value"),
    ],
)
def test_a_wrong_value_is_one_line_with_its_place(overrides: list[str], said: str) -> None:
    with pytest.raises(MoteError) as caught:
        load_recipe("demo", overrides)
    assert said in str(caught.value)
    assert not str(caught.value).endswith(("..", "?."))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- a\n", "should hold a mapping"),
        ("a: [\n", "not a YAML recipe"),
        ("study: {top_k: 3}\nname: a\nstudy: {top_k: 4}\n", "the key 'study' stands there twice"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(content)
    with pytest.raises(MoteError, match=said):
        load_recipe(str(file))


def test_a_missing_recipe_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(MoteError, match="Did you mean 'demo'"):
        load_recipe("dmo")
    with pytest.raises(MoteError, match="is a folder"):
        load_recipe(str(tmp_path))


def test_differences_show_old_and_new_by_path() -> None:
    old, new = load_recipe("demo"), load_recipe("demo", ["study.top_k=5", "task.limit=9"])
    assert differences(old.model_dump(mode="json"), new.model_dump(mode="json")) == [
        "study.top_k: 10 -> 5",
        "task.limit: None -> 9",
    ]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["study.rankings=[causal, resonance]"], "'resonance' or 'resonance_per_token', not 'causal'"),
        (["study.rankings=[resonance, auc, auc]"], "'auc' is named twice"),
        (["study.rankings=[resonance, casual]"], "'study.rankings.1'"),
        (["study.rankings=causal"], "'study.rankings'"),
    ],
)
def test_rankings_that_can_not_be_measured_are_refused_in_a_line(overrides: list[str], said: str) -> None:
    with pytest.raises(MoteError) as error:
        load_recipe("demo", overrides)
    assert said in str(error.value)


def test_the_first_of_several_rankings_is_the_studys_own() -> None:
    assert (
        load_recipe("smollm", ["study.rankings=[resonance_per_token, causal]"]).study.ranking == "resonance_per_token"
    )
