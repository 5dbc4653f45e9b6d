"""The study: the way of a run from recipe to labelled answers, as steps that each read what the one before has stored.

A step asks the store what is missing and does only that. So a run that was killed, at any moment, goes on where it was
and ends with the same rows; and starting a finished run again changes nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from mote.harness.engine.log import EngineLog
from mote.harness.engine.model import ModelSource, resolve_model
from mote.harness.engine.servers import engine_starter
from mote.harness.engine.vllm import Request, check_engine, request_seed
from mote.harness.errors import MoteError
from mote.harness.files import digest_of
from mote.harness.progress import step
from mote.harness.recipe import manifest as manifests
from mote.harness.recipe.schema import Recipe
from mote.harness.science.controls import BASELINE
from mote.harness.science.splits import evenly, units_of
from mote.harness.store.run import GenerationRow, LabelRow, ProfileRow, PromptRow, RunStore, Unlabelled
from mote.harness.store.token_rows import TokenRows, add_token_rows, choose_prompts, read_token_rows
from mote.harness.study.llm_source import check_llm, label_run_by_llm
from mote.harness.study.plan import baseline_row, check_split, check_study, make_plan, profile_of
from mote.harness.study.session import LOG_NAME, Session, StartsEngine
from mote.harness.study.surprise import label_run_by_surprise
from mote.judges import Label
from mote.patches import EMPTY_PROFILE
from mote.tasks import TaskError, load_task

_LABELS_AT_ONCE = 256


class Study(NamedTuple):
    """A checked recipe with all that it names, before anything is written."""

    recipe: Recipe
    model: ModelSource
    prompts: list[PromptRow]
    manifest: dict[str, Any]


def check(recipe: Recipe) -> Study:
    """Find everything that a recipe names; raise MoteError for what isn't there. Loads no weights, writes nothing."""
    model = resolve_model(recipe.model.path)
    check_study(recipe.study, model.layout)
    prompts = _prompts(recipe)
    check_split(recipe.study, _units(prompts))
    check_llm(recipe)
    described = {
        "task": recipe.task.name,
        "count": len(prompts),
        "digest": digest_of([[row.prompt_id, list(row.messages)] for row in prompts]),
    }
    return Study(recipe, model, prompts, manifests.new_manifest(recipe, model.manifest(), described))


def run(study: Study, folder: Path, console: Console, *, engine: StartsEngine = engine_starter) -> None:
    """Do what is missing of a study in a run's folder, up to the last label.

    Raises MoteError where the folder holds another run, where another process works on it, and for whatever the engine
    refuses. KeyboardInterrupt passes through; what was stored stays.
    """
    earlier = _earlier(study, folder)
    with EngineLog(console) as log:
        if earlier is None:
            # Before anything is written; a run that exists was made with the same options.
            check_engine(study.recipe, study.model.path)
        folder.mkdir(parents=True, exist_ok=True)
        log.keep(folder / LOG_NAME)
        # Made when the first answer is needed: a run of which only labels are missing loads no model.
        start = engine(study.recipe, study.model, folder / LOG_NAME, console)
        with RunStore(folder) as store, _noted(folder, earlier or study.manifest) as manifest:
            session = Session(folder, manifest, store, console, study.recipe, study.model, start)
            if not store.prompts():
                store.add_prompts(study.prompts)
            if not store.profiles():
                store.add_plan([baseline_row(study.recipe.sampling.seed)])
            _generate(session, "Baseline, with maps", BASELINE)
            _label(session)
            _tokens(session)
            if len(store.profiles()) == 1:
                _plan(session)
            manifest["profiles"] = {row.name: row.digest for row in store.profiles()}
            manifests.write_manifest(folder, manifest)
            _generate(session, "Tuned and controls")
            _label(session)
            manifest["finished"] = manifest["finished"] or manifests.now()


def _earlier(study: Study, folder: Path) -> dict[str, Any] | None:
    if folder.is_file():
        raise MoteError(f"{folder} is a file; a run needs a folder: choose one with --out.")
    if (folder / manifests.MANIFEST_NAME).exists():
        earlier = manifests.read_manifest(folder)
        manifests.check_same(folder, earlier, study.manifest)
        return earlier
    # A kill between making the folder and writing the manifest leaves the log and the empty store.
    ours = {LOG_NAME, "run.lock", "run.sqlite", "run.sqlite-wal", "run.sqlite-shm"}
    if folder.exists() and any(item.name not in ours for item in folder.iterdir()):
        raise MoteError(f"{folder} is not empty and holds no run: choose another folder with --out.")
    return None


