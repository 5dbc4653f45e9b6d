from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mote.harness.errors import MoteError
from mote.harness.store import GenerationRow, LabelRow, MapRow, ProfileRow, PromptRow, RunStore, Unlabelled

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
        assert store.unlabelled("rules") == [Unlabelled(1, "</think>x", True, "stop")]
        ids, maps, tokens = store.maps("baseline", "prompt")
    assert ids == ["t/1"]
    assert tokens == [(8, 9)]
    np.testing.assert_array_equal(maps, COUNTS[None])


def test_pandas_reads_a_run_in_one_line(folder: Path) -> None:
    frame = pd.read_sql("select * from generations", sqlite3.connect(folder / "run.sqlite"))
    assert frame.loc[0, "raw"] == "</think>x"
    assert frame.loc[0, "prompt_tokens"] == 9


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
        "from tests.harness.test_store import *\n"
        "store = RunStore(Path(sys.argv[1])); store.add_prompts(PROMPTS); store.add_plan([BASELINE])\n"
        "store.add_generations([generation('t/2')]); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    with RunStore(tmp_path) as store:
        assert store.stored() == {("t/2", "baseline")}
