"""What the page says, section by section: rows and sentences for the template, no markup and no files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import pandas as pd

from mote.harness.analysis import RANDOM, StudyResult
from mote.harness.checks import STATES
from mote.harness.report.figures import KIND_TITLES
from mote.harness.report.style import short
from mote.harness.report.words import p_is, p_value, pct, with_interval, words_for

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
    """One large number at the top."""

    what: str
    number: str
    detail: str


def heading(result: StudyResult, manifest: Mapping[str, Any]) -> str:
    """Return the question that the run asks, which is the page's title."""
    return f"Which experts of {manifest['model']['name']} carry {words_for(result.target).behaviour}?"


def banner(result: StudyResult, manifest: Mapping[str, Any], folder: str) -> dict[str, str] | None:
    """Say what is missing of a run that isn't finished, and how to go on."""
    if result.complete and manifest.get("finished"):
        return None
    progress = result.progress
    planned, generated, labelled = (int(progress[name].sum()) for name in ("planned", "generated", "labelled"))
    parts = [f"{generated:,} of {planned:,} planned generations are there, {labelled:,} of them labelled."]
    if result.tuned is None:
        parts.append("Experts have not been chosen yet; tuned profiles and controls come after that.")
    else:
        open_ = [str(name) for name in progress.loc[progress["labelled"] < progress["planned"], "profile"]]
        more = f" and {len(open_) - 3} more" if len(open_) > 3 else ""
        if open_:
            parts.append(f"Missing in {', '.join(open_[:3])}{more}.")
    if result.complete and result.tuned is not None:
        parts = ["All planned generations are there and labelled; only the run's end was not recorded."]
    name = str(manifest["recipe"]["name"])
    return {"text": " ".join(parts), "command": f"mote run {name} --out {folder}"}


def facts(result: StudyResult) -> list[Fact]:
    """Return the numbers at the top: the effect, chance, the other direction, what broke."""
    rates = result.rate_of(result.tuned)
    if rates is None or not rates.flips.total:
        return []
    words = words_for(result.target)
    found = [
        Fact(
            f"of the {words.prompts} {words.changed}",
            pct(rates.flips.share),
            f"95% interval {pct(rates.flips.low)} to {pct(rates.flips.high)}",
        )
    ]
    if result.nulls:
        kind, null = max(result.nulls.items(), key=lambda item: (item[1].p, item[1].mean))
        where = KIND_TITLES.get(kind, kind).removeprefix("Random, ")
        found.append(
            Fact(f"with random experts ({where})", pct(null.mean), f"mean of {null.controls} sets, {p_is(null.p)}")
        )
    found.append(
        Fact(
            f"of the others {words.reverse}",
            pct(rates.reverse.share),
            f"{rates.reverse.hits:,} of {rates.reverse.total:,}",
        )
    )
    broken, total = rates.broken.hits + rates.broken_others.hits, rates.broken.total + rates.broken_others.total
    found.append(
        Fact("of all answers broke", pct(broken / total), f"{broken:,} of {total:,}: cut off, degenerate, unscored")
    )
    return found


def asked(result: StudyResult, manifest: Mapping[str, Any], example: str) -> list[tuple[str, str]]:
    """Return what was asked, of which model, and how, as name and value."""
    layout, recipe = manifest["model"]["layout"], manifest["recipe"]
    sampling, study = recipe["sampling"], recipe["study"]
    layers = layout["layers"]
    options = ", ".join(f"{name} {value}" for name, value in recipe["model"].get("options", {}).items())
    chosen = "named in the recipe" if result.given else f"top {study['top_k']} by {study['ranking']} of {result.target}"
    split = {
        "half": "experts are chosen on one half of the prompts and measured on the other",
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
        ("Class studied", f"{result.target}, labels by the judge “{result.judge}”"),
        ("Tuned experts", chosen),
        ("Split", split.get(str(study["split"]), str(study["split"]))),
    ]


