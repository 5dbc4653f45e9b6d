"""``mote mt-bench answer | judge | show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mote.harness.cli.endpoint import body_of, endpoint_of
from mote.harness.cli.whole_help import WholeHelp
from mote.harness.errors import MoteError, nearest

BENCHES = Path("results/mt-bench")

app = typer.Typer(
    cls=WholeHelp,
    help="MT-Bench under any profile: answer both turns, judge them, show scores beside the untouched model's.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Bench = Annotated[Path, typer.Argument(help="The folder of a bench.", metavar="BENCH")]
_Data = Annotated[
    Path | None, typer.Option(help="The folder of FastChat's files.  [default: the cache; see `mote data`]")
]


def mount(parent: typer.Typer) -> None:
    """Add the commands to ``mote``."""
    parent.add_typer(app, name="mt-bench")


@app.command()
def answer(
    model: Annotated[str, typer.Argument(help="'demo', a folder, or a Hugging Face id.", metavar="MODEL")],
    out: Annotated[Path | None, typer.Option(help="The bench's folder.  [default: results/mt-bench/<model>]")] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="A profile file, or RUN:NAME of a run's profile; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Ask this many questions only, evenly spread.", min=1)] = None,
    choices: Annotated[int, typer.Option(help="Answers to each question, each with its own seed.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="The seed of the first choice.", min=0)] = 0,
    max_tokens: Annotated[int, typer.Option(help="Budget of a turn, reasoning included.", min=1)] = 16384,
    top_p: Annotated[float, typer.Option(help="Nucleus of the sampling.", min=0.01, max=1.0)] = 1.0,
    markers: Annotated[str, typer.Option(help="What encloses the model's reasoning: think, thinking, ...")] = "think",
    original: Annotated[
        bool, typer.Option("--original/--no-original", help="Answer with the untouched model too.")
    ] = True,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="An option of vLLM's engine: name=value.", metavar="NAME=VALUE")
    ] = None,
    data: _Data = None,
) -> None:
    """Answer both turns of each question under the untouched model and every profile given; resumes.

    Example: mote mt-bench answer demo --profile results/runs/demo:suppress-10 --max-tokens 400
    """
    from mote.harness.compare.run_answers import read_profile
    from mote.harness.engine.options import parse_options
    from mote.harness.mt_bench.commands import AnswerOptions
    from mote.harness.mt_bench.commands import answer as run

    options = AnswerOptions(max_tokens, top_p, choices, seed, _markers(markers), parse_options(engine or []))
    profiles = [read_profile(one, "--profile ") for one in profile or []]
    folder = out or BENCHES / Path(model).name
    run(model, profiles, folder, options, Console(highlight=False), source=data, limit=limit, original=original)


@app.command()
def judge(
    bench: _Bench,
    judge: Annotated[str, typer.Option(help="A model to judge by, as its server names it.", metavar="MODEL")],
    url: Annotated[str, typer.Option(help="Base URL of its OpenAI-compatible API.")] = "http://127.0.0.1:8000/v1",
    key_env: Annotated[
        str | None, typer.Option(help="The environment variable that holds its key (its name, not the key).")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="single (a rating of each answer), pair (tuned against original), or both.")
    ] = "both",
    name: Annotated[str | None, typer.Option(help="The judge's name in rows.  [default: the model's]")] = None,
    original: Annotated[str | None, typer.Option(help="What pairs are judged against.  [default: the first]")] = None,
    max_judgments: Annotated[int | None, typer.Option(help="Ask for at most this many replies.", min=0)] = None,
    concurrency: Annotated[int, typer.Option(help="Requests under way at once.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is given up.")] = 180.0,
    max_tokens: Annotated[int, typer.Option(help="What a judge may write, its reasoning included.")] = 2048,
    body: Annotated[str | None, typer.Option(help="Further fields of each request, as a JSON object.")] = None,
    data: _Data = None,
) -> None:
    """Judge a bench's answers by FastChat's prompts over any OpenAI-compatible endpoint; resumes.

    Example: mote mt-bench judge results/mt-bench/demo --judge Qwen/Qwen3-32B --url http://127.0.0.1:8000/v1
    """
    from mote.harness.mt_bench.commands import judge as run

    modes: Any = {"single": ["single"], "pair": ["pair"], "both": ["single", "pair"]}.get(mode)
    if modes is None:
        raise MoteError(f"--mode '{mode}' is unknown.{nearest(mode, ['single', 'pair', 'both'])}")
    endpoint = endpoint_of(
        url, judge, key_env, structured="text", concurrency=concurrency, timeout=timeout, max_tokens=max_tokens,
        body=body_of(body),
    )  # fmt: skip
    console = Console(highlight=False)
    tallies = run(
        bench, endpoint, modes, console, source=data, name=name, original=original, max_judgments=max_judgments
    )
    for one, tally in tallies.items():
        console.print(
            f"{one}: {tally.scored} scored, {tally.unusable} unusable (UNSCORED), {tally.unreached} without reply,"
            f" {tally.left} left by the budget, {tally.cut} cut off",
            soft_wrap=True,
        )
    console.print(f"Scores: mote mt-bench show {bench}", soft_wrap=True)


@app.command()
def show(
    bench: _Bench,
    judge: Annotated[str | None, typer.Option(help="One judge only.")] = None,
    original: Annotated[str | None, typer.Option(help="What is subtracted.  [default: the first model]")] = None,
    paper: Annotated[bool, typer.Option("--paper/--no-paper", help="Draw the paper's two rows beside.")] = True,
    margin: Annotated[
        float | None, typer.Option(help="Test whether a model differs by less than so many points (equivalence).")
    ] = None,
) -> None:
    """Show scores by category and turn with intervals, tuned minus original, wins, and what is unscored; draw charts.

    Example: mote mt-bench show results/mt-bench/demo
    """
    from mote.harness.cli.compare import check_margin
    from mote.harness.mt_bench.commands import show as run

    check_margin(margin)
    run(bench, Console(highlight=False), judge=judge, original=original, with_paper=paper, margin=margin)


def _markers(name: str) -> Any:
    from mote.judges import Markers

    try:
        return Markers.named(name)
    except ValueError as error:
        raise MoteError(f"--markers: {error}") from None
