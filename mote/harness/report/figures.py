"""Which figures a run's data allow, each drawn wide and narrow; and for those they do not allow, what would give them.

Every figure stands in ``CATALOGUE`` under its file name, with the number it has in the paper, so that a reader of the
paper finds it; ``fig08-transitions.svg`` is the paper's Figure 8 for this run.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mote.harness.analysis import RANDOM, StudyResult
from mote.harness.report.embedding import FEWEST_POINTS, colourings, draw_embedding, embed, thin
from mote.harness.report.maps import draw_map, draw_resonance
from mote.harness.report.matrices import Panel, draw_matrices
from mote.harness.report.strips import Dose, draw_dose, draw_null
from mote.harness.report.style import NARROW, WIDE, Layout, drawing, name_typeface, short
from mote.harness.report.words import where_words

PNG_DPI: Final = 200


class Entry(NamedTuple):
    """A figure that a report can have: its number in the paper ("" for ours) and its title."""

    paper: str
    title: str


CATALOGUE: Final[dict[str, Entry]] = {
    "fig03-prompt-map": Entry("3", "Activation map of one prompt"),
    "fig04-tsne": Entry("4", "All prompts by their activation maps, t-SNE"),
    "fig05-resonance": Entry("5", "Resonance map with the distinctive experts"),
    "fig08-transitions": Entry("8", "Transitions: tuned, and random controls"),
    "fig10-stimulation": Entry("10", "Transitions when the same experts are stimulated"),
    "null-distribution": Entry("", "The effect among random sets of experts"),
    "dose": Entry("", "Dose: how many experts are suppressed"),
}


class Drawn(NamedTuple):
    """One figure as files and for the page. ``alt`` says what it shows to who cannot see it."""

    key: str
    png: bytes
    svg: bytes
    wide: str
    narrow: str
    sizes: tuple[tuple[int, int], tuple[int, int]]
    alt: str


@dataclass(frozen=True)
class Material:
    """What figures are drawn from: the result, and of the baseline the prompts' maps, labels and attributes."""

    result: StudyResult
    maps: NDArray[np.int32]
    labels: list[str]
    attributes: pd.DataFrame
    questions: list[str]
    unit: str

    def shown_prompt(self) -> int | None:
        """The prompt of Figure 3: the first whose label is the target's, else the first."""
        if not len(self.maps):
            return None
        return next((i for i, label in enumerate(self.labels) if label == self.result.target), 0)


def draw_all(material: Material) -> tuple[dict[str, Drawn], dict[str, str], dict[str, pd.DataFrame]]:
    """Return the figures by key, the reason of each one that is missing, and the tables some are made of."""
    made: dict[str, Drawn] = {}
    missing: dict[str, str] = {}
    tables: dict[str, pd.DataFrame] = {}
    for key, make in _MAKERS.items():
        draw, alt, table = make(material)
        if draw is None:
            missing[key] = alt
            continue
        made[key] = _render(key, draw, alt)
        if table is not None:
            tables[key] = table
    return made, missing, tables


Draw = Callable[[Layout], Figure]
Made = tuple[Draw | None, str, pd.DataFrame | None]


def _render(key: str, draw: Draw, alt: str) -> Drawn:
    with drawing(key):
        wide, narrow = draw(WIDE), draw(NARROW)
        for figure in (wide, narrow):
            # Laid out once: each format would do it again, for the same result.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        svg, png, small = _bytes(wide, "svg"), _bytes(wide, "png"), _bytes(narrow, "svg")
    return Drawn(key, png, svg, _uri(svg), _uri(small), (_pixels(wide), _pixels(narrow)), alt)


def _bytes(figure: Figure, kind: str) -> bytes:
    # Neither a date nor a version: the same run gives the same bytes.
    metadata: Mapping[str, Any] = {"Creator": "MoTE Harness", "Date": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=metadata)
    return name_typeface(buffer.getvalue()) if kind == "svg" else buffer.getvalue()


