"""Route transplants: whose route each prompt is answered under, and what the answers say of route and content.

Each receiver is answered under its own route, under routes of donors of the class that is studied, and under routes of
donors of the other class; both from donors of its own unit (place, subject) and of another. A route's class is that of
its donor's answer, a content's class that of its own. Between routes of the two classes, both foreign, the receiver's
content is the same and how foreign they are too: the difference is the route's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Final, NamedTuple

import pandas as pd

from mote.harness.preconditions import STATES
from mote.harness.science.clustered import net_effect

OWN: Final = "own"
SAME, ANOTHER, ANY = "same", "another", "any"
CELLS: Final = ["content", "route", "unit", "prompts", "share", "broken", "changed"]
EFFECTS: Final = ["content", "unit", "compared", "prompts", "units", "net", "low", "high", "lost", "gained"]


class Graft(NamedTuple):
    """One answer: the receiver's prompt under the donor's route; ``route`` is the donor's class, or ``own``.

    ``unit`` says where the donor is from: ``same`` or ``another`` unit than the receiver's, ``any`` where prompts have
    none; of the receiver's own route it is ``same``.
    """

    receiver: str
    donor: str
    route: str
    unit: str


def plan_grafts(
    receivers: Sequence[str],
    labels: Mapping[str, str],
    classes: tuple[str, str],
    units: Mapping[str, Hashable],
    seed: int,
) -> list[Graft]:
    """Return what is asked of each receiver: its own route, then one random donor for each class and place of donor.

    A draw depends on the seed, the receiver and the candidate alone. Where there is no such donor, nothing is asked.
    """
    grafts: list[Graft] = []
    for receiver in receivers:
        grafts.append(Graft(receiver, receiver, OWN, SAME if units else ANY))
        for route in classes:
            for unit in (SAME, ANOTHER) if units else (ANY,):
                donors = [
                    key
                    for key, label in labels.items()
                    if label == route
                    and key != receiver
                    and (unit == ANY or (units.get(key) == units.get(receiver)) == (unit == SAME))
                ]
                if donors:
                    drawn = min(donors, key=lambda key: (_draw(seed, receiver, key), key))
                    grafts.append(Graft(receiver, drawn, route, unit))
    return grafts


def graft_cells(answers: pd.DataFrame, target: str) -> pd.DataFrame:
    """Return the 2 x 2 and what stands beside it: a row for each content, route and place of donor.

    ``answers`` has a row for each graft: receiver, content, route, unit, label, forced, changed. ``share`` is that of
    answers of the target class among all, ``broken`` that of texts without a class, ``changed`` that of the tokens and
    layers of the route whose router had chosen other experts.
    """
    rows = []
    for (content, route, unit), some in answers.groupby(["content", "route", "unit"], sort=False):
        forced = int(some["forced"].sum())
        rows.append(
            {
                "content": content,
                "route": route,
                "unit": unit,
                "prompts": len(some),
                "share": float((some["label"] == target).mean()),
                "broken": float(some["label"].isin(STATES).mean()),
                "changed": float(some["changed"].sum() / forced) if forced else 0.0,
            }
        )
    return pd.DataFrame(rows, columns=CELLS)


def graft_effects(
    answers: pd.DataFrame, classes: tuple[str, str], units: Mapping[str, Hashable], level: float = 0.95
) -> pd.DataFrame:
    """Return paired differences of the target's share, each with its interval over units (``clustered.net_effect``).

    ``class`` compares, for the same receivers, routes of the target class with those of the other: ``net`` is positive
    where the other's routes lower the share. ``foreign`` compares the receiver's own route with one of its own class:
    what any foreign route does. Pairs that lack one of the two answers are left out.
    """
    target, other = classes
    table = answers.assign(hit=(answers["label"] == target).astype(float))
    rows = []
    places = [unit for unit in (ANOTHER, SAME, ANY) if ((table["unit"] == unit) & (table["route"] != OWN)).any()]
    for content in (target, other):
        of = table[table["content"] == content]
        own = of[of["route"] == OWN].set_index("receiver")["hit"]
        for unit in places:
            foreign = {
                route: of[(of["route"] == route) & (of["unit"] == unit)].set_index("receiver")["hit"]
                for route in classes
            }
            pairs = (("class", foreign[target], foreign[other]), ("foreign", own, foreign[content]))
            for compared, before, after in pairs:
                both = [key for key in before.index if key in after.index]
                if not both:
                    continue
                at = [units.get(key, key) for key in both]
                found = net_effect(before.loc[both].to_numpy(), after.loc[both].to_numpy(), at, level)
                rows.append(
                    {
                        "content": content,
                        "unit": unit,
                        "compared": compared,
                        "prompts": found.rows,
                        "units": found.units_that_count,
                        "net": found.net,
                        "low": found.low,
                        "high": found.high,
                        "lost": found.lost,
                        "gained": found.gained,
                    }
                )
    return pd.DataFrame(rows, columns=EFFECTS)


def _draw(seed: int, receiver: str, key: str) -> str:
    return hashlib.sha256(f"{seed}/{receiver}/{key}".encode()).hexdigest()
