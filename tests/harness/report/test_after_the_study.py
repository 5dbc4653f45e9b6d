"""What a transplant and a search have left beside a run stands on its page, and what is none of theirs is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mote.harness.errors import MoteError
from mote.harness.experts.transplant_output import page, read_transplant
from mote.harness.report import make_report
from mote.harness.report.search_sentences import RULED, search_sentences
from tests.harness.report.small_report import SMALL, Page, no_figures  # noqa: F401 - a fixture
from tests.harness.report.written_run import write_run

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with the demo's real transplant and search."""
    folder = tmp_path / "run"
    shutil.copytree(RESULTS / "transplant" / "demo", folder / "transplant")
    (folder / "tables").mkdir()
    shutil.copy(RESULTS / "search" / "tables" / "search.json", folder / "tables")
    return folder


@pytest.mark.usefixtures("no_figures")
def test_the_page_shows_both_where_the_run_has_them(beside: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "invented", SMALL.changed(prompts=28, controls=1))
    shutil.copytree(beside, run, dirs_exist_ok=True)
    shown = Page(make_report(run))
    cells = pd.read_csv(run / "transplant" / "cells.csv")
    assert "Is it the route or the content?" in shown.text
    assert "Under their own routes 120 of 120 prompts have the run's own answer" in shown.text
    for row in cells.itertuples():
        assert f"{row.share:.1%}" in shown.text
    assert "23.3 points (-5.5 to 62.1)" in shown.text
    said = json.loads((run / "tables" / "search.json").read_text())
    assert "A search for the best set" in shown.text
    assert f"net {said['winner']['net']:+.1%}" in shown.text
    for null in said["ruling"]["nulls"]:
        assert f"at most; p = {null['p']:.3f}." in shown.text
    assert RULED[said["ruling"]["said"]] in shown.text
    shutil.rmtree(run / "transplant")
    (run / "tables" / "search.json").unlink()
    shown = Page(make_report(run))
    assert "Is it the route" not in shown.text
    assert "A search for" not in shown.text


def test_a_transplant_is_read_as_it_was_written(beside: Path, tmp_path: Path) -> None:
    found = read_transplant(beside)
    assert found is not None
    assert page(found) == (beside / "transplant" / "README.md").read_text()
    for name, table in (("cells", found.cells), ("effects", found.effects)):
        pd.testing.assert_frame_equal(table, pd.read_csv(beside / "transplant" / f"{name}.csv"), check_dtype=False)
    assert read_transplant(tmp_path) is None


def _settings(change: Callable[[dict[str, object]], object]) -> Callable[[str], str]:
    def changed(text: str) -> str:
        data = json.loads(text)
        change(data)
        return json.dumps(data)

    return changed


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("settings.json", lambda _: "[", "settings.json is not JSON"),
        ("settings.json", _settings(lambda data: data.pop("kept")), "Field required"),
        ("settings.json", _settings(lambda data: data.update(classes=["a", "a"])), "two classes in a transplant"),
        ("settings.json", _settings(lambda data: data.update(align="start")), "'end' or 'role'"),
        ("cells.csv", lambda text: text.replace("share", "part"), "cells.csv is no transplant's: "),
        ("cells.csv", lambda text: text.replace("another", "elsewhere"), "'elsewhere' is no place of a donor"),
        ("effects.csv", lambda text: text.replace("0.233333", "much"), "effects.csv is no transplant's: could not"),
        ("effects.csv", lambda _: "", "effects.csv is no transplant's: No columns"),
    ],
)
def test_what_is_no_transplants_is_one_line(beside: Path, name: str, change: Callable[[str], str], says: str) -> None:
    path = beside / "transplant" / name
    path.write_text(change(path.read_text()))
    with pytest.raises(MoteError) as caught:
        read_transplant(beside)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: "{", "search.json is not JSON"),
        (_settings(lambda data: data.pop("winner")), "is no search's: Field required"),
        (_settings(lambda data: data["winner"].update(net="high")), "is no search's: Input should be a valid number"),  # type: ignore[attr-defined]
        (_settings(lambda data: data["ruling"].update(said="yes")), "is no search's: Input should be 'above'"),  # type: ignore[attr-defined]
    ],
)
def test_what_is_no_searchs_is_one_line(beside: Path, change: Callable[[str], str], says: str) -> None:
    path = beside / "tables" / "search.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(MoteError) as caught:
        search_sentences(path.parent)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_search_that_found_nothing_says_so(beside: Path) -> None:
    path = beside / "tables" / "search.json"
    data = json.loads(path.read_text())
    data["winner"]["experts"], data["ruling"]["said"] = [], "none"
    path.write_text(json.dumps(data))
    said = search_sentences(path.parent)
    assert said[0] == "The best of 24 trials is the untouched model, whose net effect is 0."
    assert said[-1].startswith("Nothing found")
