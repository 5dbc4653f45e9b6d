"""The report of written runs: what is made, what it says, and what becomes of states and stale files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote.harness.errors import MoteError
from mote.harness.report import make_report
from tests.harness.written_run import WrittenRun, write_run

SMALL = WrittenRun(prompts=84, layers=(1, 2, 3), experts=16, top_k=4, controls=3)


def test_whole_run_gives_page_figures_and_tables(tmp_path: Path) -> None:
    page = make_report(write_run(tmp_path / "run", SMALL))
    assert page == tmp_path / "run" / "report.html"
    for name in ("fig05-resonance", "fig08-transitions", "null-distribution"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (tmp_path / "run" / "figures" / f"{name}.svg").read_bytes()
    assert (tmp_path / "run" / "tables" / "fig08-transitions.csv").is_file()


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MoteError, match="manifest"):
        make_report(tmp_path)
