"""``mote judge ask | sheet | read | show | train``: other judges of answers, people among them, and their agreement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mote.harness.cli.endpoint import body_of, endpoint_of
from mote.harness.cli.whole_help import WholeHelp
from mote.harness.errors import MoteError, nearest

if TYPE_CHECKING:
    from mote.harness.judging.judge import Judged
    from mote.harness.recipe.label_sets import LabelSet

_OLD_FORMS = {"--judge": "ask RUN --judge MODEL", "--sample": "sheet RUN --size N", "--read": "read RUN SHEET"}


class _Commands(WholeHelp):
    """The commands; ``mote judge RUN --judge ...`` of version 0.1.0 is refused with the command that took its place."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Refuse what names no command in one line."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            given = [arg.partition("=")[0] for arg in args]
            form = next((new for old, new in _OLD_FORMS.items() if old in given), None)
            if form is None and Path(args[0]).exists():
                form = "show RUN"
            advice = f" Write: mote judge {form}" if form else nearest(args[0], self.commands)
            raise MoteError(f"mote judge takes a command before the run.{advice}")
        return super().parse_args(ctx, args)


# A further command is a function below this app with a decorator of its own.
app = typer.Typer(
    cls=_Commands,
    help="Other judges of a run's answers: a language model, people by a blind sheet; how far all judges agree.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Run = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]
_Kind = Annotated[
    str | None,
    typer.Option(
        help="What is judged: refusal, compliance, language, side-by-side, or classes.  [default: the run's label set]"
    ),
]
_Truth = Annotated[
    str | None, typer.Option(help="The judge that rates are corrected by.  [default: each person]", metavar="JUDGE")
]


def mount(parent: typer.Typer) -> None:
    """Add the commands to ``mote``."""
    parent.add_typer(app, name="judge")


@app.command()
def ask(
    run: _Run,
    judge: Annotated[str, typer.Option(help="A model to judge by, as its server names it.", metavar="MODEL")],
    url: Annotated[str, typer.Option(help="Base URL of its OpenAI-compatible API.")] = "http://127.0.0.1:8000/v1",
    key_env: Annotated[
        str | None, typer.Option(help="The environment variable that holds its key (its name, not the key).")
    ] = None,
    kind: _Kind = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="Judge answers under this profile (and the baseline); may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Judge this many prompts only, evenly spread.", min=1)] = None,
    max_judgments: Annotated[int | None, typer.Option(help="Ask for at most this many replies.", min=0)] = None,
    name: Annotated[str | None, typer.Option(help="The judge's name.  [default: model/prompt@digest]")] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="A prompt file of your own instead of the packaged one; with classes its verdicts are these."
        ),
    ] = None,
    structured: Annotated[str, typer.Option(help="How replies are asked for: auto, json, or text.")] = "auto",
    concurrency: Annotated[int, typer.Option(help="Requests under way at once.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is given up.")] = 180.0,
    max_tokens: Annotated[int, typer.Option(help="What a judge may write, its reasoning included.")] = 2048,
    body: Annotated[str | None, typer.Option(help="Further fields of each request, as a JSON object.")] = None,
) -> None:
    """Ask a language model for the label of each answer; resumes, then shows how far all judges agree.

    Example: mote judge ask results/runs/demo --judge Qwen/Qwen3-32B --url http://127.0.0.1:8000/v1 --max-judgments 500
    """
    from mote.harness.judging.judge import Scope, judge_run

    console = Console(highlight=False)
    endpoint = endpoint_of(
        url, judge, key_env, structured=structured, concurrency=concurrency, timeout=timeout, max_tokens=max_tokens,
        body=body_of(body),
    )  # fmt: skip
    found = judge_run(
        run, kind or _label_set(run).name, endpoint, console,
        scope=Scope(tuple(profile or ()), limit), prompt=prompt, name=name, max_judgments=max_judgments,
    )  # fmt: skip
    _print_judged(found, max_tokens, console)
    _agreement(run, None, console)


