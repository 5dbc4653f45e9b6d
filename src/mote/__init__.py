"""MoTE Harness: which routed experts of a mixture-of-experts language model carry a behaviour, and the proof.

Four rooms, and dependencies that point one way: ``mote.patches`` (the router patch for vLLM) and ``mote.judges``
(from text to label) import nothing of ours, ``mote.tasks`` (what is asked) may import the judges, ``mote.harness``
(the study) composes all. Import-linter holds the rule.

``mote.study("demo")`` runs a study, ``mote.open("results/runs/demo")`` gives what a run says as pandas frames, and
``mote.client(url)`` asks a server under a profile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mote.harness.engine.client import Client
    from mote.harness.recipe.schema import Recipe
    from mote.harness.report.frames import Run

__version__ = "0.1.0"
__all__ = ["__version__", "client", "open", "study"]


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


def study(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | Recipe,
    out: str | os.PathLike[str] | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    limit: int | None = None,
    force: bool = False,
    protocol: Literal["sound", "paper"] = "sound",
    quiet: bool = False,
) -> Run:
    """Run a whole study as ``mote run`` does, or go on with one that was stopped, and return it as ``open`` does.

    ``recipe`` is the name of a packaged one, a YAML file, or its parts as a mapping, whose files are found from where
    one stands. ``out`` is the run's folder (``results/runs/NAME``, with a limit ``results/runs/NAME-LIMIT``).
    ``changes`` override values by their place, as ``--set`` does: ``{"study.top_k": 5}``. ``limit``, ``force`` and
    ``protocol`` are those of ``mote run``; ``quiet`` shows no progress. The model is loaded in this process, where its
    recipe names no servers; no ``__main__`` guard is needed, and a notebook's event loop does no harm.

    Raises MoteError for the user's mistakes. KeyboardInterrupt passes through: what was generated is stored, and the
    same call goes on.
    """
    from mote.harness.report.whole import whole_study

    return whole_study(recipe, out, changes=changes, limit=limit, force=force, protocol=protocol, quiet=quiet)
