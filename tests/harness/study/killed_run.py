"""``mote`` with a SIGKILL at a named point of the study; run as a program by the tests of resuming.

Usage: killed_run.py POINT ARGUMENTS-OF-MOTE. The point counts calls of the function that it names, so that the kill
falls in the midst of the step and not between two of them.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

# point -> module, owner (or "" for the module itself), function, how many calls pass, whether to die after the last
POINTS: dict[str, tuple[str, str, str, int, bool]] = {
    "baseline": ("mote.harness.store.run", "RunStore", "add_generations", 2, True),
    "labels": ("mote.harness.store.run", "RunStore", "add_labels", 1, True),
    "surprise": ("mote.harness.study.surprise", "", "read_surprises", 2, False),
    "plan": ("mote.harness.study.plan_step", "", "make_plan", 1, True),
    "profiles": ("mote.harness.store.run", "RunStore", "add_generations", 3, True),
    "more-labels": ("mote.harness.store.run", "RunStore", "add_labels", 14, False),
    "controls": ("mote.harness.store.run", "RunStore", "add_generations", 2, True),
    "exact": ("mote.harness.study.exact", "", "add_divergences", 1, True),
    "scan": ("mote.harness.store.scans", "Scans", "add", 2, True),
    "report": ("mote.harness.files", "", "write_atomic", 3, False),
}


def arm(point: str) -> None:
    """Make the process die by SIGKILL at a point."""
    module_name, owner_name, name, passing, after = POINTS[point]
    module = importlib.import_module(module_name)
    owner: Any = getattr(module, owner_name) if owner_name else module
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def killing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == passing and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == passing:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, killing)


if __name__ == "__main__":
    # A suite that was started in the background ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    point, *arguments = sys.argv[1:]
    from mote.harness.cli import main as cli
    from mote.harness.study import run as study

    study._LABELS_AT_ONCE = 8
    if point != "none":
        arm(point)
    sys.argv = ["mote", *arguments]
    cli.main()
