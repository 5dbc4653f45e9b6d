"""A search of a run on planted truth: the engine's refusals hang on three experts, other answers on none of them."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mote.harness.cli.search import factors_of
from mote.harness.engine.trust import Own
from mote.harness.engine.vllm import Answer, Request, Scored, Scoring
from mote.harness.errors import MoteError
from mote.harness.search.options import SearchOptions
from mote.harness.search.output import as_json, searches_frame, show_search, trials_frame, write_search
from mote.harness.search.run import Search, plan_search, search_run
from mote.harness.store.run import RunStore
from mote.harness.store.search_passes import read_passes
from mote.patches import Observation, Profile, Receipt
from tests.harness.study.scripted_engine import (
    PLANTED,
    Killed,
    ScriptedEngine,
    chance,
    recipe_of,
    refused,
    study_of,
)

QUIET = Console(quiet=True)
OWN = Own(servers=("http://127.0.0.1:1/v1",))
SMALL = SearchOptions(
    pool=6, trials=8, prompts=8, others=6, checked=1, held_others=10, shuffles=2, pools=2, factors=(0,)
)


def pieces(text: str, count: int) -> str:
    return "".join(re.findall(r"\S+\s*", text)[:count])


@dataclass
class PlantedEngine(ScriptedEngine):
    """Refusals become less likely by each planted expert that is off, answers hardly by any; dies after some passes."""

    effect: float = 0.3
    rest: float = 0.0
    die_after: int | None = None

    def _answer(self, request: Request) -> Answer:
        # A prompt has room for the counts of the planted experts.
        found = super()._answer(request)
        maps = {role: replace(one, counted=20, total=20) for role, one in found.observation.maps.items()}
        return found._replace(observation=replace(found.observation, maps=maps))

    def score(self, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Scored]]]:
        for at, request in enumerate(requests):
            if self.die_after is not None and len(self.scored) >= self.die_after:
                raise Killed
            self.scored.append(request)
            tokens = self.pieces(request.continuation)
            logprob = math.log(own_chance(request.profile, request.prompt_id))
            receipt = Receipt(request.profile.digest, 9, "scripted")
            yield [(at, Scored(request, tokens, [logprob] * len(tokens), Observation(receipt)))]


def own_chance(profile: Profile, prompt: str) -> float:
    off = sum((edit.layer, edit.expert) in PLANTED for edit in profile.edits)
    lost = 0.2 * off if refused(prompt) else 0.001 * len(profile.edits)
    return 0.95 - lost - 0.01 * chance("own", profile.digest, prompt)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studied") / "run"
    recipe = recipe_of(limit=120, controls={"mass": 0, "layers": 0, "uniform": 0, "retest": 1}, exact=False)
    study_of(folder, recipe, PlantedEngine(), force=True)
    return folder


@pytest.fixture
def folder(studied: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(studied, tmp_path / "run"))


def search(folder: Path, engine: ScriptedEngine, options: SearchOptions = SMALL, console: Console = QUIET) -> Search:
    return search_run(folder, options, console, engine=lambda *_: lambda: engine, own=OWN, first_tokens=pieces)


def test_the_planted_experts_win_and_are_measured_on_prompts_that_chose_nothing(folder: Path) -> None:
    engine = PlantedEngine()
    found = search(folder, engine, replace(SMALL, trials=16))
    ours = found.found[0]
    assert set(PLANTED) <= set(ours.arm.pool)
    assert len(set(ours.winner.experts) & set(PLANTED)) >= 2
    assert found.ruling.net > max(leg.most for leg in found.ruling.legs)
    assert found.ruling.said == "few", "two searches of a kind can't give a p of 0.05"
    with RunStore(folder, read_only=True) as store:
        split = store.split()
    assert all(split[key] == "select" for one in found.found for key in (*one.arm.targets, *one.arm.others))
    held = {request.prompt_id for request in engine.asked if split[request.prompt_id] == "measure"}
    assert len(held) == sum(found.held)
    # The winner's answers alone are asked of the held prompts: none but a winner has one there.
    winners = {one.winner.experts for one in found.found}
    sets = {
        tuple(sorted((edit.layer, edit.expert) for edit in request.profile.edits))
        for request in engine.asked
        if split[request.prompt_id] == "measure"
    }
    assert sets <= winners


def test_a_search_that_was_killed_goes_on_to_the_same_end_and_asks_nothing_twice(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    few = replace(SMALL, trials=4, shuffles=1, pools=1)
    whole = search(other, PlantedEngine(), few)
    first, second, third, fourth = (
        PlantedEngine(die_after=100), PlantedEngine(kill_after=14), PlantedEngine(), PlantedEngine()
    )  # fmt: skip
    for engine in (first, second):
        with pytest.raises(Killed):
            search(folder, engine, few)
    assert as_json(search(folder, third, few)) == as_json(whole)
    passes = [
        (one.profile.digest, one.prompt_id, one.continuation) for one in first.scored + second.scored + third.scored
    ]
    assert len(passes) == len(set(passes)) > 100
    answers = [(one.profile.digest, one.prompt_id) for one in second.asked + third.asked]
    assert len(set(answers)) == len(answers)
    again = search(folder, fourth, few)
    assert not fourth.scored
    assert not fourth.asked
    assert as_json(again) == as_json(whole)
    with RunStore(folder, read_only=True) as store:
        assert len(read_passes(store)) == len(passes)


def test_what_is_written_agrees_with_what_was_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = search(folder, PlantedEngine())
    paths = {path.name for path in write_search(found, folder)}
    figures = {f"search.{kind}" for kind in ("png", "pdf", "svg")}
    assert paths == {"search.csv", "search_trials.csv", "search.json", "search_profile.json"} | figures
    searches = pd.read_csv(folder / "tables" / "search.csv")
    assert list(searches["search"]) == ["run", "shuffled", "shuffled", "pool", "pool"]
    trials = pd.read_csv(folder / "tables" / "search_trials.csv")
    assert len(trials) == 5 * 8
    own = trials[trials["search"] == "run"]
    assert own.iloc[0]["experts"] == 6
    written = json.loads((folder / "tables" / "search.json").read_text())
    assert written["ruling"]["p"] == max(leg["p"] for leg in written["ruling"]["nulls"])
    assert len(written["front"]) == int(own["front"].sum())
    profile = Profile.from_dict(json.loads((folder / "tables" / "search_profile.json").read_text()))
    assert profile.digest == written["winner"]["digest"]
    assert searches_frame(found)["net"].iloc[0] == pytest.approx(written["winner"]["net"])
    assert trials_frame(found)["kl"].notna().all()
    show_search(found, Console(width=200))
    said = capsys.readouterr().out
    assert "Winner: " in said
    assert "classes shuffled: 2 searches" in said


def test_a_dry_run_says_cost_and_pool_and_leaves_the_run_as_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "run.sqlite").read_bytes()
    arms = plan_search(folder, SMALL, Console(width=400))
    said = capsys.readouterr().out
    assert "5 searches (1 + 2 of shuffled classes + 2 in random pools) x 8 trials" in said
    assert f"= {5 * 8 * 14:,} passes at most" in said
    assert "Pool, the leading experts by resonance: " in said
    assert (folder / "run.sqlite").read_bytes() == before
    engine = PlantedEngine()
    assert [one.arm for one in search(folder, engine).found] == arms
    assert len(engine.scored) <= 5 * 8 * 14 + 14 * 5 + 10 * 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "resonanse"}, "There is no ranking 'resonanse'. Did you mean 'resonance'"),
        ({"by": "causal"}, "--by causal: .* Take --shuffles 0"),
        ({"by": "causal", "shuffles": 0}, "no causal scan of enough experts yet"),
        ({"pool": 380}, r"--pool 380 of resonance: Only \d+ experts have a positive score"),
        ({"factors": (1.0,)}, "--factors: 1 changes nothing"),
        ({"factors": (-0.5,)}, "--factors: -0.5 is none"),
        ({"factors": (0.5, 0.5)}, "--factors: one of them is there twice"),
        ({"factors": ()}, "--factors: name at least one"),
        ({"harm": 0.0}, "--kl 0: "),
        ({"harm": math.nan}, "--kl nan: "),
        ({"broken": 1.0}, "--broken 1: "),
        ({"shuffles": 0, "pools": 0}, "--shuffles 0 --pools 0: without a null"),
    ],
)
def test_what_cannot_be_searched_is_said_in_a_line(studied: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(MoteError, match=said):
        plan_search(studied, replace(SMALL, **options), QUIET)


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"split": "none"}, r"study\.split=none"),
        ({"contrast": {"column": "decade", "value": "1980s"}}, "by a contrast of prompts; a search shuffles"),
    ],
)
def test_a_run_that_cannot_be_searched_is_refused(tmp_path: Path, study: dict[str, Any], said: str) -> None:
    recipe = recipe_of(limit=60, controls={"mass": 0, "layers": 0, "uniform": 0, "retest": 1}, exact=False, **study)
    study_of(tmp_path / "run", recipe, PlantedEngine(), force=True)
    with pytest.raises(MoteError, match=said):
        plan_search(tmp_path / "run", SMALL, QUIET)


@given(st.text("0123456789.,-+einfa \u0663", max_size=12))
def test_a_list_of_factors_is_taken_or_refused_in_a_line(text: str) -> None:
    try:
        options = SearchOptions(factors=factors_of(text))
    except MoteError:
        return
    assert all(0 <= one <= 8 and one != 1 for one in options.factors)


@pytest.mark.parametrize("broken", ["logprob = 9e999", "logprob = 0.5", "tokens = 0", "tokens = -3"])
def test_a_pass_that_cannot_be_is_refused(folder: Path, broken: str) -> None:
    with pytest.raises(Killed):
        search(folder, PlantedEngine(die_after=3))
    with RunStore(folder, existing=True) as store, store.transaction():
        store.db.execute(f"update search_pass_rows set {broken}")  # noqa: S608
    with pytest.raises(MoteError, match="the search's pass over"):
        search(folder, PlantedEngine())
