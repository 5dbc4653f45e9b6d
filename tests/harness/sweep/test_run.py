"""A sweep from recipe to page, with scripted engines: which children are made, how it goes on, what its rows say."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from mote.harness.engine.vllm import Answer, Request
from mote.harness.errors import MoteError
from mote.harness.store.children import children, sweep_frame
from mote.harness.store.run import RunStore
from mote.harness.sweep.engines import EACH, RELOADED
from mote.harness.sweep.report import sweep_report
from mote.harness.sweep.run import check, run
from mote.harness.sweep.sentences import check_line
from mote.judges.rules import RULES_JUDGE
from mote.patches import Edit, Profile
from tests.harness.sweep.scripted_sweep import ScriptedEngine, recipe_of, sweep_of, turns_at


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def swept(home: Path) -> Path:
    sweep_of(recipe_of(home), home / "swept")
    return home / "swept"


def frame_of(folder: Path) -> pd.DataFrame:
    with RunStore(folder, read_only=True) as store:
        return sweep_frame(store, RULES_JUDGE)


def rows_of(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that a sweep stored, without the order in which it came."""
    queries = {
        "children": "select * from children",
        "generations": "select child, subset, proportion, weights, under, prompt_id, seed, raw, receipt from"
        " child_generations",
        "labels": "select profile, prompt_id, label from labels join generations using (generation_id)",
        "tokens": "select profile, prompt_id, t.reasoning, t.answer from part_tokens t join generations"
        " using (generation_id)",
    }
    with RunStore(folder, read_only=True) as store:
        return {name: sorted(store.db.execute(query).fetchall()) for name, query in queries.items()}


def test_a_sweep_halves_where_its_measure_jumps_and_nowhere_else(swept: Path) -> None:
    frame = frame_of(swept)
    # All prompts turn between 0.6 and 0.7: halves of [0.5, 1], then of [0.5, 0.75], down to steps of 0.1 at most.
    assert sorted(frame.loc[frame["subset"] == "all", "proportion"].unique()) == [0.5, 0.625, 0.6875, 0.75, 1.0]
    assert sorted(frame.loc[frame["subset"] == "router", "proportion"].unique()) == [0.5, 1.0]
    at = frame[(frame["subset"] == "all") & (frame["proportion"] == 0.625)]
    reasoned = {str(one) for one in at.loc[at["label"] == "2-REASONED", "prompt_id"]}
    assert reasoned == {str(one) for one in at["prompt_id"] if turns_at(str(one)) <= 0.625}
    assert 0 < len(reasoned) < 30


def test_every_generation_names_its_child_and_the_child_its_weights(swept: Path) -> None:
    with RunStore(swept, read_only=True) as store:
        stored = children(store)
        named = store.db.execute("select distinct child, weights from child_generations").fetchall()
        unnamed = store.db.execute("select count(*) from generations").fetchone()[0]
    assert len({one.weights for one in stored.values()}) == len(stored) == 8
    assert dict(named) == {name: one.weights for name, one in stored.items()}
    assert unnamed == 8 * 30
    assert stored["base"].proportion == 0
    assert not list((swept / "children").glob("*"))


def test_one_engine_is_used_where_a_reload_is_proven_and_one_a_child_where_not(home: Path) -> None:
    recipe = recipe_of(home, refine=None)
    # Where a reload is proven the first and the last child are checked with fresh engines.
    for lossy, how, count in ((False, RELOADED, 2 + 2), (True, EACH, 2 + 5)):
        engines: list[ScriptedEngine] = []
        folder = home / f"lossy-{lossy}"
        sweep_of(recipe, folder, engines, lossy)
        said = json.loads((folder / "sweep.json").read_text())["sessions"][0]
        assert said["engines"] == how
        assert ("were not those of a fresh engine" in said["why"]) == lossy
        assert len(engines) == count
        assert all(one.closed for one in engines)
        # Whatever the way, each child's answers were asked under the name of its own weights.
        asked = {named for one in engines for named, _ in one.asked}
        with RunStore(folder, read_only=True) as store:
            assert {one.weights for one in children(store).values()} <= asked
    assert rows_of(home / "lossy-False") == rows_of(home / "lossy-True")


