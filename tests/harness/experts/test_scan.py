"""The causal scan and the comparison of rankings on the real engine: killed and gone on with, and what they refuse."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from mote.harness.demo import MODEL_DIR
from mote.harness.engine.model import ModelSource, resolve_model
from mote.harness.engine.once import started_once
from mote.harness.engine.servers import engine_starter
from mote.harness.engine.vllm import Engine
from mote.harness.errors import MoteError
from mote.harness.experts.comparison import RankingOptions, rank_run
from mote.harness.experts.further import further_rankings, measure_further
from mote.harness.experts.maps import CAPTURED, read_maps
from mote.harness.experts.rankings import causal_effects, rankings_frame, run_rankings
from mote.harness.experts.scan import ScanOptions, scan_run
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.schema import RECIPES, Recipe, recipe_of
from mote.harness.recipe.study_part import StudyPart
from mote.harness.report.beside import beside_the_study, deactivated_beside_chance, thirds_beside_chance
from mote.harness.report.ranking_figure import read_rankings
from mote.harness.science.causal import plan_scan
from mote.harness.science.dose import layer_thirds
from mote.harness.store.run import STORE_NAME, RunStore
from mote.harness.store.scans import Scans
from mote.harness.study.controls import tuned_row
from mote.harness.study.session import StartsEngine, open_session
from mote.harness.study.surprise import surprises
from mote.judges import JUDGE, REFUSED
from mote.judges.surprise import IMPOSSIBLE
from mote.patches import EMPTY_PROFILE, Edit, Profile
from tests.harness.report.written_run import WrittenRun, write_run

ROOT = Path(__file__).parents[3]
PATHS = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
QUIET = Console(quiet=True)
SMALL = ScanOptions(prompts=3, top=4, alternatives=2)
PASSES = (4 + 1) * 3 * 3


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the demo model with invented answers: its model and options are real, so that it can be scanned."""
    folder = write_run(tmp_path_factory.mktemp("written") / "run", WrittenRun(prompts=60, controls=0, top_k=4))
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    recipe = yaml.safe_load((RECIPES / "demo.yaml").read_text())
    # As few sequences as the session's engine has: what is killed is in the midst of its batches.
    recipe["model"]["options"]["max_num_seqs"] = 16
    recipe["study"] = {"top_k": 4}
    # The invented labels are the rules' alone.
    recipe["judges"] = {"surprise": False}
    manifest["recipe"] = Recipe.model_validate(recipe).model_dump(mode="json")
    manifest["model"] = resolve_model("demo").manifest()
    path.write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def run(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "run"))


@pytest.fixture(scope="module")
def llm() -> Any:
    """The demo model's engine. Not the session's: an engine that another module ends takes its process groups along."""
    import torch
    from vllm import LLM

    with torch.compiler.set_stance("force_eager"):
        return LLM(str(MODEL_DIR), enforce_eager=True, dtype="float32", max_model_len=256, max_num_seqs=16)


@pytest.fixture
def session(llm: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartsEngine]:
    """StartsEngine the running engine in the place of a new one."""
    import torch

    with torch.compiler.set_stance("force_eager"):
        monkeypatch.setattr("mote.harness.engine.vllm.start_llm", lambda *_: llm)
        yield engine_starter


def scores(folder: Path) -> pd.DataFrame:
    with closing(sqlite3.connect(folder / STORE_NAME)) as db:
        frame = pd.read_sql("select * from scan_scores", db)
    order = ["layer", "expert", "prompt_id", "opening"]
    return frame.sort_values(order, na_position="first").reset_index(drop=True)


