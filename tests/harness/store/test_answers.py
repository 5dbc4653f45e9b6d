"""What the study, a ranking or a pruning has asked is asked once; and the export of all that there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mote.harness.store.answers import Answers
from mote.harness.store.export import export_run
from mote.harness.store.generations import WEIGHTS
from mote.harness.store.prunings import COLUMNS, add_pruning, read_pruning
from mote.harness.store.run import GenerationRow, LabelRow, MapRow, ProfileRow, PromptRow, Purpose, RunStore
from mote.harness.store.schema import names_of_tables
from mote.harness.store.surprises import add_surprises, read_surprises
from mote.judges import Measured
from mote.patches import EMPTY_PROFILE, Edit, Profile

SEEDS = {"t/1": 11, "t/2": 12}
ONE, TWO = (Profile("off", (Edit(0, expert, "suppress"),)) for expert in (1, 2))


def answer(prompt: str, profile: Profile, name: str, raw: str, seed: int | None = None) -> GenerationRow:
    receipt, edits = {"digest": profile.digest, "tokens_edited": 9}, profile.to_dict()["edits"]
    drawn = SEEDS[prompt] if seed is None else seed
    return GenerationRow(prompt, name, profile.digest, drawn, {}, True, raw, "", raw, 9, 3, "stop", receipt, edits)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with RunStore(tmp_path) as store:
        store.add_prompts([PromptRow(key, "t", [{"role": "user", "content": key}], {}) for key in SEEDS])
        store.add_plan(
            [
                ProfileRow("baseline", EMPTY_PROFILE.digest, "baseline", "all", 0, EMPTY_PROFILE.to_dict()),
                ProfileRow("random-uniform-01", ONE.digest, "random-uniform", "measure", 0, ONE.to_dict()),
            ],
            {"t/1": "select", "t/2": "measure"},
        )
        store.add_generations([answer(key, EMPTY_PROFILE, "baseline", f"{key}?") for key in SEEDS])
        store.add_generations([answer("t/2", ONE, "random-uniform-01", "the study's")])
    return tmp_path


def answers(store: RunStore, purpose: Purpose) -> Answers:
    return Answers(store, purpose, 0, SEEDS)


def test_what_one_of_the_three_has_asked_the_others_need_not_ask(folder: Path) -> None:
    both = [ONE.digest, TWO.digest]
    with RunStore(folder) as store:
        ranking, pruning = answers(store, "ranking"), answers(store, "pruning")
        assert ranking.done(both) == {(ONE.digest, "t/2")}
        ranking.add_profiles([ONE, TWO])
        ranking.add([answer("t/1", ONE, "off", "a ranking's"), answer("t/1", TWO, "off", "another")])
        assert pruning.done(both) == {(ONE.digest, "t/2"), (ONE.digest, "t/1"), (TWO.digest, "t/1")}
        pruning.add_profiles([ONE, TWO])
        pruning.add([answer("t/2", TWO, "off", "a pruning's")])
        found = ranking.answers(both, list(SEEDS)).set_index(["profile_digest", "prompt_id"])["raw"]
        assert found.to_dict() == {
            (ONE.digest, "t/1"): "a ranking's",
            (ONE.digest, "t/2"): "the study's",
            (TWO.digest, "t/1"): "another",
            (TWO.digest, "t/2"): "a pruning's",
        }
        assert len(ranking.answers([TWO.digest], ["t/2"])) == 1
        # The study has what it had: a control is of its measuring half, whoever asked for the other.
        assert store.stored() == {("t/1", "baseline"), ("t/2", "baseline"), ("t/2", "random-uniform-01")}
        assert [row.name for row in store.profiles()] == ["baseline", "random-uniform-01"]
        assert [row.digest for row in store.profiles("ranking")] == both
        assert store.profiles("pruning") == []
        assert len(store.unlabelled("rules")) == 3


def test_an_answer_drawn_with_another_seed_is_another(folder: Path) -> None:
    with RunStore(folder) as store:
        store.add_plan([ProfileRow("retest-1", EMPTY_PROFILE.digest, "retest", "all", 1, EMPTY_PROFILE.to_dict())])
        store.add_generations([answer("t/1", EMPTY_PROFILE, "retest-1", "other noise", 99)])
        ranking = answers(store, "ranking")
        assert ranking.answers([EMPTY_PROFILE.digest], list(SEEDS))["raw"].tolist() == ["t/1?", "t/2?"]
        assert Answers(store, "ranking", 1, {"t/1": 99}).done([EMPTY_PROFILE.digest]) == {(EMPTY_PROFILE.digest, "t/1")}


def test_the_pruning_that_was_asked_for_last_is_shown(folder: Path) -> None:
    ten, twenty = (pd.DataFrame([dict.fromkeys(COLUMNS, size)]) for size in (10, 20))
    with RunStore(folder) as store:
        assert read_pruning(store).empty
        for size, rounds in ((10, ten), (20, twenty), (10, ten), (10, ten)):
            add_pruning(store, {"k": size}, rounds)
            assert read_pruning(store)["left"].tolist() == [size]
        assert store.db.execute("select count(*) from prunings").fetchone() == (3,)


def test_the_surprise_of_a_text_is_kept_by_its_prompt(folder: Path) -> None:
    measured = Measured(3, -1.5, ())
    with RunStore(folder) as store:
        add_surprises(store, [(("t/1", "text"), measured), (("t/2", "text"), None)])
        assert read_surprises(store) == {("t/1", "text"): measured, ("t/2", "text"): None}


def test_an_export_holds_every_table_and_view(folder: Path, tmp_path: Path) -> None:
    with RunStore(folder) as store:
        ranking = answers(store, "ranking")
        ranking.add_profiles([TWO])
        ranking.add([answer("t/1", TWO, "off", "a ranking's")])
        store.add_maps("baseline", {"t/1": [MapRow("prompt", np.ones((1, 2), np.float32), 9, 9, WEIGHTS)]})
        add_surprises(store, [(("t/1", "a ranking's"), None)])
        store.add_labels([LabelRow(1, "rules", "1-ALIGNED", [])])
        # What somebody else keeps in the file is theirs.
        store.db.execute("create table notes (note text)")
    written = {path.name: path for path in export_run(folder, tmp_path / "out")}
    assert set(written) == {f"{name}.parquet" for name in names_of_tables()} | {"generations.jsonl"}
    assert {"answers", "activation_maps", "surprises", "judgments", "samples", "prunings"} <= set(names_of_tables())

    def read(name: str) -> pd.DataFrame:
        return pd.read_parquet(written[f"{name}.parquet"])

    assert read("answers")["purpose"].tolist() == ["study"] * 3 + ["ranking"]
    assert read("surprises")["raw"].tolist() == ["a ranking's"]
    assert np.frombuffer(read("activation_maps")["activations"][0], "<f4").tolist() == [1, 1]
    assert len(read("generations")) == len((tmp_path / "out" / "generations.jsonl").read_text().splitlines()) == 3
