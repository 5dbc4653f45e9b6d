"""The command ``mote``: a thin shell around the study. What a user got wrong is one line and exit code 2."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mote import __version__
from mote.harness.cli import check as cli_check
from mote.harness.cli import compare as cli_compare
from mote.harness.cli import cross as cli_cross
from mote.harness.cli import data as cli_data
from mote.harness.cli import demo as cli_demo
from mote.harness.cli import diff as cli_diff
from mote.harness.cli import expert as cli_expert
from mote.harness.cli import export as cli_export
from mote.harness.cli import inspect_ai as cli_inspect_ai
from mote.harness.cli import judge as cli_judge
from mote.harness.cli import label as cli_label
from mote.harness.cli import lm_eval as cli_lm_eval
from mote.harness.cli import merge as cli_merge
from mote.harness.cli import mt_bench as cli_mt_bench
from mote.harness.cli import plan as cli_plan
from mote.harness.cli import prune as cli_prune
from mote.harness.cli import recipe as cli_recipe
from mote.harness.cli import scan as cli_scan
from mote.harness.cli import search as cli_search
from mote.harness.cli import serve as cli_serve
from mote.harness.cli import sweep as cli_sweep
from mote.harness.cli import take_home as cli_take_home
from mote.harness.cli import transplant as cli_transplant
from mote.harness.cli import up as cli_up
from mote.harness.cli import verify as cli_verify
from mote.harness.cli.ending import drop_stdout, fail, fail_for_user, interrupted, open_streams, signals_heard, stopped
from mote.harness.cli.extras import hint
from mote.harness.cli.tables import table_console
from mote.harness.cli.whole_help import WholeHelp
from mote.harness.errors import MoteError
from mote.harness.files import RUNS
from mote.harness.secrets import report_no_usage

app = typer.Typer(
    cls=WholeHelp,
    name="mote",
    help="Which experts of a mixture-of-experts language model carry a behaviour? Find them, tune them, prove it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Protocol(StrEnum):
    """How a study is done."""

    sound = "sound"
    paper = "paper"


# Newer Typers carry a click of their own; both raise what this finds.
_UsageError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def main() -> None:
    """Run the command line; the entry point of ``mote``."""
    open_streams()
    try:
        with signals_heard():
            code = app(standalone_mode=False)
        sys.stdout.flush()
    except MoteError as error:
        fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(interrupted())
    except BrokenPipeError:
        # Whoever read what was printed has gone, as `head` does.
        drop_stdout()
        sys.exit(141)
    except _UsageError as error:
        message = getattr(error, "format_message", error.__str__)()
        if type(error).__name__ == "NoArgsIsHelpError":
            print(message)
            sys.exit(2)
        fail(message)
    except ModuleNotFoundError as error:
        if (said := hint(error)) is not None:
            fail(said)
        raise
    except Exception as error:
        fail_for_user(error)
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _version(asked: bool) -> None:
    if asked:
        print(f"mote-harness {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    report_no_usage()


@app.command()
def run(
    recipe: Annotated[
        str, typer.Argument(help="A recipe: the name of a packaged one, or a YAML file.", metavar="RECIPE")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder.  [default: results/runs/NAME, with --limit N results/runs/NAME-N]"),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value of the recipe: key.path=value.", metavar="KEY=VALUE"),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Ask this many prompts only, evenly spread (task.limit).")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Go on with fewer target prompts than a verdict asks for.")
    ] = False,
    protocol: Annotated[
        Protocol, typer.Option(help="sound: a study that can say something; paper: the paper's own, which can't.")
    ] = Protocol.sound,
) -> None:
    """Run a whole study, or go on with one that was stopped; ends with the report.

    After the baseline it prints what the study can find and what the rest will cost. With --protocol paper it does what
    the paper did (experts chosen and measured on the same prompts, one random draw) on the same baseline, prints that
    table, and why it is no evidence.

    Example: mote run demo --set study.top_k=5 --out results/runs/demo-5
    """
    from mote.harness.recipe.schema import load_recipe

    console = Console(highlight=False)
    overrides = [*(changes or []), *([f"task.limit={limit}"] if limit is not None else [])]
    # Before what takes seconds to import: a wrong recipe is said at once.
    loaded = load_recipe(recipe, overrides)

    from mote.harness.report.whole import answer_whole, folder_of, stay_here, write_report

    stay_here(loaded)
    folder = folder_of(loaded.name, out, limit)
    try:
        failed = answer_whole(loaded, folder, console, force=force, protocol=protocol.value)
    except KeyboardInterrupt:
        flags = [*(["--force"] if force else []), *(["--protocol paper"] if protocol is Protocol.paper else [])]
        again = _again(recipe, out, overrides, flags)
        stopped(console, f"Stopped. What was generated is stored; go on with: {again}")
    # The paper's table is all that its protocol says; the report is of the sound study.
    if protocol is Protocol.sound:
        write_report(folder, console)
    if failed is not None:
        raise failed


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    mt_bench: Annotated[
        Path | None,
        typer.Option(
            "--mt-bench", help="An MT-Bench of the same model and profiles.  [default: RUN/mt-bench if there]"
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="A report by this judge's labels, beside the run's own: RUN/report-JUDGE.")
    ] = None,
) -> None:
    """Make report.html, figures and tables of a run anew from its stored rows.

    Example: mote report results/runs/demo
    """
    from mote.harness.report.whole import write_report

    write_report(run, Console(highlight=False), mt_bench, judge)


@app.command("ls")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Where runs lie.", metavar="FOLDER")] = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects, for scripts.")] = False,
) -> None:
    """List the runs in a folder: model, task, whether each is finished, and what its last report found.

    The effect is the share of target prompts that flipped, with its 95% interval; a run without a report has blanks.

    Example: mote ls results/runs
    """
    from mote.harness.store.listing import runs_of, runs_table

    if as_json:
        print(json.dumps([one._asdict() for one in runs_of(folder)], indent=2, ensure_ascii=False))
    else:
        table_console().print(runs_table(folder))


def _again(recipe: str, out: Path | None, overrides: list[str], flags: list[str]) -> str:
    changes = (f"--set '{change}'" for change in overrides)
    parts = ["mote run", recipe, *([f"--out {out}"] if out else []), *changes, *flags]
    return " ".join(parts)


for part in (
    cli_export,
    cli_expert,
    cli_recipe,
    cli_plan,
    cli_check,
    cli_label,
    cli_compare,
    cli_cross,
    cli_scan,
    cli_transplant,
    cli_diff,
    cli_prune,
    cli_search,
    cli_judge,
    cli_mt_bench,
    cli_merge,
    cli_sweep,
    cli_take_home,
    cli_lm_eval,
    cli_inspect_ai,
    cli_serve,
    cli_up,
    cli_verify,
    cli_data,
    cli_demo,
):
    part.mount(app)
