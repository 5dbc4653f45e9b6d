"""``mote expert`` on the committed demo: what is seen, and what is needed, from its rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import mote
from mote.harness.cli.main import app
from mote.harness.errors import MoteError
from tests.harness.report.written_run import WrittenRun, write_run

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    for name in ("manifest.json", "run.sqlite.xz"):
        shutil.copy(ROOT / "results" / "demo" / name, folder)
    return folder


def test_an_expert_of_the_demo_is_said_to_be_what_its_rows_say(demo: Path) -> None:
    run = mote.open(demo)
    layer, expert = (int(number) for number in run.experts.iloc[0][["layer", "expert"]])
    page = run.expert(layer, expert)
    ids, maps = run.maps()
    chosen = maps[:, run.layers.index(layer), expert]
    classes = page.seen[page.seen["by"] == "class"].set_index("value")
    assert classes["prompts"].sum() == len(ids)
    assert (classes["a_prompt"] * classes["prompts"]).sum() == pytest.approx(chosen.sum())
    assert page.prompts["chosen"].iloc[0] == chosen.max()
    assert set(page.seen["by"]) == {"class", "unit"}
    assert page.places.set_index("ranking").loc["resonance", "place"] == 1
    committed = pd.read_csv(ROOT / "results" / "demo" / "tables" / "causal_scan.csv")
    mine = committed[(committed["layer"] == layer) & (committed["expert"] == expert)].iloc[0]
    assert page.alone["effect"].iloc[0] == pytest.approx(mine["effect"], rel=1e-4)
    ten = page.profiles.set_index("profile").loc["suppress-10"]
    assert (ten["flips"], ten["of"]) == (9, 60)
    assert (page.tokens["chosen"] <= page.tokens["of"]).all()
    assert not page.missing


def test_the_page_is_printed_and_is_an_object_for_scripts(demo: Path) -> None:
    printed = CliRunner().invoke(app, ["expert", str(demo), "0,51", "--top", "3"])
    assert printed.exit_code == 0, printed.output
    for said in ("Expert 0,51", "Seen for", "Needed for", "causal"):
        assert said in printed.output
    found = json.loads(CliRunner().invoke(app, ["expert", str(demo), "(0, 51)", "--json", "--top", "3"]).output)
    assert (found["layer"], found["expert"], len(found["prompts"])) == (0, 51, 3)
    assert found["alone"][0]["effect"] == pytest.approx(0.329, abs=1e-3)


def test_what_a_run_does_not_know_is_said_and_what_is_no_expert_is_one_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", WrittenRun(prompts=40, layers=(3, 4), experts=8, top_k=2, controls=0))
    page = mote.open(folder).expert(3, 0)
    assert page.alone.empty
    assert any("the run has no scan of it" in line for line in page.missing)
    for wrong, said in (
        ("5,1", "layers with experts are 3 to 4, experts 0 to 7"),
        ("3", "is no expert"),
        ("3,x", "4,17"),
    ):
        result = CliRunner().invoke(app, ["expert", str(folder), wrong])
        assert isinstance(result.exception, MoteError)
        assert said in str(result.exception)
