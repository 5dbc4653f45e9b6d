"""A run's figures drawn into an Axes of one's own: ``run.plot.resonance(ax)``. They are the report's figures.

Each returns the Axes; without one it draws into a new figure of pyplot, as seaborn's functions would.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from matplotlib import pyplot
from matplotlib.axes import Axes

from mote.harness.drawing import RESONANCE, drawing
from mote.harness.errors import MoteError, nearest
from mote.harness.report.curve_drawings import curve_legend, paint_dose
from mote.harness.report.curve_figures import NO_DOSES, noise, own_k
from mote.harness.report.figure_data import title_of
from mote.harness.report.figures import null_parts
from mote.harness.report.map_figures import circle_experts, colour_scale, limits_of, paint_map
from mote.harness.report.null_figure import null_legend, paint_null
from mote.harness.report.transition_figure import Panel, paint_matrix, shown

if TYPE_CHECKING:
    from mote.harness.report.frames import Run


class Plots:
    """Figures of one run. Every one raises MoteError where the run does not have what is drawn yet."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def resonance(self, ax: Axes | None = None, *, ranking: str | None = None, circled: bool = True) -> Axes:
        """Draw a map [layer, expert], zero white, both directions alike; the tuned experts are circled and named.

        ``ranking`` names another of ``run.rankings`` than the study's own. In activations a prompt (or a token).
        """
        frame = self._run.resonance if ranking is None else self._run.ranking(ranking)
        values, layers = frame.to_numpy(dtype=float), [int(layer) for layer in frame.index]
        found = self._run.experts if circled else self._run.experts.iloc[:0]
        experts = [(int(a), int(b)) for a, b in zip(found["layer"], found["expert"], strict=True)]
        with _canvas(ax, (10.0, max(2.6, min(6.8, 0.26 * len(layers) + 1.5)))) as axes:
            paint_map(axes, values, layers, RESONANCE, limits_of(values))
            figure = axes.get_figure(root=True)
            if figure is None:
                raise MoteError("the Axes belongs to no figure.")
            box = axes.get_position()
            wide, tall = figure.get_size_inches()
            named = circle_experts(axes, layers, experts, (box.width * wide, box.height * tall))
            # Names of circled experts stand where a title would.
            axes.set_title(ranking or "resonance", pad=12 + 14 * named if named else None)
            colour_scale(figure, axes, self._run.result.sides.unit if ranking is None else "score")
        return axes

    def transition(self, profile: str | None = None, ax: Axes | None = None, *, view: str | None = None) -> Axes:
        """Draw one transition matrix: counts of prompts and shares of the row, class before by class after.

        ``profile`` is the tuned one unless named, or a kind of random sets, pooled (``random-mass``); ``view`` is
        ``measured``, ``in-sample`` or ``all``, by default the one that the report goes by.
        """
        result = self._run.result
        name, of = profile or result.asked.tuned, view or result.asked.view
        matrices = result.changes.matrices
        if name is None:
            raise MoteError("no labelled answer of the tuned profile is there yet; `mote run` generates them.")
        if (name, of) not in matrices:
            views = sorted({two for one, two in matrices if one == name})
            if views:
                raise MoteError(f"'{name}' has no matrix of the view '{of}'; it has {', '.join(views)}.")
            known = {one for one, _ in matrices}
            raise MoteError(f"there is no transition matrix of '{name}'.{nearest(name, known)}")
        panel = Panel(*title_of(result, name), matrices[name, of])
        with _canvas(ax, (4.6, 3.6)) as axes:
            paint_matrix(axes, panel, *shown([panel.matrix]))
        return axes

    def null(self, ax: Axes | None = None) -> Axes:
        """Draw the share of flips of each random set, a row a kind, under that of the tuned experts, with p."""
        parts = null_parts(self._run.result)
        if isinstance(parts, str):
            raise MoteError(parts)
        with _canvas(ax, (8.6, 0.68 * len(parts.rows) + 2.0)) as axes:
            paint_null(axes, parts)
            axes.set_title("The effect among random sets")
            # Below the axis and its label: no corner of this figure is sure to be empty.
            axes.legend(
                *null_legend(axes), loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=5, ncols=2, fontsize=8.5
            )
        return axes

    def dose(self, ax: Axes | None = None) -> Axes:
        """Draw flips, changes of other prompts and broken text over the number of experts suppressed."""
        result = self._run.result
        if len(result.curves.doses) < 2:
            raise MoteError(NO_DOSES)
        with _canvas(ax, (7.6, 4.2)) as axes:
            paint_dose(axes, result.curves.doses, result.curves.sets, own_k(result), noise(result)[1])
            # The report's title is as long as its page is wide.
            axes.set_title("Dose")
            axes.legend(*curve_legend(axes), loc="best", fontsize=8.5)
        return axes


@contextmanager
def _canvas(ax: Axes | None, inches: tuple[float, float]) -> Iterator[Axes]:
    """Draw in the house style, into the given Axes or a new figure's only one."""
    with drawing("plot"):
        yield ax if ax is not None else pyplot.subplots(figsize=inches, layout="constrained")[1]
