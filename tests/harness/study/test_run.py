"""The whole study on the real engine: kills in every step, and one run that was never interrupted to compare with."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from mote.harness.recipe.manifest import read_manifest
from mote.harness.science.maps import activation_map
from mote.harness.store.run import RunStore
from mote.harness.store.token_rows import TokenRows, read_token_rows
from mote.patches import EMPTY_PROFILE

ROOT = Path(__file__).parents[3]
STUDY = (
    "run", "demo", "--limit", "42",
    *(f"--set=study.controls.{kind}=1" for kind in ("retest", "uniform", "layers", "frequency", "mass")),
    "--force",
    "--set=study.doses=[]", "--set=study.stimulate=true", "--set=study.top_k=4",
    "--set=study.factors=[2]", "--set=study.thirds=false", "--set=study.rankings=[]",
    "--set=sampling.max_tokens=40", "--set=model.options.max_num_seqs=24",
)  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "HF_HUB_OFFLINE": "1"}


def start(point: str, *arguments: str) -> subprocess.Popen[str]:
    program = [sys.executable, str(Path(__file__).with_name("killed_run.py")), point, *arguments]
    return subprocess.Popen(
        program, cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def mote(point: str, *arguments: str) -> tuple[int, str, str]:
    process = start(point, *arguments)
    out, err = process.communicate(timeout=280)
    return process.returncode, out, err


def rows(folder: Path) -> dict[str, pd.DataFrame]:
    """Everything a run stored, without the order in which it came."""
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        keyed = "select g.prompt_id, g.profile, x.* from {} x join generations g using (generation_id)"
        queries = {
            "prompts": "select * from prompts",
            "splits": "select * from splits",
            "profiles": "select * from profiles",
            "generations": "select * from generations",
            "labels": keyed.format("labels"),
            "maps": keyed.format("activation_maps"),
            "chances": "select prompt_id, profile, chance from chances",
            "divergences": "select * from divergences",
            "surprises": "select prompt_id, raw, tokens, surprise from surprises",
        }
        frames = {
            name: pd.read_sql(query, db).drop(columns="generation_id", errors="ignore")
            for name, query in queries.items()
        }
    return {name: frame.sort_values(list(frame.columns[:2])).reset_index(drop=True) for name, frame in frames.items()}


def answered(folder: Path) -> bool:
    """Whether an answer is stored; a store that was only just begun has no tables yet."""
    if not (folder / "run.sqlite").exists():
        return False
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        if not db.execute("select 1 from sqlite_master where name = 'generations'").fetchone():
            return False
        return bool(db.execute("select count(*) from generations").fetchone()[0])


def tokens_of(folder: Path) -> list[TokenRows]:
    with RunStore(folder, read_only=True) as store:
        return read_token_rows(store)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = mote("none", *STUDY, "--out", str(folder))
    assert code == 0, err
    assert "Transitions on prompts that chose no expert" in out
    assert f"Report: {folder / 'report.html'}" in out
    assert err == ""
    return folder


@pytest.mark.timeout(1800)
# Ten starts of the engine are minutes; the scripted engine's kills (test_steps) are in every run of the tests.
@pytest.mark.slow
def test_a_run_killed_in_every_step_ends_with_the_rows_of_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    counts = []
    for point in ("baseline", "labels", "surprise", "plan", "profiles", "more-labels", "controls", "exact", "report"):
        code, _, err = mote(point, *STUDY, "--out", str(folder))
        assert code == -signal.SIGKILL, (point, err)
        counts.append({name: len(frame) for name, frame in rows(folder).items()})
    # Each kill fell where it was meant to: in the midst of its step.
    assert 0 < counts[0]["generations"] < 42
    assert counts[1]["labels"] == 8
    # Measured, and not labelled by it yet; test_judging_surprise stops in the midst of measuring.
    assert (counts[2]["labels"], 0 < counts[2]["surprises"] <= 42) == (42, True)
    # Two judges: the rules, and the rules with surprise.
    assert (counts[3]["labels"], counts[3]["profiles"], counts[3]["splits"]) == (84, 1, 0)
    assert 42 < counts[4]["generations"] < counts[5]["generations"]
    assert 84 < counts[5]["labels"] < 2 * counts[5]["generations"]
    assert counts[5]["generations"] < counts[6]["generations"]
    assert 0 == counts[6]["divergences"] < counts[7]["divergences"] < counts[8]["divergences"]
    assert counts[8]["labels"] == 2 * counts[8]["generations"]
    assert not (folder / "report.html").exists()

    code, _, err = mote("none", *STUDY, "--out", str(folder))
    assert (code, err) == (0, "")
    same_rows(folder, whole)
    assert (folder / "report.html").exists()
    tokens, expected_tokens = (tokens_of(one) for one in (folder, whole))
    assert [one[:2] for one in tokens] == [one[:2] for one in expected_tokens]
    assert len(tokens) == 3
    for one, twin in zip(tokens, expected_tokens, strict=True):
        assert (one.chosen == twin.chosen).all()
    manifest, other = read_manifest(folder), read_manifest(whole)
    assert len(manifest["sessions"]) == 10
    assert {key: manifest[key] for key in ("recipe_digest", "profiles", "prompts")} == {
        key: other[key] for key in ("recipe_digest", "profiles", "prompts")
    }
    assert manifest["finished"]


def same_rows(folder: Path, whole: Path) -> None:
    for (name, expected), found in zip(rows(whole).items(), rows(folder).values(), strict=True):
        # Log-probabilities of a batch that was cut elsewhere differ in their last digits; nothing else may.
        pd.testing.assert_frame_equal(found, expected, obj=name, atol=1e-4)


def stored(folder: Path) -> int:
    """How many rows of any kind are stored."""
    if not answered(folder):
        return 0
    with closing(sqlite3.connect(f"file:{folder / 'run.sqlite'}?mode=ro", uri=True)) as db:
        tables = ("generations", "labels", "surprises", "chances", "divergences")
        return sum(int(db.execute(f"select count(*) from {table}").fetchone()[0]) for table in tables)  # noqa: S608


@pytest.mark.timeout(3600)
@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_with_the_same_rows(whole: Path, tmp_path: Path) -> None:
    folder, draw = tmp_path / "run", random.Random(18)  # noqa: S311
    seen = []
    for moment in sorted(draw.sample(range(stored(whole)), 20)):
        began, delay = stored(folder), draw.uniform(0, 0.5)
        process = start("none", *STUDY, "--out", str(folder))
        # Rows come many at a time: where the moment has gone by already, any moment of this start will do.
        end = time.monotonic() + (draw.uniform(0, 30) if began >= moment else 600)
        while process.poll() is None and time.monotonic() < end and (began >= moment or stored(folder) < moment):
            time.sleep(0.02)
        time.sleep(delay)
        process.kill()
        process.communicate()
        seen.append((began, stored(folder), process.returncode))
    assert [before for _, before, _ in seen[:-1]] == [began for began, _, _ in seen[1:]], "no kill lost a row"
    assert sum(code == -signal.SIGKILL for _, _, code in seen) >= 15, seen
    assert sum(0 < after < stored(whole) for _, after, _ in seen) >= 10, seen
    code, _, err = mote("none", *STUDY, "--out", str(folder))
    assert (code, err) == (0, "")
    same_rows(folder, whole)
    print(f"kills: {seen}")


def test_every_generation_carries_the_receipt_of_its_profile(whole: Path) -> None:
    found = rows(whole)
    generations = found["generations"].join(found["profiles"].set_index("name")["digest"], on="profile")
    receipts = generations["receipt"].map(json.loads)
    assert (receipts.map(lambda receipt: receipt["digest"]) == generations["digest"]).all()
    edited = receipts.map(lambda receipt: receipt["tokens_edited"])
    tuned = generations["digest"] != EMPTY_PROFILE.digest
    assert (edited[~tuned] == 0).all()
    # Every token but the last one drawn is routed, under the edit.
    routed = generations["prompt_tokens"] + generations["generated_tokens"] - 1
    assert (edited[tuned] == routed[tuned]).all()


def test_suppressed_experts_kept_no_weight_and_stimulated_ones_were_never_absent(whole: Path) -> None:
    generations = rows(whole)["generations"]
    effects = pd.DataFrame([effect for entry in generations["mechanism"] for effect in json.loads(entry)])
    suppressed = effects[effects["action"] == "suppress"]
    assert suppressed["selected"].sum() > 0
    assert (suppressed["weight_after"] == 0.0).all()
    stimulated = effects[effects["action"] == "stimulate"]
    assert (stimulated["selected"] + stimulated["entered"] == stimulated["tokens"]).all()


def test_the_baselines_maps_count_every_prompt_token(whole: Path) -> None:
    maps = rows(whole)["maps"]
    assert len(maps) == 42
    assert (maps["counted"] == maps["total"]).all()
    assert set(maps["profile"]) == {"baseline"}


def test_the_tokens_kept_are_their_prompts_and_add_up_to_the_maps(whole: Path) -> None:
    kept = tokens_of(whole)
    assert len(kept) == 3
    with RunStore(whole, read_only=True) as store:
        asked = {row.prompt_id: row.messages[-1]["content"] for row in store.prompts()}
        ids, maps, _ = store.maps("baseline", "prompt", [one.prompt_id for one in kept])
    assert ids == [one.prompt_id for one in kept]
    for one, counts in zip(kept, maps, strict=True):
        assert asked[one.prompt_id] in "".join(one.tokens)
        assert (activation_map(one.chosen, counts.shape[1]) == counts).all()


def test_another_recipe_is_refused_with_the_difference_and_the_run_stays(whole: Path) -> None:
    before = (whole / "manifest.json").read_bytes()
    code, _, err = mote("none", *STUDY, "--set=study.top_k=5", "--out", str(whole))
    assert code == 2
    assert "study.top_k: 4 -> 5" in err
    assert err.count("\n") == 1
    assert (whole / "manifest.json").read_bytes() == before


def test_ctrl_c_keeps_what_was_stored_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start("none", *STUDY, "--out", str(folder))
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if answered(folder):
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert time.monotonic() - began < 30
    assert "Stopped. What was generated is stored; go on with: mote run demo" in out
    assert str(folder) in out.replace("\n", "")
    assert len(rows(folder)["generations"]) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "deom"], "Did you mean 'demo'?"),
        (["run", "demo", "--set=model.path=/nowhere/at/all"], "'/nowhere/at/all' is neither a folder"),
        (["run", "demo", "--set=model.options.enforce_eagre=true"], "Did you mean 'enforce_eager'?"),
        (["run", "demo", "--set=model.options.dtype=float31"], "dtype: Input should be 'auto', 'half', 'float16'"),
        (["run", "demo", "--set=model.options.model=x"], "engine option 'model' is set by the model's path"),
        (["run", "demo", "--set=study.experts=[[6, 0]]"], "the nearest that has is 5"),
        (["run", "demo", "--set=study.experts=[[0, 64]]"], "the nearest is 63"),
        (["run", "demo", "--set=task.name=refusal_gird"], "Did you mean 'refusal_grid'?"),
        (["run", "demo", "--limit=757"], "refusal_grid has 756 prompts"),
        (["run", "demo", "--lmit=7"], "--limit"),
    ],
)
def test_a_mistake_is_one_line_exit_2_and_writes_nothing(arguments: list[str], said: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code, out, err = mote("none", *arguments, "--out", str(folder))
    assert code == 2, err
    assert said in err
    assert err.count("\n") == 1
    assert out == ""
    assert not folder.exists()
