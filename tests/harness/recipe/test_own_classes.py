"""Recipes of one's own: prompts, classes by patterns or by a language model's prompt, contrasts, and their mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from mote.harness.errors import MoteError
from mote.harness.recipe.json_schema import recipe_schema
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.schema import RECIPES, Recipe, load_recipe, recipe_of
from mote.judges import JUDGE, with_surprise
from mote.judges.llm.prompt import PROMPTS

PRAISE = "task.classes={patterns: {PRAISES: ['^great question'], HEDGES: perhaps}, otherwise: PLAIN, ignore_case: true}"
FILE = "task={file: mine.jsonl}"


def rubric(folder: Path, verdicts: str = "[FLATTERS, PLAIN, BROKEN]") -> Path:
    text = (PROMPTS / "compliance-class.yaml").read_text()
    path = folder / "rubric.yaml"
    path.write_text(text.replace("[REFUSED, EVASIVE, ANSWERED, BROKEN]", verdicts))
    return path


def labels_of(recipe: Recipe) -> Any:
    return label_set(recipe.model_dump(mode="json"))


def test_classes_by_patterns_are_the_label_set_and_the_first_is_studied() -> None:
    recipe = load_recipe("demo", [PRAISE])
    found = labels_of(recipe)
    assert (recipe.task.label, recipe.study.target) == ("classes", "PRAISES")
    assert found.classes == ("PRAISES", "HEDGES", "PLAIN")
    assert found.judge == with_surprise(found.text_judge)
    assert found.label("Great question!", finish_reason="stop").label == "PRAISES"
    assert load_recipe("demo", [PRAISE, "study.target=PLAIN"]).study.target == "PLAIN"
    assert recipe_of(recipe.model_dump(mode="json")) == recipe


def test_another_order_or_pattern_is_another_judge() -> None:
    names = {
        labels_of(load_recipe("demo", [f"task.classes={{patterns: {patterns}, otherwise: PLAIN}}"])).text_judge
        for patterns in ("{A: x, B: y}", "{B: y, A: x}", "{A: x, B: z}", "{A: [x], B: [y]}")
    }
    assert len(names) == 3


def test_classes_by_a_language_model_are_the_verdicts_of_its_prompt(tmp_path: Path) -> None:
    recipe = load_recipe("demo", [f"judges.llm={{model: m, kind: classes, prompt: {rubric(tmp_path)}}}"])
    assert recipe.judges.llm is not None
    assert recipe.judges.llm.classes == ["FLATTERS", "PLAIN"]
    assert (recipe.task.label, recipe.study.target) == ("classes", "FLATTERS")
    found = labels_of(recipe)
    assert (found.classes, found.text_judge) == (("FLATTERS", "PLAIN"), JUDGE)
    assert found.judge.startswith("m/compliance-class@")
    # A run reads its own recipe when the prompt's file is gone.
    (tmp_path / "rubric.yaml").unlink()
    assert recipe_of(recipe.model_dump(mode="json")) == recipe


def test_patterns_and_a_language_model_may_give_the_same_classes(tmp_path: Path) -> None:
    llm = f"judges.llm={{model: m, prompt: {rubric(tmp_path)}}}"
    classes = "task.classes={patterns: {PLAIN: x}, otherwise: FLATTERS}"
    found = labels_of(load_recipe("demo", [classes, llm]))
    assert found.classes == ("PLAIN", "FLATTERS")
    assert found.text_judge.startswith("patterns@")
    with pytest.raises(MoteError, match=r"has the classes FLATTERS, PLAIN, task.classes PRAISES"):
        load_recipe("demo", [PRAISE, llm])


def test_a_recipe_names_files_from_its_own_folder(tmp_path: Path) -> None:
    content = yaml.safe_load((RECIPES / "demo.yaml").read_text())
    content |= {"task": {"file": "Own prompts.v2.jsonl"}, "judges": {"llm": {"model": "m", "prompt": "rubric.yaml"}}}
    content["task"]["label"] = "classes"
    rubric(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert recipe.task.file == str(tmp_path / "Own prompts.v2.jsonl")
    assert recipe.task.name == "own_prompts"
    assert recipe.judges.llm is not None
    assert recipe.judges.llm.prompt == str(tmp_path / "rubric.yaml")
    # From where one stands, as any option.
    assert load_recipe(str(tmp_path / "mine.yaml"), ["task.file=x.csv"]).task.file == "x.csv"


def test_a_contrast_ranks_a_token_unless_the_recipe_says_otherwise() -> None:
    contrast = "study.contrast={column: leading, value: true, others: [false]}"
    study = load_recipe("demo", [contrast]).study
    assert study.contrast is not None
    assert (study.contrast.value, study.contrast.others) == ("true", ["false"])
    assert study.ranking == "resonance_per_token"
    assert load_recipe("demo", [contrast, "study.ranking=resonance"]).study.ranking == "resonance"
    assert load_recipe("demo").study.ranking == "resonance"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task.columns={prompt: q}"], "columns are those of a file of prompts: name it in task.file"),
        (["task.file=a.jsonl", "task.name=refusal_grid"], "the name 'refusal_grid' is the packaged task's"),
        (["task.file=a.jsonl", "task.name=My prompts"], "the name 'My prompts' is not of a-z, 0-9 and _ alone"),
        ([FILE, "task.columns={promt: q}"], "'task.columns.promt' is not a part of a recipe. Did you mean 'prompt'?"),
        ([FILE, "task.columns={attributes: [unit]}"], "columns.unit"),
        ([FILE, "task.samples=0"], "'task.samples': Input should be greater than or equal to 1"),
        ([FILE, "task.samples=2"], "task.samples: answers to one prompt are not independent"),
        (
            [FILE, "task.samples=2", "study.split=units", "sampling.temperature=0", "study.controls.retest=0"],
            "same text again at sampling.temperature 0",
        ),
        (["task.classes={patterns: {A: x}}"], "'task.classes': otherwise is missing"),
        (["task.classes={patterns: {A: '('}, otherwise: B}"], "the pattern '(' of 'A' is no regular expression"),
        (["task.classes={patterns: {A: x}, otherwise: A}"], "'A' has patterns and is 'otherwise' as well"),
        (["task.classes={patterns: [{name: A, patterns: [x]}, {name: A, patterns: [y]}], otherwise: B}"], "'A' stands"),
        (["task.classes={patterns: {A: x}, otherwise: B, ignorecase: true}"], "Did you mean 'ignore_case'?"),
        ([PRAISE, f"task.classes.sha256={'a' * 64}"], "sha256 does not go with patterns; leave it out"),
        (["task.classes={otherwise: A}"], "patterns is missing; classes are patterns and otherwise, or function and"),
        ([PRAISE, "study.target=PRAISE"], "no class of the label set 'classes'. Did you mean 'PRAISES'?"),
        ([PRAISE, "task.label=refusal"], "task.classes are given, and task.label is 'refusal'"),
        (["task.label=classes"], "task.label: classes needs task.classes, or judges.llm with a prompt of your own"),
        (["judges.llm={model: m, kind: classes}"], "judges.llm.prompt"),
        (["study.contrast={column: a}"], "'study.contrast.value' is missing"),
        (["study.contrast={column: a, value: b, paired: c}"], "Did you mean 'pair'?"),
        (["study.contrast={column: a, value: b, pair: c}"], "contrast.pair: half would part the pairs"),
        (["study.ranking=log_odds"], "'resonance' or 'resonance_per_token', not 'log_odds'"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(overrides: list[str], said: str) -> None:
    with pytest.raises(MoteError) as caught:
        load_recipe("demo", overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_schema_takes_the_packaged_recipes_and_the_short_forms(tmp_path: Path) -> None:
    check = Draft202012Validator(recipe_schema())
    Draft202012Validator.check_schema(recipe_schema())
    for path in RECIPES.glob("*.yaml"):
        check.validate(yaml.safe_load(path.read_text()))
    content = yaml.safe_load((RECIPES / "demo.yaml").read_text())
    content["model"]["markers"] = "harmony"
    content["task"] = {"file": "x.jsonl", "classes": {"patterns": {"A": "x", "B": ["y"]}, "otherwise": "C"}}
    content["judges"] = {"llm": "self"}
    content["study"]["contrast"] = {"column": "leading", "value": True, "others": [False]}
    check.validate(content)
    check.validate(load_recipe("demo", [PRAISE]).model_dump(mode="json"))
    for wrong in ({**content, "modle": {}}, {**content, "task": {"limit": 3}}):
        assert not check.is_valid(wrong)
