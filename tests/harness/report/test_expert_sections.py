"""The report's part on each expert: from the demo's rows, and from a run that knows less."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

import mote
from mote.harness.report import expert_sections, make_report
from mote.harness.report.expert_sections import SCANNED, ExpertPart, expert_parts
from mote.harness.report.frames import Run
from tests.harness.report.test_expert import demo as demo
from tests.harness.report.written_run import WrittenRun, write_run

SMALL = WrittenRun(prompts=80, layers=(3, 4), experts=8, top_k=2, controls=2)


@pytest.fixture(scope="module")
def opened(demo: Path) -> Run:
    return mote.open(demo)


@pytest.fixture(scope="module")
def parts(opened: Run) -> list[ExpertPart]:
    found, more = expert_parts(opened, opened.result)
    assert not more
    return found


def test_the_tuned_and_the_scans_first_ten_have_a_part_each_with_both_sides(
    opened: Run, parts: list[ExpertPart]
) -> None:
    tuned = [f"({layer:.0f}, {expert:.0f})" for layer, expert in opened.experts[["layer", "expert"]].to_numpy()]
    assert [part.name for part in parts[: len(tuned)]] == tuned
    causal = pd.Series(opened.ranking("causal").stack()).nlargest(SCANNED)
    scanned = {part.name for part in parts if "of the scan's first 10" in part.why}
    assert scanned == {f"({layer}, {expert})" for layer, expert in causal.index}
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        assert part.seen[0].caption.startswith("Seen for, by class")
        assert part.needed[0].caption.startswith("Needed for: its effect alone")
        assert all(len(row) == len(table.columns) for table in (*part.seen, *part.needed) for row in table.rows)


def test_a_part_says_what_the_command_says(opened: Run, parts: list[ExpertPart]) -> None:
    best = parts[0]
    layer, expert = (int(number) for number in best.name.strip("()").split(","))
    page = opened.expert(layer, expert)
    alone = page.alone.iloc[0]
    assert best.needed[0].rows[0][1:3] == [f"{alone['effect']:.3f}", f"{alone['low']:.3f} to {alone['high']:.3f}"]
    profiles = {row[0]: row[2] for row in best.needed[1].rows}
    assert profiles["suppress-10"] == "9 of 60"
    places = next(table for table in best.seen if "every ranking" in table.caption)
    assert {row[0]: row[1] for row in places.rows}["resonance"] == "1 of 384"


def test_the_page_folds_a_part_away_and_names_what_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "run", SMALL)
    monkeypatch.setattr(expert_sections, "MOST", 1)
    page = unescape(make_report(folder).read_text(encoding="utf-8"))
    (part,) = re.findall(r'<details class="expert">.*?</details>', page, re.DOTALL)
    assert "tuned, 1 of 2" in part.partition("</summary>")[0]
    assert part.count("<table><caption>") == part.count("<table>") >= 3
    assert "Its effect alone: the run has no causal scan of it" in part
    assert str(folder) not in part
    assert mote.open(folder).verdict in page
    assert "1 more: <code>mote expert RUN LAYER,EXPERT</code>" in page


def test_a_run_without_tuned_experts_has_no_part(tmp_path: Path) -> None:
    run = mote.open(write_run(tmp_path / "run", SMALL.changed(stop_after=1)))
    assert expert_parts(run, run.result) == ([], 0)
