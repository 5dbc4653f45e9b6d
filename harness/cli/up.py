"""``mote up``: the servers of a recipe on this machine, started by one command and ended with it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer
from rich.console import Console

from mote.harness.cli.serve import is_loopback
from mote.harness.errors import MoteError, one_line

_CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}
_SPREAD: Final = (
    ("--tensor-parallel-size", "-tp"),
    ("--pipeline-parallel-size", "-pp"),
    ("--data-parallel-size", "-dp"),
)


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("up", context_settings=_CONTEXT)(up_command)


def up_command(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(help="A recipe whose engine is server: its name, or a YAML file.", metavar="RECIPE")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value of the recipe: key.path=value.", metavar="KEY=VALUE"),
    ] = None,
    logs: Annotated[Path, typer.Option(help="The folder of the servers' logs.", metavar="FOLDER")] = Path(
        "results/servers"
    ),
    wait: Annotated[float, typer.Option(help="Seconds that all may take until they are up.", min=1)] = 3600,
) -> None:
    """Start a recipe's servers on this machine, look after them, and end them with Ctrl-C.

    Further options are vLLM's. One server for each URL of model.servers.urls that is this machine's, each on GPUs of
    its own: as many as --tensor-parallel-size, --pipeline-parallel-size and --data-parallel-size make. A server that
    ends is started again.

    Example: mote up study.yaml --tensor-parallel-size 4 --max-model-len 8192
    """
    from mote.harness.engine.replicas import Replica, Replicas, gpus, shares
    from mote.harness.engine.wire import key_of
    from mote.harness.recipe.schema import load_recipe

    console = Console(highlight=False)
    loaded = load_recipe(recipe, changes or [])
    part = loaded.model.servers
    if part is None:
        raise MoteError(f"recipe '{loaded.name}' has its model in this process: set model.engine=server and servers.")
    urls = here(part.urls)
    key = key_of(part.key_env)
    logs.mkdir(parents=True, exist_ok=True)
    replicas = []
    for (url, port), devices in zip(urls, shares(gpus(), len(urls), _each(context.args)), strict=True):
        run = "from mote.harness.cli.main import main; main()"
        place = ["--host", urlsplit(url).hostname or "", *context.args, "--port", str(port)]
        command = [sys.executable, "-c", run, "serve", loaded.model.path, *place]
        own = {"CUDA_VISIBLE_DEVICES": devices} if devices is not None else {}
        # In the environment, where no list of processes shows it.
        own |= {"VLLM_API_KEY": key} if part.key_env else {}
        replicas.append(Replica(url, command, {**os.environ, **own}, logs / f"{port}.log", key))

    def say(line: str) -> None:
        console.print(one_line(line), markup=False, soft_wrap=True)

    try:
        with Replicas(replicas, say) as running:
            say(f"{len(replicas)} of {len(part.urls)} servers are started here; their logs are in {logs}")
            running.wait(wait)
            say(f"All are up: mote run {recipe}. Ctrl-C ends them.")
            for _ in running.watch():
                pass
    except KeyboardInterrupt:
        say("Ended.")


def here(urls: Sequence[str]) -> list[tuple[str, int]]:
    """Return the URLs that are this machine's, with their ports.

    Raises MoteError where none is, and for one without a port.
    """
    found = []
    for url in urls:
        parts = urlsplit(url)
        if not is_loopback(parts.hostname or ""):
            continue
        if parts.port is None:
            raise MoteError(f"{url} names no port; `mote up` starts a server at each: http://127.0.0.1:8000/v1.")
        found.append((url, parts.port))
    if not found:
        raise MoteError("model.servers.urls has none of this machine (http://127.0.0.1:8000/v1): nothing to start.")
    return found


def _each(arguments: list[str]) -> int:
    """Return how many GPUs one server takes, from vLLM's options."""
    each = 1
    for names in _SPREAD:
        for at, one in enumerate(arguments):
            name, given, value = one.partition("=")
            if name.replace("_", "-") not in names:
                continue
            text = value if given else " ".join(arguments[at + 1 : at + 2])
            if not (text.isdigit() and int(text) > 0):
                raise MoteError(f"{name} takes a number of GPUs, not {text[:40]!r}.")
            each *= int(text)
    return each
