"""``run.plot``: the report's figures in an Axes of one's own, and what they hold."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

import mote
from mote.harness.errors import MoteError
from mote.harness.report.frames import Run
from tests.harness.report.written_run import WrittenRun, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("plots") / "run"
    return mote.open(write_run(folder, WrittenRun(prompts=120, layers=(3, 4, 6), experts=16, top_k=3, doses=(1,))))


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    # Another file's tests may have left figures open.
    pyplot.close("all")
    yield
    pyplot.close("all")


@pytest.mark.parametrize("name", ["resonance", "transition", "null", "dose"])
def test_a_figure_is_drawn_into_the_axes_that_is_given_and_makes_no_other(run: Run, name: str) -> None:
    figure = Figure(figsize=(9, 6))
    left, right = figure.subplots(1, 2)
    assert getattr(run.plot, name)(ax=right) is right
    assert not left.has_data()
    assert right.has_data()
    assert right.get_xlabel()
    assert right.get_ylabel()
    assert right.get_title(loc="left")
    assert not pyplot.get_fignums()
    figure.savefig(io.BytesIO(), format="png")
    assert getattr(run.plot, name)().figure.number in pyplot.get_fignums()


def test_the_map_is_the_frame_and_its_colours_are_alike_on_both_sides_of_zero(run: Run) -> None:
    ax = run.plot.resonance()
    (mesh,) = (found for found in ax.collections if found.get_array() is not None and found.norm.vmin is not None)
    values: Any = mesh.get_array()
    assert np.allclose(np.asarray(values).ravel(), run.resonance.to_numpy().ravel())
    bound = np.abs(run.resonance.to_numpy()).max()
    assert mesh.get_clim() == (-bound, bound)
    named = {text.get_text() for text in ax.texts}
    assert named == {f"({layer:.0f}, {expert:.0f})" for layer, expert in run.experts[["layer", "expert"]].to_numpy()}
    assert not run.plot.resonance(circled=False).texts


def test_a_matrix_has_the_counts_of_its_profile(run: Run) -> None:
    matrix = run.result.changes.matrices["suppress-3", run.result.asked.view]
    said = [text.get_text() for text in run.plot.transition().texts]
    assert sum(int(text) for text in said if text.isdigit()) == matrix.to_numpy().sum()


def test_what_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(MoteError, match="Did you mean 'suppress-3'"):
        run.plot.transition("supress-3")
    with pytest.raises(MoteError, match="no ranking 'causl'"):
        run.plot.resonance(ranking="causl")
    bare = mote.open(write_run(tmp_path / "run", WrittenRun(prompts=40, layers=(0,), experts=8, top_k=2, controls=0)))
    with pytest.raises(MoteError, match="random sets"):
        bare.plot.null()
    with pytest.raises(MoteError, match=r"study\.doses"):
        bare.plot.dose()
