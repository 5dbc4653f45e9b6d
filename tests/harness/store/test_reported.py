"""What a list of runs shows of a report: what the report says, and blanks where no table can be trusted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mote.harness.recipe.manifest import read_manifest
from mote.harness.store.listing import runs_of
from mote.harness.store.reported import Reported, reported

DEMO = Path(__file__).parents[3] / "results" / "demo"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The committed demo's manifest and tables, without its rows."""
    shutil.copy(DEMO / "manifest.json", tmp_path)
    (tmp_path / "tables").mkdir()
    for name in ("verdict.csv", "effect.csv"):
        shutil.copy(DEMO / "tables" / name, tmp_path / "tables")
    return tmp_path


def said(run: Path) -> Reported:
    return reported(run, read_manifest(run))


def test_the_demo_is_listed_as_its_report_has_it(run: Path) -> None:
    # tests/harness/report/test_committed.py has the same verdict from the rows.
    (line,) = runs_of(run)
    assert (line.verdict, line.effect) == ("not-above", 9 / 60)
    assert line.low == pytest.approx(0.0329, abs=1e-4)
    assert line.high == pytest.approx(0.3756, abs=1e-4)
    assert line.generations is None


def rewrite(run: Path, name: str, old: str, new: str) -> None:
    path = run / "tables" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_other_numbers_give_another_verdict(run: Path) -> None:
    rewrite(run, "verdict.csv", "answers,mass,0.095", "answers,mass,0.025")
    rewrite(run, "verdict.csv", "answers,uniform,0.095", "answers,uniform,0.049")
    rewrite(run, "verdict.csv", "answers,retest,0.171875", "answers,retest,0.005")
    assert said(run).verdict == "unknown"  # sets of the same layers are not finished
    rewrite(run, "verdict.csv", "answers,layers,,", "answers,layers,0.02,")
    assert said(run).verdict == "above"
    rewrite(run, "effect.csv", ",60,5.0", ",9,5.0")
    assert said(run).verdict == "too-few-prompts"
    assert reported(run, {**read_manifest(run), "forced": True}).verdict == "above"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("effect.csv", "what,value", "what,worth"),
        ("effect.csv", "0.15,", "nan,"),
        ("effect.csv", "0.15,", "1e999,"),
        ("effect.csv", ",60,5.0", ",60,"),
        ("effect.csv", "flips among", "flops among"),
        ("verdict.csv", "0.09523809523809523", "a lot"),
        ("verdict.csv", ",3,False", ",1e18,False"),
        ("verdict.csv", "measure,kind", "measure"),
        ("verdict.csv", "measure", "\x1b" * 200_000),
    ],
)
def test_tables_that_no_report_wrote_give_blanks(run: Path, name: str, old: str, new: str) -> None:
    assert said(run) != Reported()
    rewrite(run, name, old, new)
    assert said(run) == Reported()


def test_a_folder_in_the_place_of_a_table_gives_blanks(run: Path) -> None:
    (run / "tables" / "verdict.csv").unlink()
    assert said(run) == Reported()
    (run / "tables" / "verdict.csv").mkdir()
    assert said(run) == Reported()
