"""The study: the way of a run from recipe to labelled answers, as steps that each read what the one before has stored.

A step asks the store what is missing and does only that. So a run that was killed, at any moment, goes on where it was
and ends with the same rows; and starting a finished run again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from mote.harness.engine.log import EngineLog
from mote.harness.engine.model import ModelSource, resolve_model
from mote.harness.engine.servers import engine_starter
from mote.harness.engine.vllm import Answer, Engine, Request, check_engine, request_seed
from mote.harness.errors import MoteError
from mote.harness.files import digest_of
from mote.harness.progress import step
from mote.harness.recipe import manifest as manifests
from mote.harness.recipe.label_sets import LABEL_SETS, LabelSet, label_set
from mote.harness.recipe.schema import Recipe
from mote.harness.science.splits import units_of
from mote.harness.store.run import GenerationRow, LabelRow, MapRow, ProfileRow, PromptRow, RunStore, Unlabelled
from mote.harness.store.token_rows import TokenRows, add_token_rows, choose_prompts, read_token_rows
from mote.harness.study.plan import BASELINE, baseline_row, check_split, check_study, make_plan, profile_of
from mote.harness.study.surprise import label_run_by_surprise
from mote.judges import Label, Markers, split_reasoning
from mote.patches import EMPTY_PROFILE, EditEffect
from mote.tasks import TaskError, load_task

_LABELS_AT_ONCE = 256


class Study(NamedTuple):
    """A checked recipe with all that it names, before anything is written."""

    recipe: Recipe
    model: ModelSource
    prompts: list[PromptRow]
    manifest: dict[str, Any]

    @property
    def markers(self) -> Markers:
        """What opens and closes the model's reasoning."""
        return Markers(self.recipe.model.markers.start, self.recipe.model.markers.end)


def check(recipe: Recipe) -> Study:
    """Find everything that a recipe names; raise MoteError for what isn't there. Loads no weights, writes nothing."""
    model = resolve_model(recipe.model.path)
    check_study(recipe.study, model.layout)
    prompts = _prompts(recipe)
    check_split(recipe.study, _units(prompts))
    described = {
        "task": recipe.task.name,
        "count": len(prompts),
        "digest": digest_of([[row.prompt_id, list(row.messages)] for row in prompts]),
    }
    return Study(recipe, model, prompts, manifests.new_manifest(recipe, model.manifest(), described))


def run(study: Study, folder: Path, console: Console) -> None:
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
        log.keep(folder / "vllm.log")

        # Made when the first answer is needed: a run of which only labels are missing loads no model.
        engine = engine_starter(study.recipe, study.model, folder / "vllm.log", console)
        with RunStore(folder) as store, _session(folder, earlier or study.manifest) as manifest:
            if not store.prompts():
                store.add_prompts(study.prompts)
            if not store.profiles():
                store.add_plan([baseline_row(study.recipe.sampling.seed)])
            _generate(study, store, engine, console, "Baseline, with maps", BASELINE)
            _label(study, store, engine, console, "Labels")
            _tokens(study, store, engine)
            if len(store.profiles()) == 1:
                _plan(study, store)
            manifest["profiles"] = {row.name: row.digest for row in store.profiles()}
            manifests.write_manifest(folder, manifest)
            _generate(study, store, engine, console, "Tuned and controls")
            _label(study, store, engine, console, "Labels")
            manifest["finished"] = manifest["finished"] or manifests.now()


def _earlier(study: Study, folder: Path) -> dict[str, Any] | None:
    if folder.is_file():
        raise MoteError(f"{folder} is a file; a run needs a folder: choose one with --out.")
    if (folder / manifests.MANIFEST_NAME).exists():
        earlier = manifests.read_manifest(folder)
        manifests.check_same(folder, earlier, study.manifest)
        return earlier
    # A kill between making the folder and writing the manifest leaves the log and the empty store.
    ours = {"vllm.log", "run.lock", "run.sqlite", "run.sqlite-wal", "run.sqlite-shm"}
    if folder.exists() and any(item.name not in ours for item in folder.iterdir()):
        raise MoteError(f"{folder} is not empty and holds no run: choose another folder with --out.")
    return None


