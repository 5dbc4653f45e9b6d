"""MT-Bench beside the study (the paper's Figure 14): the chart of ``mt_bench.charts``, wide and narrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure

from mote.harness.drawing import Layout
from mote.harness.errors import MoteError
from mote.harness.report.figure_data import Bench
from mote.harness.report.model_text import clip

if TYPE_CHECKING:
    from mote.harness.mt_bench.store import ModelRow


NOTHING: Final = "Make `mote mt-bench` under both profiles; `mote report RUN --mt-bench FOLDER` shows it."


def find_bench(run: Path, manifest: Mapping[str, Any], given: Path | None) -> Bench | str:
    """Return the scores of an MT-Bench folder, or why there are none: the one that is given, else RUN/mt-bench.

    Of several judges the one with most ratings is taken, and its ratings by the corrected references where there are
    some. Raises MoteError where a given folder holds none, or is of another model or profile than the run.
    """
    from mote.harness.mt_bench.judging import CORRECTED, REFERENCE_SETS
    from mote.harness.mt_bench.ratings import judges_of, ratings
    from mote.harness.mt_bench.scores import score_table
    from mote.harness.mt_bench.store import STORE_NAME, BenchStore

    folder = given or run / "mt-bench"
    if given is None and not (folder / STORE_NAME).is_file():
        return NOTHING
    with BenchStore(folder, read_only=True) as store:
        rated = {(judge, of): ratings(store, judge, of) for judge in judges_of(store) for of in REFERENCE_SETS}
        models = store.models()
    counts = {key: int(frame["score"].notna().sum()) for key, frame in rated.items()}
    if reason := _of_another(models, manifest):
        reason = f"{folder} is no bench of this run: {reason}"
    elif not any(counts.values()):
        reason = f"{folder} holds no ratings yet: `mote mt-bench judge {folder}` makes them."
    if reason:
        if given is None:
            return reason
        raise MoteError(reason)
    judge = max(counts, key=lambda key: (counts[key], key))[0]
    reference_set = max(REFERENCE_SETS, key=lambda of: (counts[judge, of] > 0, of == CORRECTED))
    names = tuple(row.model_id for row in models)
    return Bench(f"{judge}, {reference_set} references", names, score_table(rated[judge, reference_set]))


def _of_another(models: Sequence[ModelRow], manifest: Mapping[str, Any]) -> str:
    """Return why a bench's models are not the run's: by the digests of the model's files, and of the profiles."""
    ours, digests = manifest["model"]["files"], set(manifest["profiles"].values())
    for row in models:
        theirs = row.source.get("model")
        if not isinstance(theirs, Mapping) or theirs.get("files") != ours:
            name = theirs.get("name", "not named") if isinstance(theirs, Mapping) else "not named"
            return f"its model ({clip(str(name), 60)}) has other files than the run's ({manifest['model']['name']})."
        if row.profile.get("edits") and row.profile_digest not in digests:
            return f"the run has no profile like that of '{clip(row.model_id, 60)}' (by its digest)."
    return ""


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
