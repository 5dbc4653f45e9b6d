"""The command line as a user meets it: real processes' entry point, exit codes, one-line errors."""

from __future__ import annotations

import json
import lzma
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mote.harness.cli import main as cli
from mote.harness.errors import nearest
from mote.harness.store.schema import names_of_tables
from tests.harness.report.written_run import WrittenRun, write_run

Mote = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mote(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mote:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["mote", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return (left.value.code if isinstance(left.value.code, int) else 0), out, err

    return call


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "demo", WrittenRun(prompts=60, controls=2))


def test_every_command_has_help_with_an_example(mote: Mote) -> None:
    code, out, _ = mote("--help")
    assert code == 0
    names = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.strip() and line[2] != " "]
    assert {"run", "report", "compare", "judge", "ls", "export", "serve", "data"} <= set(names)
    for name in names:
        # Groups show their commands, and lm-eval passes --help on to lm_eval itself.
        if name not in ("demo", "inspect", "judge", "mt-bench", "lm-eval", "merge", "recipe", "sweep"):
            assert "Example: mote" in mote(name, "--help")[1], name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runn"], "Did you mean 'run'"),
        (["run"], "Missing argument 'RECIPE'"),
        (["run", "demo", "--limit", "x"], "'--limit'"),
        (["report", "/nowhere"], "/nowhere"),
        (["ls", "/nowhere"], "there is no folder /nowhere"),
        (["export", "/nowhere"], "not the folder of a run"),
        (["serve", "/nowhere"], "'/nowhere' is neither a folder"),
        (["serve", "demo", "--profiles", "/nowhere"], "there is no folder /nowhere"),
        (["data", "--fetch", "mt_bnch"], "Did you mean 'mt_bench'?"),
        (["data", "--fetch", "refusal_grid"], "nothing to fetch"),
        (["demo", "trane"], "Did you mean 'train'?"),
        (["demo", "train", "--out", "."], "exists; name a new folder"),
        (["demo", "train", "--out", "/dev/null/model"], "/dev/null/model cannot be made"),
        (["demo", "train-parents", "--out", "/dev/null"], "cannot be made"),
        (["report", "/dev/null"], "/dev/null"),
        (["verify", "demo", "--out", "/nowhere/report.md"], "--out /nowhere/report.md: nothing can be written there"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(mote: Mote, arguments: list[str], said: str) -> None:
    code, out, err = mote(*arguments)
    assert code == 2
    assert said in err
    assert err.startswith("mote: ")
    assert err.count("\n") == 1
    assert out == ""


def test_a_report_ends_with_the_matrices_and_the_page(mote: Mote, written: Path) -> None:
    code, out, err = mote("report", str(written))
    assert (code, err) == (0, "")
    assert "Transitions on prompts that chose no expert: rows before, columns after" in out
    assert "suppress-10 *" in out
    assert "…" not in out
    assert (written / "report.html").is_file()
    # Nothing of SQLite's is left beside a run that was only read.
    assert not list(written.glob("run.sqlite-*"))


def test_a_report_of_a_run_that_nobody_may_write_to_says_so(mote: Mote, written: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(written / "manifest.json", tmp_path / "run")
    code, _, err = mote("report", str(tmp_path / "run"))
    assert code == 2
    assert "run.sqlite" in err


def test_runs_are_listed_with_their_state(mote: Mote, written: Path) -> None:
    code, out, _ = mote("ls", str(written.parent))
    assert code == 0
    assert "refusal_grid" in out
    assert mote("ls", str(written))[1] == out


def test_one_damaged_run_hides_no_other(mote: Mote, written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "good")
    for name in ("bad-manifest", "bad-store"):
        shutil.copytree(written, tmp_path / name)
    (tmp_path / "bad-manifest" / "manifest.json").write_text("{")
    for extra in ("run.sqlite-wal", "run.sqlite-shm"):
        (tmp_path / "bad-store" / extra).unlink(missing_ok=True)
    (tmp_path / "bad-store" / "run.sqlite").write_bytes(b"no database" * 1000)
    code, out, err = mote("ls", str(tmp_path))
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert "unreadable" in lines["bad-manifest"]
    assert lines["bad-store"].split()[-1] == "-"
    assert int(lines["good"].split()[-1]) > 60
    code, _, err = mote("report", str(tmp_path / "bad-store"))
    assert code == 2
    assert "run.sqlite cannot be read as a run's store" in err


def test_a_packed_run_is_compared_like_any_other(mote: Mote, written: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(written / "manifest.json", run)
    rows = sqlite3.connect(written / "run.sqlite").serialize()
    (run / "run.sqlite.xz").write_bytes(lzma.compress(rows))
    code, out, err = mote("compare", str(run), f"{run}:suppress-10", "--examples", "0")
    assert (code, err) == (0, "")
    assert (
        out.partition("\n\n")[2]
        == mote("compare", str(written), f"{written}:suppress-10", "--examples", "0")[1].partition("\n\n")[2]
    )


def test_an_export_holds_every_row_with_its_labels(mote: Mote, written: Path, tmp_path: Path) -> None:
    code, out, _ = mote("export", str(written), "--out", str(tmp_path / "export"))
    assert code == 0
    assert len(out.split()) == len(names_of_tables()) + 1
    generations = pd.read_parquet(tmp_path / "export" / "generations.parquet")
    lines = (tmp_path / "export" / "generations.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(generations) > 60
    first = json.loads(lines[0])
    assert first["messages"][0]["content"].startswith("What happened")
    assert first["labels"]


def test_the_data_sets_are_listed_with_licence_and_state(
    mote: Mote, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOTE_DATA", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "140")
    code, out, _ = mote("data")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "756  ready" in lines["refusal_grid"]
    assert "not fetched" in lines["mt_bench"]
    assert "CC BY-NC 4.0" in lines["ccp_sensitive"]


def test_a_name_that_is_like_none_brings_a_few_and_no_files_of_others(mote: Mote, tmp_path: Path) -> None:
    for at in range(40):
        (tmp_path / f"letter-{at}.txt").touch()
    code, _, err = mote("compare", str(tmp_path / "zq"), str(tmp_path / "zq"))
    assert (code, "letter" in err) == (2, False)
    assert "Did you mean 'letter-1.txt'" in mote("compare", str(tmp_path / "leter-1.txt"), "x")[2]
    assert nearest("zq", [f"name-{at:02d}" for at in range(40)]).endswith("name-11, and 28 more.")
