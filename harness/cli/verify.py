"""``mote verify``: the patch proven on the user's own hardware, with a report to paste."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mote.harness.errors import MoteError


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("verify")(verify_command)


def verify_command(
    model: Annotated[str, typer.Argument(help="'demo', a folder, or a Hugging Face id.", metavar="MODEL")],
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="An option of vLLM's engine: name=value.", metavar="NAME=VALUE")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of the measurement of cost.", min=1)] = 5,
    stock: Annotated[
        bool, typer.Option(help="First ask vLLM without the patch, in a process of its own that loads the model too.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Write the report, in Markdown, to this file too.")] = None,
) -> None:
    """Check edits, receipts, isolation of requests and cache, and cost, on this machine; exit code 1 if one fails.

    Untuned answers and their speed are compared with those of vLLM without the patch.

    Example: mote verify demo --engine dtype=float32 --engine kv_cache_memory_bytes=536870912
    """
    from mote.harness.engine.log import EngineLog, temporary_log
    from mote.harness.engine.model import resolve_model
    from mote.harness.engine.options import engine_arguments, parse_options, start_llm
    from mote.harness.engine.stock import stock_answers
    from mote.harness.files import write_atomic
    from mote.patches import ObservationError
    from mote.patches.verify import verify

    if out is not None and not (out.parent.is_dir() and os.access(out.parent, os.W_OK) and not out.is_dir()):
        raise MoteError(f"--out {out}: nothing can be written there; name a file in a folder that is there.")
    source = resolve_model(model)
    if Path(source.path).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    console = Console(highlight=False)
    log = temporary_log("verify")
    options = parse_options(engine or [])
    with EngineLog(console) as words, console.status("Starting vLLM"):
        arguments = engine_arguments(source.path, options)
        words.keep(log)
        plain = stock_answers(source.path, options, rounds, log) if stock else None
        llm = start_llm(arguments, log)
        console.print(f"Verifying {model}; vLLM's log: {log}", soft_wrap=True)
        try:
            report = verify(llm, source.layout, rounds=rounds, stock=plain)
        except ObservationError as error:
            raise MoteError(f"this vLLM answers without the patch: {error}") from None
    text = report.to_markdown()
    console.print(text, soft_wrap=True, markup=False)
    if out is not None:
        write_atomic(out, text)
    if not report.passed:
        raise typer.Exit(1)
