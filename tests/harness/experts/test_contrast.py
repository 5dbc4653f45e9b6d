"""A study by contrast through rankings, scan and pruning: prompts choose by their set, and effects are of the class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rich.console import Console

import mote
from mote.harness.engine.trust import Own
from mote.harness.engine.vllm import Answer, Request, Scored, Scoring
from mote.harness.errors import MoteError
from mote.harness.experts.comparison import RankingOptions, rank_run
from mote.harness.experts.further import further_rankings, measure_further
from mote.harness.experts.prune import prune_run
from mote.harness.experts.rankings import read_halves, run_rankings
from mote.harness.experts.scan import ScanOptions, scan_run
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.schema import Recipe
from mote.harness.store.run import RunStore
from mote.harness.store.scans import Scans
from tests.harness.study.conftest import quick_power  # noqa: F401 - a fixture
from tests.harness.study.scripted_engine import FACT, PLANTED, ScriptedEngine, study_of
from tests.harness.study.test_own_study import asked, recipe

QUIET = Console(quiet=True)
OWN = Own(servers=("http://127.0.0.1:1/v1",))
CONTRAST = {"column": "frame", "value": "leading", "pair": "pair"}
RANKINGS = ["resonance_per_token", "log_odds", "pair_signs", "causal"]


class Leaning(ScriptedEngine):
    """Its planted experts are chosen more by prompts that lead, whatever is answered."""

    def _answer(self, request: Request) -> Answer:
        answer = super()._answer(request)
        if request.capture == "prompt":
            counts = np.random.default_rng(len(self.asked)).integers(0, 4, (6, 64)).astype(np.int32)
            for layer, expert in PLANTED:
                counts[layer, expert] += 5 if leads(request) else 0
            answer.observation.maps["prompt"].counts[:] = counts
        return answer

    def score(self, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Scored]]]:
        # Switched off, they make the refusal less likely, and no other opening.
        for (found,) in super().score(requests):
            at, scored = found
            if "sorry" not in requests[at].continuation:
                scored = scored._replace(logprobs=[-2.0 for _ in scored.logprobs])
            yield [(at, scored)]


class Meek(Leaning):
    """It refuses no prompt that leads."""

    def _answer(self, request: Request) -> Answer:
        answer = super()._answer(request)
        return answer._replace(raw=FACT) if leads(request) else answer


def leads(request: Request) -> bool:
    return str(request.messages[-1]["content"]).startswith("Surely")


def asked_for(folder: Path, **study: Any) -> Recipe:
    more: dict[str, Any] = {"rankings": RANKINGS, "ranking_sets": 2, "scan_prompts": 4}
    return recipe(folder, asked(), split="units", contrast=CONTRAST, **more, **study)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study by contrast with further rankings, all in one run."""
    folder = tmp_path_factory.mktemp("contrast")
    found, engine = asked_for(folder), Leaning()
    study_of(folder / "run", found, engine, force=True)
    names = further_rankings(found, QUIET)
    assert names == ("log_odds", "pair_signs", "causal")
    with pytest.MonkeyPatch.context() as patch:
        # The scan of all experts is this one, longer.
        patch.setattr("mote.harness.experts.further.ScanOptions", partial(ScanOptions, top=6, alternatives=1))
        measure_further(folder / "run", found, names, QUIET, lambda *_: lambda: engine)
    return folder / "run"


def test_one_run_measures_its_rankings_by_the_contrast(measured: Path) -> None:
    table = pd.read_csv(measured / "tables" / "rankings.csv")
    assert table["ranking"].tolist() == ["log_odds", "pair_signs", "causal"]
    planted = " ".join(f"({layer},{expert})" for layer, expert in PLANTED)
    # By the classes of the answers, with which this contrast has nothing to do, others would be at the top.
    for name in ("log_odds", "pair_signs", "causal"):
        experts = table.set_index("ranking")["experts"][name]
        assert sorted(experts.split()) == sorted(planted.split()), name
    # What they do are answers of the class, on the prompts that the study itself measures.
    run = mote.open(measured)
    found = run.generations.set_index("prompt_id")
    baseline = found.loc[found["profile"] == "baseline", "label"]
    measuring = run.prompts.index[run.prompts["part"] == "measure"]
    assert set(table["prompts"]) == {int((baseline[measuring] == "SORRY").sum())}


