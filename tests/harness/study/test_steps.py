"""The steps of a study with a scripted engine: what is asked, in which order, and what a killed run ends with."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from mote.harness.engine.vllm import Answer, Request
from mote.harness.errors import MoteError
from mote.harness.recipe.manifest import read_manifest, write_manifest
from mote.harness.recipe.schema import Recipe
from mote.harness.science.sequential import Answers, Design, finished, progress
from mote.harness.store.run import RunStore
from mote.harness.study.controls import answers_end, answers_of, design_of, target_prompts
from mote.harness.study.foresight import PLAN_NAME
from tests.harness.study.scripted_engine import (
    FACT,
    REFUSAL,
    Killed,
    ScriptedEngine,
    chance,
    own_chance,
    planted,
    recipe_of,
    refused,
    rows_of,
    study_of,
)

FULL = {"targets_only": False, "sequential": False, "curtailed": False, "stop_decided": False}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    study_of(folder, recipe_of(), ScriptedEngine())
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "run"
    study_of(folder, recipe_of(economy=FULL), ScriptedEngine())
    return folder


def control_counts(folder: Path) -> pd.DataFrame:
    """Answers of each control to measured prompts of the class and to others."""
    with RunStore(folder, read_only=True) as store:
        frame, split = store.labels_frame("rules"), store.split()
        targets = set(target_prompts(frame, split, "0-REFUSED"))
    rows = frame[frame["profile"].str.startswith("random-")]
    assert {split[prompt] for prompt in rows["prompt_id"]} == {"measure"}
    return rows.assign(targets=rows["prompt_id"].isin(targets)).groupby(["profile", "targets"]).size().unstack()


def design_from(folder: Path) -> tuple[Design, Answers]:
    manifest = read_manifest(folder)
    recipe = Recipe.model_validate(manifest["recipe"])
    with RunStore(folder, read_only=True) as store:
        frame, split, profiles = store.labels_frame("rules"), store.split(), store.profiles()
    targets = target_prompts(frame, split, "0-REFUSED")
    answers = answers_of(frame, "0-REFUSED")
    tuned = {prompt: answers["suppress-3", prompt] for prompt in targets}
    return design_of(recipe.study, tuned, targets, profiles, ended=answers_end(manifest)), answers


def test_random_sets_answer_target_prompts_and_the_first_ones_a_few_others(whole: Path) -> None:
    design, answers = design_from(whole)
    assert design.observed > 0
    assert finished(design, answers)
    found = control_counts(whole).fillna(0)
    others = found[False][found[False] > 0]
    assert sorted(others.index) == sorted(f"random-{kind}-{n:02d}" for kind in ("mass", "layers") for n in (1, 2, 3))
    assert set(others) == {5}
    first = found.loc[sorted(others.index), True]
    assert (first == len(design.prompts)).all()
    with RunStore(whole, read_only=True) as store:
        assert {row.part for row in store.profiles() if row.kind.startswith("random-")} == {"targets"}


def test_without_economy_every_control_answers_all_measured_prompts(full: Path) -> None:
    with RunStore(full, read_only=True) as store:
        measured = sum(part == "measure" for part in store.split().values())
        sets = [row.name for row in store.profiles() if row.kind.startswith("random-")]
    assert len(sets) == 40
    found = control_counts(full)
    assert set(found.sum(axis="columns")) == {measured}
    assert len(found) == 40


def test_the_economy_gives_the_verdicts_side_for_fewer_answers(whole: Path, full: Path) -> None:
    (some, few), (every, many) = design_from(whole), design_from(full)
    assert (some.observed, some.prompts, some.families) == (every.observed, every.prompts, every.families)
    for family, one in progress(every, many).items():
        assert (one.p <= 0.05) == (progress(some, few)[family].p <= 0.05)
    assert control_counts(whole).sum().sum() < 0.6 * control_counts(full).sum().sum()
    # Where the same set answered the same prompt, it gave the same answer.
    assert all(many[key] == flip for key, flip in few.items())


def test_controls_end_where_significance_is_out_of_reach(tmp_path: Path) -> None:
    study_of(tmp_path / "null", recipe_of(), ScriptedEngine(effect=0.0, rest=0.1))
    design, answers = design_from(tmp_path / "null")
    assert any(one.stopped for one in progress(design, answers).values())
    assert finished(design, answers)


def test_a_run_killed_anywhere_ends_with_the_rows_of_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kills = 0
    # Each start gets a little further: through the baseline, the tuned profiles, and every batch of controls.
    while True:
        engine = ScriptedEngine(kill_after=150)
        try:
            study_of(folder, recipe_of(), engine)
            break
        except Killed:
            kills += 1
    assert kills >= 5
    expected, found = rows_of(whole), rows_of(folder)
    for name, rows in expected.items():
        assert rows, name
        assert found[name] == rows, name
    plans = [read_manifest(one)["plan"] for one in (whole, folder)]
    assert plans[0]["digest"] == plans[1]["digest"]
    # Starting a finished run again asks nothing.
    again = ScriptedEngine()
    study_of(folder, recipe_of(), again)
    assert (again.asked, again.scored) == ([], [])


def test_the_plan_is_written_after_the_baseline_and_before_any_other_answer(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    seen: list[tuple[Any, Any]] = []

    def before(request: Request) -> None:
        if request.capture is None and not seen:
            seen.append((json.loads((folder / PLAN_NAME).read_text()), read_manifest(folder)["plan"]))

    out = io.StringIO()
    study_of(folder, recipe_of(), ScriptedEngine(before=before), Console(file=out, width=200))
    ((plan, noted),) = seen
    assert plan == noted == read_manifest(folder)["plan"]
    assert plan["recipe"] == read_manifest(folder)["recipe_digest"]
    assert plan["controls"]["sets"] == {"mass": 20, "layers": 20}
    assert plan["controls"]["retests"] == 3
    with RunStore(folder, read_only=True) as store:
        targets = target_prompts(store.labels_frame("rules"), store.split(), "0-REFUSED")
        answers = len(store.stored())
    assert plan["target"]["prompts"] == len(targets)
    assert plan["power"]["prompts"] == len(targets)
    # At most what was foretold, the baseline aside.
    assert answers - 120 <= plan["cost"]["answers"]["total"]
    assert "is found with 80%" in out.getvalue()
    assert f"The rest costs at most {plan['cost']['answers']['total']:,} answers" in out.getvalue()


def test_a_run_whose_tuned_answers_are_older_than_its_plan_has_none(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    study_of(folder, recipe_of(), ScriptedEngine())
    manifest = read_manifest(folder)
    del manifest["plan"]
    write_manifest(folder, manifest)
    study_of(folder, recipe_of(), ScriptedEngine())
    assert "plan" not in read_manifest(folder)


def test_few_target_prompts_end_in_one_line_before_any_control_and_force_goes_on(tmp_path: Path) -> None:
    folder, recipe = tmp_path / "run", recipe_of(limit=30, controls={"mass": 3, "layers": 3})
    engine = ScriptedEngine()
    with pytest.raises(MoteError, match=r"^\d 0-REFUSED prompts to measure on .* needs 10\. .*--force\.$"):
        study_of(folder, recipe, engine)
    assert {request.capture for request in engine.asked} == {"prompt"}
    study_of(folder, recipe, engine, force=True)
    assert read_manifest(folder)["forced"] is True
    assert read_manifest(folder)["finished"]
    # Once planned, the run goes on without saying it again.
    study_of(folder, recipe, ScriptedEngine())
    assert read_manifest(folder)["forced"] is True


def test_too_many_experts_are_told_after_the_baseline_which_another_top_k_goes_on_with(tmp_path: Path) -> None:
    folder, engine = tmp_path / "run", ScriptedEngine()
    with pytest.raises(MoteError, match=r"study\.top_k: 380 experts, but only \d+ are chosen more for 0-REFUSED"):
        study_of(folder, recipe_of(top_k=380), engine)
    asked = len(engine.asked)
    assert asked == 120
    study_of(folder, recipe_of(), engine)
    assert len([request for request in engine.asked if request.capture]) == 120
    assert read_manifest(folder)["recipe"]["study"]["top_k"] == 3
    with pytest.raises(MoteError, match=r"study\.top_k: 3 -> 4"):
        study_of(folder, recipe_of(top_k=4), engine)


def test_the_papers_protocol_shares_the_baseline_and_leaves_the_study_alone(whole: Path, tmp_path: Path) -> None:
    folder, engine, out = tmp_path / "run", ScriptedEngine(), io.StringIO()
    study_of(folder, recipe_of(), engine, Console(file=out, width=200), paper=True)
    said = out.getvalue()
    assert "This is no evidence" in said
    assert "about 40%" in said
    with RunStore(folder, read_only=True) as store:
        kinds = [(row.name, row.kind, row.part) for row in store.profiles()]
        frame = store.labels_frame("rules")
    assert kinds == [
        ("baseline", "baseline", "all"),
        *((f"paper-{what}-10", "paper", "all") for what in ("suppress", "stimulate", "random")),
    ]
    assert frame.groupby("profile").size().tolist() == [120] * 4
    study_of(folder, recipe_of(), engine)
    assert len([request for request in engine.asked if request.capture]) == 120
    assert rows_of(folder) == rows_of(whole)
    # And the paper's protocol after the study, which it leaves as it was.
    before = len(engine.asked)
    study_of(folder, recipe_of(), engine, paper=True)
    assert len(engine.asked) == before


def test_exact_chances_are_those_of_the_openings_at_the_sampling_temperature(whole: Path) -> None:
    stems = read_manifest(whole)["stems"]
    assert stems["enough"] is True
    assert stems["coverage"] == 1.0
    (opening,) = stems["openings"]
    assert "</think>I ".startswith(opening)
    with RunStore(whole, read_only=True) as store:
        chances, rows = store.chances_frame(), {row.name: row for row in store.profiles()}
        targets = target_prompts(store.labels_frame("rules"), store.split(), "0-REFUSED")
    measured = {"baseline", "suppress-3", *(name for name in rows if name.startswith("random-"))}
    assert set(chances["profile"]) == measured
    assert len(chances) == len(measured) * len(targets)
    from mote.harness.study.plan import profile_of

    for prompt, profile, found in chances.itertuples(index=False):
        own = own_chance(profile_of(rows[profile]), prompt)
        others = 19 * ((1 - own) / 19) ** (1 / 0.6)
        assert found == pytest.approx(own ** (1 / 0.6) / (own ** (1 / 0.6) + others), abs=1e-9)
    assert planted(profile_of(rows["suppress-3"])) == 3


def test_divergence_is_measured_outside_the_class_for_the_tuned_and_a_few_random_sets(whole: Path) -> None:
    with RunStore(whole, read_only=True) as store:
        found, split = store.divergences_frame(), store.split()
    assert set(found["profile"]) == {
        "suppress-3", *(f"random-{kind}-{n:02d}" for kind in ("mass", "layers") for n in range(1, 6))
    }  # fmt: skip
    assert not any(refused(prompt) for prompt in found["prompt_id"])
    assert {split[prompt] for prompt in found["prompt_id"]} == {"measure"}
    tuned = found[found["profile"] == "suppress-3"]
    assert len(tuned) == 40
    assert (tuned["logp_tuned"] < tuned["logp_untouched"]).all()
    assert (found["tokens"] > 1).all()


@pytest.mark.parametrize(
    ("sampling", "said"),
    [({"top_p": 0.9}, "truncated (top_p 0.9)"), ({"temperature": 1.2}, "not at 1.2")],
)
def test_what_can_not_be_known_exactly_is_left_out_and_said(
    sampling: dict[str, float], said: str, tmp_path: Path
) -> None:
    recipe = recipe_of(limit=90, controls={"mass": 2, "layers": 2})
    recipe = recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update=sampling)})
    engine = ScriptedEngine()
    study_of(tmp_path / "run", recipe, engine)
    assert said in read_manifest(tmp_path / "run")["stems"]["left_out"]
    assert engine.scored == []


def test_a_run_older_than_economies_means_the_full_design_and_is_gone_on_with(full: Path, tmp_path: Path) -> None:
    manifest = json.loads((full / "manifest.json").read_text())
    for key in ("economy", "margin", "exact"):
        del manifest["recipe"]["study"][key]
    del manifest["recipe"]["study"]["controls"]["mass"]
    write_manifest(tmp_path, manifest)
    study = Recipe.model_validate(read_manifest(tmp_path)["recipe"]).study
    economy = study.economy
    assert (economy.targets_only, economy.sequential, economy.curtailed) == (False, False, False)
    assert (study.controls.mass, study.exact) == (0, False)
    assert math.isclose(study.margin, 0.05)


def test_answers_are_ended_at_an_opening_that_only_the_class_has(full: Path, tmp_path: Path) -> None:
    folder, engine = tmp_path / "ended", ScriptedEngine()
    study_of(folder, recipe_of(economy={"whole": 10, "others": 5}), engine)
    noted = read_manifest(folder)["ended_at"]
    assert noted["openings"] == ["</think>I "]
    assert (noted["left_class"], noted["left_out"]) == (0, "")
    assert noted["read"] >= 299
    (ours, some), (every, many) = design_from(folder), design_from(full)
    assert not ours.curtailed
    with RunStore(folder, read_only=True) as store:
        frame = store.generations_frame("rules")
    ended = frame[frame["finish_reason"] == "decided"]
    assert set(ended["raw"]) == {"</think>I "}
    assert set(ended["label"]) == {"0-REFUSED"}
    whole = {name for sets in ours.families.values() for name in sets[:10]}
    assert not set(ended["profile"]) & whole
    # Everything that does not open so is there to its end, and each answer says what the whole one says.
    rest = frame[frame["profile"].str.startswith("random-") & (frame["finish_reason"] != "decided")]
    assert set(rest["raw"]) <= {REFUSAL, FACT}
    assert set(rest.loc[~rest["profile"].isin(whole), "raw"]) == {FACT}
    assert all(many[key] == flip for key, flip in some.items())
    for family, one in progress(every, many).items():
        assert (one.p <= 0.05) == (progress(ours, some)[family].p <= 0.05)


def test_a_killed_run_with_ended_answers_has_the_rows_of_one_that_was_not(tmp_path: Path) -> None:
    recipe = recipe_of(economy={"whole": 10, "others": 5})
    study_of(tmp_path / "undisturbed", recipe, ScriptedEngine())
    folder = tmp_path / "run"
    for _ in range(40):
        try:
            study_of(folder, recipe, ScriptedEngine(kill_after=170))
            break
        except Killed:
            continue
    assert rows_of(folder) == rows_of(tmp_path / "undisturbed")


class TurningEngine(ScriptedEngine):
    """Under random sets some answers open as a refusal does and then answer."""

    def _answer(self, request: Request) -> Answer:
        answer = super()._answer(request)
        turns = request.profile.name.startswith("random-") and chance("turn", request.prompt_id, request.seed) < 0.1
        if not turns or not answer.raw.startswith("</think>I "):
            return answer
        return answer._replace(raw="</think>I recall: in that year a new bridge was opened, and many people came.")


def test_no_answer_is_ended_where_such_an_opening_has_been_seen_to_turn(tmp_path: Path) -> None:
    study_of(tmp_path / "run", recipe_of(economy={"whole": 10, "others": 5}), TurningEngine())
    noted = read_manifest(tmp_path / "run")["ended_at"]
    assert noted["left_class"] > 0
    assert noted["openings"] == []
    assert "left the class" in noted["left_out"]
    with RunStore(tmp_path / "run", read_only=True) as store:
        assert "decided" not in set(store.generations_frame("rules")["finish_reason"])