def _pixels(figure: Figure) -> tuple[int, int]:
    width, height = figure.get_size_inches()
    return round(width * 96), round(height * 96)


def _uri(svg: bytes) -> str:
    # As an image, so that nothing in it can act on the page and no two figures share an id.
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _prompt_map(material: Material) -> Made:
    index = material.shown_prompt()
    if index is None:
        return None, "The baseline's activation maps are not stored yet; `mote run` captures them.", None
    values, layers = material.maps[index], material.result.layers
    table = long_map(values, layers, "tokens")
    alt = f"Activation map of one prompt: {len(layers)} layers by {values.shape[1]} experts."
    return lambda layout: draw_map(values, layers, layout, "tokens"), alt, table


def _tsne(material: Material) -> Made:
    if len(material.maps) < FEWEST_POINTS:
        return None, f"t-SNE needs at least {FEWEST_POINTS} labelled prompts with activation maps.", None
    chosen = thin(len(material.maps))
    points = embed(material.maps[chosen])
    labels = [material.labels[i] for i in chosen]
    attributes = material.attributes.iloc[chosen].reset_index(drop=True)
    panels = colourings(labels, attributes, material.result.classes)
    table = pd.DataFrame({"x": points[:, 0], "y": points[:, 1], "label": labels}).join(attributes)
    alt = f"{len(chosen)} prompts as points, coloured {', '.join(panel.title for panel in panels)}."
    return lambda layout: draw_embedding(points, panels, layout), alt, table


def _resonance(material: Material) -> Made:
    result = material.result
    ranking = result.resonance
    if ranking is None:
        return None, result.no_resonance, None
    pairs = zip(result.distinctive["layer"], result.distinctive["expert"], strict=True)
    experts = [(int(layer), int(expert)) for layer, expert in pairs]
    alt = f"Resonance of {short(result.target)}; circled: {', '.join(map(str, experts))}."
    table = long_map(ranking, result.layers, "resonance")
    return lambda layout: draw_resonance(ranking, result.layers, experts, layout, material.unit), alt, table


def _transitions(material: Material) -> Made:
    result = material.result
    if result.tuned is None or (result.tuned, result.view) not in result.matrices:
        return None, "No labelled answer of the tuned profile is there yet; `mote run` generates them.", None
    panels = [Panel(*title_of(result, result.tuned), result.matrices[result.tuned, result.view])]
    kinds = [name for name, view in result.matrices if view == result.view and name in KIND_TITLES]
    panels += [Panel(*title_of(result, kind), result.matrices[kind, result.view]) for kind in kinds]
    retest = [name for name, view in result.matrices if view == result.view and name.startswith("retest")]
    panels += [Panel(*title_of(result, name), result.matrices[name, result.view]) for name in retest[:1]]
    alt = f"Transition matrices: {', '.join(panel.title for panel in panels)}. The numbers are in transitions.csv."
    return lambda layout: draw_matrices(panels, layout), alt, transitions_table(result)


def _stimulation(material: Material) -> Made:
    result = material.result
    kinds = dict(zip(result.progress["profile"], result.progress["kind"], strict=True))
    names = [name for name, view in result.matrices if view == result.view and kinds.get(name) == "stimulate"]
    if not names:
        return None, "Set `study.stimulate: true` in the recipe.", None
    panels = [
        Panel(*title_of(result, name), result.matrices[name, result.view]) for name in [result.tuned, *names] if name
    ]
    panels = [panel for panel in panels if panel.matrix.to_numpy().sum()]
    alt = f"Transition matrices: {', '.join(panel.title for panel in panels)}."
    return lambda layout: draw_matrices(panels, layout), alt, None


def _null(material: Material) -> Made:
    result = material.result
    rates = result.rate_of(result.tuned)
    if rates is None or not rates.flips.total or result.null_values.empty:
        why = "Random sets come after the tuned profile; `mote run` generates them."
        if result.complete:
            why = "Give `study.controls` random sets; twenty of each kind are the default."
        return None, why, None
    retest = [
        result.rates[name, view].flips.share
        for name, view in result.rates
        if name.startswith("retest") and view == result.view
    ]
    title = title_of(result, str(result.tuned))[0]
    tuned = (title, rates.flips.share, rates.flips.low, rates.flips.high)
    alt = f"{title}: {rates.flips.share:.1%}; random sets: {_ranges(result)}."
    return lambda layout: draw_null(result.null_values, tuned, retest, layout), alt, None


