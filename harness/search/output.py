"""A search in the terminal, as CSV and JSON, as a figure, and its winner as a profile, in the folder of its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.console import Console
from rich.table import Table

from mote.harness.drawing import short
from mote.harness.experts.output import write_table
from mote.harness.files import subfolder, write_atomic
from mote.harness.report.figures import render
from mote.harness.report.search_sentences import NAME, NULLS, RULED
from mote.harness.science.searching import Candidate, Found, pareto
from mote.harness.search.figure import draw_search
from mote.harness.search.run import Search

KEY: Final = "search"


def trials_frame(search: Search) -> pd.DataFrame:
    """Return one row a trial of every search: what was tried, what it was screened to do, and whether on the front."""
    rows = []
    for one in search.found:
        best = set(pareto(one.trials))
        for at, (candidate, screened) in enumerate(one.trials):
            rows.append(
                {
                    "search": one.arm.kind, "number": one.arm.number, "trial": at, "experts": len(candidate.experts),
                    "factor": candidate.factor, "effect": screened.effect, "kl": screened.harm,
                    "within": screened.harm <= search.options.harm, "front": at in best, "set": named(candidate),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def searches_frame(search: Search) -> pd.DataFrame:
    """Return one row a search: its pool, its winner, what chose the winner, and what the held prompts say of it."""
    rows = []
    for one, harm in zip(search.found, search.harms, strict=True):
        check = next((each for each in one.checks if each.trial.candidate == one.winner), None)
        rows.append(
            {
                "search": one.arm.kind, "number": one.arm.number, "seed": one.arm.seed, "pool": len(one.arm.pool),
                "experts": len(one.winner.experts), "factor": one.winner.factor,
                "effect": check.trial.screened.effect if check else 0.0,
                "kl": check.trial.screened.harm if check else 0.0,
                "net_chosen": check.answered.net if check else 0.0,
                "broken_chosen": check.answered.broken if check else 0.0,
                "left": one.held.left, "entered": one.held.entered, "net": one.held.net, "broken": one.held.broken,
                "kl_held": harm, "winner": named(one.winner),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def named(one: Candidate) -> str:
    """Return a set in words: ``(2, 5) (5, 22)``, or ``untouched``."""
    return " ".join(f"({layer}, {expert})" for layer, expert in one.experts) or "untouched"


def as_json(search: Search) -> dict[str, Any]:
    """Return the search as it is written: settings, the ruling, the winner, the front, and every null's effect."""
    ours, options, ruling = search.found[0], search.options, search.ruling
    return {
        "format": "mote-search/1",
        "target": search.target,
        "by": options.by,
        "seed": options.seed,
        "plan": {
            "pool": options.pool, "factors": list(options.plan.factors), "trials": options.trials,
            "checked": options.checked, "prompts": len(ours.arm.targets), "others": len(ours.arm.others),
            "opening_tokens": options.opening, "held": list(search.held),
        },
        "bounds": {"kl": options.harm, "broken": options.broken},
        "winner": {
            "experts": [list(expert) for expert in ours.winner.experts], "factor": ours.winner.factor,
            "digest": search.profile.digest, "left": ours.held.left, "left_low": search.left.low,
            "left_high": search.left.high, "entered": ours.held.entered, "net": ours.held.net,
            "broken": ours.held.broken, "kl": search.harms[0],
        },
        "ruling": {
            "said": ruling.said, "p": ruling.p, "least_p": ruling.least_p,
            "nulls": [leg._asdict() for leg in ruling.legs],
        },
        "front": [
            {"experts": [list(expert) for expert in one.candidate.experts], "factor": one.candidate.factor,
             "effect": one.screened.effect, "kl": one.screened.harm}
            for one in (ours.trials[at] for at in pareto(ours.trials))
        ],
    }  # fmt: skip


def show_search(search: Search, console: Console) -> None:
    """Print the winner, its effect among the null searches', and the front."""
    ours = search.found[0]
    table = Table(box=None, pad_edge=False)
    for title in ("experts", "factor", "effect (passes)", "KL"):
        table.add_column(title, justify="right", no_wrap=True)
    for at in pareto(ours.trials):
        candidate, screened = ours.trials[at]
        row = (f"{len(candidate.experts)}", f"{candidate.factor:g}", f"{screened.effect:+.1%}", f"{screened.harm:.4f}")
        table.add_row(*row, style=None if screened.harm <= search.options.harm else "dim")
    console.print("The front: no trial has less harm and as much effect, on the prompts that choose.")
    console.print(table)
    console.print(_winner(search, ours), soft_wrap=True)
    for leg in search.ruling.legs:
        console.print(
            f"  {NULLS[leg.kind]}: {leg.searches} searches, net {leg.mean:+.1%} on average and {leg.most:+.1%} at most;"
            f" p = {leg.p:.3f}",
            soft_wrap=True,
        )
    console.print(RULED[search.ruling.said], soft_wrap=True)


def _winner(search: Search, ours: Found) -> str:
    held, (targets, others) = ours.held, search.held
    if not ours.winner.experts:
        return "Winner: the untouched model, whose net effect is 0."
    unit = f" over units ({search.unit})" if search.unit else ""
    return (
        f"Winner: {named(ours.winner)} by {ours.winner.factor:g}. On the half that chose nothing {held.left:.1%} of"
        f" {targets} prompts leave {short(search.target)} ({search.left.low:.1%} to {search.left.high:.1%}{unit}),"
        f" {held.entered:.1%} of {others} others enter: net {held.net:+.1%}; {held.broken:.1%} of the answers are"
        f" broken, KL {search.harms[0]:.4f} nats a token."
    )


def write_search(search: Search, folder: Path) -> list[Path]:
    """Write both tables, the JSON, the winner's profile and the figure (PNG, PDF, SVG); return the paths."""
    tables, figures = subfolder(folder, "tables"), subfolder(folder, "figures")
    trials, searches = trials_frame(search), searches_frame(search)
    paths = [
        write_table(searches, tables / f"{KEY}.csv"),
        write_table(trials, tables / f"{KEY}_trials.csv"),
        _json(as_json(search), tables / NAME),
    ]
    if search.found[0].winner.experts:
        paths.append(_json(search.profile.to_dict(), tables / f"{KEY}_profile.json"))
    drawn = render(KEY, draw_search(search, trials, searches), "")
    for kind in ("png", "pdf", "svg"):
        paths.append(figures / f"{KEY}.{kind}")
        write_atomic(paths[-1], getattr(drawn, kind))
    return paths


def _json(value: dict[str, Any], path: Path) -> Path:
    write_atomic(path, json.dumps(value, indent=2) + "\n")
    return path
