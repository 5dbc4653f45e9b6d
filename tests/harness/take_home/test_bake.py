"""``mote bake`` as its user has it: what is refused, the card with the evidence, and what a check says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mote.harness.demo import MODEL_DIR
from mote.harness.engine.trust import Own
from mote.harness.errors import MoteError
from mote.harness.merge.verify import check_child
from mote.harness.report.frames import open_run
from mote.harness.study.session import open_session
from mote.harness.take_home.agreement import compare_baked
from mote.harness.take_home.bake import note_check, plan_of, write_bake
from mote.patches import Edit, Profile
from tests.harness.strangers.calls import mote, refused
from tests.harness.study.scripted_engine import ScriptedEngine


def test_a_baked_folder_says_what_it_is_and_by_which_evidence(scripted: Path, tmp_path: Path) -> None:
    source, out = f"{scripted}:suppress-3", tmp_path / "out"
    refused(mote("bake", source, "--out", out), "cannot be baked exactly")
    assert not out.exists()
    called = mote("bake", source, "--out", out, "--approximate")
    assert called.code == 0, called
    assert "3 experts of demo, 3 tensors of 1,233 scaled; not exact: the patch keeps the sum" in called.out
    record = check_child(out)
    assert record["profile"]["digest"] == open_run(scripted).profile("suppress-3").digest
    assert (record["exact"], record["check"]) == (False, None)
    assert record["evidence"]["verdict"]["kind"] == open_run(scripted).result.chance.verdict.kind
    weights = {"model.safetensors": open_run(scripted).manifest["model"]["files"]["model.safetensors"]}
    assert record["parents"]["model"]["files"] == weights
    card = (out / "README.md").read_text()
    for text in ("- Effect: ", "- Control `mass`: p = ", "- Harm: ", "Not exactly: ", "Not measured: "):
        assert text in card
    assert str(tmp_path) not in card
    called = mote("merge", "check", out)
    assert (called.code, "every file is as the merge wrote it" in called.out) == (0, True)


def test_a_check_measures_what_differs_and_notes_it(scripted: Path, tmp_path: Path) -> None:
    bake = plan_of(f"{scripted}:suppress-3", approximate=True)
    write_bake(bake, tmp_path / "out")
    folder = Path(shutil.copytree(scripted, tmp_path / "run"))
    engine = ScriptedEngine()
    # The script knows no weights: a baked model answers as the untouched one.
    own = Own(servers=("http://127.0.0.1:1/v1",))
    with open_session(folder, Console(quiet=True), lambda *_: lambda: engine, own) as asked:
        with pytest.raises(MoteError, match="was asked of servers"):
            compare_baked(asked, bake.source.profile, tmp_path / "out", 20)
        model = asked.recipe.model.model_copy(update={"servers": None})
        session = replace(asked, recipe=asked.recipe.model_copy(update={"model": model}))
        found = compare_baked(session, bake.source.profile, tmp_path / "out", 20, lambda *_: lambda: engine)
    assert (found["prompts"], found["of_the_class"]) == (20, 10)
    assert found["flips"]["patched"] > found["flips"]["baked"] == 0
    assert found["labels_differ"] == found["flips"]["patched"] == 20 - found["greedy_equal"]
    assert found["greedy_equal"] == found["greedy_equal_untouched"]
    assert len(found["differing"]) == min(10, found["labels_differ"])
    note_check(bake, tmp_path / "out", found)
    record = json.loads((tmp_path / "out" / "bake.json").read_text())
    assert record["check"] == found
    assert (
        f"Greedy answers to 20 prompts: {found['greedy_equal']} equal" in (tmp_path / "out" / "README.md").read_text()
    )
    check_child(tmp_path / "out")


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ((Edit(1, 2, "stimulate"),), "cannot be baked: stimulate of (1, 2)"),
        ((Edit(9, 2, "suppress"),), "layer 9 of Glm4MoeForCausalLM has no routed experts"),
        ((), "edits nothing"),
    ],
)
def test_what_cannot_be_baked_is_refused_before_anything_is_written(
    edits: tuple[Edit, ...], said: str, tmp_path: Path
) -> None:
    Profile("p", edits).write(tmp_path / "p.json")
    refused(mote("bake", tmp_path / "p.json", "--model", "demo", "--out", tmp_path / "out", "--approximate"), said)
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_with_a_call_is_one_line(scripted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Profile("p", tuple(Edit(5, expert, "suppress") for expert in range(64))).write(tmp_path / "p.json")
    refused(mote("bake", tmp_path / "p.json", "--out", out), "name it with --model")
    refused(mote("bake", tmp_path / "p.json", "--model", "demo", "--out", out, "--check", "4"), "--check asks a run's")
    refused(mote("bake", scripted, "--out", out), "names no profile")
    refused(mote("bake", f"{scripted}:suppress-33", "--out", out), "Did you mean 'suppress-3'")
    refused(mote("bake", f"{tmp_path}:suppress-3", "--out", out), "holds no")
    other = Path(shutil.copytree(MODEL_DIR, tmp_path / "other"))
    (other / "config.json").write_text((other / "config.json").read_text().replace("1e-05", "1e-06"))
    refused(mote("bake", f"{scripted}:suppress-3", "--model", other, "--out", out), "other files of")
    assert not out.exists()
    assert mote("bake", tmp_path / "p.json", "--model", "demo", "--out", out).code == 0
    assert "None: the profile was baked from a file" in (out / "README.md").read_text()
    assert plan_of(str(tmp_path / "p.json"), Own("demo")).how.exact
    refused(mote("bake", f"{scripted}:suppress-3", "--approximate", "--out", out), "another recipe")


def test_a_bake_is_a_model_of_its_own_to_a_run(scripted: Path, tmp_path: Path) -> None:
    write_bake(plan_of(f"{scripted}:suppress-3", approximate=True), tmp_path / "out")
    with pytest.raises(MoteError, match=r"model\.safetensors differ"):
        plan_of(f"{scripted}:suppress-3", Own(str(tmp_path / "out")), approximate=True)
