"""The work of ``mote mt-bench answer | judge | show``, without the command line."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd
from rich.console import Console
from rich.table import Table

from mote.harness.errors import MoteError, nearest
from mote.harness.files import digest_of, subfolder, write_atomic
from mote.harness.mt_bench.answers import BenchEngine, BenchQuestion, answer_bench
from mote.harness.mt_bench.fastchat_files import export, file_name
from mote.harness.mt_bench.judging import CORRECTED, ORIGINAL, REFERENCE_SETS, Material, Mode, judge_bench, pairs_of
from mote.harness.mt_bench.ratings import judges_of, matches, ratings
from mote.harness.mt_bench.scores import ALL, difference_table, score_table, state_table, win_table
from mote.harness.mt_bench.store import BenchStore, ModelRow
from mote.harness.science.splits import evenly
from mote.judges import Markers
from mote.judges.llm.asks import Tally, cut_off_words
from mote.judges.llm.endpoint import Endpoint
from mote.judges.mt_bench import FormError, forms_of
from mote.patches import EMPTY_PROFILE, Profile, ProfileError
from mote.tasks import TaskError

_REFERENCES: Final = {ORIGINAL: "GPT-4's references", CORRECTED: "references corrected"}


class AnswerOptions(NamedTuple):
    """The sampling of answers. ``max_tokens`` bounds reasoning and answer together: reasoning models need thousands."""

    max_tokens: int = 16384
    top_p: float = 1.0
    choices: int = 1
    seed: int = 0
    markers: Markers = Markers()
    engine: Mapping[str, Any] = {}


class Shown(NamedTuple):
    """The tables of one judge and reference set."""

    judge: str
    reference_set: str
    scores: pd.DataFrame
    differences: pd.DataFrame
    states: pd.DataFrame
    wins: pd.DataFrame


def load_questions(source: Path | None, limit: int | None = None) -> tuple[list[BenchQuestion], str]:
    """Return the questions (``limit`` of them, evenly spread over the categories) and the digest of all of them.

    Raises MoteError where FastChat's files are not there, with what to do.
    """
    from mote.tasks import mt_bench

    try:
        found = mt_bench.questions(source)
    except TaskError as error:
        raise MoteError(str(error)) from None
    digest = digest_of([[one.id, one.category, list(one.turns)] for one in found])
    return evenly(found, limit or len(found)), digest


def load_material(source: Path | None) -> Material:
    """Return what judging needs; raises MoteError as ``load_questions`` does."""
    from mote.tasks import mt_bench

    try:
        return Material(
            mt_bench.questions(source),
            forms_of(mt_bench.judge_prompts(source).values()),
            mt_bench.references("gpt-4", source),
            mt_bench.references("corrected", source),
        )
    except (TaskError, FormError) as error:
        raise MoteError(str(error)) from None


def plan_models(name: str, profiles: Sequence[Profile], *, original: bool = True) -> list[tuple[str, Profile]]:
    """Return (model id, profile): the untouched model under its own name, tuned ones as ``name+profile``."""
    tuned = [profile for profile in profiles if profile.digest != EMPTY_PROFILE.digest]
    names = [f"{name}+{profile.name}" for profile in tuned]
    double = next((one for one in names if names.count(one) > 1), None)
    if double:
        raise MoteError(f"two profiles are named '{double.partition('+')[2]}'; rename one of them.")
    return [*([(name, EMPTY_PROFILE)] if original else []), *zip(names, tuned, strict=True)]


def answer(
    model: str,
    profiles: Sequence[Profile],
    folder: Path,
    options: AnswerOptions,
    console: Console,
    *,
    source: Path | None = None,
    limit: int | None = None,
    original: bool = True,
) -> None:
    """Answer both turns under the untouched model and each profile, and write FastChat's files.

    Raises MoteError for anything that is not there or does not fit; nothing is loaded before all is checked.
    """
    from mote.harness.engine.log import EngineLog
    from mote.harness.engine.model import resolve_model
    from mote.harness.engine.options import engine_arguments
    from mote.harness.mt_bench.engine import start_engine
    from mote.harness.recipe.markers import MarkersPart
    from mote.harness.recipe.schema import SamplingPart

    questions, digest = load_questions(source, limit)
    found = resolve_model(model)
    # A folder's path differs by machine, and the rows' names should not.
    models = plan_models(Path(model).name if Path(model).is_dir() else found.name, profiles, original=original)
    for _, profile in models:
        try:
            profile.check(found.layout)
        except ProfileError as error:
            raise MoteError(str(error)) from None
    # A model that lies in a folder needs nothing from a hub.
    if Path(found.path).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sampling = SamplingPart(max_tokens=options.max_tokens, top_p=options.top_p, seed=options.seed)
    markers = MarkersPart(start=options.markers.open, end=options.markers.close)
    with EngineLog(console) as log:
        arguments = engine_arguments(found.path, options.engine, sampling.seed)
        with BenchStore(folder, questions=digest) as store:
            log.keep(folder / "vllm.log")
            _add_models(store, models, found.manifest(), options)
            if _complete(store, models, questions, options.choices):
                console.print("All answers are there.")
            else:
                with console.status("Starting vLLM"):
                    engine: BenchEngine = start_engine(arguments, sampling, markers, folder / "vllm.log")
                answer_bench(
                    store, engine, questions, models, options.markers, console,
                    choices=options.choices, seed=options.seed,
                )  # fmt: skip
            export(store)
            states = store.answers()[["model_id", "state"]].value_counts(sort=False).reset_index()
    for row in states.to_dict("records"):
        console.print(f"{row['model_id']}: {row['count']} turns {row['state']}", soft_wrap=True)


def judge(
    folder: Path,
    endpoint: Endpoint,
    modes: Sequence[Mode],
    console: Console,
    *,
    source: Path | None = None,
    name: str | None = None,
    original: str | None = None,
    max_judgments: int | None = None,
) -> dict[str, Tally]:
    """Ask for the judgments that are missing, single ratings before pairs, and write FastChat's files.

    Raises MoteError as ``judge_bench`` does; what was judged until then is stored and exported.
    """
    material = load_material(source)
    tallies: dict[str, Tally] = {}
    with BenchStore(folder) as store:
        if store.questions_digest() != digest_of([[q.id, q.category, list(q.turns)] for q in material.questions]):
            raise MoteError(f"{folder} was answered from other questions than these.")
        if "pair" in modes:
            pairs_of(store, original)
        left = max_judgments
        try:
            for mode in modes:
                before = store.replies()
                tallies[mode] = judge_bench(
                    store, material, mode, endpoint, console, judge=name, original=original, max_judgments=left
                )
                if left is not None:
                    left = 0 if tallies[mode].left else max(0, left - (store.replies() - before))
        finally:
            export(store)
        if cut := store.cut_off(name or endpoint.model):
            console.print(cut_off_words(cut, endpoint.max_tokens), soft_wrap=True)
    return tallies


def show(
    folder: Path,
    console: Console,
    *,
    judge: str | None = None,
    original: str | None = None,
    with_paper: bool = True,
    margin: float | None = None,
) -> list[Shown]:
    """Print the tables of a bench, and write them as CSV and the charts as SVG and PNG.

    ``margin``: points by which a model may differ from the original and still be called equivalent.
    Raises MoteError where nothing was judged, or there is no such judge or model.
    """
    with BenchStore(folder, read_only=True) as store:
        judges = judges_of(store)
        if not judges:
            raise MoteError(f"{folder} has no judgments yet; ask for them with `mote mt-bench judge`.")
        if judge is not None and judge not in judges:
            raise MoteError(f"'{judge}' has judged nothing here.{nearest(judge, judges)}")
        models = [model.model_id for model in store.models()]
        base = original or models[0]
        if base not in models:
            raise MoteError(f"the bench has no model '{base}'.{nearest(base, models)}")
        order = [base, *(name for name in models if name != base)]
        found = [
            _shown(store, name, reference_set, base, margin)
            for name in ([judge] if judge else judges)
            for reference_set in REFERENCE_SETS
        ]
    for one in found:
        _print(one, order, console)
        _write(one, order, folder, with_paper=with_paper)
    console.print(f"Tables: {folder / 'tables'}, charts: {folder / 'figures'}", soft_wrap=True)
    return found


def _add_models(
    store: BenchStore, models: Sequence[tuple[str, Profile]], source: Mapping[str, Any], options: AnswerOptions
) -> None:
    how = {
        "model": {key: value for key, value in source.items() if key != "path"},
        "max_tokens": options.max_tokens,
        "top_p": options.top_p,
        "choices": options.choices,
        "seed": options.seed,
        "engine": dict(options.engine),
    }
    for name, profile in models:
        store.add_model(ModelRow(name, profile.digest, profile.to_dict(), how))


def _complete(
    store: BenchStore, models: Sequence[tuple[str, Profile]], questions: Sequence[BenchQuestion], choices: int
) -> bool:
    answers = store.answers()
    there = set(zip(answers["model_id"], answers["question_id"], answers["choice"], answers["turn"], strict=True))
    return all(
        (name, question.id, choice, turn) in there
        for name, _ in models
        for question in questions
        for choice in range(choices)
        for turn in (1, 2)
    )


def _shown(store: BenchStore, judge: str, reference_set: str, base: str, margin: float | None) -> Shown:
    rated = ratings(store, judge, reference_set)
    return Shown(
        judge,
        reference_set,
        score_table(rated),
        difference_table(rated, base, margin=margin),
        state_table(rated),
        win_table(matches(store, judge, reference_set)),
    )


def _print(one: Shown, models: Sequence[str], console: Console) -> None:
    title = f"Judge {one.judge}, {_REFERENCES[one.reference_set]}"
    table = Table("category", *(f"{name}" for name in models), title=title, title_justify="left")
    both = one.scores[one.scores["turn"] == ALL].set_index(["category", "model"])
    for category in dict.fromkeys(one.scores["category"]):
        table.add_row(category, *(_mean(both, category, name) for name in models))
    for turn in ("1", "2"):
        rows = one.scores[(one.scores["turn"] == turn) & (one.scores["category"] == ALL)].set_index(
            ["category", "model"]
        )
        table.add_row(f"all, turn {turn}", *(_mean(rows, ALL, name) for name in models))
    console.print(table)
    whole = one.differences[(one.differences["category"] == ALL) & (one.differences["turn"] == ALL)]
    for row in whole.to_dict("records"):
        if not row["pairs"]:
            console.print(
                f"{row['model']} minus {row['original']}: no turn is scored for both"
                f" ({row['unpaired']} without a pair)",
                soft_wrap=True,
            )
            continue
        spread = (
            "one question, no interval"
            if math.isnan(row["low"])
            else f"{row['low']:+.2f} to {row['high']:+.2f}, p = {row['p']:.3f}"
        )
        console.print(
            f"{row['model']} minus {row['original']}: {row['difference']:+.2f} ({spread})"
            f" on {row['pairs']} pairs, {row['unpaired']} without a pair",
            soft_wrap=True,
        )
        if "margin" in row and not math.isnan(row["equivalence_p"]):
            shown = "is shown to be" if row["equivalent"] else "is not shown to be"
            console.print(
                f"  This difference {shown} within {row['margin']:g} points (equivalence,"
                f" p = {row['equivalence_p']:.3f})",
                soft_wrap=True,
            )
    wins = one.wins[(one.wins["category"] == ALL) & (one.wins["turn"] == ALL)]
    for row in wins.to_dict("records"):
        console.print(
            f"{row['model']} against {row['original']}: {row['wins']} won, {row['ties']} tied, {row['losses']} lost,"
            f" {row['unscored']} unscored",
            soft_wrap=True,
        )
    for name, states in one.states.iterrows():
        counts = ", ".join(f"{state} {int(count)}" for state, count in states.items() if count)
        console.print(f"{name}: {int(states.sum())} turns: {counts}", soft_wrap=True)


def _mean(scores: pd.DataFrame, category: str, model: str) -> str:
    if (category, model) not in scores.index:
        return "-"
    row: Any = scores.loc[(category, model)]
    if not row["scored"]:
        return f"- ({row['unscored']} unscored)"
    # One question has no interval: its questions are what is drawn anew.
    spread = "one question" if math.isnan(row["low"]) else f"{row['low']:.2f} to {row['high']:.2f}"
    missing = f", {row['unscored']} unscored" if row["unscored"] else ""
    return f"{row['mean']:.2f} ({spread}{missing})"


def _write(one: Shown, models: Sequence[str], folder: Path, *, with_paper: bool) -> None:
    import io

    import matplotlib.pyplot as plt

    from mote.harness import drawing as style
    from mote.harness.mt_bench.charts import bar_chart, radar

    stem = f"{file_name(one.judge)}-{one.reference_set}"
    tables_folder, figures_folder = subfolder(folder, "tables"), subfolder(folder, "figures")
    tables = {"scores": one.scores, "differences": one.differences, "wins": one.wins, "states": one.states}
    for name, table in tables.items():
        if len(table):
            text = table.to_csv(index=name == "states")
            write_atomic(tables_folder / f"mt-bench-{name}-{stem}.csv", text)
    for kind, draw in (("bars", bar_chart), ("radar", radar)):
        title = f"MT-Bench judged by {one.judge}, {_REFERENCES[one.reference_set]}"
        # What makes an SVG the same from one time to the next is applied when it is written.
        with style.drawing(f"{kind}-{stem}"):
            figure = draw(one.scores, models, title, with_paper=with_paper)
            for ending in ("svg", "png"):
                image = io.BytesIO()
                figure.savefig(image, format=ending, dpi=150, metadata={"Date": None} if ending == "svg" else {})
                write_atomic(figures_folder / f"mt-bench-{kind}-{stem}.{ending}", image.getvalue())
            plt.close(figure)
