"""The page of a sweep: one HTML file that holds its figures, and beside it figures and tables as files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mote.harness.drawing import short
from mote.harness.errors import MoteError
from mote.harness.files import subfolder, write_atomic
from mote.harness.recipe.label_sets import LabelSet, label_set
from mote.harness.report.build import package_version, page_asset
from mote.harness.report.figures import Drawn, render
from mote.harness.science.sweeps import front
from mote.harness.store.children import children, sweep_frame
from mote.harness.store.run import RunStore
from mote.harness.sweep import parent_sentences, sentences
from mote.harness.sweep.distances import read_parents_distances
from mote.harness.sweep.figures import draw_curves, draw_front, draw_raster
from mote.harness.sweep.manifest import read_sweep
from mote.harness.sweep.measures import BROKEN, hits, read_rows, subsets_of, table
from mote.harness.sweep.parent_figures import draw_distances, draw_routing, draw_threshold
from mote.harness.sweep.routing import routing_frame
from mote.harness.sweep.schema import BASE, SCORE, ScorePart

REPORT_NAME: Final = "report.html"
_SECTIONS: Final = (
    ("asked", "What was asked"),
    ("curves", "Over the proportion"),
    ("where", "Where it changes"),
    ("raster", "Each prompt"),
    ("front", "Score and tokens"),
    ("broken", "What does not work"),
    ("parents", "How far apart the parents are"),
    ("routing", "Routing"),
    ("paper", "The paper"),
    ("made", "How it was made"),
)


class _Read(NamedTuple):
    manifest: dict[str, Any]
    labels: LabelSet
    rows: pd.DataFrame
    unit: str | None
    subsets: list[str]
    measure: str
    values: pd.DataFrame
    crossings: pd.DataFrame
    distances: dict[str, pd.DataFrame]
    routing: pd.DataFrame


def sweep_report(folder: Path) -> Path:
    """Write ``report.html``, ``figures/`` and ``tables/`` of a sweep and return the page's path.

    Works at any state of a sweep. Raises MoteError where the folder holds none, or no child was asked yet.
    """
    read = _read(folder)
    figures = _figures(read)
    tables = {"children": read.values, "crossings": read.crossings, "classes": _classes(read.rows)}
    if len(read.routing):
        tables["routing"] = read.routing
    for parent, frame in read.distances.items():
        tables[_key("thresholds", parent, read.distances)] = parent_sentences.threshold_frame(read.manifest, frame)
    html = _page(read, figures, sorted(tables))
    for name in ("figures", "tables"):
        subfolder(folder, name)
    for key, one in figures.items():
        for kind in ("png", "svg", "pdf"):
            write_atomic(folder / "figures" / f"{key}.{kind}", getattr(one, kind))
    for name, frame in tables.items():
        write_atomic(folder / "tables" / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g"))
    write_atomic(folder / REPORT_NAME, html)
    return folder / REPORT_NAME


def _read(folder: Path) -> _Read:
    manifest = read_sweep(folder)
    recipe = manifest["recipe"]
    labels = label_set(recipe)
    score = ScorePart.model_validate(recipe["score"]) if recipe.get("score") else None
    with RunStore(folder, read_only=True) as store:
        frame = sweep_frame(store, labels.judge)
        layers = [int(layer) for layer in manifest["layout"]["layers"]]
        routing = routing_frame(store, children(store), parent_sentences.whole_child(recipe), layers)
    rows, unit = read_rows(frame[frame["label"].notna()], score)
    subsets = subsets_of(rows, list(recipe["subsets"]))
    if not subsets:
        raise MoteError(f"{folder}: no child but the base was asked yet; the same `mote sweep` goes on.")
    measures = [*labels.classes, *([SCORE] if score else []), BROKEN]
    values = table(rows, measures, list(recipe["subsets"]), clustered=bool(unit))
    measure = recipe["refine"]["measure"] if recipe.get("refine") else _gained(values, labels.classes)
    moving = [measure, *(one for one in measures if one != measure and hits(rows, one).any())]
    crossings = sentences.crossings(rows, subsets, moving)
    apart = read_parents_distances(folder)
    distances = {} if apart is None else {str(name): own for name, own in apart.groupby("parent", sort=False)}
    return _Read(manifest, labels, rows, unit, subsets, measure, values, crossings, distances, routing)


def _gained(values: pd.DataFrame, classes: tuple[str, ...]) -> str:
    """Return the class whose share rises most from the base's own, of all untouched children."""
    own = values[(values["profile"] == "") & values["measure"].isin(classes)]
    base = own[own["subset"] == BASE].set_index("measure")["value"]
    rise = own.groupby("measure")["value"].max() - base.reindex(own["measure"].unique())
    return max(classes, key=lambda name: float(rise.get(name, 0.0)))


