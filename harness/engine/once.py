"""One engine for several steps of one command: the second asks the engine that the first has started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from mote.harness.engine.model import ModelSource
from mote.harness.engine.servers import engine_starter
from mote.harness.engine.vllm import Engine
from mote.harness.recipe.schema import Recipe

StartsEngine = Callable[[Recipe, ModelSource, Path, Console], Callable[[], Engine]]
"""What gives a recipe's engine, as ``engine_starter`` does: made when it is first asked for. Tests put theirs here."""


def started_once(starter: StartsEngine = engine_starter) -> StartsEngine:
    """Return a starter whose engines are kept: one for each model with its options and sampling."""
    made: dict[tuple[str, str, str], Callable[[], Engine]] = {}

    def start(recipe: Recipe, model: ModelSource, log: Path, console: Console) -> Callable[[], Engine]:
        key = (model.path, recipe.model.model_dump_json(), recipe.sampling.model_dump_json())
        if key not in made:
            made[key] = starter(recipe, model, log, console)
        return made[key]

    return start
