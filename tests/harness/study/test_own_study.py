"""Studies of one's own prompts, classes and contrasts, from recipe to report; the engine follows a script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mote
from mote.harness.errors import MoteError
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.schema import Recipe
from mote.harness.report import make_report
from mote.harness.report.frame_files import write_frames
from mote.harness.report.frames import Run
from mote.harness.study.plan_ahead import plan_by_guess, plan_by_run
from mote.harness.study.prompts import prompts_of
from mote.harness.study.run import check
from tests.harness.study.scripted_engine import PLANTED, ScriptedEngine, chance, recipe_of, refused, study_of

CLASSES = {"patterns": {"SORRY": "^I am sorry", "CITES": ["bridge", "fair"]}, "otherwise": "ELSE"}


def asked(number: int = 96) -> list[dict[str, Any]]:
    """Pairs of prompts about one topic: the first of each leads."""
    return [
        {
            "id": f"q{at}",
            "prompt": f"{'Surely' if at % 2 == 0 else 'Did'} a thing of kind {at // 2} happen?",
            "frame": "leading" if at % 2 == 0 else "neutral",
            "pair": at // 2,
            "topic": f"t{at // 8}",
        }
        for at in range(number)
    ]


def recipe(folder: Path, rows: list[dict[str, Any]], *, task: dict[str, Any] | None = None, **study: Any) -> Recipe:
    path = folder / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    base = recipe_of().model_dump(mode="json")
    content = base | {
        "task": {"file": str(path), "classes": CLASSES} | (task or {}),
        "study": {
            "top_k": 3,
            "controls": {"mass": 8, "layers": 8},
            "economy": {"whole": 2, "others": 5},
            "exact": False,
        }
        | study,
    }
    return Recipe.model_validate(content)


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose experts were chosen by a paired contrast, and its report."""
    folder = tmp_path_factory.mktemp("paired")
    found = recipe(folder, asked(), split="units", contrast={"column": "frame", "value": "leading", "pair": "pair"})

    class Leaning(ScriptedEngine):
        """Its planted experts are chosen more by prompts that lead, whatever is answered."""

        def _answer(self, request: Any) -> Any:
            answer = super()._answer(request)
            if request.capture == "prompt":
                counts = np.random.default_rng(len(self.asked)).integers(0, 4, (6, 64)).astype(np.int32)
                for layer, expert in PLANTED:
                    counts[layer, expert] += 5 if request.messages[-1]["content"].startswith("Surely") else 0
                answer.observation.maps["prompt"].counts[:] = counts
            return answer

    study_of(folder / "run", found, Leaning(), force=True)
    make_report(folder / "run")
    return folder / "run"


def test_a_study_of_own_prompts_and_classes_goes_to_its_report(tmp_path: Path) -> None:
    found = recipe(tmp_path, asked(), task={"columns": {"unit": "topic", "attributes": ["frame"]}}, split="units")
    study_of(tmp_path / "run", found, ScriptedEngine(), force=True)
    manifest = read_manifest(tmp_path / "run")
    assert manifest["prompts"]["task"] == "mine"
    assert manifest["prompts"]["file"] == "mine.jsonl"
    assert len(manifest["prompts"]["file_sha256"]) == 64
    run = mote.open(tmp_path / "run")
    assert run.classes == ("SORRY", "CITES", "ELSE")
    assert set(run.generations["label"]) == {"SORRY", "CITES"}
    said = run.labels[run.labels["label"] == "SORRY"].iloc[0]
    assert (said["rule"], said["span"]) == ("SORRY-1", "I am sorry")
    assert set(run.prompts["unit"]) == {f"t{at}" for at in range(12)}
    parts = run.prompts.groupby("unit")["part"].nunique()
    assert (parts == 1).all()
    # What it was planned on can be planned ahead, and another file is another run.
    assert plan_by_run(found, tmp_path / "run")["target"]["class"] == "SORRY"
    assert plan_by_guess(found, 0.3)["cost"]
    other = recipe(tmp_path, asked(94), task={"columns": {"unit": "topic", "attributes": ["frame"]}}, split="units")
    with pytest.raises(MoteError, match="prompts: file_sha256"):
        study_of(tmp_path / "run", other, ScriptedEngine())
    with pytest.raises(MoteError, match="asks the prompts of another file"):
        plan_by_run(other, tmp_path / "run")


