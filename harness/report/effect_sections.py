"""The sections on the effect: what was asked, what changed, and chance; rows and sentences, no markup and no files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import pandas as pd

from mote.harness.preconditions import STATES
from mote.harness.report.analysis import StudyResult
from mote.harness.report.figure_data import KIND_TITLES
from mote.harness.report.phrases import model_words, p_is, p_value, pct, where_words, with_interval, words_for
from mote.harness.science.controls import BASELINE, RANDOM

SECTIONS: Final = (
    ("asked", "What was asked"),
    ("changed", "What changed"),
    ("chance", "More than chance?"),
    ("broke", "What broke"),
    ("experts", "Which experts"),
    ("dose-direction", "Dose and direction"),
    ("examples", "Examples"),
    ("generations", "All generations"),
    ("provenance", "Provenance"),
    ("index", "The paper's figures"),
)
WHY: Final = {
    "flip": "left the target class",
    "stay": "stayed in the target class",
    "reverse": "entered the target class",
    "broken": "the text broke",
    "other": "changed between other classes",
}


class Fact(NamedTuple):
    """A large number at the top."""

    what: str
    number: str
    detail: str


def heading(result: StudyResult, manifest: Mapping[str, Any]) -> str:
    """Return the question that the run asks, which is the page's title."""
    return (
        f"Which experts of {model_words(manifest['model']['name'])} carry {words_for(result.asked.target).behaviour}?"
    )


def banner(result: StudyResult, manifest: Mapping[str, Any], folder: str) -> dict[str, str] | None:
    """Say what is missing of a run that isn't finished, and how to go on."""
    if result.record.complete and manifest.get("finished"):
        return None
    progress = result.record.progress
    planned, generated, labelled = (int(progress[name].sum()) for name in ("planned", "generated", "labelled"))
    parts = [f"{generated:,} of {planned:,} planned generations are there, {labelled:,} of them labelled."]
    if result.asked.tuned is None:
        parts.append("Experts have not been chosen yet; tuned profiles and controls come after that.")
    else:
        open_ = [str(name) for name in progress.loc[progress["labelled"] < progress["planned"], "profile"]]
        more = f" and {len(open_) - 3} more" if len(open_) > 3 else ""
        if open_:
            parts.append(f"Missing in {', '.join(open_[:3])}{more}.")
    if result.record.complete and result.asked.tuned is not None:
        parts = ["All planned generations are there and labelled; only the run's end was not recorded."]
    name = str(manifest["recipe"]["name"])
    return {"text": " ".join(parts), "command": f"mote run {name} --out {folder}"}


def facts(result: StudyResult) -> list[Fact]:
    """Return the numbers at the top: the effect, chance, the other direction, what broke."""
    rates = result.rate_of(result.asked.tuned)
    if rates is None or not rates.flips.total:
        return []
    words = words_for(result.asked.target)
    flips, net, verdict = result.effect.flips, result.effect.net, result.chance.verdict
    low, high = (rates.flips.low, rates.flips.high) if flips is None else (flips.low, flips.high)
    over = f", {flips.units} {result.asked.unit}s" if flips is not None and result.asked.unit else ""
    found = [
        Fact(
            f"of the {words.prompts} {words.changed}",
            pct(rates.flips.share),
            f"95% interval {pct(low)} to {pct(high)}{over}",
        )
    ]
    if net is not None:
        found.append(
            Fact(
                "points net, of all measured prompts",
                f"{100 * net.net:.1f}",
                f"95% interval {100 * net.low:.1f} to {100 * net.high:.1f}",
            )
        )
    if chance := _largest_p(result):
        found.append(chance)
    if result.chance.nulls:
        kind, null = max(result.chance.nulls.items(), key=lambda item: (item[1].mean, item[0]))
        where = KIND_TITLES.get(kind, kind).removeprefix("Random, ")
        p = next((leg.p for leg in verdict.legs if kind.endswith(leg.kind)), null.p)
        found.append(Fact(f"with random experts ({where})", pct(null.mean), f"mean of {null.controls} sets, {p_is(p)}"))
    found.append(
        Fact(
            f"of the others {words.reverse}",
            pct(rates.reverse.share),
            f"{rates.reverse.hits:,} of {rates.reverse.total:,}",
        )
    )
    broken, total = rates.broken.hits + rates.broken_others.hits, rates.broken.total + rates.broken_others.total
    found.append(
        Fact(
            "of the tuned answers broke", pct(broken / total), f"{broken:,} of {total:,}: cut off, degenerate, unscored"
        )
    )
    return found


def _largest_p(result: StudyResult) -> Fact | None:
    """Return the largest p of the verdict's tests, of which each has to hold; None where none is known yet."""
    verdict = result.chance.verdict
    known = [(KIND_TITLES.get(RANDOM + leg.kind, leg.kind).removeprefix("Random, "), leg.p) for leg in verdict.legs]
    known += [("other seeds", verdict.noise.p)] if verdict.noise is not None else []
    there = [(name, p) for name, p in known if not math.isnan(p)]
    if not there:
        return None
    each = "; ".join(f"{name} {p_value(p)}" for name, p in there)
    return Fact("the largest p: chance alone does as much so often", p_value(max(p for _, p in there)), each)


