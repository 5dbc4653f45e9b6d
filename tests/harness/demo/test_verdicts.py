"""The table over several studies, from runs that are written by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mote.harness.demo.verdicts import build, main
from mote.harness.errors import MoteError
from mote.harness.recipe.manifest import read_manifest
from mote.harness.report.analysis import analyse
from mote.harness.store.run import RunStore
from tests.harness.report.written_run import WrittenRun, write_run

RUN = WrittenRun(prompts=56, controls=3)


def test_each_run_has_a_row_with_its_own_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = {name: write_run(tmp_path / name, RUN) for name in ("one", "two")}
    assert main([*(f"{name}={folder}" for name, folder in folders.items()), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "verdicts.md")
    table = pd.read_csv(tmp_path / "verdicts.csv").set_index("model")
    assert list(table.index) == ["one", "two"]
    with RunStore(folders["one"], read_only=True) as store:
        result = analyse(store, read_manifest(folders["one"]))
    assert result.effect.flips is not None
    assert table.loc["one", "flips"] == pytest.approx(result.effect.flips.share, abs=1e-5)
    assert table.loc["one", "verdict"] == result.chance.verdict.kind
    page = (tmp_path / "verdicts.md").read_text()
    assert page.count("\n| ") == 4
    assert f"{result.effect.flips.share:.1%} of {len(result.chance.targets)}" in page


def test_rows_of_other_runs_stay_where_they_were(tmp_path: Path) -> None:
    folders = {name: write_run(tmp_path / name, RUN) for name in ("one", "two", "three")}
    build({"one": folders["one"], "two": folders["two"]}, tmp_path)
    before = pd.read_csv(tmp_path / "verdicts.csv")
    build({"three": folders["three"], "one": folders["one"]}, tmp_path)
    after = pd.read_csv(tmp_path / "verdicts.csv")
    assert after["model"].tolist() == ["one", "two", "three"]
    pd.testing.assert_frame_equal(after.iloc[:2], before)


def test_a_run_that_is_not_there_and_a_name_without_one(tmp_path: Path) -> None:
    with pytest.raises(MoteError):
        build({"x": tmp_path / "nowhere"}, tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["nowhere", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