def _figures(read: _Read) -> dict[str, Drawn]:
    plain = read.values[read.values["profile"] == ""]
    shown = [one for one in read.values["measure"].unique() if not one.endswith("_tokens")]
    shares = {
        _title(one): plain[plain["measure"] == one]
        for one in shown
        if one in (read.measure, BROKEN, SCORE) or hits(read.rows, one).any()
    }
    titles = {
        "generated_tokens": "All tokens",
        "reasoning_tokens": "Tokens of reasoning",
        "answer_tokens": "Tokens of answers",
    }
    tokens = {title: plain[plain["measure"] == name] for name, title in titles.items()}
    alt = sentences.lead(read.rows, read.subsets, read.measure)
    made = {
        "sweep-shares": render("sweep-shares", draw_curves(shares, read.subsets, shares=True), alt),
        "sweep-tokens": render(
            "sweep-tokens", draw_curves(tokens, read.subsets, shares=False), "Mean tokens of an answer by proportion."
        ),
    }
    untouched = read.rows[read.rows["profile"] == ""]
    target = read.measure if read.measure in read.labels.classes else read.labels.target
    raster = draw_raster(untouched, read.subsets, read.labels.classes, target)
    made["sweep-raster"] = render("sweep-raster", raster, "The class of each prompt by proportion, a panel a subset.")
    profiles = [name for name in read.values["profile"].unique() if name]
    if profiles:
        own = read.values[read.values["measure"] == read.measure]
        panels = {name or "untouched": own[own["profile"] == name] for name in ("", *profiles)}
        made["sweep-profiles"] = render(
            "sweep-profiles", draw_curves(panels, read.subsets, shares=True), f"{_title(read.measure)} under profiles."
        )
    if read.manifest["recipe"].get("score"):
        made["sweep-front"] = render(
            "sweep-front", draw_front(_scored(read), read.subsets), "Right answers against tokens, a point a child."
        )
    return made | _parent_figures(read)


def _parent_figures(read: _Read) -> dict[str, Drawn]:
    distance, chosen = parent_sentences.threshold_of(read.manifest)
    made: dict[str, Drawn] = {}
    for parent, frame in read.distances.items():
        key = _key("sweep-distances", parent, read.distances)
        made[key] = render(key, draw_distances(frame), f"Distances of {parent} from the base, by layer.")
        key = _key("sweep-threshold", parent, read.distances)
        alt = f"Share of tensors, values and experts above a threshold on the distance of {parent} from the base."
        made[key] = render(key, draw_threshold(frame, distance, chosen), alt)
    if len(read.routing):
        names = parent_sentences.parent_names(read.manifest)
        alt = parent_sentences.routing_lead(read.routing, read.manifest)
        made["sweep-routing"] = render("sweep-routing", draw_routing(read.routing, read.subsets, names), alt)
    return made


def _key(stem: str, parent: str, distances: Mapping[str, pd.DataFrame]) -> str:
    """Return a figure's or table's name: of one parent the stem alone."""
    return stem if len(distances) == 1 else f"{stem}-{parent}"


