"""Stores of older versions: read as they are, brought forward when they are written to, and gone on with.

Version 1 is written here. Version 2 is a part of results/demo's rows as they were packed then (``version_2.sqlite.xz``:
all prompts, three profiles, some answers of rankings and of its pruning, some maps and scores), with its manifest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mote.harness.engine.turns import Turns
from mote.harness.engine.vllm import Answer, Request, Scored, Scoring, request_seed
from mote.harness.errors import MoteError
from mote.harness.experts.maps import read_maps
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.schema import recipe_of
from mote.harness.store.answers import Answers
from mote.harness.store.generations import GenerationRow
from mote.harness.store.judgments import Ended, Judgments
from mote.harness.store.packed import unpack
from mote.harness.store.prunings import read_pruning
from mote.harness.store.run import LabelRow, RunStore
from mote.harness.store.schema import MIGRATIONS, SCHEMA_VERSION
from mote.harness.store.surprises import read_surprises
from mote.harness.study.run import check, run
from mote.patches import Observation, Receipt
from tests.harness.report.written_run import WrittenRun, write_run

HERE = Path(__file__).parent
DEMO = Path(__file__).parents[3] / "results" / "demo-0.1.0"

VERSION_1 = """
create table prompts (prompt_id text primary key, position integer not null unique, task text not null,
    messages text not null, attributes text not null) without rowid;
create table splits (prompt_id text primary key references prompts, part text not null) without rowid;
create table profiles (name text primary key, position integer not null unique, digest text not null,
    kind text not null, part text not null, seed integer not null, spec text not null) without rowid;
create table generations (generation_id integer primary key, prompt_id text not null references prompts,
    profile text not null references profiles, profile_digest text not null, seed integer not null,
    sampling text not null, prompt_opens integer not null, raw text not null, reasoning text not null,
    answer text not null, prompt_tokens integer not null, generated_tokens integer not null, finish_reason text,
    receipt text not null, mechanism text not null, unique (prompt_id, profile));
create table labels (generation_id integer not null references generations, judge text not null, label text not null,
    evidence text not null, primary key (generation_id, judge)) without rowid;
create table activation_maps (generation_id integer not null references generations, role text not null,
    layers integer not null, experts integer not null, counted integer not null, total integer not null,
    counts blob not null, primary key (generation_id, role)) without rowid;
insert into prompts values ('t/1', 0, 't', '[{"role": "user", "content": "x"}]', '{}');
insert into profiles values ('baseline', 0, 'd0', 'baseline', 'all', 0, '{}');
insert into profiles values ('off', 1, 'd1', 'suppress', 'all', 0, '{}');
insert into generations values (1, 't/1', 'baseline', 'd0', 7, '{}', 1, '</think>x', '', 'x', 9, 3, 'stop',
    '{"digest": "d0"}', '[]');
insert into generations values (2, 't/1', 'off', 'd1', 7, '{}', 1, '</think>y', '', 'y', 9, 3, 'stop',
    '{"digest": "d1"}', '[{"layer": 1, "expert": 2, "action": "suppress", "tokens": 4}]');
