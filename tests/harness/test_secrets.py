"""A token in a recipe is nowhere to be found: not in the manifest, the report, a message, or what a judge echoed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mote.harness.recipe.manifest import check_same, new_manifest, read_manifest, write_manifest
from mote.harness.recipe.schema import RECIPES, Recipe, load_recipe
from mote.harness.secrets import HIDDEN, hide, is_secret, redacted
from tests.harness.report.written_run import WrittenRun, write_run
from tests.harness.strangers.calls import mote, refused

TOKEN = "open-sesame-4711-of-mine"  # noqa: S105
LOOKS = "hf_" + "AbCdEfGhIjKlMnOpQrSt"
RECIPE = yaml.safe_load((RECIPES / "demo.yaml").read_text())
LAYOUT = {"architecture": "A", "layers": [1, 2], "experts": 64, "top_k": 4}
MODEL: dict[str, Any] = {"name": "demo", "path": "demo", "layout": LAYOUT, "files": {}}
PROMPTS = {"task": "refusal_grid", "count": 1, "digest": "d"}


def with_token(token: str = TOKEN, looks: str = LOOKS) -> Recipe:
    llm = {"model": "m", "url": "http://127.0.0.1:1/v1", "body": {"api_key": token, "user": looks, "max_tokens": 9}}
    options = {**RECIPE["model"]["options"], "hf_token": token, "additional_config": {"deep": [{"password": token}]}}
    model = {**RECIPE["model"], "options": options}
    return Recipe.model_validate({**RECIPE, "model": model, "judges": {"surprise": False, "llm": llm}})


def test_names_and_looks() -> None:
    for name in ("hf_token", "HF_TOKEN", "api_key", "apikey", "openai-api-key", "password", "Authorization", "secret"):
        assert is_secret(name), name
    for name in ("max_tokens", "tokens", "tokenizer", "key_env", "key_path", "stop_token_ids", "name", "monkey"):
        assert not is_secret(name), name
    for text in (LOOKS, "sk-abcdefghijklmnopqrst", "ghp_" + "a" * 36, "Bearer abcdefghijk", "http://u:secret@h/v1"):
        assert HIDDEN in hide(f"a {text} b"), text
    for text in ("0-REFUSED", "sha256:aa", "suppress-10", "http://h:8000/v1", "a" * 64):
        assert hide(text) == text


def test_a_manifest_holds_no_token_and_its_run_goes_on(tmp_path: Path) -> None:
    recipe = with_token()
    manifest = new_manifest(recipe, MODEL, PROMPTS)
    write_manifest(tmp_path, manifest)
    text = (tmp_path / "manifest.json").read_text()
    assert TOKEN not in text
    assert LOOKS not in text
    assert json.loads(text)["recipe"]["model"]["options"]["hf_token"] == HIDDEN
    # The recipe itself still has it, and another token is no other study.
    assert recipe.model.options["hf_token"] == TOKEN
    assert recipe.digest == with_token("another-of-mine-0815").digest
    check_same(tmp_path, read_manifest(tmp_path), new_manifest(with_token("another-of-mine-0815"), MODEL, PROMPTS))
    assert TOKEN not in hide(f"vLLM does not take hf_token={TOKEN}")


def test_a_report_and_a_message_hold_no_token(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", WrittenRun(prompts=24, controls=0, top_k=3))
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    # As an older mote wrote it.
    manifest["recipe"]["model"]["options"] = {"hf_token": TOKEN, "download_dir": LOOKS}
    path.write_text(json.dumps(manifest))
    shown = read_manifest(folder)["recipe"]["model"]["options"]
    assert shown == {"hf_token": HIDDEN, "download_dir": HIDDEN}
    called = mote("scan", folder)
    refused(called)
    assert TOKEN not in called.err
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "model": {"path": "demo", "hf_token": TOKEN}}))
    called = mote("run", recipe)
    refused(called, "hf_token")
    assert TOKEN not in called.err
    for option in (f"hf_token={TOKEN}: [", f"hf_token={TOKEN}"):
        called = mote("verify", "demo", "--engine", option, "--engine", "max_model_len=-7")
        # vLLM's own words come before ours.
        assert called.code == 2
        assert TOKEN not in called.err + called.out


def test_what_the_environment_holds_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", TOKEN)
    assert hide(f"the server said {TOKEN}!") == f"the server said {HIDDEN}!"


def test_what_is_no_secret_stays() -> None:
    demo = load_recipe("demo").model_dump(mode="json")
    assert redacted(demo) == demo