def _scored(read: _Read) -> pd.DataFrame:
    """Return child, subset, tokens and score of the children without a profile."""
    own = read.values[(read.values["profile"] == "") & read.values["measure"].isin(("generated_tokens", SCORE))]
    wide = own.pivot(index=["subset", "child"], columns="measure", values="value").reset_index()
    return wide.rename(columns={"generated_tokens": "tokens"})


def _classes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each prompt's class under each child and profile, wide by child."""
    wide = rows.pivot(index=["prompt_id", "profile"], columns="child", values="label")
    return wide.reset_index()


def _title(measure: str) -> str:
    return {SCORE: "Right answers", BROKEN: "Broken"}.get(measure, short(measure))


def _page(read: _Read, figures: dict[str, Drawn], tables: list[str]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = resources.files("mote.harness.sweep").joinpath("page.html.j2").read_text(encoding="utf-8")
    manifest = read.manifest
    recipe = manifest["recipe"]
    untouched = read.rows[read.rows["profile"] == ""]
    shares = untouched.assign(hit=hits(untouched, BROKEN)).groupby("child")["hit"].mean()
    broken = sentences.broken_children(read.rows)
    front_rows: list[tuple[str, str, str]] = []
    if recipe.get("score"):
        scored = _scored(read)
        kept = scored.iloc[front(list(zip(scored["tokens"].astype(float), scored["score"].astype(float), strict=True)))]
        front_rows = [
            (str(one["child"]), f"{one['tokens']:.1f}", f"{one['score']:.1%}") for one in kept.to_dict("records")
        ]
    return environment.from_string(text).render(
        css=Markup(page_asset("page.css")),  # noqa: S704 - our own file
        heading=f"{recipe['base']} toward {', '.join(recipe['toward'])}: a sweep over the proportion",
        sections=_SECTIONS,
        lead=sentences.lead(read.rows, read.subsets, read.measure),
        unfinished=not manifest["finished"],
        facts=sentences.facts(read.rows, manifest),
        caveats=sentences.caveats(manifest, read.unit),
        asked=sentences.asked(manifest),
        subset_rows=sentences.subset_rows(manifest),
        figures=figures,
        intervals=f"Korn-Graubard, by {read.unit}" if read.unit else "exact, prompts taken as independent",
        measure_name=_title(read.measure),
        target=short(read.measure if read.measure in read.labels.classes else read.labels.target),
        where_columns=sentences.WHERE_COLUMNS,
        where_rows=sentences.where_rows(read.crossings[read.crossings["measure"].isin((read.measure, SCORE, BROKEN))]),
        front_rows=front_rows,
        works=f"{sentences.WORKS:.0%}",
        broken_rows=[(str(one.child), f"{one.hit:.1%}") for one in broken.itertuples()],
        worst=f"{shares.max():.1%}",
        distances=[
            (
                parent,
                _key("sweep-distances", parent, read.distances),
                _key("sweep-threshold", parent, read.distances),
                parent_sentences.threshold_rows(manifest, frame),
            )
            for parent, frame in read.distances.items()
        ],
        distance_name=parent_sentences.threshold_of(manifest)[0],
        threshold_columns=parent_sentences.THRESHOLD_COLUMNS,
        routing_lead=parent_sentences.routing_lead(read.routing, manifest),
        routing_columns=parent_sentences.routing_columns(manifest, read.routing),
        routing_rows=parent_sentences.routing_rows(manifest, read.routing, read.subsets),
        paper=sentences.PAPER,
        engines=sentences.engine_lines(manifest),
        weights=[(name, file, digest) for name, files in manifest["weights"].items() for file, digest in files.items()],
        tables=tables,
        version=package_version(),
        digest=manifest["recipe_digest"],
        rows=f"{len(read.rows):,}",
    )
