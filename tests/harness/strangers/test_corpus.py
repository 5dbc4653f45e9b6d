"""Malformed recipes, prompts, profiles, configurations, sheets, manifests, options: one line each, nothing written.

A changed value may still be a valid one, where anything is allowed; a broken text never is. What is accepted must be
used without a traceback, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mote.harness.demo import MODEL_DIR
from mote.harness.errors import MoteError
from mote.harness.recipe.schema import RECIPES
from tests.harness.report.written_run import WrittenRun, write_run
from tests.harness.strangers.calls import digests, mote, refused
from tests.harness.strangers.corpus import counted, each, said, whole, writer
from tests.harness.strangers.mutations import Case, broken_texts, not_json, seeded, wrong_values, yaml_traps

RECIPE: dict[str, Any] = yaml.safe_load((RECIPES / "demo.yaml").read_text())
PROFILE: dict[str, Any] = {
    "format": "mote-profile/1",
    "name": "p",
    "tokens": "all",
    "model": {"architecture": "Glm4MoeForCausalLM", "layers": [1, 2, 3], "experts": 64, "top_k": 4},
    "edits": [
        {"layer": 1, "expert": 3, "action": "suppress"},
        {"layer": 2, "expert": 5, "action": "scale", "factor": 0.5},
    ],
}
SCORES: dict[str, Any] = {
    **PROFILE,
    "edits": [
        {"layer": 1, "expert": 3, "action": "activate"},
        {"layer": 2, "expert": 5, "action": "bias", "factor": -0.5},
    ],
}
CONFIG: dict[str, Any] = json.loads((MODEL_DIR / "config.json").read_text())


def test_recipes(tmp_path: Path) -> None:
    from mote.harness.recipe.schema import load_recipe
    from mote.harness.study.run import check

    path = tmp_path / "recipe.yaml"
    read = writer(path, lambda: load_recipe(str(path)))
    each("recipe", broken_texts(RECIPE), read, must=True)
    each("recipe", yaml_traps(RECIPE), read, must=True)
    each("recipe", wrong_values(RECIPE, 150), read, must=False)
    for text in ("temperature: yes", "temperature: '0.6'", "top_p: true", "max_tokens: 1.5", "seed: 1e3", "seed: 0x10"):
        content = {key: value for key, value in RECIPE.items() if key != "sampling"}
        path.write_text(f"{json.dumps(content)[:-1]}, sampling: {{{text}}}}}")
        refused(mote("run", path, "--out", tmp_path / "out"), "sampling.")
    each(
        "option", yaml_traps({"a": 1}), lambda text: load_recipe("demo", [f"model.template={text.decode()}"]), must=True
    )
    assert not (tmp_path / "out").exists()
    path.write_text(json.dumps({**RECIPE, "task": {"name": "\x1b[31m" + "no_such_task" * 500}}))
    with pytest.raises(MoteError) as caught:
        check(load_recipe(str(path)))
    said(caught.value)


def test_recipes_of_merges(tmp_path: Path) -> None:
    from mote.harness.merge.schema import load_merge_recipe as load_recipe

    recipe = {
        "name": "m",
        "parents": {"a": {"path": "x"}, "b": {"path": "y"}},
        "base": "a",
        "rules": [{"weights": {"b": 0.5}}],
    }
    path = tmp_path / "merge.yaml"
    read = writer(path, lambda: load_recipe(str(path)))
    each("merge", broken_texts(recipe), read, must=True)
    each("merge", yaml_traps(recipe), read, must=True)
    each("merge", wrong_values(recipe, 50), read, must=False)


def test_judge_prompts(tmp_path: Path) -> None:
    from mote.judges.llm.endpoint import JudgeError
    from mote.judges.llm.prompt import PROMPTS, load_prompt

    prompt = yaml.safe_load((PROMPTS / "refusal-class.yaml").read_text())
    path = tmp_path / "prompt.yaml"
    read = writer(path, lambda: load_prompt(path))
    each("prompt", broken_texts(prompt), read, must=True, errors=JudgeError)
    each("prompt", yaml_traps(prompt), read, must=True, errors=JudgeError)
    each("prompt", wrong_values(prompt, 40), read, must=False, errors=JudgeError)


def test_profiles(tmp_path: Path) -> None:
    from mote.patches import ModelLayout, Profile, ProfileError
    from mote.patches.admission import Admission

    path = tmp_path / "profile.json"
    read = writer(path, lambda: Profile.read(path))
    for cases in (broken_texts(PROFILE), not_json(PROFILE)):
        each("profile", cases, read, must=True, errors=ProfileError)
    for profile in (PROFILE, SCORES):
        each("profile", wrong_values(profile, 100), read, must=False, errors=ProfileError)
    admission = Admission(ModelLayout.from_dict(PROFILE["model"]))
    entry = {"profile": PROFILE, "capture": {"prompt": "counts"}}

    def accept(content: bytes) -> None:
        admission.accept(content.decode("utf-8", "surrogateescape"))

    for cases in (broken_texts(entry), not_json(entry)):
        each("request", cases, accept, must=True, errors=ProfileError)
    each("request", wrong_values(entry, 60), accept, must=False, errors=ProfileError)
    for wrong in ({"format": "mote-profile/2"}, {"name": "a\x1b[2J"}, {"edits": [[1, 3, "suppress"]] * 100_001}):
        with pytest.raises(ProfileError):
            admission.accept({"profile": {**PROFILE, **wrong}})
    for factor in (10**400, float("nan"), float("inf"), -1):
        with pytest.raises(ProfileError):
            admission.accept({"profile": {"edits": [[1, 3, "scale", factor]]}})
    for factor in (10**400, float("nan"), float("-inf"), 50.1):
        with pytest.raises(ProfileError):
            admission.accept({"profile": {"edits": [[1, 3, "bias", factor]]}})


def test_configurations_of_checkpoints(tmp_path: Path) -> None:
    from mote.harness.engine.model import resolve_model
    from mote.patches import ModelLayout, ProfileError

    model = tmp_path / "model"
    model.mkdir()
    path = model / "config.json"
    read = writer(path, lambda: resolve_model(str(model)))
    for cases in (broken_texts(CONFIG), not_json(CONFIG)):
        each("config", cases, read, must=True)
    each("config", wrong_values(CONFIG, 100), read, must=False)
    for layers in (10**10, 10**30, -5):
        for key in ("num_hidden_layers", "first_k_dense_replace", "n_routed_experts", "num_experts_per_tok"):
            if layers > 0 or key == "num_hidden_layers":
                with pytest.raises((MoteError, ProfileError)):
                    ModelLayout.from_config({**CONFIG, "num_hidden_layers": 6, key: layers})
    nested: Any = CONFIG
    for _ in range(5000):
        nested = {"text_config": nested}
    with pytest.raises(ProfileError):
        ModelLayout.from_config({"architectures": ["X"], **nested})
    refused(mote("merge", "check", model, "--out", tmp_path / "out"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("small") / "run", WrittenRun(prompts=40, controls=0, top_k=3))


def test_sheets(small: Path, tmp_path: Path) -> None:
    from mote.harness.judging.sheet import read_sheet, write_sheet
    from mote.judges import JUDGE

    sheet = tmp_path / "sheet.csv"
    if (small / "run.sqlite").exists():
        write_sheet(small, sheet, 10, JUDGE)
    text = sheet.read_bytes()
    rng = seeded()
    before = digests(small)

    def cases() -> Iterator[Case]:
        yield "nothing", b""
        yield "no sheet", b"a,b\n1,2\n"
        yield "no Unicode", b"\xff\xfe" + text
        yield "UTF-16", text.decode("utf-8-sig").encode("utf-16")
        yield "only the head", text.splitlines()[0]
        yield "a label that is none", text.replace(b"\n", b",\n").replace(b",\n", b",maybe\n")
        yield "an item that is none", text.replace(b"\n", b"\nffffffffff,,,,,refused\n", 1)
        yield "a long cell", text + b"x," + b"y" * 200_000 + b",,refused\n"
        yield "a NUL", text + b"a\x00b,,,\n"
        yield "controls", text + b"\x1b[2J,,,,,refused\n"
        for _ in range(20):
            place = rng.randrange(len(text))
            yield f"a byte at {place}", text[:place] + bytes([rng.randrange(256)]) + text[place + rng.randrange(3) :]
        for rater in (b"",) * 5:
            yield "cut", text[: rng.randrange(len(text))] + rater

    each("sheet", cases(), writer(sheet, lambda: read_sheet(small, sheet, "anna")), must=False)
    for rater in ("", "a/b", "../x", "a" * 100, "\x1b", "human:x", "a b"):
        with pytest.raises(MoteError):
            read_sheet(small, sheet, rater)
    after = digests(small)
    assert {name: value for name, value in after.items() if name == "manifest.json"} == {
        name: value for name, value in before.items() if name == "manifest.json"
    }


def test_foreign_manifests(small: Path, tmp_path: Path) -> None:
    from mote.harness.recipe.label_sets import label_set
    from mote.harness.recipe.manifest import read_manifest
    from mote.harness.recipe.schema import markers_of
    from mote.harness.report.effect_sections import heading  # noqa: F401 - a part of what reads a manifest
    from mote.harness.report.evidence_sections import provenance, recipe_text
    from mote.harness.store.listing import runs_table

    manifest = json.loads((small / "manifest.json").read_text())
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "manifest.json"

    def read() -> None:
        runs_table(folder)
        found = read_manifest(folder)
        label_set(found["recipe"])
        markers_of(found["recipe"])
        provenance(found)
        recipe_text(found)

    for cases in (broken_texts(manifest), not_json(manifest)):
        each("manifest", cases, writer(path, read), must=True)
    each("manifest", wrong_values(manifest, 160), writer(path, read), must=False)
    assert [item.name for item in folder.iterdir()] == ["manifest.json"]


def test_options_of_the_command_line(tmp_path: Path) -> None:
    for body in ("[]", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "1" * 500, "[" * 2000):
        refused(mote("judge", "ask", tmp_path, "--judge", "m", "--body", body), "--body")
        counted["option"] = counted.get("option", 0) + 1
    for option in ("max_model_len=&a [*a]", "hf_token", "=1", "dtype=!!python/name:os.system"):
        refused(mote("verify", "demo", "--engine", option), "--engine")
        counted["option"] = counted.get("option", 0) + 1
    refused(mote("run", "x" * 10_000))
    refused(mote("run", "\x1b]0;owned\x07" * 10))


def test_there_were_as_many_as_is_said(request: pytest.FixtureRequest) -> None:
    """The last of this file: it counts what the others tried, where all of them ran before it."""
    if whole(request):
        assert sum(counted.values()) >= 800, counted