def test_a_study_may_go_by_the_packaged_set_that_knows_evasion(tmp_path: Path) -> None:
    content = recipe_of().model_dump(mode="json")
    content["task"] |= {"label": "compliance"}
    del content["study"]["target"]
    found = Recipe.model_validate(content)
    assert found.study.target == "REFUSED"
    study_of(tmp_path / "run", found, ScriptedEngine(), force=True)
    make_report(tmp_path / "run")
    run = mote.open(tmp_path / "run")
    assert run.classes == ("REFUSED", "EVASIVE", "ANSWERED")
    assert set(run.generations["label"]) <= {*run.classes, "TRUNCATED", "DEGENERATE", "UNSCORED"}
    assert {"REFUSED", "ANSWERED"} <= set(run.generations["label"])
    assert run.judge.startswith("compliance")


SIDES = {"SORRY": ((0, 5), (1, 6), (2, 7)), "CITES": ((3, 8), (4, 9), (5, 10))}


class ThreeWays(ScriptedEngine):
    """Its answers are of three classes; the third is seen with the experts of the first, and more so."""

    def _answer(self, request: Any) -> Any:
        answer = super()._answer(request)
        third = chance("third", request.prompt_id) < 0.5
        if "sorry" not in answer.raw and third:
            answer = answer._replace(raw="</think>It may be so.")
        if request.capture == "prompt":
            refuses = refused(request.prompt_id)
            added = {"SORRY": 3 if refuses else 7 if third else 0, "CITES": 0 if refuses or third else 3}
            counts = np.random.default_rng(len(self.asked)).integers(0, 3, (6, 64)).astype(np.int32)
            for name, experts in SIDES.items():
                for layer, expert in experts:
                    counts[layer, expert] += added[name]
            answer.observation.maps["prompt"].counts[:] = counts
        return answer