def test_the_first_the_last_and_every_so_many_children_are_held_against_fresh_engines(home: Path) -> None:
    order = ["base", "all@0.5", "all@1", "router@0.5", "router@1"]
    for every, checked in ((0, []), (1, order), (2, ["base", "all@1", "router@1"]), (3, ["base", "router@0.5"])):
        recipe = recipe_of(home, refine=None, model={"check_every": every})
        engines: list[ScriptedEngine] = []
        folder = home / f"checked-{every}"
        sweep_of(recipe, folder, engines)
        checks = json.loads((folder / "sweep.json").read_text())["checks"]
        assert [one["child"] for one in checks] == checked + (["router@1"] if every == 3 else [])
        assert all((one["prompts"], one["answers"], one["parameters"]) == (16, 0, 0) for one in checks)
        assert len(engines) == 2 + len(checks)
        line = check_line(json.loads((folder / "sweep.json").read_text()))
        assert line.startswith("Checked against fresh engines that loaded") == bool(checks)
        assert all(child in line for child in checked)
    assert rows_of(home / "checked-0") == rows_of(home / "checked-1")


def test_a_child_that_a_fresh_engine_answers_otherwise_stops_the_sweep_for_good(home: Path) -> None:
    recipe = recipe_of(home, refine=None, model={"check_every": 4})
    folder, engines = home / "tired", list[ScriptedEngine]()
    # It has what router@0.5 answers, which is the same: its parameters tell.
    said = r"router@1: 0 of 16 answers and 1 parameters of the engine .* model.reload=false"
    # Each engine is right for three reloads: the proof's two and the base's, then those of three children.
    with pytest.raises(MoteError, match=said):
        sweep_of(recipe, folder, engines, tires=3)
    asked = len(engines)
    with pytest.raises(MoteError, match=said):
        sweep_of(recipe, folder, engines)
    assert len(engines) == asked
    assert "answers since the check before are in doubt" in sweep_report(folder).read_text()


def test_the_last_child_is_checked_after_a_kill_before_its_check(home: Path) -> None:
    recipe = recipe_of(home, refine=None)
    folder = home / "unchecked"
    sweep_of(recipe, folder)
    record = json.loads((folder / "sweep.json").read_text())
    whole = record["checks"]
    (folder / "sweep.json").write_text(json.dumps(record | {"checks": whole[:1], "finished": None}))
    sweep_of(recipe, folder)
    assert json.loads((folder / "sweep.json").read_text())["checks"] == whole


def test_maps_of_some_prompts_say_how_children_route_beside_their_parents(swept: Path) -> None:
    sweep_report(swept)
    routing = pd.read_csv(swept / "tables" / "routing.csv", keep_default_na=False)
    for child, with_base, with_whole in (("all@0.5", 5 / 9, 4 / 9), ("router@1", 1.0, 0.0), ("all@1", 0.0, None)):
        own = routing[routing["child"] == child]
        assert set(own["prompts"]) == {16}
        for parent, expected in (("base", with_base), ("all@1", with_whole)):
            values = own.loc[own["parent"] == parent, "agreement"].astype(float)
            assert len(values) == (0 if expected is None else 6)
            assert values.tolist() == pytest.approx([expected] * len(values))
    assert "The two parents share 0% of them" in (swept / "report.html").read_text()


def test_a_finished_sweep_starts_no_engine_and_other_recipes_are_refused(home: Path, swept: Path) -> None:
    before = rows_of(swept)
    engines: list[ScriptedEngine] = []
    sweep_of(recipe_of(home), swept, engines)
    assert not engines
    assert rows_of(swept) == before
    with pytest.raises(MoteError, match=r"holds another sweep \(proportions: \[0.0, 0.5, 1.0\] -> \[0.0, 1.0\]\)"):
        sweep_of(recipe_of(home, proportions=[0, 1]), swept)
    parents = {"a": str(home / "b"), "b": str(home / "b")}
    with pytest.raises(MoteError, match=r"another sweep \(parent a\.model\.safetensors"):
        sweep_of(recipe_of(home, parents=parents), swept)


