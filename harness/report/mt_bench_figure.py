"""MT-Bench beside the study (the paper's Figure 14): the chart of ``mt_bench.charts``, wide and narrow."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from mote.harness.drawing import Layout
from mote.harness.errors import MoteError
from mote.harness.report.figure_data import Bench


def find_bench(run: Path, given: Path | None) -> Bench | None:
    """Return the scores of an MT-Bench folder: the one that is given, else ``mt-bench`` in the run's own folder.

    Of several judges the one with most ratings is taken. Raises MoteError where a given folder holds none.
    """
    from mote.harness.mt_bench.judging import REFERENCE_SETS
    from mote.harness.mt_bench.ratings import judges_of, ratings
    from mote.harness.mt_bench.scores import score_table
    from mote.harness.mt_bench.store import STORE_NAME, BenchStore

    folder = given or run / "mt-bench"
    if given is None and not (folder / STORE_NAME).is_file():
        return None
    with BenchStore(folder, read_only=True) as store:
        rated = {(judge, of): ratings(store, judge, of) for judge in judges_of(store) for of in REFERENCE_SETS}
        models = tuple(row.model_id for row in store.models())
    counts = {key: int(frame["score"].notna().sum()) for key, frame in rated.items()}
    if not any(counts.values()):
        if given is None:
            return None
        raise MoteError(f"{folder} holds no ratings yet: `mote mt-bench judge {folder}` makes them.")
    judge, reference_set = max(counts, key=lambda key: (counts[key], key))
    return Bench(f"{judge}, {reference_set} references", models, score_table(rated[judge, reference_set]))


def draw_bench(bench: Bench, layout: Layout) -> Figure:
    """Draw the mean ratings by category, beside the paper's."""
    from mote.harness.mt_bench.charts import bar_chart

    figure = bar_chart(bench.scores, bench.models, f"Judge: {bench.judge}")
    if layout.narrow:
        figure.set_size_inches(layout.width, 5.8)
        (ax,) = figure.axes
        ax.set_title(f"Judge: {bench.judge.replace(', ', chr(10))}")
        ax.set_title("", loc="right")
        ax.tick_params(axis="x", labelrotation=60)
        for legend in figure.legends:
            handles = [handle for handle in legend.legend_handles if handle is not None]
            names = [text.get_text() for text in legend.get_texts()]
            legend.remove()
            figure.legend(handles, names, loc="outside lower center", ncols=1)
    return figure
