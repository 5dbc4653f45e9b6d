from __future__ import annotations

import json
import lzma
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mote.harness.errors import MoteError
from mote.harness.store.generations import fold, unfold
from mote.harness.store.run import GenerationRow, LabelRow, MapRow, ProfileRow, PromptRow, RunStore, Unlabelled

PROMPTS = [
    PromptRow("t/1", "t", [{"role": "user", "content": "一?"}], {"year": 1989, "place": "Beijing"}),
    PromptRow("t/2", "t", [{"role": "user", "content": "two?"}], {"year": 0, "place": "Paris"}),
]
BASELINE = ProfileRow("baseline", "d0", "baseline", "all", 0, {"name": "empty"})
COUNTS = np.arange(6, dtype=np.int32).reshape(2, 3)


def generation(
    prompt: str = "t/1", profile: str = "baseline", raw: str = "</think>x", maps: bool = True
) -> GenerationRow:
    return GenerationRow(
        prompt, profile, "d0", 7, {"temperature": 0.6}, True, raw, "", "x", 9, 3, "stop",
        {"digest": "d0"}, [{"layer": 1}], [MapRow("prompt", COUNTS, 8, 9)] if maps else (),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with RunStore(tmp_path) as store:
        store.add_prompts(PROMPTS)
        store.add_plan([BASELINE])
        store.add_generations([generation()])
    return tmp_path


def test_rows_come_back_as_they_were_stored(folder: Path) -> None:
    with RunStore(folder, read_only=True) as store:
        assert store.prompts() == PROMPTS
        assert store.profiles() == [BASELINE]
        assert store.stored() == {("t/1", "baseline")}
        assert store.unlabelled("rules") == [Unlabelled(1, "</think>x", True, "stop", "t/1")]
        ids, maps, tokens = store.maps("baseline", "prompt")
    assert ids == ["t/1"]
    assert tokens == [(8, 9)]
    np.testing.assert_array_equal(maps, COUNTS[None])


def test_pandas_reads_a_run_in_one_line(folder: Path) -> None:
    frame = pd.read_sql("select * from generations", sqlite3.connect(folder / "run.sqlite"))
    assert frame.loc[0, "raw"] == "</think>x"
    assert frame.loc[0, "prompt_tokens"] == 9


EFFECT = {
    "layer": 1, "expert": 5, "action": "suppress", "tokens": 9, "selected": 2, "weight_before": 0.3,
    "weight_after": 0.0,
}  # fmt: skip
STIMULATED = {**EFFECT, "expert": 7, "action": "stimulate", "entered": 7, "weight_after": 2.5}
CHECKS = st.lists(
    st.fixed_dictionaries(
        {"layer": st.integers(0, 60), "expert": st.integers(0, 255), "action": st.sampled_from(["suppress", "scale"])},
        optional={
            "factor": st.sampled_from([0.25, 1.5, 1000.0]),
            "tokens": st.integers(0, 99),
            "selected": st.integers(0, 99),
            "entered": st.integers(0, 99),
            # SQLite writes numbers with 15 digits; sums are stored with six.
            "weight_before": st.floats(0, 100).map(lambda value: float(f"{value:.6g}")),
            "weight_after": st.sampled_from([0.0, 0.5]),
        },
    ),
    max_size=6,
)


@given(check=CHECKS)
@example(check=[EFFECT, STIMULATED])
@example(
    check=[{"layer": 1, "expert": 2, "action": "scale", "tokens": 0}, {"layer": 1, "expert": 3, "action": "scale"}]
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mechanism_check_comes_back_whole_from_python_and_from_the_view(
    check: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert unfold(*fold(check)) == check
    with RunStore(tmp_path_factory.mktemp("run")) as store:
        store.add_prompts(PROMPTS)
        store.add_plan([BASELINE])
        store.add_generations([generation()._replace(mechanism=check)])
        assert list(store.mechanisms()) == ([("baseline", check)] if check else [])
        path = store.path
    with closing(sqlite3.connect(path)) as db:
        assert json.loads(db.execute("select mechanism from generations").fetchone()[0]) == check


def test_the_view_shows_every_column_as_it_was_given(folder: Path) -> None:
    row = generation("t/2", raw="lone \ud800")._replace(
        raw="two", finish_reason=None, receipt={"digest": "d0", "patch_version": "1", "tokens_edited": 11}
    )
    with RunStore(folder) as store:
        store.add_generations([row])
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        db.row_factory = sqlite3.Row
        found = dict(db.execute("select * from generations where prompt_id = 't/2'").fetchone())
    assert json.loads(found.pop("receipt")) == row.receipt
    assert json.loads(found.pop("sampling")) == row.sampling
    assert json.loads(found.pop("mechanism")) == row.mechanism
    names = ("profile", "profile_digest", "seed", "raw", "reasoning", "answer", "prompt_tokens", "generated_tokens")
    for name in (*names, "finish_reason"):
        assert found[name] == getattr(row, name)


def test_a_text_is_stored_once(folder: Path) -> None:
    with RunStore(folder) as store:
        store.add_plan([ProfileRow(f"p{i}", "d0", "suppress", "all", 0, {}) for i in range(50)])
        store.add_generations([generation("t/1", f"p{i}", raw="the same " * 50, maps=False) for i in range(50)])
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        assert db.execute("select count(*) from texts where text like 'the same %'").fetchone() == (1,)
        assert db.execute("select count(*) from generations where raw like 'the same %'").fetchone() == (50,)


def test_a_generation_of_another_profile_than_planned_is_no_row(folder: Path) -> None:
    with RunStore(folder) as store:
        with pytest.raises(ValueError, match="is not of the plan's profile"):
            store.add_generations([generation("t/2")._replace(profile_digest="other")])
        assert store.stored() == {("t/1", "baseline")}


def test_maps_are_read_for_some_prompts(folder: Path) -> None:
    with RunStore(folder) as store:
        store.add_generations([generation("t/2")._replace(maps=[MapRow("prompt", COUNTS * 2, 9, 9)])])
        ids, maps, tokens = store.maps("baseline", "prompt", ["t/2"])
        assert (ids, tokens, maps.shape) == (["t/2"], [(9, 9)], (1, 2, 3))
        assert store.maps("baseline", "prompt")[0] == ["t/1", "t/2"]
        assert store.maps("baseline", "prompt", [])[0] == []


def test_labels_join_by_judge_and_are_given_once(folder: Path) -> None:
    with RunStore(folder) as store:
        store.add_labels([LabelRow(1, "rules", "1-ALIGNED", [{"rule": "r"}])])
        assert store.unlabelled("rules") == []
        assert store.generations_frame("rules")["label"].tolist() == ["1-ALIGNED"]
        assert store.generations_frame("another")["label"].isna().all()
        with pytest.raises(sqlite3.IntegrityError):
            store.add_labels([LabelRow(1, "rules", "0-REFUSED", [])])


def test_a_generation_is_written_once_and_a_failing_batch_leaves_nothing(folder: Path) -> None:
    with RunStore(folder) as store:
        with pytest.raises(sqlite3.IntegrityError):
            store.add_generations([generation("t/2"), generation("t/1")])
        assert store.stored() == {("t/1", "baseline")}


def test_a_plan_is_there_whole_or_not_at_all(folder: Path) -> None:
    with RunStore(folder) as store:
        with pytest.raises(sqlite3.IntegrityError):
            store.add_plan([ProfileRow("p", "d", "suppress", "all", 0, {}), BASELINE], {"t/1": "select"})
        assert store.profiles() == [BASELINE]
        assert store.split() == {}
        store.add_plan([ProfileRow("p", "d", "suppress", "all", 0, {})], {"t/1": "select", "t/2": "measure"})
        assert [row.name for row in store.profiles()] == ["baseline", "p"]
        assert store.split() == {"t/1": "select", "t/2": "measure"}


def test_a_run_is_worked_on_by_one_process(folder: Path) -> None:
    with RunStore(folder):
        with pytest.raises(MoteError, match="in use by another mote"):
            RunStore(folder)
        with RunStore(folder, read_only=True) as reader:
            assert len(reader.prompts()) == 2
    RunStore(folder).close()


def test_reading_needs_a_run_and_this_version(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MoteError, match=r"holds no run\.sqlite"):
        RunStore(tmp_path / "nothing", read_only=True)
    with sqlite3.connect(folder / "run.sqlite") as db:
        db.execute("pragma user_version = 99")
    with pytest.raises(MoteError, match="store version 99"):
        RunStore(folder, read_only=True)


def test_committed_rows_survive_a_sigkill(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.harness.store.test_run import *\n"
        "store = RunStore(Path(sys.argv[1])); store.add_prompts(PROMPTS); store.add_plan([BASELINE])\n"
        "store.add_generations([generation('t/2')]); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    with RunStore(tmp_path) as store:
        assert store.stored() == {("t/2", "baseline")}


def test_what_adds_to_a_run_makes_none(tmp_path: Path) -> None:
    with pytest.raises(MoteError, match="it is not the folder of a run"):
        RunStore(tmp_path, existing=True)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(MoteError, match="the rows of this run are not here"):
        RunStore(tmp_path, existing=True)
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


def test_rows_that_are_kept_packed_are_unpacked_when_they_are_read(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        store.add_prompts([PromptRow("p", "t", [{"role": "user", "content": "x"}], {})])
    packed = tmp_path / "run.sqlite.xz"
    packed.write_bytes(lzma.compress((tmp_path / "run.sqlite").read_bytes()))
    (tmp_path / "run.sqlite").unlink()
    with RunStore(tmp_path, read_only=True) as store:
        assert [row.prompt_id for row in store.prompts()] == ["p"]
    (tmp_path / "run.sqlite").unlink()
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(MoteError, match="could not be unpacked"):
        RunStore(tmp_path, read_only=True)
    assert not (tmp_path / "run.sqlite").exists()
