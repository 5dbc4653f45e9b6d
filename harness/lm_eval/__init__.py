"""lm-eval on a tuned model: the model ``mote``, its registration, and the command that passes through to lm_eval.

lm_eval 0.4.13 discovers no models by itself, so there are several doors, all to the same class:

- ``mote lm-eval ...`` registers the model, adds our tasks to lm_eval's list and hands over to lm_eval's own command;
- ``register()``, then ``simple_evaluate(model="mote", ...)``;
- the stock ``lm_eval`` with a task given by the path of a YAML file in ``stock/``: reading its ``!function`` registers;
- releases after 0.4.13 find the entry point ``lm_eval.models`` of this distribution.

Nothing here imports lm_eval before one of these is used.
"""

from __future__ import annotations

from pathlib import Path

NAME = "mote"
"""The name of the model for ``--model``."""

TASKS = Path(__file__).resolve().parents[2] / "tasks"
"""Where the YAML files of our tasks lie: what ``--include_path`` or ``TaskManager(include_path=...)`` is given."""

STOCK = Path(__file__).resolve().parent / "stock"
"""Task files for the stock ``lm_eval`` command: each is one of our tasks, and registers the model when it is read."""


def register() -> None:
    """Make ``--model mote`` known to lm_eval in this process; calling it again changes nothing.

    Raises MoteError where lm_eval isn't installed.
    """
    from mote.harness.errors import MoteError

    try:
        # The built-in models register when this package is imported; imported after ours, they would never be.
        import lm_eval.models  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise MoteError(f'no lm_eval here ({error}): pip install ".[lm-eval]".') from None
    import mote.harness.lm_eval.model  # noqa: F401