def baseline_table(frame: pd.DataFrame, result: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Return the labels of the untouched model, with counts and shares."""
    labels = frame.loc[frame["profile"] == "baseline", "label"].dropna()
    order = [*result.classes, *STATES]
    rows = [
        [name, f"{(labels == name).sum():,}", pct(float((labels == name).mean()))]
        for name in order
        if name in result.classes or (labels == name).any()
    ]
    return ["label", "prompts", "share"], rows if len(labels) else []


def changed(result: StudyResult) -> list[str]:
    """Return the sentences beside the matrices: flips, the other direction, and the in-sample figure marked as such."""
    rates, words = result.rate_of(result.tuned), words_for(result.target)
    if rates is None:
        return ["No tuned answer is labelled yet."]
    where = {"measured": "On the prompts that were not used to choose the experts", "all": "On all prompts"}
    lines = [
        f"{where[result.view]}, {with_interval(rates.flips)} of the {words.prompts} {words.changed}; of the others, "
        f"{with_interval(rates.reverse)} {words.reverse}."
    ]
    inside = result.rate_of(result.tuned, "in-sample")
    if inside is not None and inside.flips.total:
        lines.append(
            f"In-sample, on the prompts that the experts were chosen on, it was {with_interval(inside.flips)}: "
            "this figure is shown for comparison only, as choosing and measuring on the same prompts flatters."
        )
    return lines


def chance(result: StudyResult) -> tuple[list[str], list[str]]:
    """Return the sentences on chance, and the notes below the null distribution."""
    lines, notes = [], []
    verdict = result.verdict
    words = {
        "above": f"Yes: against every kind of random experts p is at most {p_value(verdict.p)}.",
        "few": "It cannot be said: no random set did as well, but with so few of them the smallest possible p is "
        f"{p_value(verdict.least_p)}.",
        "not-above": f"No: against at least one kind of random experts p is {p_value(verdict.p)}.",
        "unknown": "It cannot be said yet: no random control has been measured.",
    }
    lines.append(words[verdict.kind])
    if result.nulls:
        lines.append(
            "p is (1 + number of random sets with at least as many flips) / (sets + 1), one-sided; an effect must pass "
            "against each kind of control, so the largest p counts."
        )
    retests = [
        (name, rates)
        for (name, view), rates in result.rates.items()
        if name.startswith("retest") and view == result.view
    ]
    for name, rates in retests:
        notes.append(
            f"Sampling noise ({name}: the untouched model, another seed): {with_interval(rates.flips)} of the "
            f"{words_for(result.target).prompts} changed, {with_interval(rates.reverse)} of the others the other way."
        )
    if result.clustered is not None:
        unit, found = result.clustered
        if found.flips_interval is not None:
            notes.append(
                f"Prompts that share a {unit} are not independent. With whole {unit}s resampled ({found.clusters} of "
                f"them) the interval of the flips is {pct(found.flips_interval.low)} to "
                f"{pct(found.flips_interval.high)}, and the paired test of flips against reverse flips gives "
                f"{p_is(found.test.p)}."
            )
    effects = result.effects
    own = effects[(effects["profile"] == result.tuned) & (effects["view"] == result.view)] if len(effects) else effects
    if len(own):
        row = own.iloc[0]
        notes.append(
            "Against the untouched model, prompts taken as independent: McNemar exact "
            f"{p_is(float(row['mcnemar_p']))}, Stuart–Maxwell over the whole matrix "
            f"{p_is(float(row['stuart_maxwell_p']))}. These say that something changed, not that these experts are "
            "special; that is for the random sets."
        )
    return lines, notes


def null_rows(result: StudyResult) -> list[list[str]]:
    """Return the table of the null distributions, one row a kind of control."""
    rows = []
    for kind, null in result.nulls.items():
        most = result.null_values.loc[result.null_values["kind"] == kind, "share"].max()
        name = KIND_TITLES.get(kind, kind).removeprefix("Random, ")
        middle = f"{pct(null.low)} to {pct(null.high)}"
        rows.append(
            [
                name,
                str(null.controls),
                pct(null.mean),
                middle,
                pct(float(most)),
                f"{null.percentile:.0f}",
                p_value(null.p),
            ]
        )
    return rows


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
    for row in result.summary.to_dict("records"):
        least, most = row.get("least", math.nan), row.get("most", math.nan)
        pooled = str(row["group"]).startswith(RANDOM)
        spread = f"{pct(least)} to {pct(most)}" if pooled else f"{pct(row['low'])} to {pct(row['high'])}"
        sets = f" ({row['sets']} sets)" if pooled else ""
        where = " (in-sample)" if row["view"] == "in-sample" else ""
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


def broke(result: StudyResult) -> tuple[str, list[str], list[list[str]]]:
    """Return a sentence and the table of broken answers: prompts that had a class before and have none after."""
    columns = ["profile", "answers", "truncated", "degenerate", "unscored", "broken in all"]
    if result.tuned is None or result.summary.empty:
        return "No tuned answer is labelled yet.", columns, []
    rows, share = [], math.nan
    for row in result.summary.to_dict("records"):
        if row["view"] == "in-sample" or not row["usable"]:
            continue
        counts = [int(row[state.lower()]) for state in STATES]
        cells = [f"{count:,} ({pct(count / row['usable'])})" for count in (*counts, sum(counts))]
        rows.append([str(row["group"]), f"{row['usable']:,}", *cells])
        if row["group"] == result.tuned:
            share = sum(counts) / row["usable"]
    text = (
        f"Of the answers that had a class before, {pct(share)} have none after {result.tuned}. Cut off, degenerate, "
        "and not to be scored are outcomes of their own: such an answer is never counted as a change of class."
    )
    return text, columns, rows


def experts(result: StudyResult, part: str) -> tuple[list[str], list[str], list[list[str]]]:
    """Return sentences and the table of the tuned experts."""
    frame = result.distinctive
    columns = [
        "rank",
        "layer",
        "expert",
        "resonance",
        f"mean in {short(result.target)}",
        "mean in others",
        "rank in other half",
    ]
    rows = [
        [
            _whole(row["rank"]),
            str(int(row["layer"])),
            str(int(row["expert"])),
            _number(row["resonance"]),
            _number(row["target_mean"]),
            _number(row["others_mean"]),
            _whole(row["rank_other_half"]),
        ]
        for row in frame.to_dict("records")
    ]
    if frame.empty:
        return ["No experts have been chosen yet."], columns, []
    lines = [
        f"Resonance is the mean activation of an expert over the {short(result.target)} prompts minus that over the "
        f"others, in activations a prompt, counted on {part}. It says which experts are seen when the class occurs, "
        "not that they cause it."
    ]
    if result.overlap is not None:
        lines.append(
            f"Ranked on the other half alone, {result.overlap} of the {len(frame)} would be chosen again; the last "
            "column has their rank there."
        )
    return lines, columns, rows


def mechanism(result: StudyResult) -> list[str]:
    """Return what the mechanism check counted: that the edit did what it says, in how many tokens."""
    frame = result.mechanism
    if frame.empty:
        return ["No edited answer is stored yet."]
    off = frame[~frame["profile"].str.startswith("stimulate")]
    lines = []
    if len(off):
        selected, after = int(off["selected"].sum()), float(off["weight_after"].sum())
        verdict = (
            "its weight after the edit was 0 in all of them"
            if after == 0
            else f"its weight after the edit summed to {after:g}, which should be 0"
        )
        lines.append(
            f"Over {int(off['answers'].sum()):,} answers, a suppressed expert was chosen by the router {selected:,} "
            f"times (expert and token); {verdict}."
        )
        own = off[off["profile"] == result.tuned]
        if len(own):
            row = own.iloc[0]
            lines.append(
                f"Under {result.tuned} alone: {int(row['selected']):,} times in {int(row['answers']):,} answers."
            )
    on = frame[frame["profile"].str.startswith("stimulate")]
    if len(on):
        absent = int((on["tokens"] - on["selected"] - on["entered"]).sum())
        lines.append(
            f"A stimulated expert was already chosen {int(on['selected'].sum()):,} times and brought in "
            f"{int(on['entered'].sum()):,} times; it was absent {absent:,} times"
            f"{', which should be 0' if absent else ''}."
        )
    return lines


def coverage(result: StudyResult) -> str:
    """Say over how many tokens the maps were counted."""
    row = result.coverage.iloc[0]
    if not row["maps"]:
        return "No activation map is stored yet."
    share = "all" if row["tokens_counted"] == row["tokens"] else f"{row['tokens_counted']:,} of"
    whole = "" if row["whole_maps"] == row["maps"] else f"; {row['maps'] - row['whole_maps']:,} maps are incomplete"
    return (
        f"{row['maps']:,} maps of the baseline count {share} {row['tokens']:,} {row['role']} tokens "
        f"(those of the chat template are among them){whole}."
    )


def provenance(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the manifest as name and value: digests, seeds, versions and devices of each session."""
    rows = [
        ("Recipe", f"{manifest['recipe']['name']}, digest {manifest['recipe_digest']}"),
        ("Prompts", f"{manifest['prompts']['task']}, digest {manifest['prompts']['digest']}"),
        ("Seeds", ", ".join(f"{name} {value}" for name, value in manifest["seeds"].items())),
        ("Finished", str(manifest.get("finished") or "not yet")),
    ]
    for number, session in enumerate(manifest["sessions"], start=1):
        versions = ", ".join(f"{name} {value}" for name, value in session["versions"].items())
        device = ", ".join(f"{name} {_plain(value)}" for name, value in session["device"].items())
        end = session["ended"] or "not recorded"
        rows.append((f"Session {number}", f"{session['started']} to {end}; {versions}; {device}"))
    return rows


def profile_rows(result: StudyResult, manifest: Mapping[str, Any], digests: Mapping[str, str]) -> list[list[str]]:
    """Return planned, generated and labelled rows and the digest of each profile."""
    return [
        [
            str(row.profile),
            f"{row.planned:,}",
            f"{row.generated:,}",
            f"{row.labelled:,}",
            digests.get(str(row.profile), "")[:16],
        ]
        for row in result.progress.itertuples()
    ]


def recipe_text(manifest: Mapping[str, Any]) -> str:
    """Return the resolved recipe as indented JSON, which is YAML too."""
    return json.dumps(manifest["recipe"], indent=2, ensure_ascii=False)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _whole(value: float) -> str:
    return "–" if math.isnan(value) else f"{int(value):,}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
