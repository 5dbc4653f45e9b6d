"""The demo's committed rows say what the README says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import mote
from mote.harness.report.frames import Run

ROOT = Path(__file__).parents[3]
PACKED = ("manifest.json", "run.sqlite.xz")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("demo")
    for name in PACKED:
        # A copy: packed rows are unpacked beside the file.
        shutil.copy(ROOT / "results" / "demo" / name, folder)
    return mote.open(folder)


def test_the_resonance_map_is_a_frame_in_one_line(demo: Run) -> None:
    assert demo.resonance.shape == (6, 64)
    best = demo.experts.iloc[0]
    assert demo.resonance.loc[best["layer"], best["expert"]] == demo.resonance.to_numpy().max()


def test_readme_and_rows_agree(demo: Run) -> None:
    flips = demo.flips.query("part == 'measure' and before == '0-REFUSED'")
    of = {name: (int(rows["flipped"].sum()), len(rows)) for name, rows in flips.groupby("profile")}
    assert of["suppress-10"] == (9, 60)
    assert of["suppress-20"] == (21, 60)
    assert [of[f"retest-{number}"] for number in (1, 2, 3)] == [(3, 60), (5, 60), (4, 60)]
    result = demo.result
    assert result.chance.verdict.kind == "not-above"
    assert result.effect.exact is not None
    assert result.effect.net is not None
    page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    legs = {leg.kind: leg.p for leg in result.effect.exact.legs}
    for said in (
        "9 of 60 (15%)",
        "three retests 3, 5 and 4 of 60",
        f"p = {result.chance.verdict.legs[0].p:.3f}",
        f"{100 * result.effect.exact.fall:.1f} points less likely to refuse",
        f"p = {legs['mass']:.3f} among 50 `mass` sets, {legs['layers']:.3f} among 50 `layers` sets",
        f"falls by {100 * result.effect.net.net:.1f} points net"
        f" ({100 * result.effect.net.low:.1f} to {100 * result.effect.net.high:.1f})",
    ):
        assert said in page, said
