"""The study: the way of a run from recipe to labelled answers, as steps that each read what the one before has stored.

A step asks the store what is missing and does only that. So a run that was killed, at any moment, goes on where it was
and ends with the same rows; and starting a finished run again changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from mote.harness.engine.log import EngineLog
from mote.harness.engine.model import ModelSource, resolve_model
from mote.harness.engine.servers import engine_starter
from mote.harness.engine.vllm import Request, check_engine
from mote.harness.errors import MoteError, one_line
from mote.harness.files import is_unfinished
from mote.harness.progress import step
from mote.harness.recipe import manifest as manifests
from mote.harness.recipe.contrast import check_contrast
from mote.harness.recipe.label_sets import decided_label
from mote.harness.recipe.own_classes import function_of
from mote.harness.recipe.roles import PROMPT
from mote.harness.recipe.schema import Recipe, recipe_of
from mote.harness.recipe.study_part import StudyPart
from mote.harness.science.controls import BASELINE, RANDOM
from mote.harness.science.splits import units_of
from mote.harness.store.checking import refuse_damaged
from mote.harness.store.generations import DECIDED
from mote.harness.store.run import STORE_NAME, LabelRow, PromptRow, RunStore, Unlabelled
from mote.harness.store.token_rows import TokenRows, add_token_rows, choose_prompts, read_token_rows
from mote.harness.study.control_steps import answer_controls
from mote.harness.study.exact import measure_exactly
from mote.harness.study.foresight import PLAN_NAME
from mote.harness.study.generate import generate, wanted_of
from mote.harness.study.llm_source import check_llm, label_run_by_llm
from mote.harness.study.paper_protocol import follow_paper
from mote.harness.study.plan import PAPER, baseline_row, check_split, check_study
from mote.harness.study.plan_step import plan_run
from mote.harness.study.prompts import asked_by, describe
from mote.harness.study.session import LOG_NAME, Session, StartsEngine
from mote.harness.study.surprise import label_run_by_surprise
from mote.harness.study.text_labels import TextLabels
from mote.judges import unset_marker
from mote.judges.functions import Classify
from mote.patches import EMPTY_PROFILE

_LABELS_AT_ONCE = 256


class Study(NamedTuple):
    """A checked recipe with all that it names, before anything is written."""

    recipe: Recipe
    model: ModelSource
    prompts: list[PromptRow]
    manifest: dict[str, Any]
    function: Classify | None = None


def check(recipe: Recipe) -> Study:
    """Find everything that a recipe names; raise MoteError for what isn't there. Loads no weights, writes nothing.

    The recipe is the user's own: a function that it names for its classes is loaded, which runs its file.
    """
    model = resolve_model(recipe.model.path)
    check_study(recipe.study, model.layout)
    asked = asked_by(recipe)
    prompts = asked.rows
    attributes = {row.prompt_id: row.attributes for row in prompts}
    unit, units = units_of(attributes)
    check_split(recipe.study, units)
    if recipe.study.contrast is not None:
        check_contrast(recipe.study.contrast, attributes, unit, units)
    check_llm(recipe)
    manifest = manifests.new_manifest(recipe, model.manifest(), describe(recipe, asked))
    return Study(recipe, model, prompts, manifest, function_of(recipe.task.classes))


def run(
    study: Study,
    folder: Path,
    console: Console,
    *,
    engine: StartsEngine = engine_starter,
    force: bool = False,
    paper: bool = False,
) -> None:
    """Do what is missing of a study in a run's folder, up to the last label.

    ``force`` goes on with fewer target prompts than a verdict asks for; ``paper`` follows the paper's own protocol, on
    the same baseline, instead. Raises MoteError where the folder holds another run, where another process works on it,
    and for whatever the engine refuses. KeyboardInterrupt passes through; what was stored stays.
    """
    if paper:
        _check_paper(study.recipe.study)
    earlier = _earlier(study, folder)
    recipe = _recipe(earlier, study.recipe)
    with EngineLog(console) as log:
        if earlier is None:
            # Before anything is written; a run that exists was made with the same options.
            check_engine(recipe, study.model.path)
        folder.mkdir(parents=True, exist_ok=True)
        log.keep(folder / LOG_NAME)
        # Made when the first answer is needed: a run of which only labels are missing loads no model.
        start = engine(study.recipe, study.model, folder / LOG_NAME, console)
        with RunStore(folder) as store, _noted(store, earlier or study.manifest) as manifest:
            _clear(folder)
            session = Session(folder, manifest, store, console, recipe, study.model, start, function=study.function)
            _baseline(session, study.prompts)
            if paper:
                follow_paper(session, _label)
                return
            manifest["forced"] = force or manifest.get("forced", False)
            plan_run(session, _labels(session))
            _measure(session)
            manifest["finished"] = manifest["finished"] or manifests.now()


def _check_paper(study: StudyPart) -> None:
    if study.contrast is not None:
        raise MoteError("--protocol paper chooses experts by the classes of answers: leave out study.contrast.")
    if study.role != PROMPT:
        raise MoteError("--protocol paper chooses experts by the tokens of the prompt: leave out study.role.")
    if study.against is not None:
        raise MoteError("--protocol paper sets a class against all others: leave out study.against.")


def _baseline(session: Session, prompts: Sequence[PromptRow]) -> None:
    store, manifest = session.store, session.manifest
    if not store.prompts():
        store.add_prompts(prompts)
    if not store.profiles():
        store.add_plan([baseline_row(session.recipe.sampling.seed)])
    _check_maps(session)
    began = time.monotonic()
    # Its first requests wait for the engine, which is no answer's time.
    if len(store.stored()) < len(prompts):
        _ = session.engine
        began = time.monotonic()
    made = generate(session, "Baseline, with maps", wanted_of(session, store.profiles()[:1]))
    if made:
        manifest["seconds_an_answer"] = (time.monotonic() - began) / made
        manifests.write_manifest(session.folder, manifest)
    _label(session)
    _tokens(session)


def _check_maps(session: Session) -> None:
    """Refuse a baseline of another role: until experts are chosen the study may change, but not what was captured."""
    role, store = session.recipe.study.role, session.store
    # The prompt's are asked for with every role.
    if role == PROMPT:
        return
    if {prompt for prompt, profile in store.stored() if profile == BASELINE} - store.mapped(BASELINE, role):
        raise MoteError(
            f"study.role: the baseline in {session.folder} was asked without maps of '{role}': take another folder with"
            " --out, or the role that it was made with."
        )


def _measure(session: Session) -> None:
    """Answers under all profiles but random sets, then under those as the design asks, then what is teacher-forced."""
    rows = [row for row in session.store.profiles() if not row.kind.startswith(RANDOM) and row.kind != PAPER]
    generate(session, "Retests and tuned", wanted_of(session, rows))
    _label(session)
    answer_controls(session, _label)
    measure_exactly(session)


def _earlier(study: Study, folder: Path) -> dict[str, Any] | None:
    if folder.is_file():
        raise MoteError(f"{folder} is a file; a run needs a folder: choose one with --out.")
    if (folder / manifests.MANIFEST_NAME).exists():
        earlier = manifests.read_manifest(folder)
        planned = _planned(folder)
        manifests.check_same(folder, earlier, study.manifest, planned=planned)
        if not planned:
            # The baseline does not depend on what is studied.
            earlier |= {key: study.manifest[key] for key in ("recipe", "recipe_digest", "seeds")}
            earlier.pop("older", None)
        return earlier
    # A kill between making the folder and writing the manifest leaves the log, the empty store, a half manifest.
    ours = {LOG_NAME, "run.lock", "run.sqlite", "run.sqlite-wal", "run.sqlite-shm", "run.sqlite-journal"}
    left = [item for item in folder.iterdir() if item.name not in ours] if folder.exists() else []
    if not all(is_unfinished(item, manifests.MANIFEST_NAME) for item in left):
        raise MoteError(f"{folder} is not empty and holds no run: choose another folder with --out.")
    return None


def _recipe(earlier: Mapping[str, Any] | None, now: Recipe) -> Recipe:
    """Return the recipe that a start goes by: an earlier start's, with the model and judge that the user asks now.

    They are the same but for what may differ by start, such as addresses and the names of keys: these are the user's
    own, not those of a folder that may be a stranger's.
    """
    if earlier is None:
        return now
    recipe = recipe_of(earlier["recipe"])
    judges = recipe.judges.model_copy(update={"llm": now.judges.llm})
    return recipe.model_copy(update={"model": now.model, "judges": judges})


def _clear(folder: Path) -> None:
    """Take away what kills left of files that were being written."""
    for name in (manifests.MANIFEST_NAME, PLAN_NAME, STORE_NAME):
        for item in folder.glob(f".{name}.*"):
            if is_unfinished(item, name):
                item.unlink(missing_ok=True)


def _planned(folder: Path) -> bool:
    """Return whether a run's experts were chosen, or its rows are not here to tell."""
    try:
        with RunStore(folder, read_only=True) as store:
            return _planned_in(store)
    except MoteError:
        return True


