"""What a sweep's page says in words and small tables; every figure comes from the frames of ``measures``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from mote.harness.drawing import short
from mote.harness.science.sweeps import Crossing, crossing
from mote.harness.sweep.engines import RELOADED
from mote.harness.sweep.manifest import failed_check
from mote.harness.sweep.measures import BROKEN, curve, hits
from mote.harness.sweep.schema import BASE, SCORE

WORKS: Final = 0.1
"""A child whose answers are broken by no more than this share is said to work."""
MONOTONE: Final = 0.05
"""A curve that goes against its own direction by no more than this is said to be monotone."""
_NAMED: Final = 8
WHERE_COLUMNS: Final = (
    *("taken over", "profile", "measure", "at 0", "at 1", "half way at", "10% to 90% within", "steepest between"),
    "goes back by",
)


def crossings(rows: pd.DataFrame, subsets: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """Return where each measure goes from its start to its end, for each subset and profile."""
    found = []
    for subset in subsets:
        for profile in sorted(set(rows.loc[rows["subset"] == subset, "profile"])):
            for measure in measures:
                one = crossing(curve(rows, subset, measure, profile))
                found.append(
                    {
                        "subset": subset,
                        "profile": profile,
                        "measure": measure,
                        **{key: getattr(one, key) for key in ("start", "end", "at", "low", "high", "width")},
                        **dict(zip(("steepest_from", "steepest_to", "steepest_change"), one.steepest, strict=True)),
                        "against": one.against,
                    }
                )
    return pd.DataFrame(found)


def where_rows(found: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the crossings as rows of the page's table."""
    rows: list[tuple[str, ...]] = []
    for one in found.to_dict("records"):
        at, width = (_number(one[key]) for key in ("at", "width"))
        steepest = f"{one['steepest_from']:.3g} and {one['steepest_to']:.3g}: {one['steepest_change']:+.0%}"
        way = (f"{one['start']:.0%}", f"{one['end']:.0%}", at, width, steepest, f"{one['against']:.0%}")
        rows.append((str(one["subset"]), str(one["profile"]) or "untouched", short(str(one["measure"])), *way))
    return rows


def _number(value: Any) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def lead(rows: pd.DataFrame, subsets: Sequence[str], measure: str) -> str:
    """Return what the sweep found of its measure, in a sentence or two."""
    name = "right answers" if measure == SCORE else f"the class {short(measure)}"
    moved: list[tuple[str, Crossing]] = []
    still: list[tuple[str, Crossing]] = []
    for subset in subsets:
        one = crossing(curve(rows, subset, measure))
        (still if one.at is None else moved).append((subset, one))
    said = [_moves(subset, one) for subset, one in sorted(moved, key=lambda item: -abs(item[1].end - item[1].start))]
    start = f"Share of {name}, from the base's own {crossing(curve(rows, subsets[0], measure)).start:.0%}"
    found = f"{start}: {'; '.join(said)}." if said else f"{start}: no subset changes it by a tenth."
    if still and said:
        found += f" Not changed by a tenth: {', '.join(subset for subset, _ in still)}."
    return found


def _moves(subset: str, one: Crossing) -> str:
    width = one.width or 0.0
    back = "" if one.against <= MONOTONE else f", not monotone (back by {one.against:.0%})"
    return f"{subset} takes it to {one.end:.0%}, half way at {one.at:.2f}, 10% to 90% within {width:.2f}{back}"