@contextmanager
def _noted(folder: Path, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Note in the manifest that a start of the run began and how long it lasted; yields the manifest to add to."""
    session = manifests.new_session()
    manifest["sessions"].append(session)
    manifests.write_manifest(folder, manifest)
    try:
        yield manifest
    finally:
        session["ended"] = manifests.now()
        manifests.write_manifest(folder, manifest)


def _prompts(recipe: Recipe) -> list[PromptRow]:
    try:
        prompts = load_task(recipe.task.name)
    except TaskError as error:
        raise MoteError(f"task.name: {error}") from None
    limit = recipe.task.limit or len(prompts)
    if limit > len(prompts):
        raise MoteError(f"task.limit: {limit}, but {recipe.task.name} has {len(prompts)} prompts.")
    # The first few of the grid would be one year only.
    return [PromptRow(one.id, one.task, one.messages, one.attributes) for one in evenly(prompts, limit)]


def _generate(session: Session, title: str, only: str | None = None) -> None:
    store = session.store
    wanted = [(profile, request) for profile, request in _wanted(store) if only in (None, profile.name)]
    stored = store.stored()
    missing = [(profile, request) for profile, request in wanted if (request.prompt_id, profile.name) not in stored]
    if not missing:
        return
    names = [profile.name for profile, _ in missing]
    answers = session.engine.generate([request for _, request in missing])
    with step(session.console, title, len(wanted), len(wanted) - len(missing)) as advance:
        for some in answers:
            store.add_generations([_brief(session.row_of(answer, names[index])) for index, answer in some])
            advance(len(some))


def _wanted(store: RunStore) -> list[tuple[ProfileRow, Request]]:
    """Return every generation that the profiles stored so far ask for."""
    prompts, split = store.prompts(), store.split()
    wanted = []
    for row in store.profiles():
        profile = profile_of(row)
        for prompt in prompts:
            if row.part == "all" or split[prompt.prompt_id] == row.part:
                seed = request_seed(row.seed, prompt.prompt_id)
                capture = "prompt" if row.name == BASELINE else None
                wanted.append((row, Request(prompt.prompt_id, prompt.messages, profile, seed, capture)))
    return wanted


def _brief(row: GenerationRow) -> GenerationRow:
    return row._replace(mechanism=[_effect(entry) for entry in row.mechanism])


def _effect(entry: Mapping[str, Any]) -> dict[str, Any]:
    # Ten of these a row are most of a store's size: what an action can't have is left out, sums keep six digits.
    effect = dict(entry)
    for key, action in (("factor", "scale"), ("entered", "stimulate")):
        if effect["action"] != action:
            del effect[key]
    for key in ("weight_before", "weight_after"):
        effect[key] = float(f"{effect[key]:.6g}")
    return effect


def _label(session: Session) -> None:
    if missing := session.store.unlabelled(session.text_judge):
        _label_texts(session, missing)
    if session.recipe.judges.surprise:
        label_run_by_surprise(session, _LABELS_AT_ONCE)
    label_run_by_llm(session)


def _label_texts(session: Session, missing: Sequence[Unlabelled]) -> None:
    labels = session.labels

    # Short answers are often the same to the letter, and so are then their labels.
    @cache
    def judged(raw: str, opens: bool, reason: str | None) -> Label:
        return labels.label(raw, finish_reason=reason, markers=session.markers, prompt_opens=opens)

    with step(session.console, "Labels", len(missing)) as advance:
        for start in range(0, len(missing), _LABELS_AT_ONCE):
            rows = []
            for one in missing[start : start + _LABELS_AT_ONCE]:
                label = judged(one.raw, one.prompt_opens, one.finish_reason)
                evidence = [asdict(entry) for entry in label.evidence]
                rows.append(LabelRow(one.generation_id, label.judge, label.label, evidence))
            session.store.add_labels(rows)
            advance(len(rows))


def _tokens(session: Session) -> None:
    """Keep which experts each token of a few example prompts chose: asked once more, as the baseline was."""
    part = session.recipe.study
    if not part.tokens or read_token_rows(session.store):
        return
    prompts = {row.prompt_id: row for row in session.store.prompts()}
    chosen = choose_prompts(_labels(session), session.labels.classes, part.target, part.tokens)
    requests = [Request(key, prompts[key].messages, EMPTY_PROFILE, session.seed_of(key), "rows") for key in chosen]
    found = [answer for some in session.engine.generate(requests) for _, answer in some]
    rows = [
        TokenRows(
            answer.request.prompt_id,
            tuple(session.engine.token_texts(answer.request.messages)),
            answer.observation.rows["prompt"],
        )
        for answer in found
    ]
    add_token_rows(session.store, rows)


def _labels(session: Session) -> dict[str, str]:
    """Return prompt id -> label of the baseline's answer, in the prompts' order."""
    frame = session.store.generations_frame(session.labels.judge)
    baseline = frame[frame["profile"] == BASELINE]
    return dict(zip(baseline["prompt_id"].map(str), baseline["label"].map(str), strict=True))


def _units(prompts: Sequence[PromptRow]) -> dict[str, Hashable]:
    return units_of({row.prompt_id: row.attributes for row in prompts})[1]


def _plan(session: Session) -> None:
    store, recipe = session.store, session.recipe
    ids, maps, _ = store.maps(BASELINE, recipe.study.role)
    known = _labels(session)
    labels = {prompt: known[prompt] for prompt in ids}
    units = _units(store.prompts())
    plan = make_plan(recipe.study, session.model.layout, labels, maps, recipe.sampling.seed, units)
    store.add_plan(plan.profiles, plan.split)
