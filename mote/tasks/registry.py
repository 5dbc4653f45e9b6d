"""The tasks by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from mote.tasks import refusal_grid
from mote.tasks.prompt import Prompt, TaskError

TASKS: Mapping[str, Callable[[], list[Prompt]]] = MappingProxyType({refusal_grid.TASK: refusal_grid.prompts})


def load_task(name: str) -> list[Prompt]:
    """Return the prompts of the task ``name`` in their fixed order.

    Raises TaskError for an unknown name, with the nearest known one.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.4)
        hint = f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(sorted(TASKS))}."
        raise TaskError(f"task '{name}' is unknown.{hint}")
    return TASKS[name]()
