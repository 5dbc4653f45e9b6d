"""``mote cross``: two runs that choose on each other's halves, as one verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("cross")(cross_command)


def cross_command(
    first: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    second: Annotated[Path, typer.Argument(help="The same recipe with study.fold=2.", metavar="RUN2")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Pool two runs of one recipe that choose experts on each other's half: every prompt is measured once.

    Random sets are joined by number, so both runs need study.economy.sequential=false; where answers are ended at their
    opening, that costs little.

    Example: mote cross results/runs/demo results/runs/demo-2
    """
    from mote.harness.compare.cross import cross
    from mote.harness.report.phrases import pct

    found = cross(first, second)
    rows = [
        {"kind": leg.kind, "p": leg.p, "sets": leg.sets, "reached": leg.reached, "least_p": leg.least_p}
        for leg in found.verdict.legs
    ]
    if as_json:
        document: dict[str, Any] = {
            "verdict": found.verdict.kind,
            "reason": found.verdict.reason,
            "net": found.effect.net,
            "low": found.effect.low,
            "high": found.effect.high,
            "prompts": found.verdict.prompts,
            "units": found.verdict.units,
            "p_retests": None if found.verdict.noise is None else found.verdict.noise.p,
            "legs": rows,
            "folds": [
                {"run": fold.name, "flips": sum(fold.tuned.values()), "of": len(fold.tuned), "experts": fold.experts}
                for fold in found.folds
            ],
        }
        print(json.dumps(document, indent=2))
        return
    console = Console(highlight=False)
    flips = sum(sum(fold.tuned.values()) for fold in found.folds)
    of = found.verdict.prompts
    console.print(f"{found.verdict.kind}: {found.verdict.reason}", soft_wrap=True)
    console.print(
        f"{flips} of {of} prompts flip ({pct(flips / of)}), each under experts chosen without it; net of both ways"
        f" {100 * found.effect.net:+.1f} points of {found.effect.rows} prompts ({100 * found.effect.low:+.1f} to"
        f" {100 * found.effect.high:+.1f}, {found.effect.units_that_count} {found.unit or 'prompt'}s count).",
        soft_wrap=True,
    )
    for fold in found.folds:
        console.print(f"  {fold.name}: {sum(fold.tuned.values())} of {len(fold.tuned)}, {fold.experts}", soft_wrap=True)
    for leg in found.verdict.legs:
        console.print(f"  {leg.kind}: {leg.reached} of {leg.sets} joined sets flip as many, p = {leg.p:.3f}")