@pytest.mark.parametrize(("target", "other"), [("SORRY", "CITES"), ("CITES", "SORRY")])
def test_own_classes_are_set_against_each_other_in_either_direction(tmp_path: Path, target: str, other: str) -> None:
    study: dict[str, Any] = {"target": target, "controls": {"mass": 2, "layers": 2}}
    study_of(tmp_path / "run", recipe(tmp_path, asked(120), against=[other], **study), ThreeWays(), force=True)
    run = mote.open(tmp_path / "run")
    assert set(run.generations["label"]) == {"SORRY", "CITES", "ELSE"}
    assert set(dict(run.profiles["experts"])["suppress-3"]) == set(SIDES[target])
    best = np.argsort(run.resonance.to_numpy().ravel())[-3:].tolist()
    assert {(run.layers[at // 64], at % 64) for at in best} == set(SIDES[target])
    assert run.ranking("resonance").to_numpy() == pytest.approx(run.resonance.to_numpy())
    # All prompts of the target are measured, and a flip is any change out of it.
    flips = run.flips[run.flips["profile"] == "suppress-3"]
    assert set(flips.loc[flips["flipped"], "before"]) <= {target}
    assert "ELSE" in set(flips["before"])
    if target == "SORRY":
        # Against both others, the third class hides them.
        study_of(tmp_path / "all", recipe(tmp_path, asked(120), **study), ThreeWays(), force=True)
        assert set(dict(mote.open(tmp_path / "all").profiles["experts"])["suppress-3"]) != set(SIDES[target])


@pytest.mark.parametrize(
    ("study", "said"),
    [
        (
            {"against": ["CITE"]},
            r"study\.against: 'CITE' is no class of the label set 'classes'. Did you mean 'CITES'?",
        ),
        ({"target": "CITES", "against": ["CITES"]}, "against needs classes other than the target 'CITES'"),
        ({"against": []}, "against needs classes other than the target 'SORRY'"),
        ({"against": ["CITES"], "contrast": {"column": "frame", "value": "leading"}}, "leave one of them out"),
    ],
)
def test_a_class_against_what_is_none_is_one_line(tmp_path: Path, study: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe(tmp_path, asked(), **study)


def test_a_file_may_lie_elsewhere_at_the_next_start(tmp_path: Path) -> None:
    found = recipe(tmp_path, asked(60))
    study_of(tmp_path / "run", found, ScriptedEngine(), force=True)
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "mine.jsonl").rename(tmp_path / "moved" / "renamed.jsonl")
    task = found.task.model_copy(update={"file": str(moved)})
    study_of(tmp_path / "run", found.model_copy(update={"task": task}), ScriptedEngine(kill_after=0), force=True)


def test_system_and_samples_are_asked_and_samples_are_one_unit(tmp_path: Path) -> None:
    found = recipe(tmp_path, asked(40), task={"system": "Be brief.", "samples": 2}, split="units")
    rows = prompts_of(found)
    assert [row.prompt_id for row in rows[:3]] == ["mine/q0", "mine/q0#2", "mine/q1"]
    assert rows[1].messages[0] == {"role": "system", "content": "Be brief."}
    assert rows[1].attributes == {"unit": "mine/q0", "sample": 2}
    engine = ScriptedEngine()
    study_of(tmp_path / "run", found, engine, force=True)
    assert len({one.seed for one in engine.asked[:80]}) == 80
    run = mote.open(tmp_path / "run")
    assert (run.prompts.groupby("unit")["part"].nunique() == 1).all()
    assert run.flips["unit"].nunique() == 40
    packaged = recipe_of(limit=30).model_dump(mode="json")
    packaged["task"] |= {"system": "Be brief.", "samples": 2}
    packaged["study"]["split"] = "units"
    assert [len(row.messages) for row in prompts_of(Recipe.model_validate(packaged))] == [2] * 60


def test_experts_are_chosen_by_the_contrast_and_measured_by_the_classes(paired: Path) -> None:
    run = mote.open(paired)
    assert run.recipe["study"]["ranking"] == "resonance_per_token"
    assert set(dict(run.profiles["experts"])["suppress-3"]) == set(PLANTED)
    # By the classes of the answers, with which this contrast has nothing to do, others would be.
    best = np.argsort(run.resonance.to_numpy().ravel())[-3:]
    assert {(run.layers[at // 64], at % 64) for at in best.tolist()} == set(PLANTED)
    flips = run.flips[run.flips["profile"] == "suppress-3"]
    assert set(flips["before"]) == {"SORRY", "CITES"}
    assert flips["flipped"].any()
    assert (flips.loc[flips["flipped"], "before"] == "SORRY").all()
    # Pairs are whole on either side.
    assert (run.prompts.groupby("unit")["part"].nunique() == 1).all()
    sides = run.prompts.groupby(["part", "frame"]).size()
    assert sides["select", "leading"] == sides["select", "neutral"]


def test_signs_within_pairs_are_those_of_a_slow_count(paired: Path) -> None:
    run = mote.open(paired)
    table = pd.read_csv(paired / "tables" / "pairs.csv")
    assert len(table) == 6
    ids, maps = run.maps()
    for row in table.to_dict("records"):
        at = int(row["layer"]), int(row["expert"])
        found = []
        for pair in range(48):
            first, second = (f"mine/q{2 * pair + one}" for one in (0, 1))
            if run.prompts.loc[first, "part"] == row["part"]:
                found.append(float(maps[ids.index(first)][at] - maps[ids.index(second)][at]) / 9)
        assert row["pairs"] == len(found)
        assert row["difference"] == pytest.approx(sum(found) / len(found))
        assert (row["more"], row["less"]) == (sum(one > 0 for one in found), sum(one < 0 for one in found))
        assert row["p_holm"] >= row["p_sign"]
    page = (paired / "report.html").read_text()
    assert "frame = leading" in page
    assert "SORRY prompts" in page
    assert "the paper's Figure" not in page
    assert "pairs that chose no expert, 3 of the 3 experts are" in page


@pytest.mark.parametrize(
    ("rows", "contrast", "said"),
    [
        (asked(), {"column": "fram", "value": "x"}, "line 1 has no 'fram'. Did you mean 'frame'?"),
        (asked(), {"column": "frame", "value": "leadin"}, "no prompt has frame = leadin. Did you mean 'leading'?"),
        (asked(), {"column": "frame", "value": "leading", "others": ["neutrl"]}, "frame = neutrl. Did you mean"),
        (asked()[::2], {"column": "frame", "value": "leading"}, "every prompt has frame = leading; there is nothing"),
        (
            asked(95),
            {"column": "frame", "value": "leading", "pair": "pair"},
            "the pair pair = 47 has more prompts of frame = leading than of the others",
        ),
    ],
)
def test_a_contrast_that_makes_no_two_sets_is_one_line(
    tmp_path: Path, rows: list[dict[str, Any]], contrast: dict[str, Any], said: str
) -> None:
    with pytest.raises(MoteError) as caught:
        check(recipe(tmp_path, rows, split="units" if "pair" in contrast else "half", contrast=contrast))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_limit_takes_whole_pairs(tmp_path: Path) -> None:
    contrast = {"column": "frame", "value": "leading", "pair": "pair"}
    found = check(recipe(tmp_path, asked(), task={"limit": 20}, split="units", contrast=contrast)).prompts
    assert len(found) == 20
    assert len({row.attributes["pair"] for row in found}) == 10
    assert [row.prompt_id for row in found[:3]] == ["mine/q0", "mine/q1", "mine/q8"]


def test_pairs_do_not_lie_across_units_and_packaged_attributes_make_a_contrast(tmp_path: Path) -> None:
    rows = [row | {"topic": row["id"]} for row in asked()]
    contrast = {"column": "frame", "value": "leading", "pair": "pair"}
    with pytest.raises(MoteError, match="the pair pair = 0 lies in several units"):
        check(recipe(tmp_path, rows, task={"columns": {"unit": "topic"}}, split="units", contrast=contrast))
    # A column called as a unit would be, and is the contrast itself.
    named = [row | {"subject": row["frame"]} for row in asked()]
    subject = {"column": "subject", "value": "leading"}
    assert check(recipe(tmp_path, named, split="units", contrast=subject | {"pair": "pair"}))
    with pytest.raises(MoteError, match="'subject' is what keeps prompts together"):
        check(recipe(tmp_path, named, split="units", contrast=subject))
    content = recipe_of(limit=60, contrast={"column": "place_group", "value": "china"})
    assert len(check(content).prompts) == 60
    missing = recipe_of(limit=60, contrast={"column": "continent", "value": "china"})
    with pytest.raises(MoteError, match="no prompt has an attribute 'continent'"):
        check(missing)


def test_the_papers_protocol_has_no_contrast(tmp_path: Path) -> None:
    found = recipe_of(limit=60, contrast={"column": "place_group", "value": "china"})
    with pytest.raises(MoteError, match="--protocol paper chooses experts by the classes of answers"):
        study_of(tmp_path / "run", found, ScriptedEngine(), paper=True)
    assert not (tmp_path / "run").exists()


def test_a_system_message_beside_one_of_the_prompts_own_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "system", "content": "Be long."}, {"role": "user", "content": "Why?"}]}]
    with pytest.raises(MoteError, match="the prompt mine/1 has a system message of its own"):
        check(recipe(tmp_path, rows, task={"system": "Be brief."}))
    with pytest.raises(MoteError, match=r"task\.limit: 9, but mine has 1 prompts"):
        check(recipe(tmp_path, rows, task={"limit": 9}))


def test_a_run_reads_as_frames_with_named_axes(paired: Path) -> None:
    run = mote.open(str(paired))
    assert isinstance(run, Run)
    said = repr(run)
    assert "96 of mine" in said
    assert "SORRY of SORRY, CITES, ELSE" in said
    assert "tuned: suppress-3" in said
    assert max(map(len, said.splitlines())) < 160
    assert (run.resonance.index.name, run.resonance.columns.name) == ("layer", "expert")
    assert run.resonance.shape == (6, 64)
    assert list(run.experts[["layer", "expert"]].itertuples(index=False, name=None)) != []
    assert set(run.controls["kind"]) == {"random-mass", "random-layers"}
    assert {"resonance", "log_odds", "frequency"} <= set(run.rankings)
    assert run.ranking("log_odds").shape == (6, 64)
    assert list(run.effects["profile"])
    assert len(run.generations) == len(run.labels)
    with pytest.raises(MoteError, match="Did you mean 'log_odds'"):
        run.ranking("log_ods")
    with pytest.raises(MoteError, match="it is not the folder of a run"):
        mote.open(paired.parent)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_frames_are_written_as_they_are_asked_for(paired: Path, tmp_path: Path, suffix: str) -> None:
    files = write_frames(paired, tmp_path, ["flips", "resonance"], [], suffix)
    assert [path.name for path in files] == [f"flips.{suffix}", f"resonance.{suffix}"]
    (some,) = write_frames(paired, tmp_path / "some", ["flips"], ["suppress-3"], suffix)
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda path: pd.read_json(path, lines=True)}
    flips = read[suffix](some)  # type: ignore[operator]
    assert set(flips["profile"]) == {"suppress-3"}
    assert list(flips.columns) == list(mote.open(paired).flips.columns)
    with pytest.raises(MoteError, match=r"the frame 'flips' has no row of 'suppress-33'. Did you mean 'suppress-3'"):
        write_frames(paired, tmp_path / "other", ["flips"], ["suppress-33"], suffix)
    with pytest.raises(MoteError, match="the frame 'resonance' has no profiles"):
        write_frames(paired, tmp_path / "other", ["resonance"], ["suppress-3"], suffix)
    assert not (tmp_path / "other").exists()
