"""The tasks by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from mote.tasks import ccp_sensitive, mt_bench, reasoning_language, refusal_grid, sensitive
from mote.tasks.prompt import Prompt, TaskError

TASKS: Mapping[str, Callable[[], list[Prompt]]] = MappingProxyType(
    {
        refusal_grid.TASK: refusal_grid.prompts,
        sensitive.TASK: sensitive.prompts,
        ccp_sensitive.TASK: ccp_sensitive.prompts,
        reasoning_language.TASK: reasoning_language.prompts,
        mt_bench.TASK: mt_bench.prompts,
    }
)


def load_task(name: str) -> list[Prompt]:
    """Return the prompts of the task ``name`` in their fixed order.

    Raises TaskError for an unknown name, with the nearest known one, and for data that is not fetched or not right.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.4)
        hint = f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(sorted(TASKS))}."
        raise TaskError(f"task '{name}' is unknown.{hint}")
    return TASKS[name]()
