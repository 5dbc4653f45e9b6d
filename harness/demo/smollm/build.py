"""The whole build, from the installed SmolLM2 to an aligned checkpoint; every phase goes on where a kill left it.

`out/building` holds the phases' files (about 0.5 GB) until the checkpoint is whole, then it is removed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mote.harness.demo.smollm import documents, evaluation
from mote.harness.demo.smollm.convert import Shape, expert_layers, fresh_experts, write_mixture
from mote.harness.demo.smollm.documents import MEASURED, TRAINED, Counts
from mote.harness.demo.smollm.network import Upper
from mote.harness.demo.smollm.prompts import SHORT
from mote.harness.demo.smollm.source import Source
from mote.harness.demo.smollm.states import Tell, answer_all, state_all
from mote.harness.demo.smollm.trainer import Pool, Schedule, Step, Trainer
from mote.harness.errors import MoteError
from mote.harness.files import digest_of, write_atomic
from mote.harness.recipe.schema import differences

BUILDING = "building"
RECIPE = "recipe.json"
TRAINING = "training.json"
_SYSTEM_TAG = "<|im_start|>system\n"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that, with the seed and the source, decides the checkpoint."""

    seed: int = 1
    shape: Shape = field(default_factory=Shape)
    schedule: Schedule = field(default_factory=Schedule)
    trained: dict[str, Counts] = field(default_factory=lambda: dict(TRAINED))
    measured: dict[str, Counts] = field(default_factory=lambda: dict(MEASURED))


def build(source: Source, recipe: Recipe, out: Path, tell: Tell, *, threads: int = 2) -> dict[str, Any]:
    """Build the checkpoint in `out`, or go on with it; return the last measures of the training.

    The same recipe, machine, versions and threads give the same weights. Raises MoteError where `out` holds a
    finished checkpoint, something else, or a build of another recipe.
    """
    recipe.shape.check(source.model.config)
    folder = _folder(recipe, out)
    if source.tokenizer.chat_template and _SYSTEM_TAG in source.tokenizer.chat_template:
        source.tokenizer.chat_template = short_template(source.tokenizer.chat_template)
    with _torch(threads), _clock(folder) as cpu:
        trainer, measure = _prepare(source, recipe, folder, tell)

        def told(step: Step, steps: int) -> None:
            tell("training, " + ", ".join(f"{name} {loss:.2f}" for name, loss in step.losses.items()), step.step, steps)

        trainer.run(lambda: measure() | {"cpu_minutes": cpu() / 60}, told)
    result = {"recipe": asdict(recipe), "log": trainer.log}
    write_atomic(out / TRAINING, json.dumps(result, indent=1) + "\n")
    write_mixture(source, recipe.shape, trainer.network.expert_tensors(), out)
    shutil.rmtree(folder)
    return dict(trainer.log[-1])


def short_template(template: str) -> str:
    """SmolLM2's chat template with a default system message that asks for one short sentence.

    A caller's own system message replaces it, as it replaces SmolLM2's. Raises MoteError for another template.
    """
    start = template.find(_SYSTEM_TAG) + len(_SYSTEM_TAG)
    end = template.find("<|im_end|>", start)
    if start < len(_SYSTEM_TAG) or end < 0:
        raise MoteError("the source's chat template has no default system message; is it SmolLM2-Instruct?")
    return template[:start] + SHORT + template[end:]


def _folder(recipe: Recipe, out: Path) -> Path:
    folder = out / BUILDING
    wanted = json.loads(json.dumps(asdict(recipe)))
    if (out / "model.safetensors").exists() and not folder.exists():
        raise MoteError(f"{out} already holds a checkpoint; name another folder with --out.")
    if not folder.exists():
        if out.exists() and any(out.iterdir()):
            raise MoteError(f"{out} is not empty and holds no build that was begun; name another folder with --out.")
        folder.mkdir(parents=True)
    file = folder / RECIPE
    if not file.exists():
        write_atomic(file, json.dumps(wanted, indent=1) + "\n")
    begun = json.loads(file.read_text(encoding="utf-8"))
    if digest_of(begun) != digest_of(wanted):
        raise MoteError(f"{out} was begun with another recipe ({'; '.join(differences(begun, wanted))}).")
    return folder


def _prepare(source: Source, recipe: Recipe, folder: Path, tell: Tell) -> tuple[Trainer, Any]:
    """Corpus, answers, states, and the network as it was before the first step."""
    model, words = source
    first = expert_layers(model.config, recipe.shape)[0]
    trained = documents.trained_prompts(recipe.seed, recipe.trained)
    measured = documents.measured_prompts(recipe.measured)
    asked = documents.answered(trained, recipe.trained) + documents.answered(measured, recipe.measured)
    answers = dict(zip(asked, answer_all(model, words, asked, folder, recipe.seed, tell), strict=True))
    to_train = documents.documents(trained, answers, words)
    openings = documents.openings(measured, words)
    answered = [one for one in documents.documents(measured, answers, words) if len(one.wanted) > 1 and not one.refuses]
    train_states = state_all(model, first, to_train, folder, "training", tell)
    opening_states = state_all(model, first, openings, folder, "openings", tell)
    answered_states = state_all(model, first, answered, folder, "answers", tell)
    network = Upper(model, recipe.shape)
    network.load_experts(fresh_experts(model.config, recipe.shape, recipe.seed))
    trainer = Trainer(network, Pool(to_train, train_states, recipe.seed), recipe.schedule, folder)

    def measure() -> dict[str, float]:
        return evaluation.refused(network, openings, opening_states) | evaluation.moved(
            network, answered, answered_states
        )

    return trainer, measure


@contextmanager
def _torch(threads: int) -> Iterator[None]:
    """Matrix products of float32 in bfloat16 where the CPU has it: twice as fast, and 0.0002 nats away."""
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision(precision)


@contextmanager
def _clock(folder: Path) -> Iterator[Any]:
    """Yield a function that returns the CPU seconds of this build so far, over all its starts, and notes them."""
    file = folder / "cpu-seconds.json"
    earlier = float(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else 0.0
    begun = time.process_time()

    def spent() -> float:
        total = earlier + time.process_time() - begun
        write_atomic(file, json.dumps(round(total, 1)))
        return total

    try:
        yield spent
    finally:
        if folder.exists():
            spent()