@contextmanager
def _session(folder: Path, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
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
    # Evenly spread: the first few of the grid would be one year only.
    taken = [prompts[index * len(prompts) // limit] for index in range(limit)]
    return [PromptRow(one.id, one.task, one.messages, one.attributes) for one in taken]


def _generate(
    study: Study, store: RunStore, engine: Callable[[], Engine], console: Console, title: str, only: str | None = None
) -> None:
    wanted = [(profile, request) for profile, request in _wanted(store) if only in (None, profile.name)]
    stored = store.stored()
    missing = [(profile, request) for profile, request in wanted if (request.prompt_id, profile.name) not in stored]
    if not missing:
        return
    names = [profile.name for profile, _ in missing]
    answers = engine().generate([request for _, request in missing])
    with step(console, title, len(wanted), len(wanted) - len(missing)) as advance:
        for some in answers:
            store.add_generations([_row(study, names[index], answer, engine().prompt_opens) for index, answer in some])
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


def _row(study: Study, profile: str, answer: Answer, prompt_opens: bool) -> GenerationRow:
    request, observation = answer.request, answer.observation
    split = split_reasoning(answer.raw, study.markers, prompt_opens=prompt_opens)
    return GenerationRow(
        prompt_id=request.prompt_id,
        profile=profile,
        profile_digest=request.profile.digest,
        seed=request.seed,
        sampling=study.recipe.sampling.model_dump(mode="json"),
        prompt_opens=prompt_opens,
        raw=answer.raw,
        reasoning=split.reasoning,
        answer=split.answer,
        prompt_tokens=answer.prompt_tokens,
        generated_tokens=answer.generated_tokens,
        finish_reason=answer.finish_reason,
        receipt=asdict(observation.receipt),
        mechanism=[_effect(entry) for entry in observation.mechanism],
        maps=[MapRow(role, found.counts, found.counted, found.total) for role, found in observation.maps.items()],
    )


def _effect(entry: EditEffect) -> dict[str, Any]:
    # Ten of these a row are most of a store's size: what an action can't have is left out, sums keep six digits.
    effect = asdict(entry)
    for key, action in (("factor", "scale"), ("entered", "stimulate")):
        if entry.action != action:
            del effect[key]
    for key in ("weight_before", "weight_after"):
        effect[key] = float(f"{effect[key]:.6g}")
    return effect


def _label(study: Study, store: RunStore, engine: Callable[[], Engine], console: Console, title: str) -> None:
    labels = LABEL_SETS[study.recipe.task.label]
    if missing := store.unlabelled(labels.judge):
        _label_texts(study, store, labels, missing, console, title)
    if study.recipe.judges.surprise:
        label_run_by_surprise(store, labels.judge, engine, console, _LABELS_AT_ONCE)


def _label_texts(
    study: Study, store: RunStore, labels: LabelSet, missing: Sequence[Unlabelled], console: Console, title: str
) -> None:
    # Short answers are often the same to the letter, and so are then their labels.
    @cache
    def judged(raw: str, opens: bool, reason: str | None) -> Label:
        return labels.label(raw, finish_reason=reason, markers=study.markers, prompt_opens=opens)

    with step(console, title, len(missing)) as advance:
        for start in range(0, len(missing), _LABELS_AT_ONCE):
            rows = []
            for one in missing[start : start + _LABELS_AT_ONCE]:
                label = judged(one.raw, one.prompt_opens, one.finish_reason)
                evidence = [asdict(entry) for entry in label.evidence]
                rows.append(LabelRow(one.generation_id, label.judge, label.label, evidence))
            store.add_labels(rows)
            advance(len(rows))


def _tokens(study: Study, store: RunStore, engine: Callable[[], Engine]) -> None:
    """Keep which experts each token of a few example prompts chose: asked once more, as the baseline was."""
    part = study.recipe.study
    if not part.tokens or read_token_rows(store.path):
        return
    prompts = {row.prompt_id: row for row in store.prompts()}
    classes = LABEL_SETS[study.recipe.task.label].classes
    chosen = [prompts[key] for key in choose_prompts(_labels(study, store), classes, part.target, part.tokens)]
    seed = study.recipe.sampling.seed
    requests = [
        Request(row.prompt_id, row.messages, EMPTY_PROFILE, request_seed(seed, row.prompt_id), "rows") for row in chosen
    ]
    found = [answer for some in engine().generate(requests) for _, answer in some]
    rows = [
        TokenRows(
            answer.request.prompt_id,
            tuple(engine().token_texts(answer.request.messages)),
            answer.observation.rows["prompt"],
        )
        for answer in found
    ]
    add_token_rows(store.path, rows)


def _labels(study: Study, store: RunStore) -> dict[str, str]:
    """Return prompt id -> label of the baseline's answer, in the prompts' order."""
    frame = store.generations_frame(label_set(study.recipe.model_dump()).judge)
    baseline = frame[frame["profile"] == BASELINE]
    return dict(zip(baseline["prompt_id"].map(str), baseline["label"].map(str), strict=True))


def _units(prompts: Sequence[PromptRow]) -> dict[str, Hashable]:
    return units_of({row.prompt_id: row.attributes for row in prompts})[1]


def _plan(study: Study, store: RunStore) -> None:
    ids, maps, _ = store.maps(BASELINE, study.recipe.study.role)
    known = _labels(study, store)
    labels = {prompt: known[prompt] for prompt in ids}
    seed, units = study.recipe.sampling.seed, _units(study.prompts)
    plan = make_plan(study.recipe.study, study.model.layout, labels, maps, seed, units)
    store.add_plan(plan.profiles, plan.split)
