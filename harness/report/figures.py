"""The figures that a run's data allow, each drawn wide and narrow; for the others, how to get them.

Every figure stands in ``CATALOGUE`` under its file name, with the number it has in the paper, so that a
reader of the paper finds it; ``fig08-transitions.svg`` is the paper's Figure 8 for this run.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mote.harness.drawing import NARROW, WIDE, drawing, name_typeface, short
from mote.harness.report.analysis import StudyResult
from mote.harness.report.catalogue import key_of
from mote.harness.report.curve_figures import direction, dose, pruning, thirds, trade_off
from mote.harness.report.embedding_figure import FEWEST_POINTS, colourings, draw_embedding, embed
from mote.harness.report.figure_data import KIND_TITLES, Draw, FigureData, Made, long_map, title_of
from mote.harness.report.map_figures import draw_map, draw_resonance
from mote.harness.report.mt_bench_figure import NOTHING, draw_bench
from mote.harness.report.null_figure import NullParts, draw_null
from mote.harness.report.panels import stimulation_panels, transition_panels
from mote.harness.report.ranking_figure import rankings
from mote.harness.report.token_figure import draw_tokens, panels_of
from mote.harness.report.transition_figure import draw_matrices
from mote.harness.science.controls import RANDOM, RETEST
from mote.harness.science.transitions import row_shares
from mote.harness.store.token_rows import long_table

PNG_DPI: Final = 200
_METADATA: Final[Mapping[str, Mapping[str, Any]]] = {
    "svg": {"Creator": "MoTE Harness", "Date": None},
    "png": {"Software": None},
    "pdf": {"Creator": "MoTE Harness", "Producer": None, "CreationDate": None},
}


class Drawn(NamedTuple):
    """A figure as files and for the page. ``alt`` tells its content to readers who cannot see it."""

    key: str
    png: bytes
    svg: bytes
    pdf: bytes
    wide: str
    narrow: str
    sizes: tuple[tuple[int, int], tuple[int, int]]
    alt: str


def draw_all(data: FigureData) -> tuple[dict[str, Drawn], dict[str, str], dict[str, pd.DataFrame]]:
    """Return the figures by key, the reason of each one that is missing, and the tables some are made of."""
    made: dict[str, Drawn] = {}
    missing: dict[str, str] = {}
    tables: dict[str, pd.DataFrame] = {}
    for name, make in _MAKERS.items():
        key = key_of(name, data.task)
        draw, alt, table = make(data)
        if draw is None:
            missing[key] = alt
            continue
        made[key] = render(key, draw, alt)
        if table is not None:
            tables[key] = table
    return made, missing, tables


def render(key: str, draw: Draw, alt: str) -> Drawn:
    """Return a figure as files and for the page, drawn wide and narrow in the house style."""
    with drawing(key):
        wide, narrow = draw(WIDE), draw(NARROW)
        for figure in (wide, narrow):
            # Laid out once, since each format would do it again for the same result, and finely: at few dots to the
            # inch the renderer rounds the widths of letters, and long names are cut off.
            figure.set_dpi(PNG_DPI)
            if (engine := figure.get_layout_engine()) is not None:
                engine.execute(figure)
            figure.set_layout_engine("none")
        svg, small = _bytes(wide, "svg"), _bytes(narrow, "svg")
        png, pdf = _bytes(wide, "png"), _bytes(wide, "pdf")
        for figure in (wide, narrow):
            plt.close(figure)
    return Drawn(key, png, svg, pdf, _uri(svg), _uri(small), (_pixels(wide), _pixels(narrow)), alt)


def _bytes(figure: Figure, kind: str) -> bytes:
    # Neither a date nor a version: the same run gives the same bytes. By the canvas, as ``savefig`` would draw a figure
    # that was laid out once more, for nothing.
    buffer = io.BytesIO()
    # The vector formats' canvases leave the figure at 72 dots to the inch.
    figure.set_dpi(PNG_DPI)
    # ``print`` methods of canvases have no types.
    canvas: Any = {"svg": FigureCanvasSVG, "pdf": FigureCanvasPdf, "png": FigureCanvasAgg}[kind](figure)
    getattr(canvas, f"print_{kind}")(buffer, metadata=_METADATA[kind])
    return name_typeface(buffer.getvalue()) if kind == "svg" else buffer.getvalue()


def _pixels(figure: Figure) -> tuple[int, int]:
    width, height = figure.get_size_inches()
    return round(width * 96), round(height * 96)


def _uri(svg: bytes) -> str:
    # As an image, so that nothing in it can act on the page and no two figures share an id.
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _prompt_map(data: FigureData) -> Made:
    index = data.shown_prompt()
    if index is None:
        return None, "The baseline's activation maps are not stored yet; `mote run` captures them.", None
    values, layers = data.maps[index], data.result.asked.layers
    table = long_map(values, layers, "tokens")
    alt = f"Activation map of one prompt: {len(layers)} layers by {values.shape[1]} experts."
    return lambda layout: draw_map(values, layers, layout, "tokens"), alt, table


def _tsne(data: FigureData) -> Made:
    if len(data.maps) < FEWEST_POINTS:
        return None, f"t-SNE needs at least {FEWEST_POINTS} labelled prompts with activation maps.", None
    points = embed(data.maps)
    panels = colourings(data.labels, data.attributes, data.result.asked.classes)
    places = {"x": points[:, 0], "y": points[:, 1], "label": data.labels}
    table = pd.DataFrame(places).join(data.attributes)
    alt = f"{len(points)} prompts as points, coloured {', '.join(panel.title for panel in panels)}."
    return lambda layout: draw_embedding(points, panels, layout), alt, table


def _resonance(data: FigureData) -> Made:
    result = data.result
    ranking = result.experts.resonance
    if ranking is None:
        return None, result.experts.no_resonance, None
    pairs = zip(result.experts.distinctive["layer"], result.experts.distinctive["expert"], strict=True)
    experts = [(int(layer), int(expert)) for layer, expert in pairs]
    alt = f"Resonance of {short(result.asked.target)}; circled: {', '.join(map(str, experts))}."
    table = long_map(ranking, result.asked.layers, "resonance")
    return lambda layout: draw_resonance(ranking, result.asked.layers, experts, layout, result.sides.unit), alt, table


def _transitions(data: FigureData) -> Made:
    panels = transition_panels(data.result)
    if not panels:
        return None, "No labelled answer of the tuned profile is there yet; `mote run` generates them.", None
    where = f"tables/{key_of('fig08-transitions', data.task)}.csv"
    alt = f"Transition matrices: {', '.join(panel.title for panel in panels)}. The numbers are in {where}."
    return lambda layout: draw_matrices(panels, layout), alt, transitions_table(data.result)


def _stimulation(data: FigureData) -> Made:
    panels = stimulation_panels(data.result)
    if not panels:
        return None, "Set `study.stimulate: true` in the recipe.", None
    where = f"tables/{key_of('fig08-transitions', data.task)}.csv"
    alt = f"Transition matrices: {', '.join(panel.title for panel in panels)}. The numbers are in {where}."
    return lambda layout: draw_matrices(panels, layout), alt, None


def _null(data: FigureData) -> Made:
    parts = null_parts(data.result)
    if isinstance(parts, str):
        return None, parts, None
    alt = f"{parts.tuned[0]}: {parts.tuned[1]:.1%}; random sets: {_ranges(data.result)}."
    return lambda layout: draw_null(parts, layout), alt, None


def null_parts(result: StudyResult) -> NullParts | str:
    """Return what the figure of the null distributions shows, or why there is none."""
    rates = result.rate_of(result.asked.tuned)
    if rates is None or not rates.flips.total or result.chance.sets.empty:
        if result.record.complete:
            return "Give `study.controls` random sets; twenty of each kind are the default."
        return "Random sets come after the tuned profile; `mote run` generates them."
    retest = [
        result.changes.rates[name, view].flips.share
        for name, view in result.changes.rates
        if name.startswith(RETEST) and view == result.asked.view
    ]
    tuned = (title_of(result, str(result.asked.tuned))[0], rates.flips.share, rates.flips.low, rates.flips.high)
    return NullParts(result.chance.sets, tuned, retest, p_values(result))


def p_values(result: StudyResult) -> dict[str, float]:
    """Return the p-value against each kind of random sets, and of sampling anew as ``retest``: the verdict's own.

    A kind that is no leg of the verdict has the p-value of its null distribution.
    """
    verdict = result.chance.verdict
    found = {kind: null.p for kind, null in result.chance.nulls.items()}
    found |= {f"{RANDOM}{leg.kind}": leg.p for leg in verdict.legs}
    return found if verdict.noise is None else {**found, "retest": verdict.noise.p}


def _ranges(result: StudyResult) -> str:
    groups = result.chance.sets.groupby("kind", sort=False)["share"]
    return "; ".join(f"{KIND_TITLES.get(str(kind), str(kind))} {s.min():.1%} to {s.max():.1%}" for kind, s in groups)


def _single_token(data: FigureData) -> Made:
    if not data.tokens:
        return None, "Set `study.tokens: 3` in the recipe: so many prompts are kept token by token.", None
    result = data.result
    layers, experts = result.asked.layers, data.experts
    shown = panels_of(data.tokens, data.known, result.asked.target)
    pairs = zip(result.experts.distinctive["layer"], result.experts.distinctive["expert"], strict=True)
    tuned = {(int(layer), int(expert)) for layer, expert in pairs}
    table = long_table(data.tokens, layers, data.known)
    alt = "Experts chosen in each layer by single tokens: " + "; ".join(panel.title for panel in shown) + "."
    return lambda layout: draw_tokens(shown, layers, experts, tuned, layout), alt, table


def _bench(data: FigureData) -> Made:
    bench = data.bench
    if isinstance(bench, str):
        return None, bench or NOTHING, None
    where = "tables/fig14-mt-bench.csv"
    alt = f"MT-Bench of {', '.join(bench.models)}, judged by {bench.judge}. The numbers are in {where}."
    return lambda layout: draw_bench(bench, layout), alt, bench.scores


_MAKERS: Final[dict[str, Callable[[FigureData], Made]]] = {
    "fig02-single-token": _single_token,
    "fig03-prompt-map": _prompt_map,
    "fig04-tsne": _tsne,
    "fig05-resonance": _resonance,
    "fig08-transitions": _transitions,
    "fig10-stimulation": _stimulation,
    "fig14-mt-bench": _bench,
    "null-distribution": _null,
    "dose": dose,
    "direction": direction,
    "trade-off": trade_off,
    "thirds": thirds,
    "pruning": pruning,
    "rankings": rankings,
}


def transitions_table(result: StudyResult) -> pd.DataFrame:
    """Return all transition matrices as one frame: profile, view, before, after, count, share of the row."""
    columns = ["profile", "view", "before", "after", "count", "share"]
    rows = []
    for (name, view), matrix in result.changes.matrices.items():
        counts, shares = matrix.to_numpy(), row_shares(matrix).to_numpy(dtype=float)
        for j, after in enumerate(matrix.columns):
            for i, before in enumerate(matrix.index):
                rows.append((name, view, before, after, counts[i, j], shares[i, j]))
    return pd.DataFrame(rows, columns=columns)
