"""A sweep, step by step: children are made, asked, labelled, and taken away; what the store has is not done again.

Order on disk: ``sweep.json``, the prompts, and for each child its row, its profiles, its answers, its labels. A sweep
that was killed at any moment goes on with the same command and ends with the same rows. Where the recipe refines, the
further proportions follow from the stored rows alone.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console

from mote.harness.engine.log import EngineLog
from mote.harness.engine.model import ModelSource, resolve_model
from mote.harness.engine.vllm import Request, VllmEngine, check_options, request_seed
from mote.harness.errors import MoteError
from mote.harness.files import is_unfinished
from mote.harness.merge.child import digests_of, make_child
from mote.harness.merge.plan import Plan, make_plan
from mote.harness.recipe.manifest import now
from mote.harness.recipe.own_classes import function_of
from mote.harness.recipe.roles import PROMPT
from mote.harness.recipe.schema import Recipe
from mote.harness.science.sweeps import middles
from mote.harness.store.checking import refuse_damaged
from mote.harness.store.children import (
    ChildRow,
    add_child,
    add_part_tokens,
    children,
    last_child,
    sweep_frame,
    untokenised,
)
from mote.harness.store.run import LabelRow, ProfileRow, PromptRow, RunStore
from mote.harness.study.generate import Wanted, generate, wanted_of
from mote.harness.study.prompts import asked_by, describe
from mote.harness.study.session import LOG_NAME, Session
from mote.harness.study.text_labels import TextLabels
from mote.harness.sweep.chosen import with_experts
from mote.harness.sweep.distances import HANDS, write_parents_distances
from mote.harness.sweep.engines import RELOADED, Engines, Loaded, Starts
from mote.harness.sweep.manifest import MANIFEST_NAME, failed_check, noted, opened, sweep_manifest, write_sweep
from mote.harness.sweep.measures import curve, read_rows
from mote.harness.sweep.schema import BASE, SweepRecipe
from mote.judges.functions import Classify
from mote.patches import EMPTY_PROFILE, Profile, ProfileError

KIND: Final = "child"
"""The kind of a sweep's profiles in the store."""
PROOF_PROMPTS: Final = 16
CHILDREN: Final = "children"


class Point(NamedTuple):
    """A child to be made: what is taken over, at which proportion. The base's subset is ''."""

    subset: str
    proportion: float

    @property
    def child(self) -> str:
        """The child's name."""
        return f"{self.subset}@{self.proportion:.9g}" if self.subset else BASE


class Sweep(NamedTuple):
    """A checked recipe with all that it names; nothing is written yet."""

    recipe: SweepRecipe
    study: Recipe
    model: ModelSource
    prompts: list[PromptRow]
    profiles: list[Profile]
    folders: dict[str, Path]
    manifest: dict[str, Any]
    function: Classify | None


def check(recipe: SweepRecipe) -> Sweep:
    """Find everything that a sweep's recipe names; loads no weights, writes nothing.

    Raises MoteError, one line, for parents that cannot be merged, subsets of which there is nothing, profiles that do
    not fit, and whatever is wrong with the prompts.
    """
    recipe = with_experts(recipe)
    plans = [make_plan(recipe.merge(subset, recipe.proportions[-1])) for subset in recipe.subsets]
    base = plans[0].base
    model = resolve_model(str(base.folder))
    study = recipe.study(str(base.folder))
    asked = asked_by(study)
    prompts = asked.rows
    if recipe.score is not None:
        for row in prompts:
            if recipe.score.attribute not in row.attributes:
                raise MoteError(f"score.attribute: the prompt {row.prompt_id} has no '{recipe.score.attribute}'.")
    profiles = [EMPTY_PROFILE, *(_read_profile(path, model) for path in recipe.profiles)]
    if twice := {one.name for one in profiles if sum(one.name == other.name for other in profiles) > 1}:
        raise MoteError(f"profiles: two are named '{min(twice)}'; in a sweep each has a name of its own.")
    parents = {
        parent.name: {"path": parent.source, "revision": parent.revision, "files": digests_of(parent)}
        for parent in plans[0].parents
    }
    manifest = sweep_manifest(recipe, parents, model.manifest(), describe(study, asked), profiles)
    folders = {parent.name: parent.folder for parent in plans[0].parents}
    return Sweep(recipe, study, model, prompts, profiles, folders, manifest, function_of(recipe.task.classes))


