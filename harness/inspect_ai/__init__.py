"""Inspect on a tuned model: the provider ``mote``, its sham profiles, and the command that runs both beside each other.

Inspect finds the provider by the entry point ``inspect_ai`` of this distribution (``registry``), so its own command
takes it: ``inspect eval task.py --model mote/demo -M profile=RUN:PROFILE``. ``mote inspect run`` asks a task under the
untouched model, a profile and its shams at once; ``mote inspect table`` reads their logs, and needs no inspect_ai.
Nothing here imports inspect_ai before one of the first two is used.
"""

from __future__ import annotations

from typing import Final

NAME: Final = "mote"
"""The name of the provider: what stands before the slash in ``--model mote/demo``."""


def register() -> None:
    """Make the provider known to Inspect in this process, also where the entry point is not installed.

    Raises MoteError where inspect_ai isn't installed.
    """
    from mote.harness.errors import MoteError

    try:
        import mote.harness.inspect_ai.registry  # noqa: F401
    except ImportError as error:
        raise MoteError(f'no inspect_ai here ({error}): pip install ".[inspect]".') from None
