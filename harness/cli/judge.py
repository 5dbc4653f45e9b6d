"""``mote judge``: another judge over a run's answers, a blind sheet for people, and how far all of them agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mote.harness.errors import MoteError

if TYPE_CHECKING:
    from mote.harness.recipe.label_sets import LabelSet


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("judge")(judge_command)


def judge_command(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    judge: Annotated[
        str | None, typer.Option(help="A model to judge by, as its server names it.", metavar="MODEL")
    ] = None,
    url: Annotated[str, typer.Option(help="Base URL of its OpenAI-compatible API.")] = "http://127.0.0.1:8000/v1",
    key_env: Annotated[
        str | None, typer.Option(help="The environment variable that holds its key (its name, not the key).")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="What is judged: refusal, language, or side-by-side.  [default: the run's label set]"),
    ] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="Judge answers under this profile (and the baseline); may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Judge this many prompts only, evenly spread.", min=1)] = None,
    max_judgments: Annotated[int | None, typer.Option(help="Ask for at most this many replies.", min=0)] = None,
    name: Annotated[str | None, typer.Option(help="The judge's name.  [default: model/prompt@digest]")] = None,
    prompt: Annotated[str | None, typer.Option(help="A prompt file of your own instead of the packaged one.")] = None,
    structured: Annotated[str, typer.Option(help="How replies are asked for: auto, json, or text.")] = "auto",
    concurrency: Annotated[int, typer.Option(help="Requests under way at once.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is given up.")] = 180.0,
    max_tokens: Annotated[int, typer.Option(help="What a judge may write, its reasoning included.")] = 2048,
    body: Annotated[str | None, typer.Option(help="Further fields of each request, as a JSON object.")] = None,
    sample: Annotated[int | None, typer.Option(help="Write a blind sheet of so many answers for people.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the sheet.  [default: RUN/sheet.csv]")] = None,
    by: Annotated[
        str | None, typer.Option(help="The judge whose labels stratify the sheet.  [default: the run's own]")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of the sheet.", min=0)] = 0,
    read: Annotated[Path | None, typer.Option(help="Read a sheet that a person filled in.", metavar="SHEET")] = None,
    rater: Annotated[str | None, typer.Option(help="Who filled the sheet in, as a short name.")] = None,
    truth: Annotated[
        str | None, typer.Option(help="The judge that rates are corrected by.  [default: each person]")
    ] = None,
) -> None:
    """Add a judge's labels to a run, or people's by way of a sheet; then show how far all judges agree.

    Example: mote judge results/runs/demo --judge Qwen/Qwen3-32B --url http://127.0.0.1:8000/v1 --max-judgments 500

    Example: mote judge results/runs/demo --sample 120 --out sheet.csv; fill in its column "label"; then
    mote judge results/runs/demo --read sheet.csv --rater anna
    """
    console = Console(highlight=False)
    if sum(option is not None for option in (judge, sample, read)) > 1:
        raise MoteError("--judge, --sample and --read are three things to do; give one of them.")
    if sample is not None:
        from mote.harness.judging.sheet import write_sheet

        path, own = out or run / "sheet.csv", _label_set(run)
        lines = write_sheet(run, path, sample, by or own.judge, kind=kind or own.name, seed=seed)
        console.print(f"{path}: {lines} answers to label; read it back with --read {path} --rater NAME", soft_wrap=True)
        return
    if read is not None:
        from mote.harness.judging.sheet import read_sheet

        if rater is None:
            raise MoteError("--read needs --rater: whose labels are these?")
        found = read_sheet(run, read, rater)
        console.print(
            f"{found.rater}: {found.added} labels added, {found.known} known before, {found.blank} blank",
            soft_wrap=True,
        )
    if judge is not None:
        endpoint = endpoint_of(
            url, judge, key_env, structured=structured, concurrency=concurrency, timeout=timeout,
            max_tokens=max_tokens, body=body_of(body),
        )  # fmt: skip
        kind = kind or _label_set(run).name
        _judge(run, kind, endpoint, console, tuple(profile or ()), limit, max_judgments, name, prompt)
    _agreement(run, truth, console)


def _label_set(run: Path) -> LabelSet:
    from mote.harness.recipe.label_sets import label_set
    from mote.harness.recipe.manifest import read_manifest

    return label_set(read_manifest(run)["recipe"])


def endpoint_of(url: str, model: str, key_env: str | None, **options: Any) -> Any:
    """Return the endpoint of a judge; raise MoteError for what is wrong in it."""
    from mote.judges.llm.endpoint import Endpoint, JudgeError

    try:
        return Endpoint(url, model, key_env, **options)
    except JudgeError as error:
        raise MoteError(str(error)) from None


def body_of(text: str | None) -> dict[str, Any]:
    """Return further fields of a request from JSON."""
    try:
        body = json.loads(text or "{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise MoteError("--body should be a JSON object, for instance '{\"top_k\": 1}'.")
    return body


def _judge(
    run: Path,
    kind: str,
    endpoint: Any,
    console: Console,
    profiles: tuple[str, ...],
    limit: int | None,
    max_judgments: int | None,
    name: str | None,
    prompt: str | None,
) -> None:
    from mote.harness.judging.judge import Scope, judge_run

    found = judge_run(
        run, kind, endpoint, console,
        scope=Scope(profiles, limit), prompt=prompt, name=name, max_judgments=max_judgments,
    )  # fmt: skip
    tally = found.tally
    console.print(
        f"{found.judge}: {tally.scored} judgments scored, {tally.unusable} unusable (UNSCORED),"
        f" {tally.unreached} without reply, {tally.left} left by the budget",
        soft_wrap=True,
    )
    counted = ", ".join(f"{label} {count}" for label, count in found.labels.items()) or "none"
    waiting = f"; {found.waiting} of {found.generations} answers wait for the next start" if found.waiting else ""
    console.print(f"Labels of {found.generations} answers: {counted}{waiting}", soft_wrap=True)


def _agreement(run: Path, truth: str | None, console: Console) -> None:
    try:
        from mote.harness.judging.audit import audit_run, show_audit, write_audit
    except ImportError as error:
        raise MoteError(f'agreement needs another package ({error}): pip install "mote-harness[judge]".') from None

    found = audit_run(run, truth=truth)
    show_audit(found, console)
    for path in write_audit(found, run):
        console.print(str(path), soft_wrap=True)
