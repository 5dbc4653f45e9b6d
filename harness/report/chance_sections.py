"""The section "More than chance?" and the size of the effect: the verdict's legs, units and intervals in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from mote.harness.report.analysis import StudyResult
from mote.harness.report.figure_data import KIND_TITLES
from mote.harness.report.phrases import p_is, p_value, pct, with_interval, words_for
from mote.harness.science.clustered import ClusteredShare
from mote.harness.science.controls import RANDOM
from mote.harness.science.noise import RETESTS
from mote.harness.science.verdict import ALPHA, ControlLeg

ANSWERS: Final = {
    "above": "Yes.",
    "not-above": "No.",
    "few": "It cannot be said.",
    "too-few-prompts": "It cannot be said.",
    "unknown": "It cannot be said.",
}
LEG_COLUMNS: Final = ("held against", "sets", "did as much", "mean", "most", "ended early", "p", "least p")


def chance(result: StudyResult) -> list[str]:
    """Return the sentences on chance: the verdict with its reason, and the rule by which it was reached."""
    found = result.chance.verdict
    lines = [f"{ANSWERS[found.kind]} {found.reason}"]
    if found.legs:
        lines.append(
            "Each line below has to hold. For random sets, p is (1 + sets that flip as many) / (sets + 1) over "
            f"distinct sets; sampling anew is at least {RETESTS} retests of the untouched model, exchanged with the "
            f"tuned answers within each {result.asked.unit or 'prompt'}. As every line must hold, the largest p counts."
        )
    return lines


def legs(result: StudyResult) -> list[list[str]]:
    """Return the table of the verdict's legs (``LEG_COLUMNS``): one row a kind of random sets, and the noise floor."""
    rows = []
    for leg in result.chance.verdict.legs:
        kind = f"{RANDOM}{leg.kind}"
        shares = result.chance.sets.loc[result.chance.sets["kind"] == kind, "share"]
        null = result.chance.nulls.get(kind)
        rows.append(
            [
                kind_words(kind),
                str(leg.sets),
                str(leg.reached),
                pct(null.mean) if null else "–",
                pct(float(shares.max())) if len(shares) else "–",
                str(result.chance.stopped.get(kind, 0)),
                p_value(leg.p),
                p_value(leg.least_p),
            ]
        )
    noise = result.chance.verdict.noise
    if noise is not None:
        changed = [1 - share for share in noise.retests]
        rows.append(
            [
                "sampling anew",
                f"{len(changed)} retests",
                "–",
                pct(sum(changed) / len(changed)),
                pct(max(changed)),
                "–",
                p_value(noise.p),
                p_value(noise.least_p),
            ]
        )
    return rows


def chance_notes(result: StudyResult) -> list[str]:
    """Return the notes below the legs: what stopping means, the error of p, exact probabilities, dose, old tests."""
    notes = [_near(leg) for leg in result.chance.verdict.legs if leg.near() and not math.isnan(leg.p)]
    early = sum(result.chance.stopped.values())
    if early:
        notes.append(
            f"{early} sets were ended before they had answered every prompt, once they had reached the tuned count or "
            "could not any more; the figure and the means show the sets that answered all."
        )
    if any(leg.stopped for leg in result.chance.verdict.legs):
        notes.append(
            "A kind of random sets was ended once significance was out of its reach (Besag & Clifford 1991): its p is "
            "then what the sets at hand give, on the same side of 5% as all sets would."
        )
    notes += [note for note in (_exact_note(result), _dose_note(result), _paired_note(result)) if note]
    return notes


def _near(leg: ControlLeg) -> str:
    low, high = leg.monte_carlo
    return (
        f"{p_is(leg.p)} against {kind_words(RANDOM + leg.kind)} rests on {leg.sets} sets; {leg.reached} of them did "
        f"as much; among all such sets the share is between {pct(low)} and {pct(high)} (90% interval), so other "
        f"draws may fall on the other side of {ALPHA:.0%}."
    )


