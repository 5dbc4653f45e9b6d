"""MoTE Harness: which routed experts of a mixture-of-experts language model carry a behaviour, and the proof.

Four rooms, and dependencies that point one way: ``mote.patches`` (the router patch for vLLM) and ``mote.judges``
(from text to label) import nothing of ours, ``mote.tasks`` (what is asked) may import the judges, ``mote.harness``
(the study) composes all. Import-linter holds the rule.

``mote.open("results/runs/demo")`` gives what a run says as pandas frames; ``mote.client(url)`` asks a server under a
profile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mote.harness.engine.client import Client
    from mote.harness.report.frames import Run

__version__ = "0.1.0"
__all__ = ["__version__", "client", "open"]


def open(run: str | os.PathLike[str]) -> Run:
    """Return the run in a folder, as frames (``mote.harness.report.frames.Run``); nothing but its manifest is read yet.

    Raises MoteError where the folder holds no run.
    """
    # The router patch is loaded into every vLLM process, which needs none of this.
    from mote.harness.report.frames import open_run

    return open_run(run)


def client(url: str, api_key: str | None = None) -> Client:
    """Return a client of a server with the patch; its ``complete`` sends a profile and checks the answer's receipt.

    ``url`` is that of ``mote serve``, ``http://127.0.0.1:8000/v1``; nothing is asked yet. Raises MoteError for what is
    no URL, and where the openai package is missing.
    """
    from mote.harness.engine.client import Client

    return Client(url, api_key)
