"""The sections on evidence: broken answers, the tuned experts, the mechanism check, the judges, and provenance."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mote.harness.preconditions import STATES
from mote.harness.report.analysis import StudyResult
from mote.harness.report.chance import LEVEL
from mote.harness.report.phrases import pct


def broke(result: StudyResult) -> tuple[str, list[str], list[list[str]]]:
    """Return a sentence and the table of broken answers: prompts that had a class before and have none after."""
    columns = ["profile", "answers", "truncated", "degenerate", "unscored", "broken in all"]
    if result.asked.tuned is None or result.changes.summary.empty:
        return "No tuned answer is labelled yet.", columns, []
    rows, share = [], math.nan
    for row in result.changes.summary.to_dict("records"):
        if row["view"] == "in-sample" or not row["usable"]:
            continue
        counts = [int(row[state.lower()]) for state in STATES]
        cells = [f"{n:,} ({pct(n / row['usable'])})" if n else "0" for n in (*counts, sum(counts))]
        rows.append([str(row["group"]), f"{row['usable']:,}", *cells])
        if row["group"] == result.asked.tuned:
            share = sum(counts) / row["usable"]
    text = (
        f"Of the answers that had a class before, {pct(share)} have none after {result.asked.tuned}. Cut off, "
        "degenerate, and not to be scored are outcomes of their own: such an answer is never counted as a change of "
        "class."
    )
    return text, columns, rows


def experts(result: StudyResult, part: str) -> tuple[list[str], list[str], list[list[str]]]:
    """Return sentences and the table of the tuned experts."""
    frame = result.experts.distinctive
    sides = result.sides
    mean = f"mean in {sides.name}"
    columns = ["rank", "layer", "expert", "resonance", "95% interval", mean, "in others", "kept", "rank in other half"]
    rows = [
        [
            _whole(row["rank"]),
            str(int(row["layer"])),
            str(int(row["expert"])),
            _number(row["resonance"]),
            f"{_number(row['low'])} to {_number(row['high'])}",
            _number(row["target_mean"]),
            _number(row["others_mean"]),
            pct(row["kept"], 0),
            _whole(row["rank_other_half"]),
        ]
        for row in frame.to_dict("records")
    ]
    if frame.empty:
        return ["No experts have been chosen yet."], columns, []
    seen = (
        f"in prompts of {sides.name}, not what they do to answers"
        if sides.contrast
        else ("when the class occurs, not that they cause it")
    )
    lines = [
        f"Resonance is the mean activation of an expert over the {sides.name} prompts minus that over the others, in "
        f"{sides.unit}, counted on {part}. It says which experts are seen {seen}."
    ]
    overlap, unit = result.experts.overlap, result.asked.unit
    if overlap is not None:
        lines.append(
            f"Ranked on the other half alone, {overlap} of the {len(frame)} would be chosen again; the last "
            f"column has their rank there. Kept is how often an expert is among the first {len(frame)} when "
            f"{f'whole {unit}s' if unit else 'prompts'} are drawn anew, which the interval is of, too."
        )
    return lines + _beyond_chance(result) + _within_pairs(result), columns, rows


def _within_pairs(result: StudyResult) -> list[str]:
    """Say how many experts are seen more within pairs of prompts that chose none of them."""
    found = result.pairs[result.pairs["part"] == "measure"]
    if found.empty:
        return []
    more = int((found["more"] > found["less"]).sum())
    sure = int(((found["more"] > found["less"]) & (found["p_holm"] <= LEVEL)).sum())
    return [
        f"Within the {int(found['pairs'].iloc[0])} pairs that chose no expert, {more} of the {len(found)} experts are "
        f"seen more in the prompt of {result.sides.name} than in its partner, {sure} of them by a sign test (p ≤ 0.05 "
        "after Holm)."
    ]


def _beyond_chance(result: StudyResult) -> list[str]:
    """Say how many experts stand out more than any expert does when labels are shuffled, at all and within a topic."""
    frame, unit = result.experts.distinctive, result.asked.unit
    if frame["p_shuffled"].isna().any():
        return []
    beyond = int((frame["p_shuffled"] <= LEVEL).sum())
    line = f"Of the {len(frame)}, {beyond} score higher than the best of all experts with shuffled labels (p ≤ 0.05)"
    if unit and frame["p_within"].notna().all():
        within = int((frame["p_within"] <= LEVEL).sum())
        line += (
            f"; with labels shuffled only among prompts of one {unit}, so that the topic stays, {within} do. An "
            "expert that passes only the first test may follow the topic rather than the behaviour"
        )
    return [f"{line}."]


def mechanism(result: StudyResult) -> list[str]:
    """Return what the mechanism check counted: that the edit did what it says, in how many tokens."""
    frame = result.record.mechanism
    if frame.empty:
        return ["No edited answer is stored yet."]
    off = frame[frame["action"] == "suppress"]
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
        own = off[off["profile"] == result.asked.tuned]
        if len(own):
            row = own.iloc[0]
            lines.append(
                f"Under {result.asked.tuned} alone: {int(row['selected']):,} times in {int(row['answers']):,} answers."
            )
    scaled = frame[frame["action"] == "scale"]
    if len(scaled):
        lines.append(f"A scaled expert was chosen {int(scaled['selected'].sum()):,} times, and its weight multiplied.")
    lines += _in_every_token(frame[frame["action"] == "stimulate"], "A stimulated expert")
    lines += _in_every_token(frame[frame["action"] == "activate"], "An expert activated before the choice")
    out = frame[frame["action"] == "deactivate"]
    if len(out):
        selected, left = int(out["selected"].sum()), int(out["left"].sum())
        verdict = "in none of them" if left == selected else f"in {selected - left:,} of them, which should be 0,"
        lines.append(
            f"The router by itself chose an expert deactivated before the choice {selected:,} times, and {verdict} "
            "after the edit."
        )
    return lines


def _in_every_token(on: pd.DataFrame, who: str) -> list[str]:
    """Say how experts came in that every token should have."""
    if on.empty:
        return []
    absent = int((on["tokens"] - on["selected"] - on["entered"] + on["left"]).sum())
    return [
        f"{who} was already chosen {int(on['selected'].sum()):,} times and brought in"
        f" {int(on['entered'].sum()):,} times; it was absent {absent:,} times"
        f"{', which should be 0' if absent else ''}."
    ]


def coverage(result: StudyResult) -> str:
    """Say over how many tokens the maps were counted."""
    row = result.record.coverage.iloc[0]
    if not row["maps"]:
        return "No activation map is stored yet."
    share = "all" if row["tokens_counted"] == row["tokens"] else f"{row['tokens_counted']:,} of"
    whole = "" if row["whole_maps"] == row["maps"] else f"; {row['maps'] - row['whole_maps']:,} maps are incomplete"
    return (
        f"{row['maps']:,} maps of the baseline count {share} {row['tokens']:,} {row['role']} tokens "
        f"(those of the chat template are among them){whole}."
    )


def judges(result: StudyResult) -> str:
    """Say whose labels the report uses: those of the run's label set, unless it was asked for another judge's."""
    others = result.record.judges[result.record.judges["judge"] != result.asked.judge]
    line = f"Every number here is by the labels of the judge “{result.asked.judge}”."
    if others.empty:
        return f"{line} No other judge has labelled this run; `mote judge ask RUN` asks one."
    return f"{line} Other judges' labels stand beside it; `mote report RUN --judge NAME` makes a report with theirs."


def judge_rows(result: StudyResult) -> list[list[str]]:
    """Return each other judge with how many answers it labelled, and how often it gives the same label as the first."""
    rows = result.record.judges[result.record.judges["judge"] != result.asked.judge].to_dict("records")
    return [[str(row["judge"]), f"{row['labels']:,}", f"{row['shared']:,}", pct(row["same"])] for row in rows]


def provenance(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the manifest as name and value: digests, seeds, versions and devices of each session."""
    rows = [
        ("Recipe", f"{manifest['recipe']['name']}, digest {manifest['recipe_digest']}"),
        ("Prompts", _prompts(manifest["prompts"])),
        ("Seeds", ", ".join(f"{name} {value}" for name, value in manifest["seeds"].items())),
        ("Finished", str(manifest.get("finished") or "not yet")),
    ]
    for number, session in enumerate(manifest["sessions"], start=1):
        versions = ", ".join(f"{name} {value}" for name, value in session["versions"].items())
        device = ", ".join(f"{name} {_plain(value)}" for name, value in session["device"].items())
        end = session["ended"] or "not recorded"
        rows.append((f"Session {number}", f"{session['started']} to {end}; {versions}; {device}"))
    return rows


def _prompts(prompts: Mapping[str, Any]) -> str:
    file = f"; file {prompts['file']}, sha256 {prompts['file_sha256']}" if "file_sha256" in prompts else ""
    return f"{prompts['task']}, digest {prompts['digest']}{file}"


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
        for row in result.record.progress.itertuples()
    ]


def recipe_text(manifest: Mapping[str, Any]) -> str:
    """Return the resolved recipe as indented JSON, which is YAML too."""
    return json.dumps(manifest["recipe"], indent=2, ensure_ascii=False)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _whole(value: float) -> str:
    return "–" if math.isnan(value) else f"{int(value):,}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}".replace("-", "−")
