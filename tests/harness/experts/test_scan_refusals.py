"""What a scan and rankings refuse before an engine starts, and how prompts and openings are chosen."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mote.harness.cli.main import app
from mote.harness.demo import MODEL_DIR
from mote.harness.errors import MoteError
from mote.harness.experts.comparison import RankingOptions, rank_run
from mote.harness.experts.further import further_rankings
from mote.harness.experts.rankings import Halves, read_halves
from mote.harness.experts.scan import opening, spread
from mote.harness.preconditions import DataError
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.schema import Recipe
from mote.harness.science.causal import Measurement
from mote.harness.store.run import STORE_NAME, RunStore
from mote.harness.store.scans import Scans, ScoreRow
from tests.harness.experts.test_scan import QUIET, run, written  # noqa: F401 - fixtures


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"judges": {"llm": {"url": "http://127.0.0.1:1/v1", "model": "m"}}}, "not by judges.llm"),
        ({"study": {"split": "none"}}, "study.split none leaves no unseen prompt"),
    ],
)
def test_further_rankings_that_can_not_be_measured_are_left_out_which_is_said(
    changed: dict[str, Any], why: str
) -> None:
    study = {"rankings": ["resonance", "auc"], **changed.get("study", {})}
    content = {"name": "x", "model": {"path": "demo"}, "task": {"name": "refusal_grid"}, **changed, "study": study}
    said = io.StringIO()
    assert further_rankings(Recipe.model_validate(content), Console(file=said)) == ()
    assert "study.rankings: " in said.getvalue()
    assert why in " ".join(said.getvalue().split())


def test_an_opening_is_whole_characters_that_the_text_begins_with() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    assert opening(tokenizer, "</think>I am sorry, I cannot answer.", 4) == "</think>I am sorry"
    assert opening(tokenizer, "I", 4) == "I"
    for count in range(1, 9):
        found = opening(tokenizer, "🙂 is no word here", count)
        assert "🙂 is no word here".startswith(found)
        assert found


def test_prompts_are_spread_over_places_and_more_of_them_are_further_ones() -> None:
    prompts = [f"{place}{i}" for place, count in (("a", 9), ("b", 5), ("c", 1)) for i in range(count)]
    places = {key: key[0] for key in prompts}
    few, more = spread(prompts, places, 7, 0), spread(prompts, places, 10, 0)
    assert sorted(key[0] for key in few) == ["a", "a", "a", "b", "b", "b", "c"]
    assert set(few) < set(more)
    assert few == [key for key in prompts if key in few]
    assert spread(prompts, places, 99, 0) == prompts
    assert spread(prompts, places, 7, 1) != few


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scan", "--by", "resonence"], "There is no ranking 'resonence'. Did you mean 'resonance'?"),
        (["scan", "--by", "causal"], "a scan can't choose its experts by what it is to find"),
        (["scan", "--experts", "many"], "--experts many: write 'all', or how many"),
        (["scan", "--experts", "999"], "The pre-filter takes 1 to 384 experts, not 999."),
        (["scan", "--action", "supress"], "There is no --action 'supress'. Did you mean 'suppress'?"),
        (["scan", "--factor", "0.5"], "--action scale and --factor F go together"),
        (["scan", "--action", "scale", "--factor", "1"], "--factor 1 changes nothing"),
        (["scan", "--action", "scale", "--factor", "-2"], "factor must be from 0 to 1000; the nearest is 0"),
        (["rankings", "--k", "5,x"], "--k 5,x: write numbers with commas"),
        (["rankings", "--k", "400"], "--k 400: the model has 384 routed experts; k lies between 1 and 384."),
        (["rankings", "--rankings", "resonance,acu"], "There is no ranking 'acu'. Did you mean 'auc'?"),
        (
            ["rankings", "--rankings", "causal"],
            "This run has no causal scan of enough experts yet",
        ),
        (["rankings", "--scan", "3"], "There is no scan 3 in this run. Scans: none."),
    ],
)
def test_a_mistake_is_one_line_and_measures_nothing(run: Path, arguments: list[str], said: str) -> None:  # noqa: F811
    command, *options = arguments
    found = CliRunner().invoke(app, [command, str(run), *options])
    assert isinstance(found.exception, MoteError)
    assert said in str(found.exception)
    assert "\n" not in str(found.exception)
    with closing(sqlite3.connect(run / STORE_NAME)) as db:
        for table in ("scan_score_rows", "scans", "answers where purpose <> 'study'"):
            assert db.execute(f"select count(*) from {table}").fetchone() == (0,)  # noqa: S608


def scanned(folder: Path, experts: int) -> None:
    """Write a scan of a few experts on two prompts, each of which carries the class more than the one before."""
    with RunStore(folder) as store:
        halves = read_halves(store, read_manifest(folder))
        write_scan(store, halves, experts)


def write_scan(store: RunStore, halves: Halves, experts: int) -> None:
    prompts = halves.chosen[:2]
    settings = {"action": "suppress", "prompts": dict.fromkeys(prompts, "I"), "alternatives": ["Yes"]}
    edited = [None, *((halves.layers[0], expert) for expert in range(experts))]
    scans = Scans(store)
    scans.add(
        scans.begin(settings, {}),
        (
            ScoreRow(Measurement(prompt, expert, opening), [("I", -at if opening == 0 else -9.0)], 1, "d", 1)
            for at, expert in enumerate(edited, start=1)
            for prompt in prompts
            for opening in (0, 1)
        ),
    )


def test_a_scan_of_too_few_experts_is_told_before_an_engine_starts(run: Path) -> None:  # noqa: F811
    no_engine = lambda *_: lambda: pytest.fail("an engine was started")  # noqa: E731
    scanned(run, 6)
    with pytest.raises(DataError, match="causal: Only 6 experts have a positive score, fewer than the 20 asked for"):
        rank_run(run, RankingOptions(ks=(5, 20)), QUIET, engine=no_engine)
    with closing(sqlite3.connect(run / STORE_NAME)) as db:
        db.execute("delete from scan_score_rows where expert > 1")
        db.commit()
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(MoteError, match="no causal scan of enough experts"):
        rank_run(run, RankingOptions(ks=(1,), names=("causal",)), console, engine=no_engine)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Scan 1 (suppress, 2 prompts, 2 openings) is left out: 2 of its experts were seen" in said


def test_runs_that_cannot_be_scanned_are_refused(run: Path, tmp_path: Path) -> None:  # noqa: F811
    def refused(folder: Path, said: str) -> None:
        for command in ("scan", "rankings"):
            found = CliRunner().invoke(app, [command, str(folder)])
            assert isinstance(found.exception, MoteError)
            assert said in str(found.exception)

    refused(tmp_path / "nothing", "it is not the folder of a run")
    with closing(sqlite3.connect(run / STORE_NAME)) as db:
        db.execute("delete from label_rows where generation_id = 5")
        db.commit()
    refused(run, "has no labelled baseline with chosen experts yet: finish it with mote run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["recipe"]["study"]["split"] = "none"
    (run / "manifest.json").write_text(json.dumps(manifest))
    refused(run, "every prompt chose its experts, and none is unseen")
    manifest["model"]["files"]["model.safetensors"] = "sha256:0"
    (run / "manifest.json").write_text(json.dumps(manifest))
    refused(run, "was made with other files of 'demo' (model.safetensors differ)")