def facts(rows: pd.DataFrame, manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the figures at the head of the page."""
    children = rows["child"].nunique()
    broken = broken_children(rows)
    sessions = manifest["sessions"]
    made = sum(one["children"] for one in sessions)
    beyond = sum(one["seconds_making"] for one in sessions)
    return [
        {"number": f"{children}", "what": "children", "detail": f"of {rows['subset'].nunique() - 1} subsets"},
        {"number": f"{len(rows):,}", "what": "answers", "detail": f"to {rows['prompt_id'].nunique()} prompts"},
        {
            "number": f"{children - len(broken)}",
            "what": "children that work",
            "detail": f"at most {WORKS:.0%} of answers broken, under no profile",
        },
        {
            "number": f"{beyond / made:.1f} s" if made else "–",
            "what": "a child beyond its answers",
            "detail": str(sessions[0]["engines"] or "no engine was needed") if sessions else "",
        },
    ]


def broken_children(rows: pd.DataFrame) -> pd.DataFrame:
    """Return child and broken share of the children that do not work, the worst first."""
    own = rows[rows["profile"] == ""]
    shares = own.assign(hit=hits(own, BROKEN)).groupby("child")["hit"].mean()
    return shares[shares > WORKS].sort_values(ascending=False).reset_index()


def engine_lines(manifest: Mapping[str, Any]) -> list[str]:
    """Return how the engines of each start were had, and why so."""
    found = []
    for number, one in enumerate(manifest["sessions"], start=1):
        if one["children"]:
            found.append(
                f"Start {number}: {one['engines']} ({one['why']}). {one['children']} children gave"
                f" {one['answers']:,} answers in {one['seconds_answering']:.0f} s; merging and loading took"
                f" {one['seconds_making']:.0f} s{_cpu(one)}, the proof {one['seconds_proving']:.0f} s{_checking(one)}."
            )
    return [*found, check_line(manifest)]


def check_line(manifest: Mapping[str, Any]) -> str:
    """Return which children that were reloaded in place a fresh engine was held against, and what came of it."""
    if all(one["engines"] != RELOADED for one in manifest["sessions"]):
        return "No child was reloaded in place: each was loaded from the disk by an engine of its own."
    checks = manifest.get("checks")
    if not checks:
        return "No child was checked against a fresh engine after the proof (model.check_every)."
    named = ", ".join(dict.fromkeys(str(one["child"]) for one in checks))
    failed = [one for one in checks if one["answers"] or one["parameters"]]
    if failed:
        return f"Checked against fresh engines: {named}. {failed_check(failed[0])}"
    return (
        f"Checked against fresh engines that loaded the child from the disk: {named}. Answers to"
        f" {checks[0]['prompts']} prompts and all parameters were those of the engine whose weights were reloaded."
    )


def _checking(session: Mapping[str, Any]) -> str:
    spent = session.get("seconds_checking")
    return f", checks against fresh engines {spent:.0f} s" if spent else ""


def caveats(manifest: Mapping[str, Any], unit: str | None) -> list[str]:
    """Return what a reader has to know before the figures."""
    drawn = manifest["recipe"]["sampling"]["temperature"]
    found = [
        "One pair of parents, one set of prompts: other parents of the same kind may part elsewhere.",
        "Children of one subset share their prompts, so neighbouring points are not independent of each other.",
    ]
    if drawn:
        found.append(f"Answers are drawn at temperature {drawn:g}, with the same seed a prompt in every child.")
    if not unit:
        found.append("The prompts name no unit (subject, place), so intervals take them as independent.")
    return found


def _cpu(session: Mapping[str, Any]) -> str:
    # Other work on the machine stretches the clock, not this.
    spent = session.get("cpu_seconds_making")
    return f" ({spent / session['children']:.2f} s of this process's CPU a child)" if spent else ""


def asked(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the children were made from and asked, as names and values."""
    recipe = manifest["recipe"]
    toward = ", ".join(f"{name} ({share:g})" if share != 1 else name for name, share in recipe["toward"].items())
    score, right = recipe["score"], "no score"
    if score:
        right = f"the answer {'is' if score['match'] == 'exact' else 'has'} the prompt's “{score['attribute']}”"
    return [
        ("Base", str(recipe["base"])),
        ("Toward", toward),
        ("Formula", "W = W0 + proportion x sum of shares x (W - W0), tensor by tensor within the subset"),
        ("Prompts", f"{manifest['prompts']['count']} of {manifest['prompts']['task']}"),
        ("Classes", str(recipe["task"]["label"])),
        ("Right", right),
        ("Sampling", ", ".join(f"{key} {value}" for key, value in recipe["sampling"].items())),
        ("Profiles", ", ".join(manifest["profiles"])),
    ]


def subset_rows(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each subset's name and what it takes over."""
    found = [(BASE, "nothing: proportion 0, shared by all")]
    for name, part in manifest["recipe"]["subsets"].items():
        conditions = [
            (key, value) for key, value in part.items() if value is not None and key not in ("others", "note")
        ]
        said = "; ".join(_condition(key, value) for key, value in conditions)
        said = f"{part['note']}: {said}" if part.get("note") else said
        found.append((name, f"all but {said}" if part["others"] else said))
    return found


def _condition(key: str, value: Any) -> str:
    if key == "experts" and isinstance(value, list):
        more = ", …" if len(value) > _NAMED else ""
        return f"{len(value)} experts: {', '.join(f'({layer}, {expert})' for layer, expert in value[:_NAMED])}{more}"
    listed = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{key} {listed}".replace("_", " ")


PAPER: Final = (
    (
        "Some properties change gradually with the proportion, others sharply",
        "shares by proportion; where each goes from low to high, and how wide that is",
        "other models, other properties: only the kind of curve compares",
    ),
    ("Nearly every child works", "broken share of every child", "the abstract does not say what working is"),
    (
        "R1T takes only R1's routed experts into V3-0324",
        "a subset routed_experts at proportion 1",
        "the same pattern, on other parents",
    ),
    (
        "Tensors are interpolated individually, in linear time",
        "children merged tensor by tensor; their time under How it was made",
        "the abstract gives neither formula, thresholds nor hardware",
    ),
    (
        "About R1's level at about 40% fewer output tokens",
        "score against tokens, with the front; tokens of reasoning and answer apart",
        "the score here is the share of right answers to the sweep's own prompts",
    ),
)
"""Of the abstract of arXiv 2506.14794, all that was verified: what it says, where the page has it, what differs."""