def run(sweep: Sweep, folder: Path, console: Console, *, keep: bool = False, start: Starts | None = None) -> None:
    """Do what is missing of a sweep in its folder. ``keep`` leaves the children there; ``start`` starts its engines.

    Raises MoteError where the folder holds another sweep, where another process works on it, and for whatever the
    engine refuses. KeyboardInterrupt passes through; what was stored stays.
    """
    earlier = opened(folder, sweep.manifest)
    with EngineLog(console) as log:
        if earlier is None:
            check_options(sweep.study, sweep.model.path)
        folder.mkdir(parents=True, exist_ok=True)
        log.keep(folder / LOG_NAME)
        engines = Engines(start or _starter(sweep, folder, console))
        with RunStore(folder) as store, noted(folder, earlier or sweep.manifest) as manifest:
            refuse_damaged(store)
            for item in folder.glob(f".{MANIFEST_NAME}.*"):
                if is_unfinished(item, MANIFEST_NAME):
                    item.unlink(missing_ok=True)
            manifest["keep"] = keep or manifest["keep"]
            work = _Work(sweep, folder, console, store, manifest, engines)
            try:
                work.all()
            finally:
                engines.close()


class _Work:
    """The steps of one start of a sweep."""

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        console: Console,
        store: RunStore,
        manifest: dict[str, Any],
        engines: Engines,
    ) -> None:
        self.sweep, self.folder, self.console = sweep, folder, console
        self.store, self.manifest, self.engines = store, manifest, engines
        self.recipe = sweep.recipe
        self.noted = manifest["sessions"][-1]
        self._proven = not self.recipe.model.reload
        # The first child of a start is due, then every so many.
        self._unchecked = self.recipe.model.check_every
        self._session = Session(
            folder,
            {"recipe": sweep.study.model_dump(mode="json")},
            store,
            console,
            sweep.study,
            sweep.model,
            self._no_engine,
            function=sweep.function,
        )
        prompts = {row.prompt_id: row for row in sweep.prompts}
        self._labels = TextLabels(self._session.labels, self._session.markers, prompts, strict=True)

    def all(self) -> None:
        """Do the grid, then the middles of steps until there are none, then what needs no engine."""
        if not self.store.prompts():
            self.store.add_prompts(self.sweep.prompts)
        write_parents_distances(self.folder, self.recipe)
        above = [proportion for proportion in self.recipe.proportions if proportion > 0]
        grid = [Point("", 0.0), *(Point(subset, p) for subset in self.recipe.subsets for p in above)]
        # What a stop left half asked between the grid's points is done first: steps are halved by whole children alone.
        begun = [Point(one.subset, one.proportion) for one in children(self.store).values()]
        points = [*grid, *(point for point in begun if point not in grid)]
        while points:
            for number, point in enumerate(points, start=1):
                self._child(point, f"{point.child} ({number} of {len(points)})")
            points = self._closer()
        self._check_last()
        self._count_tokens()
        if any((self.folder / CHILDREN).glob("*")) and not self.manifest["keep"]:
            shutil.rmtree(self.folder / CHILDREN)
        self.manifest["finished"] = self.manifest["finished"] or now()

    def _child(self, point: Point, title: str) -> None:
        rows = [self._row(point, profile) for profile in self.sweep.profiles]
        stored = self.store.stored()
        if any((prompt.prompt_id, row.name) not in stored for row in rows for prompt in self.sweep.prompts):
            self._ask(point, rows, title)
        self._label()

    def _ask(self, point: Point, rows: list[ProfileRow], title: str) -> None:
        # What loading the engine and proving the reload take is no child's time.
        self._prove()
        began, worked = time.monotonic(), time.process_time()
        with self._made(point) as loaded:
            there = children(self.store).get(point.child)
            if there is None:
                recipe = self._merge_of(point).model_dump(mode="json", exclude={"parents"})
                add_child(self.store, ChildRow(point.child, point.subset, point.proportion, loaded.weights, recipe))
            elif there.weights != loaded.weights:
                raise MoteError(f"{self.folder}: the child {point.child} was made of other weights when it was stored.")
            known = {row.name for row in self.store.profiles()}
            self.store.add_plan([row for row in rows if row.name not in known])
            engine = self.engines.of(loaded)
            ready = time.monotonic()
            self.noted["cpu_seconds_making"] += time.process_time() - worked
            session = replace(self._session, start=lambda: engine)
            made = generate(session, title, self._with_maps(wanted_of(session, rows), point.child))
            self.noted["seconds_answering"] += time.monotonic() - ready
            self.noted["seconds_making"] += ready - began
            self.noted["children"] += 1
            self.noted["answers"] += made
            self._unchecked += 1
            if self._unchecked >= self.recipe.model.check_every:
                self._check(point, loaded)

    def _with_maps(self, wanted: list[Wanted], child: str) -> list[Wanted]:
        """Have the maps of the prompts captured that stand for all, where the child is asked without a profile."""
        mapped = {row.prompt_id for row in self._spread(self.recipe.maps)}
        return [
            (row, request._replace(capture=PROMPT) if row.name == child and request.prompt_id in mapped else request)
            for row, request in wanted
        ]

    def _spread(self, most: int) -> list[PromptRow]:
        """Return so many of the prompts, evenly spread."""
        prompts = self.sweep.prompts
        return prompts[:: max(1, len(prompts) // most)][:most] if most else []

    def _few_requests(self) -> list[Request]:
        """Return what engines are compared by: some prompts, drawn as the sweep draws them."""
        seed = self.sweep.study.sampling.seed
        return [
            Request(row.prompt_id, row.messages, EMPTY_PROFILE, request_seed(seed, row.prompt_id))
            for row in self._spread(PROOF_PROMPTS)
        ]

    def _row(self, point: Point, profile: Profile) -> ProfileRow:
        under = "" if profile.digest == EMPTY_PROFILE.digest else f"/{profile.name}"
        seed = self.sweep.study.sampling.seed
        return ProfileRow(f"{point.child}{under}", profile.digest, KIND, "all", seed, profile.to_dict())

    def _merge_of(self, point: Point) -> Any:
        subset = point.subset or next(iter(self.recipe.subsets))
        return self.recipe.merge(subset, point.proportion)

    @contextmanager
    def _made(self, point: Point) -> Iterator[Loaded]:
        """Make a child's folder, and take it away afterwards unless children are kept."""
        with self._merged(make_plan(self._merge_of(point)), point.child) as loaded:
            yield loaded

    @contextmanager
    def _merged(self, plan: Plan, name: str) -> Iterator[Loaded]:
        out = self.folder / CHILDREN / name
        record = make_child(plan, out, threads=HANDS).record
        yield Loaded(out, str(record["child"]["digest"]))
        if not self.manifest["keep"]:
            shutil.rmtree(out)

    def _prove(self) -> None:
        """Before the first child of this start: prove that weights can be reloaded, or settle for an engine a child."""
        if not self._proven:
            self._proven = True
            with self._made(Point("", 0.0)) as base, self._merged(make_plan(self.recipe.whole()), "whole") as whole:
                began = time.monotonic()
                self.engines.prove([base, whole], self._few_requests())
                self.noted["seconds_proving"] = time.monotonic() - began
        self.noted["engines"], self.noted["why"] = self.engines.how, self.engines.why

    def _check(self, point: Point, loaded: Loaded) -> None:
        """Hold a child that was reloaded in place against a fresh engine; raise MoteError where they differ."""
        if self.engines.how != RELOADED or not self.recipe.model.check_every:
            return
        began, requests = time.monotonic(), self._few_requests()
        with self.console.status(f"Checking {point.child} with a fresh engine"):
            answers, parameters = self.engines.check(loaded, requests)
        self.noted["seconds_checking"] += time.monotonic() - began
        self._unchecked = 0
        found = {"child": point.child, "prompts": len(requests), "answers": answers, "parameters": parameters}
        self.manifest["checks"].append(found)
        write_sweep(self.folder, self.manifest)
        if answers or parameters:
            raise MoteError(failed_check(found))

    def _check_last(self) -> None:
        """Check the sweep's last child, which a kill may have left without."""
        reloaded = any(one["engines"] == RELOADED for one in self.manifest["sessions"])
        checked = {one["child"] for one in self.manifest["checks"]}
        last = last_child(self.store)
        if self.manifest["finished"] or not reloaded or last is None or not self.recipe.model.check_every:
            return
        if last.child in checked:
            return
        self._prove()
        point = Point(last.subset, last.proportion)
        with self._made(point) as loaded:
            self._check(point, loaded)

    def _closer(self) -> list[Point]:
        """Return the points between neighbours that lie too far apart, by what is stored."""
        refine = self.recipe.refine
        if refine is None:
            return []
        rows, _ = read_rows(sweep_frame(self.store, self._session.labels.judge), self.recipe.score)
        return [
            Point(subset, proportion)
            for subset in self.recipe.subsets
            for proportion in middles(curve(rows, subset, refine.measure), refine.step, refine.finest)
        ]

    def _label(self) -> None:
        judge = self._session.text_judge
        found = []
        for one in self.store.unlabelled(judge):
            label = self._labels.label(one.prompt_id, one.raw, one.prompt_opens, one.finish_reason)
            evidence = [asdict(entry) for entry in label.evidence]
            found.append(LabelRow(one.generation_id, judge, label.label, evidence))
        if found:
            self.store.add_labels(found)

    def _count_tokens(self) -> None:
        missing = untokenised(self.store)
        if not missing:
            return
        from transformers import AutoTokenizer

        giver = self.recipe.tokenizer or self.recipe.base
        tokenizer: Any = AutoTokenizer.from_pretrained(str(self.sweep.folders[giver]))
        known: dict[str, int] = {}
        for text in {text for one in missing for text in (one.reasoning, one.answer)}:
            known[text] = len(tokenizer.encode(text, add_special_tokens=False))
        add_part_tokens(self.store, {one.generation_id: (known[one.reasoning], known[one.answer]) for one in missing})

    def _no_engine(self) -> Any:
        raise AssertionError("a sweep's engine is that of a child")


def _starter(sweep: Sweep, folder: Path, console: Console) -> Starts:
    """Return what starts vLLM in this process on a folder, with the sweep's options."""

    def start(path: Path) -> VllmEngine:
        study = sweep.study
        with console.status("Starting vLLM"):
            arguments = check_options(study, str(path))
            log = folder / LOG_NAME
            return VllmEngine(arguments, study.sampling, study.model.markers.start, log, study.model.template)

    return start


def _read_profile(path: str, model: ModelSource) -> Profile:
    try:
        profile = Profile.read(path)
        profile.check(model.layout)
    except ProfileError as error:
        raise MoteError(f"profiles: {error}") from None
    if "/" in profile.name or profile.digest == EMPTY_PROFILE.digest:
        raise MoteError(f"profiles: '{profile.name}' has a slash in its name, or edits nothing.")
    return profile
