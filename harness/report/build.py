"""Make the report of a run: read the store, analyse, draw, and write everything at once.

All is computed before anything is written, so a report that cannot be made leaves the old one whole; figures and
tables that this state of the run does not have are removed, so that none of another state stays behind.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Collection, Hashable, Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from rich.console import Console

from mote.harness.drawing import colour_of
from mote.harness.errors import MoteError, nearest
from mote.harness.experts.output import DEACTIVATED_TABLE, RANKINGS_TABLE, THIRDS_TABLE
from mote.harness.experts.output import TABLES as RANKING_TABLES
from mote.harness.experts.transplant_output import cell_rows, effect_rows, read_transplant, what_was_done
from mote.harness.files import digest_of, subfolder, write_atomic
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.manifest import read_manifest
from mote.harness.report import chance_sections, curve_sentences, effect_sections, evidence_sections
from mote.harness.report.analysis import StudyResult, analyse
from mote.harness.report.beside import beside_the_study, deactivated_beside_chance, thirds_beside_chance
from mote.harness.report.catalogue import catalogue, key_of
from mote.harness.report.curve_figures import best_profile
from mote.harness.report.doubt import doubt
from mote.harness.report.embedding_figure import thin
from mote.harness.report.expert_sections import expert_parts
from mote.harness.report.figure_data import FigureData
from mote.harness.report.figures import Drawn, draw_all
from mote.harness.report.frames import Run
from mote.harness.report.generations_packet import pack_rows
from mote.harness.report.lead import caveats, lead
from mote.harness.report.model_text import clip, compare
from mote.harness.report.mt_bench_figure import find_bench
from mote.harness.report.panels import matrix_tables, stimulation_panels, transition_panels
from mote.harness.report.paper_index import paper_index
from mote.harness.report.ranking_figure import ranking_rows, read_rankings
from mote.harness.report.search_sentences import search_sentences
from mote.harness.report.summary import print_summary
from mote.harness.report.tables import all_tables, beside_the_paper
from mote.harness.report.tuned_experts import controls_gap
from mote.harness.science.controls import BASELINE
from mote.harness.science.splits import units_of
from mote.harness.store.prunings import read_pruning
from mote.harness.store.questions import last_question
from mote.harness.store.run import RunStore
from mote.harness.store.token_rows import read_token_rows
from mote.reading import UnreadableError, read_text

REPORT_NAME: Final = "report.html"
MADE_NAME: Final = "run.report-files"
"""The list of the figures and tables that the last report made, a line each."""
_MADE = re.compile(r"(?:figures|tables)/[^/]+\.(?:png|svg|pdf|csv)")


class Read(NamedTuple):
    """A run as it was read for the report."""

    manifest: Mapping[str, Any]
    result: StudyResult
    frame: pd.DataFrame
    data: FigureData
    gap: pd.DataFrame
    agreement: str
    units: Mapping[str, Hashable]


def make_report(
    folder: str | os.PathLike[str],
    *,
    mt_bench: Path | None = None,
    judge: str | None = None,
    console: Console | None = None,
) -> Path:
    """Write ``report.html``, ``figures/`` and ``tables/`` of a run and return the report's path.

    Works at any state of a run: what is not there yet is named. ``mt_bench`` is the folder of an MT-Bench of the same
    model (without it ``mt-bench`` in the run's folder, if that is there). With ``judge``, that judge's labels are
    shown instead of those of the run's label set, in a folder beside the run's own report: ``report-<judge>``. On
    ``console`` the summary of the same analysis is printed. Raises MoteError where the folder holds no run, or there is
    no such judge.
    """
    run = Path(folder)
    read = _read(run, mt_bench, judge)
    folder = _place(run, read, judge)
    figures, missing, drawn_tables = draw_all(read.data)
    beside = beside_the_paper(read.result, read.manifest)
    tables = all_tables(read.result, read.gap, beside) | drawn_tables
    # What other commands made of the same rows: rankings, and the audit of the judges.
    kept = {folder / "tables" / name for name in RANKING_TABLES} | set((folder / "tables").glob("judge-*.csv"))
    others = [path.stem for path in kept if path.is_file()]
    html = _render(read, figures, missing, beside, sorted([*tables, *others]), run)
    files: dict[Path, str | bytes] = {}
    for key, figure in figures.items():
        files[folder / "figures" / f"{key}.png"] = figure.png
        files[folder / "figures" / f"{key}.svg"] = figure.svg
        files[folder / "figures" / f"{key}.pdf"] = figure.pdf
    for name, table in tables.items():
        files[folder / "tables" / f"{name}.csv"] = table.to_csv(index=False)
    for name in ("figures", "tables"):
        subfolder(folder, name)
    for path, content in files.items():
        write_atomic(path, content)
    _remove_stale(folder, {str(path.relative_to(folder)) for path in files}, kept)
    write_atomic(folder / REPORT_NAME, html)
    if console is not None:
        print_summary(read.result, console)
    return folder / REPORT_NAME


def _place(folder: Path, read: Read, judge: str | None) -> Path:
    """Return where a report goes: the run's folder, or with another judge's labels a folder in it named after them."""
    if judge is None or judge == label_set(read.manifest["recipe"]).judge:
        return folder
    name = re.sub(r"[^A-Za-z0-9.+-]+", "-", judge).strip(".-")[:60]
    return subfolder(folder, f"report-{name or digest_of(judge)[:12]}")


def _remove_stale(folder: Path, made: set[str], kept: Collection[Path]) -> None:
    """Remove what an earlier report made and this one did not; what somebody else put there is theirs."""
    index = folder / MADE_NAME
    try:
        earlier = read_text(index).splitlines()
    except UnreadableError:
        earlier = []
    for name in set(earlier) - made:
        # A run may come from elsewhere: no line of it reaches a file outside of these folders.
        if _MADE.fullmatch(name) and folder / name not in kept:
            (folder / name).unlink(missing_ok=True)
    write_atomic(index, "".join(f"{name}\n" for name in sorted(made)))


def _read(folder: Path, mt_bench: Path | None, judge: str | None) -> Read:
    manifest = read_manifest(folder)
    role = str(manifest["recipe"]["study"]["role"])
    with RunStore(folder, read_only=True) as store:
        if judge is not None and judge not in store.judges():
            raise MoteError(f"--judge: '{judge}' has labelled nothing of this run.{nearest(judge, store.judges())}")
        frame = store.generations_frame(judge or label_set(manifest["recipe"]).judge)
        result = analyse(store, manifest, judge, frame)
        gap = controls_gap(store.mean_map(BASELINE, role), store.profiles(), result.asked.tuned, result.asked.layers)
        baseline = frame[(frame["profile"] == BASELINE) & frame["label"].notna()].set_index("prompt_id")
        keys = [str(key) for key in baseline.index]
        # As many maps as a picture can show; the ranking has used all.
        ids, maps, _ = store.maps(BASELINE, role, {keys[i] for i in thin(len(keys))})
        tokens, pruned = read_token_rows(store), read_pruning(store)
        agreement = _agreement(store, result.asked.judge)
    rows = baseline.loc[ids]
    data = FigureData(
        result=result,
        maps=maps,
        labels=[str(label) for label in rows["label"]],
        attributes=pd.DataFrame([json.loads(text) for text in rows["attributes"]]),
        questions=[_question(text) for text in rows["messages"]],
        unit="activations a prompt",
        task=str(manifest["prompts"]["task"]),
        tokens=tokens,
        known=dict(zip(keys, baseline["label"].map(str), strict=True)),
        experts=int(manifest["model"]["layout"]["experts"]),
        bench=find_bench(folder, manifest, mt_bench),
        pruned=pruned,
        rankings=read_rankings(folder / "tables" / RANKINGS_TABLE),
    )
    attributes = baseline["attributes"]
    units = units_of({str(key): json.loads(text) for key, text in attributes.items()})[1]
    return Read(manifest, result, frame, data, gap, agreement, units)


def _agreement(store: RunStore, judge: str) -> str:
    try:
        from mote.harness.judging.audit import agreement_words
    except ImportError:
        return 'not computed: it needs pip install ".[judge]"'
    return agreement_words(store, judge)


def _question(messages: str) -> str:
    return clip(last_question(json.loads(messages)), 300)


def _render(
    read: Read,
    figures: Mapping[str, Drawn],
    missing: Mapping[str, str],
    beside: pd.DataFrame,
    tables: list[str],
    folder: Path,
) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = _code
    template = environment.from_string(page_asset("page.html.j2"))
    script = page_asset("page.js")
    manifest, result = read.manifest, read.result
    gap = effect_sections.gap_note(result, read.gap)
    part = {"measured": "the prompts that experts were chosen on", "all": "all prompts"}.get(result.asked.view, "")
    baseline_columns, baseline_rows = effect_sections.baseline_table(read.frame, result)
    summary_columns, summary_rows = effect_sections.summary_table(result)
    broke, broke_columns, broke_rows = evidence_sections.broke(result)
    experts, expert_columns, expert_rows = evidence_sections.experts(result, part)
    ranking_columns, ranking_lines = ranking_rows(read.data.rankings)
    # By another judge's labels the rankings that an expert's part sets beside each other would not be these labels'.
    own = result.asked.judge == label_set(manifest["recipe"]).judge
    parts, more = expert_parts(Run(folder, read.frame), result) if own else ([], 0)
    index = read.data.shown_prompt()
    example = read.data.questions[index] if index is not None else _first_question(read.frame)
    labels = [*result.asked.classes, "TRUNCATED", "DEGENERATE", "UNSCORED"]
    return template.render(
        css=Markup(page_asset("page.css")),  # noqa: S704 - our own files, not a run's text
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        heading=effect_sections.heading(result, manifest),
        model_name=manifest["model"]["name"],
        task=f"{manifest['prompts']['count']:,} prompts of {manifest['prompts']['task']}",
        banner=effect_sections.banner(result, manifest, str(folder)),
        lead=lead(result),
        caveats=[
            *beside_the_study(
                read.data.rankings, len(result.experts.distinctive), str(manifest["recipe"]["study"].get("ranking"))
            ),
            *caveats(result, manifest),
        ],
        facts=effect_sections.facts(result),
        sections=effect_sections.SECTIONS,
        asked=[
            *effect_sections.asked(result, manifest, example),
            *chance_sections.planned(result, manifest),
            ("Agreement of judges", read.agreement),
        ],
        baseline_columns=baseline_columns,
        baseline_rows=baseline_rows,
        changed=[*chance_sections.effect(result), *effect_sections.changed(result)],
        paper_rows=effect_sections.paper_rows(beside),
        paper_note=_paper_note(result),
        summary_columns=summary_columns,
        summary_rows=summary_rows,
        tuned=result.asked.tuned or "",
        chance=chance_sections.chance(result),
        leg_columns=chance_sections.LEG_COLUMNS,
        leg_rows=chance_sections.legs(result),
        chance_notes=[
            *chance_sections.chance_notes(result),
            *chance_sections.retest_notes(result),
            *chance_sections.ended_notes(manifest),
            *([gap] if gap else []),
        ],
        side_effects=chance_sections.side_effects(result),
        broke=broke,
        broke_columns=broke_columns,
        broke_rows=broke_rows,
        experts=experts,
        expert_columns=expert_columns,
        expert_rows=expert_rows,
        expert_parts=parts,
        more_experts=more,
        resonance_caption=_resonance_caption(result, part),
        mechanism=evidence_sections.mechanism(result),
        coverage=evidence_sections.coverage(result),
        map_caption=f"“{example}”: how many of its tokens chose each expert.",
        examples=[
            one._asdict()
            | {
                "why": effect_sections.WHY[one.pick],
                "marked": compare(one.before.raw, one.after.raw),
                "question": clip(one.question, 2000),
            }
            for one in result.examples
        ],
        packet=pack_rows(read.frame, read.units),
        unit=result.asked.unit if read.units else "",
        provenance=evidence_sections.provenance(manifest),
        recipe=evidence_sections.recipe_text(manifest),
        profile_rows=evidence_sections.profile_rows(result, manifest, manifest["profiles"]),
        model_files=list(manifest["model"]["files"].items()),
        table_names=tables,
        numbers_of=lambda key: _numbers_of(key, read.data.task, tables),
        first_figure=next((key for key in _FIRST if key in figures), ""),
        matrices=matrix_tables(transition_panels(result)),
        forced_matrices=matrix_tables(stimulation_panels(result)),
        ranking_columns=ranking_columns,
        ranking_rows=ranking_lines,
        index=paper_index(
            read.data.task, figures, missing, {(one.before.label, one.after.label) for one in result.examples}
        ),
        judges=f"{evidence_sections.judges(result)} {doubt(result, read.frame)}".strip(),
        judge_rows=evidence_sections.judge_rows(result),
        best=curve_sentences.best(result, best_profile(read.data)),
        thirds_lines=" ".join(
            filter(None, [curve_sentences.thirds(result), thirds_beside_chance(folder / "tables" / THIRDS_TABLE)])
        ),
        pruned=curve_sentences.pruned(read.data.pruned),
        transplant=_transplant(folder) if own else {},
        search=search_sentences(folder / "tables") if own else [],
        deactivated=deactivated_beside_chance(folder / "tables" / DEACTIVATED_TABLE),
        reasons=read.data.task == "reasoning_language",
        key_of=lambda name: key_of(name, read.data.task),
        version=package_version(),
        rows=f"{len(read.frame):,}",
        colours={label: colour_of(label, result.asked.classes) for label in labels},
        colour=lambda label: colour_of(label, result.asked.classes),
        figures=figures,
        missing=missing,
        title=lambda key: _title(key, read.data.task),
    )


def _transplant(folder: Path) -> dict[str, Any]:
    """Return what the page shows of a run's transplant; empty without one."""
    found = read_transplant(folder)
    if found is None:
        return {}
    return {
        "said": what_was_done(found),
        "target": found.settings["classes"][0],
        "unit": found.settings["unit"] or "prompt",
        "cells": cell_rows(found),
        "effects": effect_rows(found),
    }


def _resonance_caption(result: StudyResult, part: str) -> str:
    named = "Circled and named, as (layer, expert), are the tuned experts. " if len(result.experts.distinctive) else ""
    return (
        f"Resonance of {result.sides.name} on {part}. {named}"
        f"Red is seen more {'there' if result.sides.contrast else 'in the class'}, blue less; both scales are alike."
    )


def _code(text: str) -> Markup:
    """Escape a text of ours and set what stands in backquotes as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


_FIRST: Final = ("null-distribution", "fig05-resonance", "fig11-resonance", "fig04-tsne")
"""Which figure stands at the top: the first of these that the run has."""


def _numbers_of(key: str, task: str, tables: Collection[str]) -> str:
    """Return the table that holds a figure's numbers, "" for none; all transition matrices stand in one."""
    name = key_of("fig08-transitions", task) if key == key_of("fig10-stimulation", task) else key
    return name if name in tables else ""


def _title(key: str, task: str) -> str:
    entry = catalogue(task)[key]
    return f"{entry.title} (the paper's Figure {entry.paper})" if entry.paper else entry.title


def _paper_note(result: StudyResult) -> str:
    if result.asked.tuned is None or (result.asked.tuned, result.asked.view) not in result.changes.matrices:
        return ""
    return "The paper's figures are not set beside these: they are for its grid with the top 10 experts."


def _first_question(frame: pd.DataFrame) -> str:
    return _question(str(frame["messages"].iloc[0])) if len(frame) else "–"


def page_asset(name: str) -> str:
    """Return the text of a part of the page that lies beside this module: its style, its script."""
    return resources.files("mote.harness.report").joinpath(name).read_text(encoding="utf-8")


def package_version() -> str:
    """Return the version of this package."""
    try:
        return metadata.version("mote-harness")
    except metadata.PackageNotFoundError:
        return "(not installed)"
