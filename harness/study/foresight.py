"""What a study can find and what it costs, before the answers that cost are generated: the plan, written down.

From a baseline the numbers of target prompts and units are known; without one they are guessed from the task. Nothing
is generated here. The plan of a run is written after its baseline and before the first tuned answer, with the time;
its digest covers what decides the verdict, so that a report can say whether the run was done as planned.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mote.harness.files import digest_of
from mote.harness.recipe.manifest import now
from mote.harness.recipe.schema import Recipe
from mote.harness.recipe.study_part import StudyPart
from mote.harness.science.controls import RANDOM, RETEST
from mote.harness.science.power import Study, even_units, least_effect, power
from mote.harness.science.verdict import ALPHA, DECISIVE, PROMPTS, UNITS
from mote.harness.store.run import ProfileRow
from mote.harness.study.controls import ORDER, other_prompts, tuned_row

PLAN_NAME: Final = "plan.json"
SHARES: Final = (0.1, 0.15, 0.2, 0.25)
"""True flip shares at which power is told."""
ICCS: Final = (0.0, 0.2)
"""Correlations of flips within a unit: none, and the one that the demo's places have."""
WANTED: Final = 0.8
SIMULATIONS = 1000
"""Simulated studies for each power that is told; the search for the least share takes a quarter of them a step."""


class Speed(NamedTuple):
    """What an answer of the baseline took: tokens generated, and seconds of the engine (nan where not measured)."""

    tokens: float
    seconds: float


def size_of(study: StudyPart, units: Sequence[Hashable]) -> Study | None:
    """Return a study's size from the units of its measured target prompts, one a prompt; None where it has no size.

    A study has none without target prompts, random sets or retests.
    """
    sets = tuple(count for kind in ORDER if (count := getattr(study.controls, kind)))
    if not units or not sets or not study.controls.retest:
        return None
    return Study(tuple(sorted(Counter(units).values(), reverse=True)), sets, study.controls.retest)


def guessed_units(units: Sequence[Hashable], share: float, half: bool, most: int | None = None) -> list[Hashable]:
    """Return units for the target prompts that a task may have: `share` of its prompts, half of them measured.

    They are spread evenly over the task's units, or over `most` of them.
    """
    count = round(share * len(units) / (2 if half else 1))
    places = min(most or len(set(units)), len(set(units)), count)
    if count < 1:
        return []
    return [at for at, size in enumerate(even_units(count, places)) for _ in range(size)]


