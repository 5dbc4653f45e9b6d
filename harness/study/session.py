"""A run that is open for work: its folder, manifest, rows, model and engine, opened once and handed down as one object.

``OpenRun`` is enough for whoever reads and labels rows; a ``Session`` can ask the run's model too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from mote.harness.engine import once
from mote.harness.engine.log import EngineLog
from mote.harness.engine.model import ModelSource, check_files, resolve_model
from mote.harness.engine.servers import engine_starter
from mote.harness.engine.trust import NOTHING_OWN, Own, trusted_function, trusted_recipe
from mote.harness.engine.vllm import Answer, Engine, check_engine, request_seed
from mote.harness.recipe.label_sets import LabelSet, label_set
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.roles import LAST
from mote.harness.recipe.schema import Recipe, markers_of, recipe_of
from mote.harness.store.checking import refuse_damaged
from mote.harness.store.run import GenerationRow, MapRow, RunStore
from mote.judges import Markers, split_reasoning
from mote.judges.functions import Classify

LOG_NAME = "vllm.log"

StartsEngine = once.StartsEngine
"""What gives a recipe's engine."""


@dataclass(frozen=True)
class OpenRun:
    """A run's folder, manifest and rows, and the console that its work is shown on.

    ``function`` gives classes of one's own, where the user named one: a manifest brings none.
    """

    folder: Path
    manifest: dict[str, Any]
    store: RunStore
    console: Console
    function: Classify | None = field(default=None, kw_only=True)

    @cached_property
    def labels(self) -> LabelSet:
        """The label set of the run; its judge is the one that the run goes by."""
        return label_set(self.manifest["recipe"], self.function)

    @property
    def text_judge(self) -> str:
        """The judge of the label set that reads the texts alone; the run's first."""
        return self.labels.text_judge

    @cached_property
    def markers(self) -> Markers:
        """What opens and closes the model's reasoning."""
        return markers_of(self.manifest["recipe"])


@dataclass(frozen=True)
class Session(OpenRun):
    """An open run with its model and what starts its engine: a run of which nothing is missing loads no model."""

    recipe: Recipe
    model: ModelSource
    start: Callable[[], Engine]

    @property
    def engine(self) -> Engine:
        """The run's engine, started when it is first asked for. Raises MoteError where none can be had."""
        return self.start()

    def check_engine(self) -> None:
        """Raise MoteError for engine options that vLLM refuses; nothing is loaded."""
        check_engine(self.recipe, self.model.path)

    def seed_of(self, prompt_id: str) -> int:
        """Return the seed of a request, as the study's own profiles (all but retests) have it."""
        return request_seed(self.recipe.sampling.seed, prompt_id)

    def row_of(self, answer: Answer, profile: str) -> GenerationRow:
        """Return an answer as it is stored: split into reasoning and answer, with what the patch observed."""
        request, observation = answer.request, answer.observation
        opens = self.engine.prompt_opens
        split = split_reasoning(answer.raw, self.markers, prompt_opens=opens)
        return GenerationRow(
            prompt_id=request.prompt_id,
            profile=profile,
            profile_digest=request.profile.digest,
            seed=request.seed,
            sampling=self.recipe.drawn,
            prompt_opens=opens,
            raw=answer.raw,
            reasoning=split.reasoning,
            answer=split.answer,
            prompt_tokens=answer.prompt_tokens,
            generated_tokens=answer.generated_tokens,
            finish_reason=answer.finish_reason,
            receipt=observation.receipt.to_dict(),
            mechanism=[asdict(entry) for entry in observation.mechanism],
            # Of several last tokens the recipe's name for the role says how many.
            maps=[
                MapRow(self.recipe.study.role if role == LAST else role, found.counts, found.counted, found.total)
                for role, found in observation.maps.items()
            ],
        )


@contextmanager
def open_run(folder: Path, console: Console) -> Iterator[OpenRun]:
    """Open a run's rows for adding to them.

    Raises MoteError where there is no run, and where it is in use or damaged.
    """
    manifest = read_manifest(folder)
    with RunStore(folder, existing=True) as store:
        refuse_damaged(store)
        yield OpenRun(folder, manifest, store, console)


@contextmanager
def open_session(
    folder: Path, console: Console, engine: StartsEngine = engine_starter, own: Own = NOTHING_OWN
) -> Iterator[Session]:
    """Open a run for asking its model; the engine's own words go to ``vllm.log`` in its folder.

    ``own`` is what the user says of the model: a run may be a stranger's (``engine.trust``). Raises MoteError where
    there is no run, where it is in use, where it needs more than its user said, and where the model's files are others
    by now.
    """
    manifest = read_manifest(folder)
    recipe = trusted_recipe(recipe_of(manifest["recipe"]), folder, own)
    function = trusted_function(recipe, folder, own)
    model = resolve_model(recipe.model.path)
    check_files(folder, model, manifest["model"]["files"])
    with RunStore(folder, existing=True) as store, EngineLog(console) as log:
        refuse_damaged(store)
        log.keep(folder / LOG_NAME)
        start = engine(recipe, model, folder / LOG_NAME, console)
        yield Session(folder, manifest, store, console, recipe, model, start, function=function)
