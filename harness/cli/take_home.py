"""``mote bake``, ``mote export-profile``, ``mote card`` and ``mote reproduce``: what is taken home from a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mote.harness.cli import own
from mote.harness.cli.ending import interrupted, stoppable
from mote.harness.cli.merge import DEFAULT_THREADS, MIB, Threads, in_mib
from mote.harness.errors import MoteError

if TYPE_CHECKING:
    from mote.harness.engine.trust import Own
    from mote.harness.take_home.bake import Bake
    from mote.harness.take_home.reproduce import Reproduction

_Source = Annotated[
    str, typer.Argument(help="A profile of a run, RUN:PROFILE, or the file of a profile.", metavar="RUN:PROFILE")
]
_RunProfile = Annotated[str, typer.Argument(help="A profile of a run.", metavar="RUN:PROFILE")]
_Model = Annotated[
    str | None, typer.Option("--model", help="The model: a folder or a Hugging Face id.  [default: the run's]")
]


def mount(app: typer.Typer) -> None:
    """Add the commands to ``mote``."""
    app.command("bake")(bake_command)
    app.command("export-profile")(export_command)
    app.command("card")(card_command)
    app.command("reproduce")(reproduce_command)


def bake_command(
    source: _Source,
    out: Annotated[Path, typer.Option(help="The baked checkpoint's folder.")],
    model: _Model = None,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Bake what a checkpoint does otherwise than the patch, too.")
    ] = False,
    check: Annotated[
        int | None, typer.Option(help="Ask so many of the run's prompts of both models, and compare.", min=2)
    ] = None,
    engine: own.Engine = None,
    function: own.Function = None,
    threads: Threads = None,
) -> None:
    """Write a checkpoint with a profile's suppressions and scalings in its weights; the same command goes on.

    An expert's output projection is multiplied by the factor, 0 for suppress. Stimulation, and profiles of prompt or
    generated tokens only, cannot lie in weights. The folder has a model card with the run's evidence, and bake.json.

    Example: mote bake results/demo:suppress-10 --approximate --check 60 --out baked/suppress-10
    """
    said = _own(source, model, engine, function)

    from mote.harness.merge.child import check_target
    from mote.harness.progress import step
    from mote.harness.take_home.bake import plan_of, write_bake

    console = Console(highlight=False)
    bake = plan_of(source, said, approximate=approximate)
    if check is not None and bake.source.run is None:
        raise MoteError("--check asks a run's prompts: give RUN:PROFILE instead of a profile's file.")
    check_target(bake.plan, out)
    profile, tensors = bake.source.profile, bake.plan.tensors
    scaled = sum(count for (_, kind), count in tensors.items() if kind == "scaled")
    console.print(
        f"{profile.name}: {len(profile.canonical)} experts of {bake.model.name}, {scaled} tensors of"
        f" {sum(tensors.values()):,} scaled; {'exact' if bake.how.exact else 'not exact'}: {bake.how.why}.",
        soft_wrap=True,
        markup=False,
    )
    try:
        with step(console, "Baking, MiB", bake.plan.total // MIB) as advance:
            record = write_bake(bake, out, threads=threads or DEFAULT_THREADS, advance=in_mib(advance))
    except KeyboardInterrupt:
        console.print("Stopped. Finished shards are kept; the same command goes on.")
        raise typer.Exit(interrupted()) from None
    console.print(f"Baked: {out} ({record['child']['digest'][:16]})", soft_wrap=True)
    if check is not None and bake.source.run is not None:
        _check(bake, bake.source.run, out, check, said, console)


def _own(source: str, model: str | None, engine: list[str] | None = None, function: str | None = None) -> Own:
    """Return what the user says of the model of ``RUN:PROFILE``, or of a profile's file, as ``own.own_of`` does."""
    from mote.harness.compare.run_answers import split_run
    from mote.harness.engine.options import parse_options
    from mote.harness.engine.trust import Own

    folder, name = split_run(source)
    if name is not None and not Path(source).is_file():
        return own.own_of(folder, model, engine, None, None, function)
    own.keep_hub_out(model)
    return Own(model, parse_options(engine or []), function=function)


def _check(bake: Bake, run: Path, out: Path, count: int, said: Own, console: Console) -> None:
    from mote.harness.study.session import open_session
    from mote.harness.take_home.agreement import compare_baked
    from mote.harness.take_home.bake import note_check
    from mote.harness.take_home.readme import check_lines

    whole = "Stopped. The checkpoint is whole; the same command checks it again."
    with stoppable(console, whole), open_session(run, console, own=said) as session:
        found = compare_baked(session, bake.source.profile, out, count)
    note_check(bake, out, found)
    for line in check_lines(found):
        console.print(line, soft_wrap=True)