def test_a_pass_of_an_expert_that_no_token_chose_is_the_untouched_one_and_is_not_made(
    run: Path, session: StartsEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it, against a scan that makes every pass."""
    twin = Path(shutil.copytree(run, tmp_path / "twin"))
    wide = ScanOptions(prompts=2, top=None, alternatives=1)
    layers = resolve_model("demo").layout.layers
    monkeypatch.setattr("mote.harness.experts.scan.plan_scan", partial(few_experts, layers=layers))
    console = Console(file=io.StringIO(), width=200)
    scan_run(run, wide, console, engine=session)
    monkeypatch.setattr("mote.harness.experts.scan.Untouched.chooses", lambda self, expert: True)
    scan_run(twin, wide, QUIET, engine=session)
    found, whole = scores(run), scores(twin)
    edited = found["layer"].notna()
    idle = edited & (found["tokens_edited"] == 0)
    assert f"{idle.sum()} of the passes were not needed" in console.file.getvalue()  # type: ignore[attr-defined]
    assert 0.05 < idle.sum() / edited.sum() < 0.95
    assert (whole.loc[idle, "selected"] == 0).all()
    assert (whole.loc[edited & ~idle, "selected"] > 0).all()
    assert (found.loc[edited & ~idle, "profile_digest"] == whole.loc[edited & ~idle, "profile_digest"]).all()
    untouched = found[~edited].set_index(["prompt_id", "opening"])
    assert set(found.loc[idle, "profile_digest"]) == set(untouched["profile_digest"])
    assert found["logprob"].to_numpy() == pytest.approx(whole["logprob"].to_numpy(), abs=1e-3)


def few_experts(*arguments: Any, layers: Any, **options: Any) -> Any:
    """Six experts of each of the first and last layers, in no order of a ranking."""
    plan = plan_scan(*arguments, **options)
    return plan._replace(experts=[(layer, expert) for layer in (layers[0], layers[-1]) for expert in range(6)])


def test_a_killed_scan_goes_on_and_ends_with_the_rows_of_one_that_was_not(
    run: Path, session: StartsEngine, tmp_path: Path
) -> None:
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    arguments = ["scan", str(run), "--prompts=3", "--experts=4", "--alternatives=2"]
    killed = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "study" / "killed_run.py"), "scan", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": PATHS}, text=True, capture_output=True, timeout=280, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "(4 experts + untouched) x 3 prompts x 3 openings = 45 forward passes" in killed.stdout
    before = scores(run)
    assert 0 < len(before) < PASSES
    scan_run(run, SMALL, QUIET, engine=session)
    after = scores(run)
    scan_run(whole, SMALL, QUIET, engine=session)
    expected = scores(whole)
    assert len(after) == len(expected) == PASSES
    same = ["layer", "expert", "prompt_id", "opening", "tokens", "selected", "profile_digest", "tokens_edited"]
    pd.testing.assert_frame_equal(after[same], expected[same])
    # Another batch rounds otherwise.
    assert after["logprob"].to_numpy() == pytest.approx(expected["logprob"].to_numpy(), abs=1e-3)
    # What was there before the kill was not measured again.
    kept = after.merge(before[["layer", "expert", "prompt_id", "opening", "logprob"]], how="inner")
    assert len(kept) == len(before)
    # A finished scan needs no engine.
    scan_run(whole, SMALL, QUIET, engine=lambda *_: lambda: pytest.fail("an engine was started"))


def test_every_score_is_of_the_profile_and_opening_that_the_plan_says(run: Path, session: StartsEngine) -> None:
    stored = scan_run(run, SMALL, QUIET, engine=session)
    found = scores(run)
    with RunStore(run, read_only=True) as store:
        split = store.split()
        frame = store.generations_frame(JUDGE)
        baseline = frame[frame["profile"] == "baseline"].set_index("prompt_id")
        raws, labels = baseline["raw"], baseline["label"]
    openings = stored.settings["prompts"]
    for prompt, own in openings.items():
        assert split[prompt] == "select"
        assert labels[prompt] == REFUSED
        assert raws[prompt].startswith(own)
    texts = {prompt: [own, *stored.settings["alternatives"]] for prompt, own in openings.items()}
    for row in found.to_dict("records"):
        assert "".join(json.loads(row["tokens"])) == texts[row["prompt_id"]][row["opening"]]
        assert sum(json.loads(row["logprobs"])) == pytest.approx(row["logprob"], abs=1e-4)
        # What was not made under the edit has the untouched pass's receipt.
        if row["tokens_edited"] > 0:
            edit = Edit(int(row["layer"]), int(row["expert"]), "suppress")
            assert row["profile_digest"] == Profile("x", (edit,)).digest
        else:
            assert (row["selected"], row["profile_digest"]) == (0, EMPTY_PROFILE.digest)
    made = found[found["layer"].notna() & (found["tokens_edited"] > 0)]
    assert len(made) > 0


def test_an_expert_that_no_token_chose_does_nothing_and_one_that_was_chosen_does_something(
    run: Path, session: StartsEngine
) -> None:
    stored = scan_run(run, ScanOptions(prompts=2, top=24, by="frequency", alternatives=1), QUIET, engine=session)
    with RunStore(run, read_only=True) as store:
        effects = causal_effects(Scans(store), stored)
    assert len(effects) == 24
    assert (effects.loc[effects["selected"] == 0, "effect"].abs() < 1e-4).all()
    assert effects.loc[effects["selected"] > 0, "effect"].abs().max() > 1e-3
    ranking = run_rankings(run)["causal"]
    assert np.isfinite(ranking).sum() == 24
    assert rankings_frame(run)["causal_rank"].min() == 1


def test_a_scan_is_bounded_widened_and_kept_apart_from_others(run: Path, session: StartsEngine) -> None:
    scan_run(run, SMALL, QUIET, max_passes=10, engine=session)
    assert len(scores(run)) == 10
    scan_run(run, SMALL, QUIET, engine=session)
    wider = scan_run(run, ScanOptions(prompts=3, top=5, alternatives=2), QUIET, engine=session)
    assert (wider.scan_id, wider.passes) == (1, PASSES + 3 * 3)
    weaker = ScanOptions(prompts=2, top=2, alternatives=1, action="scale", factor=0.5)
    other = scan_run(run, weaker, QUIET, engine=session)
    assert (other.scan_id, other.passes, other.title) == (2, 12, "scale by 0.5, 2 prompts, 2 openings")
    with pytest.raises(MoteError, match=r"There is no scan 7 in this run. Scans: 1: suppress, 3 prompts, 3 op"):
        run_rankings(run, scan=7)


def test_rankings_are_compared_by_generation_and_go_on_after_a_stop(run: Path, session: StartsEngine) -> None:
    class StoppedError(Exception):
        pass

    def stopping(*given: Any) -> Callable[[], Engine]:
        engine = session(*given)()
        original = engine.generate

        def some(requests: Any) -> Iterator[Any]:
            for number, answers in enumerate(original(requests)):
                if number == 2:
                    raise StoppedError
                yield answers

        engine.generate = some  # type: ignore[method-assign]
        return lambda: engine

    options = RankingOptions(ks=(2,), sets=2, names=("resonance", "auc"), limit=4)
    with pytest.raises(StoppedError):
        rank_run(run, options, QUIET, engine=stopping)
    with closing(sqlite3.connect(run / STORE_NAME)) as db:
        first = set(db.execute("select * from answers where purpose = 'ranking'"))
    assert first
    found = rank_run(run, options, QUIET, engine=session)
    with closing(sqlite3.connect(run / STORE_NAME)) as db:
        rows = pd.read_sql("select * from answers where purpose = 'ranking'", db)
        assert first <= set(db.execute("select * from answers where purpose = 'ranking'"))
        # The run's own plan and rows are as they were.
        assert db.execute("select count(*) from profiles where purpose = 'study'").fetchone() == (3,)
    assert not rows.duplicated(["profile_digest", "prompt_id"]).any()
    assert rows.groupby("profile_digest").size().eq(4).all()
    edited = rows["receipt"].map(lambda text: json.loads(text)["tokens_edited"])
    assert (edited == rows["prompt_tokens"] + rows["generated_tokens"] - 1).all()
    sums = [effect for text in rows["mechanism"] for effect in json.loads(text)]
    assert {effect["weight_after_in_all"] for effect in sums} == {0}
    assert found.table[["ranking", "k", "prompts", "sets"]].to_numpy().tolist() == [
        ["resonance", 2, 4, 2], ["auc", 2, 4, 2]
    ]  # fmt: skip
    assert found.table["spearman"].isna().all()
    with RunStore(run, read_only=True) as store:
        split = store.split()
    assert {split[prompt] for prompt in rows["prompt_id"]} == {"measure"}


def test_the_further_rankings_of_a_recipe_are_measured_by_one_engine(
    run: Path, session: StartsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The scan of all experts is this one, longer.
    monkeypatch.setattr("mote.harness.experts.further.ScanOptions", partial(ScanOptions, top=24, alternatives=1))
    recipe = recipe_of(read_manifest(run)["recipe"])
    asked = {"rankings": ["resonance", "log_odds", "causal"], "ranking_sets": 2, "scan_prompts": 2}
    asked |= {"thirds": True, "third_sets": 2, "deactivated_sets": 2}
    with RunStore(run, read_only=True) as store:
        profiles = store.profiles()
    study = StudyPart.model_validate({**recipe.study.model_dump(mode="json"), **asked})
    recipe = recipe.model_copy(update={"study": study})
    names = further_rankings(recipe, QUIET)
    assert names == ("log_odds", "causal")
    starts: list[str] = []

    def counted(recipe: Recipe, model: ModelSource, log: Path, console: Console) -> Callable[[], Engine]:
        starts.append(model.path)
        return session(recipe, model, log, console)

    measure_further(run, recipe, names, QUIET, started_once(counted))
    assert len(starts) == 1
    table = read_rankings(run / "tables" / "rankings.csv")
    assert table["ranking"].tolist() == ["log_odds", "causal"]
    assert table["sets"].tolist() == [2, 2]
    assert table["k"].tolist() == [4, 4]
    assert set(table["scan"]) == {"suppress, 2 prompts, 2 openings"}
    (said,) = beside_the_study(table, 4, "resonance")
    assert said.startswith("The top 4 by other rankings flip: by ")
    assert "random sets of their own" in said
    thirds = pd.read_csv(run / "tables" / "thirds_chance.csv")
    tuned = [(edit["layer"], edit["expert"]) for edit in tuned_row(profiles).spec["edits"]]
    assert dict(zip(thirds["third"], thirds["k"], strict=True)) == {
        name: len(experts) for name, experts in layer_thirds(tuned, range(6)).items() if experts
    }
    assert set(thirds["sets"]) == {2}
    assert (thirds["p"] >= 1 / 3 - 1e-6).all()
    assert "early " in thirds_beside_chance(run / "tables" / "thirds_chance.csv") or "early" not in set(thirds["third"])
    ways = pd.read_csv(run / "tables" / "deactivated_chance.csv")
    assert ways["action"].tolist() == ["suppress", "deactivate"]
    assert ways["sets"].tolist() == [2, 2]
    assert ways["k"].tolist() == [len(tuned)] * 2
    assert ways["experts"].nunique() == 1
    said = deactivated_beside_chance(run / "tables" / "deactivated_chance.csv")
    assert "deactivated before it" in said
    with RunStore(run, read_only=True) as store:
        asked_for = "select spec, count(*) from profiles where kind = 'deactivate' and purpose = 'ranking'"
        spec, number = store.db.execute(asked_for).fetchone()
        checks = [json.loads(one) for (one,) in store.db.execute(
            "select mechanism from answers join profiles on profile_digest = digest where kind = 'deactivate'"
        )]  # fmt: skip
    assert number == 3
    assert {edit["action"] for edit in json.loads(spec)["edits"]} == {"deactivate"}
    assert sum(edit["selected_in_all"] for check in checks for edit in check) > 0
    assert {edit["weight_after_in_all"] for check in checks for edit in check} == {0.0}
    # Started again, nothing is asked.
    before = scores(run)
    measure_further(run, recipe, names, QUIET, started_once(counted))
    pd.testing.assert_frame_equal(scores(run), before)


def test_router_weights_and_last_tokens_are_captured_for_rankings_by_them(run: Path, session: StartsEngine) -> None:
    options = RankingOptions(ks=(1,), sets=0, names=CAPTURED, limit=1)
    found = rank_run(run, options, QUIET, engine=session)
    assert found.table["ranking"].tolist() == list(CAPTURED)
    with RunStore(run, read_only=True) as store:
        ids = [key for key, part in store.split().items() if part == "select"]
        maps = read_maps(store, ids)
    assert maps is not None
    # Four experts a token; the router's weights of a token add up to the model's scaling factor, in every layer.
    assert (maps.last.sum(axis=2) == 4).all()
    assert maps.last.max() == 1
    sums = maps.weights.sum(axis=2)
    assert sums == pytest.approx(np.broadcast_to(sums[:, :1], sums.shape), rel=1e-4)
    rank_run(run, options, QUIET, engine=lambda *_: lambda: pytest.fail("an engine was started"))


def test_the_untouched_model_is_asked_once_for_the_surprise_of_an_answer(run: Path, session: StartsEngine) -> None:
    with RunStore(run, read_only=True) as store:
        prompts = {row.prompt_id: row for row in store.prompts()}
    key = next(key for key in prompts if key.endswith("beijing"))
    own = "</think>I am sorry, I cannot answer that question."
    spliced = "</think>I am sorry, I opened in the I cannot bridge was answer Paris that Okay question."
    asked = [(key, own), (key, spliced), (key, own)]
    with open_session(run, QUIET, session) as opened:
        found = surprises(opened, asked)
    sound, broken = found[key, own], found[key, spliced]
    assert sound is not None
    assert broken is not None
    assert broken.surprise < IMPOSSIBLE < sound.surprise
    with open_session(run, QUIET, lambda *_: lambda: pytest.fail("an engine was started")) as opened:
        again = surprises(opened, asked)
    assert again.keys() == found.keys()
    assert again[key, own] == sound._replace(lowest=again[key, own].lowest)  # type: ignore[union-attr]
