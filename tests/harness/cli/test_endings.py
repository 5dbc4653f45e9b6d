"""How a command ends that something ends: signals, disks without room, and runs whose bits have turned."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mote.harness.errors import MoteError
from mote.harness.files import canonical_json
from mote.harness.store.run import ProfileRow, RunStore
from tests.harness.study import scripted_run
from tests.harness.study.scripted_engine import ScriptedEngine, recipe_of, rows_of, study_of

ROOT = Path(__file__).parents[3]
ENV = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
MOTE = [sys.executable, "-c", "from mote.harness.cli.main import main; main()"]
SMALL = recipe_of(42, controls={"mass": 3, "layers": 3}, doses=[], factors=[], thirds=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    study_of(folder, SMALL, ScriptedEngine(), force=True)
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "scripted.yaml"
    path.write_text(canonical_json(SMALL.model_dump(mode="json")))
    return path


def run(recipe: Path, folder: Path, number: int = 0, after: int = 0, room: int = 0) -> tuple[int, str, str]:
    program = [sys.executable, scripted_run.__file__, str(number), str(after), str(room)]
    done = subprocess.run(
        [*program, "run", str(recipe), "--out", str(folder), "--force"],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_sigterm_and_sighup_end_a_run_as_ctrl_c_does(whole: Path, recipe: Path, tmp_path: Path) -> None:
    for number, after in ((signal.SIGTERM, 20), (signal.SIGHUP, 75)):
        code, out, err = run(recipe, tmp_path / "run", number, after)
        assert (code, err) == (128 + number, "")
        assert f"Stopped. What was generated is stored; go on with: mote run {recipe}" in out
    assert run(recipe, tmp_path / "run")[0] == 0
    assert rows_of(tmp_path / "run") == rows_of(whole)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_at_twenty_random_moments_ends_with_the_same_rows(
    whole: Path, recipe: Path, tmp_path: Path
) -> None:
    """The same with the real engine is in test_run."""
    draw, codes, kept = random.Random(20), [], [0]  # noqa: S311
    for _ in range(20):
        codes.append(run(recipe, tmp_path / "run", signal.SIGKILL, draw.randrange(1, 22))[0])
        if (tmp_path / "run" / "run.sqlite").exists():
            with RunStore(tmp_path / "run", read_only=True) as store:
                kept.append(len(store.stored()))
    assert codes.count(-signal.SIGKILL) >= 15, codes
    assert kept == sorted(kept), "no kill lost a row"
    assert run(recipe, tmp_path / "run")[0] == 0
    assert rows_of(tmp_path / "run") == rows_of(whole)


def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_once_there_is_room(
    whole: Path, recipe: Path, tmp_path: Path
) -> None:
    code, _, err = run(recipe, tmp_path / "run", room=400_000)
    assert code == 2
    assert "What was stored stays" in err
    assert (err.count("\n"), len(err) < 400) == (1, True), err
    with RunStore(tmp_path / "run", read_only=True) as store:
        kept = len(store.stored())
    assert kept > 0
    assert run(recipe, tmp_path / "run")[0] == 0
    assert rows_of(tmp_path / "run") == rows_of(whole)


def test_a_store_without_room_keeps_what_it_has_and_takes_more_later(tmp_path: Path) -> None:
    row = ProfileRow("x", "d", "suppress", "all", 0, {"name": "x" * 100_000})
    with RunStore(tmp_path) as store:
        store.add_plan([row._replace(name="first")])
        pages = store.db.execute("pragma page_count").fetchone()[0]
        store.db.execute(f"pragma max_page_count = {pages + 3}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            store.add_plan([row])
        assert [one.name for one in store.profiles()] == ["first"]
        store.db.execute("pragma max_page_count = 1000000")
        store.add_plan([row])
        assert [one.name for one in store.profiles()] == ["first", "x"]


def test_a_turned_bit_is_found_before_a_run_goes_on(whole: Path, tmp_path: Path) -> None:
    with (
        closing(sqlite3.connect(whole / "run.sqlite")) as db,
        closing(sqlite3.connect(tmp_path / "run.sqlite")) as copy,
    ):
        db.backup(copy)
        copy.execute("update texts set text = replace(text, 'new bridge', 'new bridgf')")
        copy.commit()
    (tmp_path / "manifest.json").write_bytes((whole / "manifest.json").read_bytes())
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(MoteError, match=r"run\.sqlite is damaged: text \d+ is not what was stored"):
        study_of(tmp_path, SMALL, ScriptedEngine(), force=True)
    assert (tmp_path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_streams_that_are_closed_or_full_are_no_traceback(closed: str, tmp_path: Path) -> None:
    for arguments, codes in ((["--version"], (0, 2)), (["nosuch"], (2,)), (["ls", str(tmp_path / "none")], (2,))):
        line = f'"$@" {closed}'
        done = subprocess.run(
            ["bash", "-c", line, "bash", *MOTE, *arguments], env=ENV, capture_output=True, text=True, check=False
        )
        assert done.returncode in codes, (arguments, done)
        assert "Traceback" not in done.stdout + done.stderr