def _exact_note(result: StudyResult) -> str:
    exact = result.effect.exact
    if exact is None:
        return ""
    tests = ", ".join(f"{p_is(leg.p)} among {leg.sets} of {kind_words(RANDOM + leg.kind)}" for leg in exact.legs)
    return (
        f"Without sampling noise: the probability that the answer opens as the class does falls from "
        f"{pct(exact.untouched)} to {pct(exact.tuned)} on {exact.prompts} prompts, by {points(exact.fall)}"
        f"{f' ({tests})' if tests else ''}. It is teacher-forced, under the sampling temperature; the verdict goes by "
        "the answers."
    )


def _dose_note(result: StudyResult) -> str:
    dose = result.effect.dose
    ours = dose.loc[dose["set"] == result.asked.tuned, "activations"] if len(dose) else pd.Series(dtype=float)
    if ours.empty:
        return ""
    parts = []
    for kind, rows in dose[dose["kind"].str.startswith(RANDOM)].groupby("kind", sort=False):
        name = kind_words(str(kind))
        low, high = rows["activations"].min(), rows["activations"].max()
        parts.append(f"{name} {rows['activations'].mean():.1f} ({low:.1f} to {high:.1f})")
    if not parts:
        return ""
    return (
        f"Dose: on the measured {words_for(result.asked.target).prompts} the tuned experts are chosen "
        f"{float(ours.iloc[0]):.1f} times a prompt, random sets on average: {'; '.join(parts)}."
    )


def _paired_note(result: StudyResult) -> str:
    effects = result.changes.effects
    if not len(effects):
        return ""
    own = effects[(effects["profile"] == result.asked.tuned) & (effects["view"] == result.asked.view)]
    if own.empty:
        return ""
    row = own.iloc[0]
    return (
        "Against the untouched model, prompts taken as independent: McNemar exact "
        f"{p_is(float(row['mcnemar_p']))}, Stuart–Maxwell over the whole matrix "
        f"{p_is(float(row['stuart_maxwell_p']))}. These ask whether anything changed, not whether these "
        "experts are special."
    )


def effect(result: StudyResult) -> list[str]:
    """Return the sentences on the size of the effect: net change first, then the raw flips."""
    words, net = words_for(result.asked.target), result.effect.net
    lines = []
    if net is not None:
        lines.append(
            f"Net of the changes both ways, against the untouched model under every seed, the share of {words.prompts} "
            f"among all measured prompts {'falls' if net.net >= 0 else 'rises'} by {points(abs(net.net))} (95% "
            f"interval of the fall {points(net.low)} to {points(net.high)}, "
            f"{_units(result, net.units_that_count, net.units)})."
        )
    flips = result.effect.flips
    if flips is not None:
        lines.append(f"Of the {words.prompts}, {clustered(flips, result.asked.unit)} {words.changed}.")
    named = result.effect.named
    if named is not None and named.elsewhere:
        lines.append(
            f"{named.elsewhere} of these {named.flips} answers do not name the {result.asked.unit} asked about."
        )
    return lines


def clustered(share: ClusteredShare, unit: str) -> str:
    """Return ``9 of 60 (15.0%, 95% interval 3.3% to 37.6% over 5 places)``."""
    where = f" over {share.units} {unit}s" if unit else ""
    hits = round(share.share * share.rows)
    return f"{hits:,} of {share.rows:,} ({pct(share.share)}, 95% interval {pct(share.low)} to {pct(share.high)}{where})"


def kind_words(kind: str) -> str:
    """Return how a kind of random sets is called in a sentence."""
    return KIND_TITLES.get(kind, kind).removeprefix("Random, ")


def _units(result: StudyResult, count: int, total: int) -> str:
    unit = result.asked.unit or "prompt"
    return (
        f"{count} of {total} {unit}s count: the class does not occur in the others"
        if count < total
        else (f"{count} {unit}s")
    )


