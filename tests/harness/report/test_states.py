"""The report of written runs at any state, and of any kind: what the page says first, and what is missing and why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mote.harness.errors import MoteError
from mote.harness.report import make_report
from mote.harness.report.catalogue import CATALOGUE
from mote.harness.store.run import RunStore
from tests.harness.report.small_report import SMALL, Page, no_figures  # noqa: F401 - a fixture
from tests.harness.report.written_run import write_run


@pytest.mark.parametrize(
    ("changes", "beginning"),
    [
        (
            {"effect": 0.95, "effect_of_random": 0.02, "controls": 19, "prompts": 189},
            "More than chance",
        ),
        (
            {"effect": 0.95, "effect_of_random": 0.02, "prompts": 189},
            "Too few controls to call it more than chance",
        ),
        ({"effect": 0.3, "effect_of_random": 0.6, "controls": 19}, "Not more than chance"),
        ({"effect": 0.0, "broken": 0.0}, "No effect: with the"),
        ({"controls": 0}, "Not more than chance"),
        ({"controls": 0, "retests": 0}, "With the 4 most distinctive experts of refusal switched off"),
    ],
)
@pytest.mark.usefixtures("no_figures")
def test_first_sentence_says_whether_it_is_chance(tmp_path: Path, changes: dict[str, Any], beginning: str) -> None:
    asked = {"doses": (), "stimulate": False, "heavy_tail": 0.0, "retests": 3, "kinds": ("mass", "layers"), **changes}
    page = Page(make_report(write_run(tmp_path, SMALL.changed(**asked))))
    lead = re.search(r'<p class="lead">(.*?)</p>', page.html)
    assert lead is not None
    assert lead[1].startswith(beginning)
    assert len(re.findall(r"\d+(?:\.\d+)?", lead[1])) <= 4


@pytest.mark.usefixtures("no_figures")
def test_in_sample_figure_is_marked_where_nothing_else_is_there(tmp_path: Path) -> None:
    page = Page(make_report(write_run(tmp_path, SMALL.changed(split=False, controls=1, prompts=56))))
    assert "likely to be too high" in page.text


@pytest.mark.parametrize(("split", "shared"), [("half", True), ("units", False)])
@pytest.mark.usefixtures("no_figures")
def test_halves_that_share_their_places_are_pointed_out(tmp_path: Path, split: str, shared: bool) -> None:
    folder = write_run(tmp_path, SMALL.changed(controls=1, prompts=56))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"]["study"]["split"] = split
    (folder / "manifest.json").write_text(json.dumps(manifest))
    page = Page(make_report(folder))
    assert ("they share their places with those that did" in page.text) is shared
    assert ("on some places (subjects, topics) and measured on others" in page.text) is not shared


@pytest.mark.parametrize(("model", "there"), [("demo", True), ("models/other", False)])
@pytest.mark.usefixtures("no_figures")
def test_caveat_of_the_demo_model(tmp_path: Path, model: str, there: bool) -> None:
    page = Page(make_report(write_run(tmp_path, SMALL.changed(model=model, stop_after=0))))
    assert ("alignment phase trained the routers and the routed experts only" in page.text) is there


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        (0, "Experts have not been chosen yet"),
        (1, "Only the untouched model has been asked so far"),
        (2, "Missing in suppress-4, suppress-2, stimulate-4 and 14 more"),
        (6, "the controls are not all measured yet"),
    ],
)
@pytest.mark.usefixtures("no_figures")
def test_unfinished_run_says_what_is_missing_and_how_to_go_on(tmp_path: Path, stop: int, words: str) -> None:
    folder = write_run(tmp_path / "run", SMALL.changed(stop_after=stop))
    page = Page(make_report(folder))
    assert "This run is not finished" in page.text
    assert words in page.text
    assert f"mote run written --out {folder}" in page.text


@pytest.mark.parametrize("stop", [0, 3])
def test_unfinished_run_has_the_figures_it_allows(tmp_path: Path, stop: int) -> None:
    page = Page(make_report(write_run(tmp_path, SMALL.changed(stop_after=stop))))
    drawn = {one["id"] for one in page.all("figure")}
    said = {one["id"] for one in page.all("p") if "id" in one}
    assert drawn | said == set(CATALOGUE)
    assert ("fig08-transitions" in drawn) is (stop == 3)
    assert "null-distribution" in said


@pytest.mark.usefixtures("no_figures")
def test_running_study_can_be_reported_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path, SMALL.changed(stop_after=1))
    with RunStore(folder):
        assert make_report(folder).is_file()


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MoteError, match=r"manifest\.json"):
        make_report(tmp_path)