def _planned_in(store: RunStore) -> bool:
    return any(row.kind not in (BASELINE, PAPER) for row in store.profiles())


@contextmanager
def _noted(store: RunStore, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Note in the manifest that a start of the run began and how long it lasted; yields the manifest to add to."""
    refuse_damaged(store)
    session = manifests.new_session()
    manifest["sessions"].append(session)
    manifests.write_manifest(store.folder, manifest)
    try:
        yield manifest
    finally:
        session["ended"] = manifests.now()
        manifests.write_manifest(store.folder, manifest)


def _label(session: Session) -> None:
    if missing := session.store.unlabelled(session.text_judge):
        _label_texts(session, missing)
    if session.recipe.judges.surprise:
        label_run_by_surprise(session, _LABELS_AT_ONCE)
    label_run_by_llm(session)


def _label_texts(session: Session, missing: Sequence[Unlabelled]) -> None:
    labels, target = session.labels, session.recipe.study.target
    prompts = {row.prompt_id: row for row in session.store.prompts()}
    # Before experts are chosen a function may still be mended.
    texts = TextLabels(labels, session.markers, prompts, strict=not _planned_in(session.store))
    if said := unset_marker((one.raw for one in missing), session.markers):
        session.console.print(f"! {said}", soft_wrap=True)
    with step(session.console, "Labels", len(missing)) as advance:
        for start in range(0, len(missing), _LABELS_AT_ONCE):
            rows = []
            for one in missing[start : start + _LABELS_AT_ONCE]:
                if one.finish_reason == DECIDED:
                    label = decided_label(labels, target, one.raw)
                else:
                    label = texts.label(one.prompt_id, one.raw, one.prompt_opens, one.finish_reason)
                evidence = [asdict(entry) for entry in label.evidence]
                rows.append(LabelRow(one.generation_id, label.judge, label.label, evidence))
            session.store.add_labels(rows)
            advance(len(rows))
    if texts.failed:
        said = f"! {len(texts.failed)} answers have no class and are UNSCORED; the first: {texts.failed[0]}"
        session.console.print(one_line(said), soft_wrap=True, markup=False)


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
