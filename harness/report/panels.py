"""The transition matrices that a report shows, as figures and as tables: the tuned profile, its controls, a retest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mote.harness.drawing import short
from mote.harness.report.analysis import StudyResult
from mote.harness.report.figure_data import KIND_TITLES, title_of
from mote.harness.report.transition_figure import Panel, percent, shown
from mote.harness.science.controls import RETEST
from mote.harness.science.transitions import row_shares


class MatrixTable(NamedTuple):
    """A matrix for the page: its title with a note, the classes after, and a row a class before with its cells."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def transition_panels(result: StudyResult) -> list[Panel]:
    """Return the tuned profile's matrix, one a kind of random sets, and the first retest's; none without the first."""
    tuned, view = result.asked.tuned, result.asked.view
    matrices = result.changes.matrices
    if tuned is None or (tuned, view) not in matrices:
        return []
    names = [name for name, of in matrices if of == view]
    shown_names = [tuned, *(name for name in names if name in KIND_TITLES)]
    shown_names += [name for name in names if name.startswith(RETEST)][:1]
    return [Panel(*title_of(result, name), matrices[name, view]) for name in shown_names]


def stimulation_panels(result: StudyResult) -> list[Panel]:
    """Return the matrix of the tuned profile beside those of stimulated experts; none where nothing was stimulated."""
    view, matrices = result.asked.view, result.changes.matrices
    kinds = dict(zip(result.record.progress["profile"], result.record.progress["kind"], strict=True))
    names = [name for name, of in matrices if of == view and kinds.get(name) == "stimulate"]
    if not names:
        return []
    panels = [
        Panel(*title_of(result, name), matrices[name, view])
        for name in [result.asked.tuned, *names]
        if name and (name, view) in matrices
    ]
    return [panel for panel in panels if panel.matrix.to_numpy().sum()]


def matrix_tables(panels: Sequence[Panel]) -> list[MatrixTable]:
    """Return panels as tables with the same rows and columns as their figure: each cell its count and share."""
    if not panels:
        return []
    rows, columns = shown([panel.matrix for panel in panels])
    names = [short(name).capitalize() for name in columns]
    found = []
    for title, note, matrix in panels:
        counts = matrix.loc[rows, columns].to_numpy(dtype=int)
        shares = row_shares(matrix).loc[rows, columns].to_numpy(dtype=float)
        sums = matrix.loc[rows].to_numpy(dtype=int).sum(axis=1)
        cells = [
            (
                f"{short(row).capitalize()} ({sums[i]:,})",
                [f"{count:,} ({percent(float(share))})" for count, share in zip(counts[i], shares[i], strict=True)],
            )
            for i, row in enumerate(rows)
        ]
        found.append(MatrixTable(f"{title}, {note}", names, cells))
    return found