@app.command()
def sheet(
    run: _Run,
    size: Annotated[int, typer.Option(help="How many answers to draw.", min=1)] = 120,
    out: Annotated[Path | None, typer.Option(help="Where to write the sheet.  [default: RUN/sheet.csv]")] = None,
    by: Annotated[
        str | None,
        typer.Option(help="The judge whose labels stratify the sheet.  [default: the run's own]", metavar="JUDGE"),
    ] = None,
    kind: _Kind = None,
    seed: Annotated[int, typer.Option(help="The seed of the draw.", min=0)] = 0,
) -> None:
    """Write a blind sheet of a run's answers for a person to label.

    Example: mote judge sheet results/runs/demo --size 120 --out sheet.csv
    """
    from mote.harness.judging.sheet import write_sheet

    path, own = out or run / "sheet.csv", _label_set(run)
    lines = write_sheet(run, path, size, by or own.judge, kind=kind or own.name, seed=seed)
    Console(highlight=False).print(
        f"{path}: {lines} answers to label; read it back with: mote judge read {run} {path} --rater NAME",
        soft_wrap=True,
    )


@app.command()
def read(
    run: _Run,
    sheet: Annotated[Path, typer.Argument(help="A sheet that a person filled in.", metavar="SHEET")],
    rater: Annotated[str, typer.Option(help="Who filled the sheet in, as a short name.", metavar="NAME")],
) -> None:
    """Read a filled-in sheet back, as labels of judge human:NAME; then show how far all judges agree.

    Example: mote judge read results/runs/demo sheet.csv --rater anna
    """
    from mote.harness.judging.sheet import read_sheet

    console = Console(highlight=False)
    found = read_sheet(run, sheet, rater)
    console.print(
        f"{found.rater}: {found.added} labels added, {found.known} known before, {found.blank} blank", soft_wrap=True
    )
    _agreement(run, None, console)


@app.command()
def show(
    run: _Run,
    truth: _Truth = None,
    every: Annotated[bool, typer.Option("--all", help="Print the confusion matrix of every pair of judges.")] = False,
) -> None:
    """Show how far a run's judges agree, one confusion matrix, and flip rates corrected by people's labels.

    Example: mote judge show results/runs/demo --all
    """
    _agreement(run, truth, Console(highlight=False), every=every)


def _label_set(run: Path) -> LabelSet:
    from mote.harness.recipe.label_sets import label_set
    from mote.harness.recipe.manifest import read_manifest

    return label_set(read_manifest(run)["recipe"])


def _print_judged(found: Judged, max_tokens: int, console: Console) -> None:
    from mote.judges.llm.asks import cut_off_words

    tally = found.tally
    console.print(
        f"{found.judge}: {tally.scored} judgments scored, {tally.unusable} unusable (UNSCORED),"
        f" {tally.unreached} without reply, {tally.left} left by the budget, {tally.cut} cut off",
        soft_wrap=True,
    )
    if found.cut:
        console.print(cut_off_words(found.cut, max_tokens), soft_wrap=True)
    counted = ", ".join(f"{label} {count}" for label, count in found.labels.items()) or "none"
    waiting = f"; {found.waiting} of {found.generations} answers wait for the next start" if found.waiting else ""
    console.print(f"Labels of {found.generations} answers: {counted}{waiting}", soft_wrap=True)


def _agreement(run: Path, truth: str | None, console: Console, *, every: bool = False) -> None:
    try:
        from mote.harness.judging.audit import audit_run, show_audit, write_audit
    except ImportError as error:
        raise MoteError(f'agreement needs another package ({error}): pip install ".[judge]".') from None

    found = audit_run(run, truth=truth)
    show_audit(found, console, judge=_label_set(run).judge, every=every)
    for path in write_audit(found, run):
        console.print(str(path), soft_wrap=True)


@app.command("train")
def train_command(
    data: Annotated[
        Path, typer.Argument(help="A folder that holds replies with judges' verdicts, speechmap-*.jsonl.xz.")
    ],
    out: Annotated[Path, typer.Option(help="The folder for weights.npy and card.json.")],
    written: Annotated[
        Path | None, typer.Option(help="A written set to train on too, such as tests/judges/answers/development.yaml.")
    ] = None,
) -> None:
    """Train the classifier of refusals anew, by the same data to the same bytes; nothing is fetched.

    Example: mote judge train replies/ --written tests/judges/answers/development.yaml --out classifier/
    """
    from mote.judges.classifier.train import train

    if not any(data.glob("speechmap-*.jsonl.xz")):
        raise MoteError(f"{data} holds no speechmap-*.jsonl.xz: name the folder of the replies.")
    if written is not None and not written.is_file():
        raise MoteError(f"--written {written}: there is no such file.")
    out.mkdir(parents=True, exist_ok=True)
    train(data, written, out)
    Console(highlight=False).print(f"{out / 'weights.npy'} and {out / 'card.json'}", soft_wrap=True)
