"""The options that say how a run's model is asked again: a run's folder may be a stranger's, and can't decide it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mote.harness.engine.trust import Own

Model = Annotated[
    str | None,
    typer.Option("--model", help="The run's model: a folder or a Hugging Face id.  [default: the folder it was]"),
]
Engine = Annotated[
    list[str] | None,
    typer.Option("--engine", help="An option of vLLM's engine, over the run's: name=value.", metavar="NAME=VALUE"),
]
Server = Annotated[
    list[str] | None, typer.Option("--server", help="A server of the run's model, for a run made by such; repeatable.")
]
KeyEnv = Annotated[str | None, typer.Option("--key-env", help="The environment variable that holds the servers' key.")]

Function = Annotated[
    str | None,
    typer.Option(
        "--function", help="The function that gives the run's classes: it is code, and is run.", metavar="FILE.py:NAME"
    ),
]


def own_of(
    run: Path,
    model: str | None,
    engine: list[str] | None,
    servers: list[str] | None,
    key_env: str | None,
    function: str | None = None,
) -> Own:
    """Return what the user says of a run, and keep the hub out of it where the model lies in a folder.

    To be called before any library that would ask the hub is imported. Raises MoteError for what is wrong in it.
    """
    from mote.harness.engine.options import parse_options
    from mote.harness.engine.trust import Own
    from mote.harness.recipe.manifest import read_manifest

    own = Own(model, parse_options(engine or []), tuple(servers or ()), key_env, function)
    keep_hub_out(model or str(read_manifest(run)["recipe"]["model"]["path"]))
    return own


def keep_hub_out(path: str | None) -> None:
    """Keep the hub out of it where a model lies in a folder; before any library that would ask the hub is imported."""
    if path == "demo" or (path is not None and Path(path).is_dir()):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