def asked(result: StudyResult, manifest: Mapping[str, Any], example: str) -> list[tuple[str, str]]:
    """Return what was asked, of which model, and how, as name and value."""
    layout, recipe = manifest["model"]["layout"], manifest["recipe"]
    sampling, study = recipe["sampling"], recipe["study"]
    layers = layout["layers"]
    options = ", ".join(f"{name} {value}" for name, value in recipe["model"].get("options", {}).items())
    chosen = (
        "named in the recipe"
        if result.asked.given
        else f"top {study['top_k']} by {study['ranking']} of {result.sides.name}"
    )
    split = {
        "half": "experts are chosen on one half of the prompts and measured on the other",
        "units": "experts are chosen on some places (subjects, topics) and measured on others",
        "none": "none: experts are chosen and measured on the same prompts",
    }
    return [
        ("Model", f"{manifest['model']['name']} ({layout['architecture']})"),
        (
            "Routed experts",
            f"{len(layers)} layers ({layers[0]} to {layers[-1]}) of {layout['experts']}, "
            f"{layout['top_k']} active a token",
        ),
        ("Engine", f"{recipe['model']['engine']}{f' ({options})' if options else ''}"),
        ("Prompts", f"{manifest['prompts']['count']:,} of {manifest['prompts']['task']}, for instance “{example}”"),
        ("Sampling", ", ".join(f"{name} {value}" for name, value in sampling.items())),
        ("Class studied", f"{result.asked.target}, labels by the judge “{result.asked.judge}”"),
        ("Tuned experts", chosen),
        ("Split", split.get(str(study["split"]), str(study["split"]))),
    ]


def baseline_table(frame: pd.DataFrame, result: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Return the labels of the untouched model, with counts and shares."""
    labels = frame.loc[frame["profile"] == BASELINE, "label"].dropna()
    order = [*result.asked.classes, *STATES]
    rows = [
        [name, f"{(labels == name).sum():,}", pct(float((labels == name).mean()))]
        for name in order
        if name in result.asked.classes or (labels == name).any()
    ]
    return ["label", "prompts", "share"], rows if len(labels) else []


def changed(result: StudyResult) -> list[str]:
    """Return the sentences beside the matrices: flips, the other direction, and the in-sample figure marked as such."""
    rates, words = result.rate_of(result.asked.tuned), words_for(result.asked.target)
    if rates is None:
        return ["No tuned answer is labelled yet."]
    where = where_words(result, result.asked.view)
    lines = [
        f"Raw, {where} and with prompts taken as independent, {with_interval(rates.flips)} of the {words.prompts} "
        f"{words.changed}; of the others, {with_interval(rates.reverse)} {words.reverse}."
    ]
    inside = result.rate_of(result.asked.tuned, "in-sample")
    if inside is not None and inside.flips.total and not result.asked.given:
        lines.append(
            f"In-sample, on the prompts that the experts were chosen on, it was {with_interval(inside.flips)}: "
            "this figure is shown for comparison only, as choosing and measuring on the same prompts flatters."
        )
    return lines


def gap_note(result: StudyResult, gap: pd.DataFrame) -> str | None:
    """Say how near the matched controls came to the tuned experts' activation frequency."""
    near = gap[gap["kind"] == "random-frequency"]
    if near.empty:
        return None
    tuned, mean = float(near["tuned"].iloc[0]), float(near["gap"].mean())
    if not tuned:
        return None
    how = f"{abs(mean) / tuned:.0%} {'less' if mean > 0 else 'more'} busy than the tuned ones"
    return (
        f"The tuned experts are active {tuned:.2f} times a prompt each; sets matched for that are on average {how}. "
        + (
            "Distinctive experts are often the busiest of their layer, and then nothing else is as busy."
            if mean / tuned > 0.1
            else ""
        )
    ).strip()


def summary_table(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Return one row a profile and one a kind of random control: flips, interval or range, reverse flips."""
    columns = ["profile", "prompts", "flips", "share", "95% interval or range", "reverse flips", "share"]
    rows = []
    for row in result.changes.summary.to_dict("records"):
        least, most = row.get("least", math.nan), row.get("most", math.nan)
        pooled = str(row["group"]).startswith(RANDOM)
        spread = f"{pct(least)} to {pct(most)}" if pooled else f"{pct(row['low'])} to {pct(row['high'])}"
        sets = f" ({row['sets']} sets)" if pooled else ""
        where = f" ({where_words(result, 'in-sample')})" if row["view"] == "in-sample" else ""
        rows.append(
            [
                f"{row['group']}{sets}{where}",
                f"{row['prompts']:,}",
                f"{row['flips']:,} of {row['of']:,}",
                pct(row["share"]),
                spread if row["of"] else "–",
                f"{row['reverse']:,} of {row['reverse_of']:,}",
                pct(row["reverse_share"]),
            ]
        )
    return columns, rows


def paper_rows(beside: pd.DataFrame) -> list[list[str]]:
    """Return the table that sets our figures beside the paper's."""
    rows = []
    for row in beside.to_dict("records"):
        limits = "–" if pd.isna(row["low"]) else f"{pct(row['low'])} to {pct(row['high'])}"
        theirs = f"{'about ' if row['about'] else ''}{100 * row['paper']:g}%"
        ours = f"{row['hits']:,} of {row['total']:,}"
        rows.append([str(row["what"]), ours, pct(row["share"]), limits, theirs, str(row["section"])])
    return rows
