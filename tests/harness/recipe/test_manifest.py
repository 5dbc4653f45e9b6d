from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mote.harness.errors import MoteError
from mote.harness.recipe.manifest import check_same, new_manifest, new_session, read_manifest, write_manifest
from mote.harness.recipe.schema import load_recipe

LAYOUT = {"architecture": "Glm4MoeForCausalLM", "layers": [1, 2], "experts": 64, "top_k": 4}
MODEL = {"name": "demo", "path": "demo", "layout": LAYOUT, "files": {"config.json": "sha256:aa"}}
PROMPTS = {"task": "refusal_grid", "count": 756, "digest": "bb"}


def made(*overrides: str, model: dict[str, Any] | None = None) -> dict[str, Any]:
    return new_manifest(load_recipe("demo", overrides), model or MODEL, PROMPTS)


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = made()
    manifest["sessions"].append(new_session())
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert manifest["sessions"][0]["versions"]["mote-harness"]
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_the_same_recipe_goes_on_wherever_the_model_lies() -> None:
    check_same(Path("run"), made(model={**MODEL, "path": "there"}), made(model={**MODEL, "path": "here"}))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (made("study.top_k=5"), "study.top_k: 10 -> 5"),
        (
            made(model={**MODEL, "files": {"config.json": "sha256:cc"}}),
            "model: files.config.json: 'sha256:aa' -> 'sha256:cc'",
        ),
    ],
)
def test_another_recipe_or_model_is_refused_with_the_difference(other: dict[str, Any], said: str) -> None:
    with pytest.raises(MoteError) as caught:
        check_same(Path("run"), made(), other)
    assert said in str(caught.value)
    assert "--out" in str(caught.value)


def test_a_run_that_is_older_than_a_key_of_recipes_goes_on() -> None:
    earlier = made()
    del earlier["recipe"]["study"]["controls"]["frequency"], earlier["recipe"]["study"]["tokens"]
    check_same(Path("run"), earlier, made("study.controls.frequency=0", "study.tokens=0"))
    with pytest.raises(MoteError, match=r"study\.tokens: 0 -> 3"):
        check_same(Path("run"), earlier, made("study.controls.frequency=0", "study.tokens=3"))
    # Without that key a run had no such judge.
    del earlier["recipe"]["judges"]
    with pytest.raises(MoteError, match=r"judges\.surprise: False -> True"):
        check_same(Path("run"), earlier, made("study.controls.frequency=0", "study.tokens=0"))
    earlier["recipe"]["study"]["controls"]["frequencies"] = 1
    with pytest.raises(MoteError, match=r"not one of this mote: study\.controls\.frequencies"):
        check_same(Path("run"), earlier, made())


@pytest.mark.parametrize(
    ("content", "said"), [("{", "not JSON"), ("[]", "format 'list'"), (json.dumps({"format": "x/9"}), "format 'x/9'")]
)
def test_what_is_no_manifest_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(MoteError, match=said):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(MoteError, match="not the folder of a run"):
        read_manifest(tmp_path)