def export_command(
    source: _Source,
    to: Annotated[str, typer.Option("--to", help="vllm-mask, easysteer or steermoe.", metavar="FORMAT")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    model: _Model = None,
) -> None:
    """Write a profile in the form that another engine reads, and say what is lost.

    What a format cannot say is refused, and so is a model that its rule is not known to bear.

    Example: mote export-profile results/demo:suppress-10 --to vllm-mask --out mask.json
    """
    _own(source, model)

    from mote.harness.take_home.export import FORMATS, export_profile, write_exported
    from mote.harness.take_home.source import layout_of, read_source

    _writable(out)
    found = read_source(source)
    exported = export_profile(found.profile, layout_of(found, model), to)
    write_exported(exported, out)
    console = Console(highlight=False)
    console.print(f"Written: {out}, as {FORMATS[to].verified} reads it", soft_wrap=True, markup=False)
    for line in exported.lost:
        console.print(f"Lost: {line}", soft_wrap=True, markup=False)
    console.print(f"Use: {exported.use.replace('FILE', str(out))}", soft_wrap=True, markup=False)


def card_command(
    source: _RunProfile,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    sample: Annotated[
        int, typer.Option(help="Rows of the sample, with their prompts, for `mote reproduce`.", min=0, max=200)
    ] = 12,
) -> None:
    """Write a profile's card: edits, model, plan, effect, controls, harm, and a sample of rows; JSON.

    The prompts of the sample stand in the card: --sample 0 leaves them out.

    Example: mote card results/demo:suppress-10 --out card.json
    """
    from mote.harness.take_home.card import write_card
    from mote.harness.take_home.evidence import card_of_run
    from mote.harness.take_home.source import read_source

    _writable(out)
    found = read_source(source)
    if found.run is None:
        raise MoteError("a card is of a run's profile: write RUN:PROFILE.")
    console = Console(highlight=False)
    with console.status("Card"):
        card = card_of_run(found.run, found.profile.name, sample)
        write_card(card, out)
    console.print(f"Card: {out}, {len(card.sample.rows)} rows to run again, of {card.rows.count:,}", soft_wrap=True)


def reproduce_command(
    card: Annotated[Path, typer.Argument(help="The card of a profile.", metavar="CARD")],
    model: Annotated[str, typer.Option("--model", help="The card's model: 'demo', a folder, or a Hugging Face id.")],
    engine: own.Engine = None,
) -> None:
    """Run a card's sample again, untouched and under the profile; exit code 1 where a label is another.

    The model's files must be those of the card. Texts of another machine or version may differ by a token.

    Example: mote reproduce card.json --model demo
    """
    own.keep_hub_out(model)

    from mote.harness.engine.log import EngineLog, temporary_log
    from mote.harness.engine.options import parse_options
    from mote.harness.engine.trust import Own
    from mote.harness.take_home.reproduce import reproduce

    console, log = Console(highlight=False), temporary_log("reproduce")
    with EngineLog(console) as words:
        words.keep(log)
        found = reproduce(card, Own(model, parse_options(engine or [])), console, log)
    _print_reproduction(found, console)
    if not found.holds:
        raise typer.Exit(1)


def _print_reproduction(found: Reproduction, console: Console) -> None:
    from mote.harness.errors import printable

    for row in found.rows:
        if not row.same_text:
            label = "the same label" if row.same_label else f"{row.was} in the card, {row.label} here"
            said = "labels not compared" if row.label is None else label
            console.print(
                printable(f"{row.prompt_id}, {row.profile}: another text, {said}"), soft_wrap=True, markup=False
            )
    for line in found.versions:
        console.print(printable(f"Note: {line}"), soft_wrap=True, markup=False)
    for name in dict.fromkeys(row.profile for row in found.rows):
        rows = [row for row in found.rows if row.profile == name]
        texts, labels = (sum(getattr(row, key) for row in rows) for key in ("same_text", "same_label"))
        compared = f", {labels} labels" if found.card.asking.label is not None else ""
        console.print(printable(f"{name}: of {len(rows)} answers {texts} texts{compared} are the card's"), markup=False)
    console.print("Reproduced." if found.holds else "Not reproduced.")


def _writable(out: Path) -> None:
    import os

    if not (out.parent.is_dir() and os.access(out.parent, os.W_OK) and not out.is_dir()):
        raise MoteError(f"--out {out}: nothing can be written there; name a file in a folder that is there.")
