"""What is asked: one folder a task, with its prompt generator or loader.

``load_task("refusal_grid")`` gives the prompts of a task by name; ``TASKS`` lists the names.
"""

from __future__ import annotations

from mote.tasks.prompt import Attribute, Prompt, TaskError
from mote.tasks.registry import TASKS, load_task

__all__ = ["TASKS", "Attribute", "Prompt", "TaskError", "load_task"]