insert into labels values (1, 'rules', '1-ALIGNED', '[]');
insert into activation_maps values (1, 'prompt', 1, 2, 3, 3, x'0100000002000000');
pragma user_version = 1;
"""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db:
        db.executescript(VERSION_1)
    return tmp_path


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the demo's rows as version 2 wrote them; tests copy what they write to."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copy(HERE / "version_2.manifest.json", folder / "manifest.json")
    shutil.copy(HERE / "version_2.sqlite.xz", folder / "run.sqlite.xz")
    assert unpack(folder)
    assert version_of(folder) == 2
    return folder


@pytest.fixture(scope="module")
def forward(second: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(second, tmp_path_factory.mktemp("forward") / "run"))
    RunStore(folder).close()
    return folder


def version_of(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        return int(db.execute("pragma user_version").fetchone()[0])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shape(db: sqlite3.Connection) -> dict[str, object]:
    """Columns of each table and view, the columns of each index, and what views and triggers say."""
    made = db.execute("select type, name, sql from sqlite_master order by name").fetchall()
    found: dict[str, object] = {}
    for kind, name, sql in made:
        if kind in ("table", "view"):
            keys = db.execute(f"pragma foreign_key_list({name})").fetchall()
            found[name] = db.execute(f"pragma table_info({name})").fetchall(), sorted(key[2:] for key in keys)
        if kind == "index" and sql:
            found[name] = db.execute(f"pragma index_xinfo({name})").fetchall()
        if kind in ("view", "trigger"):
            found[f"{kind} {name}"] = sql
    return found


def test_every_version_says_why_and_follows_the_one_before() -> None:
    assert [one.version for one in MIGRATIONS] == list(range(2, SCHEMA_VERSION + 1))
    assert all(one.why.endswith(".") and "\n" not in one.why for one in MIGRATIONS)


def test_a_run_of_the_first_version_is_read_and_left_as_it_is(first: Path) -> None:
    before = digest(first / "run.sqlite")
    with RunStore(first, read_only=True) as store:
        assert store.generations_frame("rules")["label"].tolist()[0] == "1-ALIGNED"
        assert list(store.mechanisms()) == [("off", [{"layer": 1, "expert": 2, "action": "suppress", "tokens": 4}])]
        np.testing.assert_array_equal(store.maps("baseline", "prompt")[1], [[[1, 2]]])
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            store.add_labels([LabelRow(2, "rules", "0-REFUSED", [])])
    assert digest(first / "run.sqlite") == before
    assert [path.name for path in first.iterdir()] == ["run.sqlite"]


def test_a_run_of_the_first_version_is_brought_forward_and_gone_on_with(first: Path, tmp_path: Path) -> None:
    with RunStore(first) as store:
        assert store.stored() == {("t/1", "baseline"), ("t/1", "off")}
        assert store.labels_of("rules").to_dict() == {1: "1-ALIGNED"}
        store.add_labels([LabelRow(2, "rules", "0-REFUSED", [])])
        assert store.unlabelled("rules") == []
        store.add_prompts([])
        row = GenerationRow("t/1", "again", "d2", 7, {}, True, "z", "", "z", 9, 3, "stop", {"digest": "d2"}, [])
        with pytest.raises(sqlite3.IntegrityError):
            store.add_generations([row])
        (tmp_path / "fresh").mkdir()
        with RunStore(tmp_path / "fresh") as fresh:
            assert shape(store.db) == shape(fresh.db)
    assert version_of(first) == SCHEMA_VERSION


def test_a_store_that_does_not_hold_together_is_refused_and_stays(first: Path) -> None:
    with closing(sqlite3.connect(first / "run.sqlite")) as db:
        db.execute("insert into splits values ('nobody', 'select')")
        db.commit()
        before = list(db.iterdump())
    with pytest.raises(MoteError, match="cannot be read as a run's store: a row of splits names one of prompts"):
        RunStore(first, read_only=True)
    with pytest.raises(MoteError, match="a row of splits names one of prompts that is not there"):
        RunStore(first)
    assert version_of(first) == 1
    with closing(sqlite3.connect(first / "run.sqlite")) as db:
        assert list(db.iterdump()) == before


def test_rows_of_version_2_are_read_and_left_as_they_are(second: Path) -> None:
    before = digest(second / "run.sqlite")
    with RunStore(second, read_only=True) as store, closing(sqlite3.connect(second / "run.sqlite")) as old:
        for query in (
            "select * from generations order by generation_id",
            "select * from labels order by generation_id, judge",
            "select * from scan_scores order by prompt_id, expert, opening",
            "select * from token_rows",
        ):
            assert store.db.execute(query).fetchall() == old.execute(query).fetchall(), query
    assert digest(second / "run.sqlite") == before


def test_nothing_that_rankings_and_prunings_had_is_lost(second: Path, forward: Path) -> None:
    with RunStore(forward, read_only=True) as store, closing(sqlite3.connect(second / "run.sqlite")) as old:
        asked = "select profile_digest, prompt_id, seed, raw, finish_reason, tokens_edited from ranking_answers"
        found = set(
            store.db.execute(
                "select profile_digest, prompt_id, seed, raw, finish_reason, json_extract(receipt, '$.tokens_edited')"
                " from answers"
            )
        )
        assert found.issuperset(old.execute(asked))
        # What a study's answer said to the letter is kept once.
        (kept,) = store.db.execute("select count(*) from answers where purpose <> 'study'").fetchone()
        (had,) = old.execute("select count(*) from ranking_answers").fetchone()
        assert had - kept == 60
        sums = dict(old.execute("select profile_digest || prompt_id, selected from ranking_answers"))
        for key, text in store.db.execute(
            "select profile_digest || prompt_id, mechanism from answers where purpose = 'ranking' limit 500"
        ):
            assert {effect["selected_in_all"] for effect in json.loads(text)} == {sums[key]}
        measured = read_surprises(store)
        for prompt, raw, surprise in old.execute(
            "select p.prompt_id, t.text, s.surprise from ranking_surprises s join prompts p on p.position = s.prompt"
            " join texts t on t.text_id = s.raw"
        ):
            one = measured[prompt, raw]
            assert one is not None
            assert one.surprise == pytest.approx(surprise, abs=1e-4)
        assert len(measured) >= old.execute("select count(*) from surprises").fetchone()[0]
        captured = "select prompt_id, weights from ranking_maps m join prompts p on p.position = m.prompt"
        blobs = dict(old.execute(captured))
        maps = read_maps(store, list(blobs))
        assert maps is not None
        for key, weights in zip(blobs, maps.weights, strict=True):
            assert weights.tobytes() == blobs[key]
        assert len(read_pruning(store)) == len(json.loads(old.execute("select rounds from prunings").fetchone()[0]))


def test_a_store_that_was_brought_forward_has_the_tables_of_a_new_one(forward: Path, tmp_path: Path) -> None:
    with RunStore(forward, read_only=True) as store, RunStore(tmp_path) as fresh:
        assert shape(store.db) == shape(fresh.db)
        assert store.db.execute("pragma integrity_check").fetchone() == ("ok",)


def test_an_answer_of_the_study_is_one_of_a_rankings(forward: Path) -> None:
    with RunStore(forward, read_only=True) as store:
        seed = int(read_manifest(forward)["recipe"]["sampling"]["seed"])
        seeds = {row.prompt_id: request_seed(seed, row.prompt_id) for row in store.prompts()}
        control = next(row for row in store.profiles() if row.kind == "random-frequency")
        done = Answers(store, "ranking", seed, seeds).done([control.digest])
        assert {prompt for _, prompt in done} == {prompt for prompt, part in store.split().items() if part == "measure"}


def test_the_packed_demo_opens(tmp_path: Path) -> None:
    shutil.copy(DEMO / "run.sqlite.xz", tmp_path)
    with RunStore(tmp_path, read_only=True) as store:
        assert len(store.profiles()) == len(read_manifest(DEMO)["profiles"])
        assert store.profiles("ranking")


class WrittenEngine:
    """Answers every request with one sentence; how likely the sentence is nobody knows here."""

    prompt_opens = True

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        for index, request in enumerate(requests):
            self.asked.append(request)
            receipt = Receipt(request.profile.digest, 9, "test")
            yield [(index, Answer(request, "</think>I am sorry, it rained.", 9, 4, "stop", Observation(receipt)))]

    def score(self, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Scored]]]:
        raise AssertionError("nothing fits")

    def fits(self, request: Scoring) -> bool:
        raise AssertionError("nothing was said of the new sentence")

    def token_texts(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        raise AssertionError("the tokens are stored")

    def turns(self, messages: Sequence[Mapping[str, str]]) -> Turns:
        raise AssertionError("nothing is aligned here")

    def pieces(self, text: str) -> list[str]:
        raise AssertionError("no opening is learned here")


def test_a_run_of_version_2_is_gone_on_with(second: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(second, tmp_path / "run"))
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        db.execute(
            "create temporary table gone as select generation_id from generation_rows"
            " where profile in (select position from profiles where kind = 'suppress') limit 3"
        )
        for table in ("label_rows", "generation_rows"):
            db.execute(f"delete from {table} where generation_id in (select generation_id from gone)")  # noqa: S608
        db.commit()
        before = db.execute("select count(*), (select count(*) from labels) from generations").fetchone()
    engine = WrittenEngine()
    study = check(recipe_of(read_manifest(folder)["recipe"]))
    # The engine ends where the surprise of the new sentence would be measured.
    with pytest.raises(AssertionError, match="nothing was said of the new sentence"):
        run(study, folder, Console(quiet=True), engine=lambda *_: lambda: engine)
    assert len(engine.asked) == 3
    with RunStore(folder, read_only=True) as store:
        names = {row.digest: row.name for row in store.profiles()}
        assert {(one.prompt_id, names[one.profile.digest]) for one in engine.asked} < store.stored()
        after = store.db.execute("select count(*), (select count(*) from labels) from generations").fetchone()
    assert after == (before[0] + 3, before[1] + 3)
    assert version_of(folder) == SCHEMA_VERSION


def test_what_was_cut_off_in_version_4_waits_again_and_other_unscored_labels_stay(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(
        write_run(tmp_path / "made", WrittenRun(prompts=4, layers=(0, 1), experts=16, top_k=3, controls=1)), folder
    )
    columns = (
        "generation_id, judge, kind, part, text_sha256, url, model, prompt, prompt_sha256, structured, messages, raw"
    )
    more = "reasoning, state, error, finish_reason, attempts, requests, prompt_tokens, completion_tokens, seconds"
    with RunStore(folder) as store:
        for number, reason in ((1, "length"), (2, "stop")):
            store.db.execute(
                f"insert into judgments ({columns}, {more}) values"  # noqa: S608 - ours
                f" ({number}, 'x', 'refusal', 1, 't{number}', 'u', 'm', 'p', 's', 0, '[]', '', '', 'unusable', 'e',"
                f" '{reason}', 3, 3, 1, 1, 1.0)"
            )
        said = "unusable-reply (judgment {})"
        store.add_labels(
            LabelRow(number, "x", "UNSCORED", [{"rule": said.format(number), "span": "", "start": 0, "end": 0}])
            for number in (1, 2)
        )
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        db.executescript(
            "drop view search_passes; drop table search_pass_rows; drop view mask_scores; drop table mask_score_rows;"
            "drop index judgments_once; alter table judgments drop column max_tokens;"
            " create unique index judgments_once on judgments (judge, part, text_sha256) where state <> 'unreached';"
            " drop view child_generations; drop table part_tokens; drop table children; pragma user_version = 4;"
        )
    with RunStore(folder) as store:
        assert store.labels_of("x").to_dict() == {2: "UNSCORED"}
        judgments = Judgments(store)
        # What the judge was allowed was not noted: any budget is more.
        assert judgments.ended("x", 1) == {("t2", 1): Ended(2, None)}
        assert judgments.replies("x") == 6
