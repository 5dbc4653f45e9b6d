"""``mote inspect run | table``: an evaluation of Inspect under a profile, and under shams beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mote.harness.cli.whole_help import WholeHelp
from mote.harness.errors import MoteError

app = typer.Typer(
    cls=WholeHelp,
    help="Any evaluation of Inspect under a profile and, beside it, under random experts matched to the profile.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Json = Annotated[
    str | None, typer.Option("--json", help="Write the table as JSON to a file; - for the terminal.", metavar="FILE")
]


def mount(parent: typer.Typer) -> None:
    """Add the commands to ``mote``."""
    parent.add_typer(app, name="inspect")


@app.command()
def run(
    task: Annotated[str, typer.Argument(help="FILE.py, FILE.py@NAME, or the name of an installed task.")],
    profile: Annotated[str, typer.Option(help="A profile's file, or RUN:PROFILE of a run.")],
    model: Annotated[
        str, typer.Option(help="'demo', a folder, a Hugging Face id, or a server's name for its model.")
    ] = "demo",
    url: Annotated[
        str | None,
        typer.Option("--url", help="A server with the patch, http://HOST:PORT/v1.  [default: one of our own]"),
    ] = None,
    shams: Annotated[int, typer.Option(help="Sets of random experts beside the profile.")] = 19,
    kind: Annotated[
        str, typer.Option(help="Of the random experts: layers, uniform; with RUN:PROFILE also frequency, mass.")
    ] = "layers",
    sham_seed: Annotated[int, typer.Option("--seed", help="Of the draw of the random experts.", min=0)] = 0,
    model_arguments: Annotated[
        list[str] | None,
        typer.Option(
            "-M", help="A model argument: seed=1, markers=think, or vLLM's dtype=float32.", metavar="NAME=VALUE"
        ),
    ] = None,
    task_arguments: Annotated[
        list[str] | None, typer.Option("-T", help="An argument of the task.", metavar="NAME=VALUE")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("-G", help="Of Inspect's GenerateConfig: temperature=0, max_tokens=64.", metavar="NAME=VALUE"),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Evaluate this many samples only.", min=1)] = None,
    epochs: Annotated[int | None, typer.Option(help="Times that each sample is asked.", min=1)] = None,
    logs: Annotated[Path, typer.Option(help="The folder of Inspect's logs, empty or new.")] = Path(
        "results/inspect-logs"
    ),
    display: Annotated[str, typer.Option(help="How Inspect shows progress: none, plain, full.")] = "none",
    json: _Json = None,
) -> None:
    """Evaluate a task under the untouched model, a profile and its shams, in the same batches; print what it shows.

    Inspect's own command takes the model, too: inspect eval TASK --model mote/demo -M profile=RUN:PROFILE

    Example: mote inspect run sums.py --model demo --profile results/demo:suppress-10 --shams 5 --logs logs
    """
    from mote.harness.inspect_ai.run import Evaluation, evaluate

    if logs.is_dir() and any(logs.iterdir()):
        raise MoteError(f"--logs {logs} is not empty: the logs of an evaluation lie in a folder of their own.")
    _check_json(json)
    asked = Evaluation(
        task=task,
        model=model,
        profile=profile,
        shams=shams,
        kind=kind,
        sham_seed=sham_seed,
        url=url,
        arguments=_values(model_arguments, "-M"),
        logs=logs,
        task_arguments=_values(task_arguments, "-T"),
        config=_values(config, "-G"),
        limit=limit,
        epochs=epochs,
        display=display,
    )
    console = Console(highlight=False, stderr=json == "-")
    with console.status(f"Evaluating under the untouched model, the profile and {shams} shams"):
        paths = evaluate(asked)
    console.print(f"{len(paths)} logs in {logs}", soft_wrap=True, markup=False)
    _show(paths, json)


@app.command()
def table(
    logs: Annotated[list[Path], typer.Argument(help="Logs of Inspect, or a folder of them.", metavar="LOGS...")],
    json: _Json = None,
) -> None:
    """Print the paired difference of each metric, and its p among the shams, from logs that are there.

    Needs no inspect_ai. Two logs are compared sample by sample with mote compare.

    Example: mote inspect table logs
    """
    from mote.harness.inspect_ai.family import log_paths

    _check_json(json)
    _show(log_paths(logs), json)


def _show(paths: list[Path], json: str | None) -> None:
    from mote.harness.files import write_atomic
    from mote.harness.inspect_ai.family import families, table_of
    from mote.harness.inspect_ai.output import json_text, show

    found = [(family, table_of(family)) for family in families(paths)]
    if json == "-":
        print(json_text(found), end="")
        return
    show(found, Console(highlight=False))
    if json:
        write_atomic(Path(json), json_text(found))


def _check_json(json: str | None) -> None:
    if json and json != "-" and not Path(json).parent.is_dir():
        raise MoteError(f"--json {json}: there is no folder {Path(json).parent}.")


def _values(texts: list[str] | None, option: str) -> dict[str, Any]:
    from mote.harness.recipe.strict import yaml_value

    found: dict[str, Any] = {}
    for text in texts or []:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise MoteError(f"{option} {text}: write name=value.")
        found[name] = yaml_value(value, f"{option} {name}")
    return found