def foretell(size: Study | None) -> dict[str, Any]:
    """Return the power of a study, as the plan has it: by true share, and the least share found with 80%."""
    if size is None:
        return {}
    found: dict[str, Any] = {"prompts": sum(size.unit_sizes), "units": len(size.unit_sizes), "icc": {}}
    for icc in ICCS:
        one = size._replace(icc=icc)
        least = least_effect(one, WANTED, simulations=SIMULATIONS // 4)
        found["icc"][f"{icc:g}"] = {
            "power": {f"{share:g}": round(power(one, share, simulations=SIMULATIONS).power, 3) for share in SHARES},
            "least_share": None if math.isnan(least) else round(least, 3),
        }
    return found


def costs(
    study: StudyPart, profiles: Mapping[str, str], prompts: int, measured: Sequence[str], targets: Sequence[str]
) -> dict[str, int]:
    """Return the answers that are still to be generated, by step; ``controls`` and ``total`` at most.

    `profiles` maps each profile's name to its part; random sets are told by their names.
    """
    random = [name for name in profiles if name.startswith(RANDOM)]
    rest = [part for name, part in profiles.items() if not name.startswith(RANDOM)]
    tuned = sum(prompts if part == "all" else len(measured) for part in rest)
    families = Counter(name.rsplit("-", 1)[0] for name in random)
    others = len(other_prompts(study, measured, targets))
    economy = study.economy
    further = sum(min(count, economy.whole) if economy.targets_only else count for count in families.values())
    controls = len(random) * len(targets) + further * others
    return {"retests and tuned": tuned, "controls": controls, "total": tuned + controls}


def plan_document(
    recipe: Recipe,
    profiles: Sequence[ProfileRow],
    targets: Sequence[str],
    units: Sequence[Hashable],
    cost: Mapping[str, int],
    speed: Speed,
) -> dict[str, Any]:
    """Return the plan of a run: what is asked, of what, by which rule, with the time at which it was written."""
    study, tuned = recipe.study, tuned_row(profiles)
    drawn = Counter(row.kind.removeprefix(RANDOM) for row in profiles if row.kind.startswith(RANDOM))
    decided: dict[str, Any] = {
        "recipe": recipe.digest,
        "primary": primary_endpoint(study, tuned.name),
        "target": {"class": study.target, "prompts": len(targets), "units": len(set(units))},
        "tuned": {"profile": tuned.name, "digest": tuned.digest},
        "controls": {
            "sets": dict(drawn),
            "retests": sum(row.kind == RETEST for row in profiles),
            "digest": digest_of([[row.name, row.digest] for row in profiles if row.kind.startswith(RANDOM)]),
        },
        "margin": study.margin,
        "alpha": ALPHA,
        "stopping": stopping_rule(study),
    }
    return {
        "digest": digest_of(decided),
        "written": now(),
        **decided,
        "power": foretell(size_of(study, units)),
        "cost": cost_of(cost, speed),
    }


def cost_of(cost: Mapping[str, int], speed: Speed) -> dict[str, Any]:
    """Return answers by step with the tokens and minutes that they take at a baseline's speed (None: not known)."""
    total = cost["total"]
    minutes = total * speed.seconds / 60
    return {
        "answers": dict(cost),
        "tokens": None if math.isnan(speed.tokens) else round(total * speed.tokens),
        "minutes": None if math.isnan(minutes) else round(minutes, 1),
    }


def primary_endpoint(study: StudyPart, tuned: str) -> str:
    """Return the question that the verdict answers, in words."""
    kinds = [kind for kind in ORDER if getattr(study.controls, kind)] or ["no"]
    listed = " and ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)
    return (
        f"Whether {tuned} moves more measured prompts out of {study.target} than the random sets by {listed}, each at"
        f" alpha {ALPHA:g}, and than {study.controls.retest} retests of the untouched model do"
    )


def stopping_rule(study: StudyPart) -> str:
    """Return in words when control answers end."""
    economy = study.economy
    if not (economy.sequential or economy.curtailed or economy.stop_decided):
        return "none: every set answers every target prompt"
    said = []
    if economy.sequential:
        said.append("all controls end once p <= alpha is out of one family's reach (Besag & Clifford 1991)")
    if economy.curtailed:
        said.append(
            f"a set ends once it has reached the tuned count or can't any more, but for the first {economy.whole} of a"
            " family"
        )
    if economy.stop_decided:
        said.append(
            "an answer that opens as only the class's do is ended there, but for those of the first"
            f" {economy.whole} sets of a family; sets are then not ended early"
        )
    return "; ".join(said)


def lines_of(plan: Mapping[str, Any]) -> list[str]:
    """Return what is printed of a plan: what it can find, and what it costs."""
    lines = []
    found = plan["power"]
    if found:
        lines.append(
            f"{found['prompts']} measured {plan['target']['class']} prompts in {found['units']} units. Chance to say"
            " 'above':"
        )
        for icc, one in found["icc"].items():
            what = "independent prompts" if icc == "0" else f"ICC {icc} within units"
            chances = ", ".join(f"{float(share):.0%} {chance:.0%}" for share, chance in one["power"].items())
            least = one["least_share"]
            end = f"; {least:.0%} is found with 80%" if least is not None else "; no share is found with 80%"
            lines.append(f"  {what}: of a true flip share of {chances}{end}.")
        if found["prompts"] < PROMPTS or found["units"] < UNITS:
            lines.append(f"  A verdict needs {PROMPTS} prompts in {UNITS} units.")
    missing = [kind for kind in DECISIVE if not plan["controls"]["sets"].get(kind)]
    if missing:
        lines.append(f"  Without {' and '.join(missing)} controls there is no verdict 'above'.")
    cost = plan["cost"]
    answers = cost["answers"]
    tokens = f", {cost['tokens']:,} tokens" if cost["tokens"] is not None else ""
    minutes = f", {cost['minutes']:g} minutes at the baseline's speed" if cost["minutes"] is not None else ""
    lines.append(
        f"The rest costs at most {answers['total']:,} answers ({answers['retests and tuned']:,} of retests and tuned"
        f" profiles, up to {answers['controls']:,} of controls){tokens}{minutes}."
    )
    return lines


def as_json(plan: Mapping[str, Any]) -> str:
    """Return a plan as the text of ``plan.json``."""
    return json.dumps(plan, indent=2, ensure_ascii=False) + "\n"