def test_a_scan_asks_prompts_of_the_first_set_that_are_answered_by_the_class(measured: Path) -> None:
    run = mote.open(measured)
    with RunStore(measured, read_only=True) as store:
        (scan,) = Scans(store).scans()
        halves = read_halves(store, read_manifest(measured))
    labels = run.generations[run.generations["profile"] == "baseline"].set_index("prompt_id")["label"]
    asked_of = run.prompts.loc[list(scan.settings["prompts"])]
    assert set(asked_of["frame"]) == {"leading"}
    assert set(asked_of["part"]) == {"select"}
    assert set(labels[asked_of.index]) == {"SORRY"}
    assert len(asked_of) == 4
    # Matched sets are those of the study: alike on all prompts of the class that choose, of either set.
    ids, maps = run.maps()
    ours = [at for at, key in enumerate(ids) if run.prompts.loc[key, "part"] == "select" and labels[key] == "SORRY"]
    assert {run.prompts.loc[ids[at], "frame"] for at in ours} == {"leading", "neutral"}
    assert halves.mass == pytest.approx(maps[ours].mean(axis=0))


def test_signs_within_pairs_are_a_ranking_and_a_slow_count_agrees(measured: Path) -> None:
    run = mote.open(measured)
    ids, maps = run.maps()
    at = {key: row for row, key in enumerate(ids)}
    signs: list[NDArray[Any]] = []
    for pair in range(48):
        first, second = (f"mine/q{2 * pair + one}" for one in (0, 1))
        if run.prompts.loc[first, "part"] == "select":
            signs.append(np.sign(maps[at[first]].astype(int) - maps[at[second]]))
    found = run_rankings(measured)
    assert found["pair_signs"] == pytest.approx(np.mean(signs, axis=0))
    # Of pairs of one prompt a side the difference a token is the mean difference within pairs.
    assert found["resonance_per_token"] == pytest.approx(run.resonance.to_numpy())


def test_a_pruning_starts_from_the_tuned_experts(measured: Path, tmp_path: Path) -> None:
    class Needing(Leaning):
        def _answer(self, request: Request) -> Answer:
            answer = super()._answer(request)
            off = {(edit.layer, edit.expert) for edit in request.profile.edits}
            return answer._replace(raw=FACT if PLANTED[0] in off else "</think>I am sorry.")

    engine = Needing()
    rounds = prune_run(measured, 3, 0.9, QUIET, engine=lambda *_: lambda: engine, own=OWN)
    assert rounds.iloc[-1]["experts"] == str(PLANTED[0])
    with RunStore(measured, read_only=True) as store:
        halves = read_halves(store, read_manifest(measured))
    # All three together the study has asked already.
    assert {(edit.layer, edit.expert) for one in engine.asked for edit in one.profile.edits} == set(PLANTED)
    assert rounds.iloc[0]["left"] == 3
    asked_of = {request.prompt_id for request in engine.asked}
    assert asked_of == {*halves.chosen, *halves.measured}
    frames = mote.open(measured).prompts["frame"]
    assert set(frames[halves.chosen]) == {"leading"}


def test_a_first_set_without_the_class_is_refused_before_an_engine_starts(tmp_path: Path) -> None:
    found = asked_for(tmp_path)
    folder = tmp_path / "run"
    study_of(folder, found, Meek(), force=True)
    no_engine: Any = lambda *_: lambda: pytest.fail("an engine was started")  # noqa: E731
    for ask in (
        lambda: scan_run(folder, ScanOptions(prompts=4), QUIET, engine=no_engine, own=OWN),
        lambda: prune_run(folder, 3, 0.9, QUIET, engine=no_engine, own=OWN),
        lambda: measure_further(folder, found, ("causal",), QUIET, no_engine),
    ):
        with pytest.raises(MoteError) as caught:
            ask()
        said = str(caught.value)
        assert "has 0 prompts of frame = leading that are answered SORRY" in said
        assert "study a class that this set is answered with (study.target)" in said
        assert "\n" not in said
    # Rankings go by the two sets, and what their experts do is measured on all answers of the class.
    engine = Meek()
    options = RankingOptions(ks=(2,), sets=0, names=("pair_signs",), limit=3)
    table = rank_run(folder, options, QUIET, engine=lambda *_: lambda: engine, own=OWN).table
    assert table["prompts"].tolist() == [3]


@pytest.mark.parametrize("contrast", [None, {"column": "frame", "value": "leading"}])
def test_signs_need_pairs(tmp_path: Path, contrast: dict[str, Any] | None) -> None:
    with pytest.raises(ValueError, match=r"rankings: pair_signs counts within pairs.*set contrast\.pair"):
        recipe(tmp_path, asked(), rankings=["resonance", "pair_signs"], contrast=contrast)


def test_further_rankings_leave_a_contrast_its_own(tmp_path: Path) -> None:
    found = recipe(tmp_path, asked(), rankings=["resonance", "auc"], contrast={"column": "frame", "value": "leading"})
    assert found.study.ranking == "resonance_per_token"
    assert further_rankings(found, QUIET) == ("resonance", "auc")