def test_profiles_are_asked_beside_every_child(home: Path) -> None:
    profile = Profile("without-two", (Edit(1, 3, "suppress"), Edit(2, 7, "suppress")))
    path = home / "without-two.json"
    path.write_text(json.dumps(profile.to_dict()))
    recipe = recipe_of(home, refine=None, profiles=[str(path)], proportions=[0, 1])
    sweep_of(recipe, home / "profiles", keep=True)
    frame = frame_of(home / "profiles")
    assert {*zip(frame["child"], frame["profile"], strict=True)} == {
        (child, under) for child in ("base", "all@1", "router@1") for under in ("", "without-two")
    }
    assert {path.name for path in (home / "profiles" / "children").iterdir()} >= {"base", "all@1", "router@1"}
    assert "Under profiles" in sweep_report(home / "profiles").read_text()


def test_the_page_says_where_the_measure_changes(swept: Path) -> None:
    page = sweep_report(swept).read_text()
    assert "all takes it to 100%, half way at 0.6" in page
    assert "Not changed by a tenth: router." in page
    crossings = pd.read_csv(swept / "tables" / "crossings.csv")
    one = crossings[(crossings["subset"] == "all") & (crossings["measure"] == "2-REASONED")].iloc[0]
    assert 0.6 < one["at"] < 0.7
    assert one["width"] < 0.2
    assert one["against"] == 0
    assert not pd.read_csv(swept / "tables" / "classes.csv").isna()["base"].any()
    assert "<script" not in page


def test_a_sweep_stopped_within_a_child_between_the_grid_s_points_asks_the_rest_of_it(home: Path, swept: Path) -> None:
    class Stopped(ScriptedEngine):
        def generate(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
            for number, some in enumerate(super().generate(requests)):
                if number and self.proportion == 0.625:
                    raise KeyboardInterrupt
                yield some

    folder = home / "stopped"
    with pytest.raises(KeyboardInterrupt):
        run(check(recipe_of(home)), folder, Console(quiet=True), start=lambda child: Stopped().start(child))
    assert 0 < (frame_of(folder)["proportion"] == 0.625).sum() < 30
    sweep_of(recipe_of(home), folder)
    assert rows_of(folder) == rows_of(swept)


@pytest.mark.parametrize(
    ("kills", "seed"), [(3, 1), pytest.param(20, 2, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_killed_sweep_ends_with_the_rows_of_the_undisturbed_one(
    kills: int, seed: int, home: Path, swept: Path
) -> None:
    whole = rows_of(swept)
    drawn = random.Random(seed)  # noqa: S311 - moments, not secrets
    began = time.monotonic()
    assert forked(home, home / f"timed-{seed}", None) == 0
    took = time.monotonic() - began
    caught = number = 0
    while caught < kills:
        number += 1
        folder = home / f"killed-{seed}-{number}"
        moment = drawn.uniform(0, took)
        if forked(home, folder, moment) == 0:
            # Done before the kill came: no kill, so it does not count.
            took = moment
            continue
        caught += 1
        # Killed again on the way, so that going on is itself gone on with.
        forked(home, folder, drawn.uniform(0, took))
        assert forked(home, folder, None) == 0
        assert rows_of(folder) == whole
        assert not list((folder / "children").glob("*"))


def forked(home: Path, folder: Path, moment: float | None) -> int:
    """Run the sweep in a process of its own, killed at a moment, and return how it ended."""
    process = os.fork()
    if not process:
        status = 1
        try:
            sweep_of(recipe_of(home), folder)
            status = 0
        finally:
            os._exit(status)
    if moment is not None:
        time.sleep(moment)
        os.kill(process, signal.SIGKILL)
    return os.waitpid(process, 0)[1]
