"""Engines of two models in one process: one at a time, since each takes the device's memory for itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from mote.harness.engine.model import ModelSource
from mote.harness.engine.once import StartsEngine
from mote.harness.engine.servers import engine_starter
from mote.harness.engine.vllm import Engine, VllmEngine
from mote.harness.recipe.schema import Recipe


def one_at_a_time(starter: StartsEngine = engine_starter) -> StartsEngine:
    """Return a starter that keeps the engine it made last, and gives it back before it makes another."""
    held: dict[tuple[str, str, str], Engine] = {}

    def start(recipe: Recipe, model: ModelSource, log: Path, console: Console) -> Callable[[], Engine]:
        key = (model.path, recipe.model.model_dump_json(), recipe.sampling.model_dump_json())
        make = starter(recipe, model, log, console)

        def engine() -> Engine:
            if key not in held:
                for one in held.values():
                    if isinstance(one, VllmEngine):
                        one.close()
                held.clear()
                held[key] = make()
            return held[key]

        return engine

    return start