def points(share: float) -> str:
    """Return a difference of shares in percentage points."""
    return "–" if math.isnan(share) else f"{100 * share:.1f} points"


def side_effects(result: StudyResult) -> list[str]:
    """Return the sentences on what happened outside the class: equivalence within the margin, divergence a token."""
    lines, words = [], words_for(result.asked.target)
    stay = result.effect.stay
    if stay is not None:
        said = "are" if stay.equivalent else "are not shown to be"
        lines.append(
            f"The prompts outside the class {said} unchanged within {points(result.effect.margin)}: "
            f"{points(stay.change)} more {words.reverse} (90% interval {points(stay.low)} to {points(stay.high)}, two "
            f"one-sided tests {p_is(stay.p)}, {stay.rows:,} prompts)."
        )
    table = result.effect.divergence
    ours = table[table["profile"] == result.asked.tuned]
    if len(ours):
        row = ours.iloc[0]
        sets = table[table["kind"].str.startswith(RANDOM)]
        beside = f"; {len(sets)} random sets {sets['kl'].min():.4f} to {sets['kl'].max():.4f}" if len(sets) else ""
        lines.append(
            f"On their own answers, teacher-forced, the tuned model diverges from the untouched one by "
            f"{row['kl']:.4f} nats a token (95% interval {row['low']:.4f} to {row['high']:.4f}, "
            f"{int(row['tokens']):,} tokens{beside})."
        )
    return lines


def planned(result: StudyResult, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the plan said before the first tuned answer, and whether the run kept to it, as name and value."""
    plan = manifest.get("plan")
    if not plan:
        return [("Plan", "none was written before the tuned answers")]
    found = result.chance.verdict
    differs = []
    if plan["target"]["prompts"] != found.prompts:
        differs.append(f"{found.prompts} target prompts, not {plan['target']['prompts']}")
    if plan["tuned"]["profile"] != result.asked.tuned:
        differs.append(f"the tuned profile is {result.asked.tuned}, not {plan['tuned']['profile']}")
    if plan["alpha"] != ALPHA:
        differs.append(f"alpha is {ALPHA:g}, not {plan['alpha']:g}")
    kept = "as planned" if not differs else f"not as planned: {'; '.join(differs)}"
    power = plan.get("power", {}).get("icc", {})
    least = [
        f"{one['least_share']:.0%}{'' if icc == '0' else f' (ICC {icc})'}"
        for icc, one in power.items()
        if one.get("least_share") is not None
    ]
    rows = [
        ("Plan", f"{kept}; written {plan['written']}, digest {str(plan['digest'])[:12]}"),
        ("Primary endpoint", str(plan["primary"])),
        ("Stopping", str(plan["stopping"])),
    ]
    return [*rows, *([("Found with 80%", f"a true share of flips of {', '.join(least)}")] if least else [])]


def ended_notes(manifest: Mapping[str, Any]) -> list[str]:
    """Return the note on control answers that were ended at their opening; none where all were read."""
    noted = manifest.get("ended_at")
    if not noted or not noted["openings"]:
        return []
    listed = ", ".join(repr(opening) for opening in noted["openings"])
    return [
        f"Control answers that open with {listed} were ended there and count as the class. Of {noted['read']:,} "
        f"answers that open so and were read whole, {noted['left_class']:,} left the class (at most "
        f"{noted['at_most']:.2%} do, 95%). Whether the text of an ended answer would have broken is not known: broken "
        "text under random sets is that of the sets read whole."
    ]


def retest_notes(result: StudyResult) -> list[str]:
    """Return a note for each retest: what another seed alone changed."""
    return [
        f"Sampling noise ({name}: the untouched model, another seed): {with_interval(rates.flips)} of the "
        f"{words_for(result.asked.target).prompts} changed, {with_interval(rates.reverse)} of the others the other way."
        for (name, view), rates in result.changes.rates.items()
        if name.startswith("retest") and view == result.asked.view
    ]