def _ranges(result: StudyResult) -> str:
    groups = result.null_values.groupby("kind", sort=False)["share"]
    return "; ".join(f"{KIND_TITLES.get(str(kind), str(kind))} {s.min():.1%} to {s.max():.1%}" for kind, s in groups)


def _dose(material: Material) -> Made:
    result = material.result
    effects = result.effects
    rows = effects[(effects["kind"] == "suppress") & (effects["view"] == result.view)] if len(effects) else effects
    if len(rows) < 2:
        return None, "Give `study.doses` further numbers of experts, for instance `[1, 3, 5, 20, 50]`.", None
    rows = rows.sort_values("k")
    broken = rows[["truncated", "degenerate", "unscored"]].sum(axis="columns") / rows["usable"]
    numbers = pd.DataFrame(
        {name: rows[name] for name in ("k", "share", "low", "high", "reverse_share")} | {"broken": broken}
    )
    doses = [Dose(int(k), *map(float, rest)) for k, *rest in numbers.itertuples(index=False)]
    shares = result.null_values["share"]
    k = int(rows.loc[rows["profile"] == result.tuned, "k"].max()) if result.tuned in set(rows["profile"]) else 0
    controls = (k, float(shares.mean()), float(shares.min()), float(shares.max())) if len(shares) else None
    alt = "Share of flips over the number of suppressed experts: " + ", ".join(f"{d.k}: {d.flips:.1%}" for d in doses)
    return lambda layout: draw_dose(doses, controls, layout), alt, numbers


_MAKERS: Final[dict[str, Callable[[Material], Made]]] = {
    "fig03-prompt-map": _prompt_map,
    "fig04-tsne": _tsne,
    "fig05-resonance": _resonance,
    "fig08-transitions": _transitions,
    "fig10-stimulation": _stimulation,
    "null-distribution": _null,
    "dose": _dose,
}

KIND_TITLES: Final = {
    "random-uniform": "Random, any experts",
    "random-layers": "Random, same layers",
    "random-frequency": "Random, matched activity",
}


def title_of(result: StudyResult, name: str) -> tuple[str, str]:
    """Return the title of a profile or kind of control, and a line that says on what it was counted."""
    where = where_words(result, result.view)
    if name.startswith(RANDOM) and name in KIND_TITLES:
        sets = int((result.null_values["kind"] == name).sum())
        return KIND_TITLES[name], f"{sets} sets pooled"
    if name.startswith("retest"):
        return "Untouched, other seed", where
    kind, _, number = name.partition("-")
    if kind in ("suppress", "stimulate") and number.isdigit():
        return f"Top {number} {kind}{'ed' if kind == 'suppress' else 'd'}", where
    return name, where


def long_map(values: NDArray[Any], layers: tuple[int, ...], name: str) -> pd.DataFrame:
    """Return a map [layers, experts] as a frame with the columns layer, expert and a value."""
    rows, columns = values.shape
    return pd.DataFrame(
        {"layer": np.repeat(layers[:rows], columns), "expert": np.tile(np.arange(columns), rows), name: values.ravel()}
    )


def transitions_table(result: StudyResult) -> pd.DataFrame:
    """Return all transition matrices as one frame: profile, view, before, after, count, share of the row."""
    parts = []
    for (name, view), matrix in result.matrices.items():
        long = matrix.reset_index(names="before").melt("before", var_name="after", value_name="count")
        totals = long.groupby("before")["count"].transform("sum")
        parts.append(long.assign(share=long["count"] / totals.where(totals > 0), profile=name, view=view))
    columns = ["profile", "view", "before", "after", "count", "share"]
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)
