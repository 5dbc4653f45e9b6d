"""Route transplants: donors are what their row says, and the tables are those of a plain count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.harness.preconditions import STATES
from mote.harness.science.clustered import net_effect
from mote.harness.science.transplants import ANOTHER, ANY, OWN, SAME, graft_cells, graft_effects, plan_grafts

CLASSES = ("refused", "answered")
BROKEN = STATES[0]


@given(st.integers(0, 10**6), st.integers(2, 25), st.integers(1, 4), st.booleans())
def test_every_donor_is_of_the_class_and_unit_that_its_graft_says(
    seed: int, prompts: int, places: int, with_units: bool
) -> None:
    draw = np.random.default_rng(seed)
    labels = {f"p{number}": CLASSES[int(draw.integers(2))] for number in range(prompts)}
    units: dict[str, Any] = {key: int(draw.integers(places)) for key in labels} if with_units else {}
    receivers = list(labels)[: prompts // 2 + 1]
    grafts = plan_grafts(receivers, labels, CLASSES, units, seed)
    assert len(set(grafts)) == len(grafts)
    for graft in grafts:
        if graft.route == OWN:
            assert graft.donor == graft.receiver
            continue
        assert graft.donor != graft.receiver
        assert labels[graft.donor] == graft.route
        assert graft.unit == (ANY if not units else SAME if units[graft.donor] == units[graft.receiver] else ANOTHER)
    for receiver in receivers:
        kinds = {(graft.route, graft.unit) for graft in grafts if graft.receiver == receiver}
        for key, label in labels.items():
            if key != receiver:
                unit = ANY if not units else SAME if units[key] == units[receiver] else ANOTHER
                assert (label, unit) in kinds, "whatever can be asked is asked"
    shuffled = {key: labels[key] for key in sorted(labels, reverse=True)}
    assert plan_grafts(receivers, shuffled, CLASSES, units, seed) == grafts


def answers(seed: int) -> tuple[pd.DataFrame, dict[str, int]]:
    """Invented answers to forty prompts of five places, in which the route decides half of the time."""
    draw = np.random.default_rng(seed)
    labels = {f"p{number}": CLASSES[number % 2] for number in range(40)}
    units = {key: number // 8 for number, key in enumerate(labels)}
    rows = []
    for graft in plan_grafts(list(labels), labels, CLASSES, units, seed):
        content = labels[graft.receiver]
        route = content if graft.route == OWN else graft.route
        label = route if draw.random() < 0.5 else [BROKEN, content][int(draw.random() < 0.9)]
        rows.append({**graft._asdict(), "content": content, "label": label, "forced": 10, "changed": 4})
    return pd.DataFrame(rows), units


def test_cells_and_effects_are_a_plain_count() -> None:
    frame, units = answers(3)
    cells = graft_cells(frame, "refused")
    assert len(cells) == 2 * (1 + 2 * 2)
    for cell in cells.to_dict(orient="records"):
        content, route, unit = (cell[name] for name in ("content", "route", "unit"))
        some = [
            row
            for row in frame.to_dict(orient="records")
            if (row["content"], row["route"], row["unit"]) == (content, route, unit)
        ]
        assert cell["prompts"] == len(some)
        assert cell["share"] == pytest.approx(sum(row["label"] == "refused" for row in some) / len(some))
        assert cell["broken"] == pytest.approx(sum(row["label"] == BROKEN for row in some) / len(some))
        assert cell["changed"] == pytest.approx(0.4)
    effects = graft_effects(frame, CLASSES, units)
    assert len(effects) == 2 * 2 * 2
    said = {(row["receiver"], row["route"], row["unit"]): row["label"] for row in frame.to_dict(orient="records")}
    for effect in effects.to_dict(orient="records"):
        content, unit, compared = (effect[name] for name in ("content", "unit", "compared"))
        ends = [("refused", unit), ("answered", unit)] if compared == "class" else [(OWN, SAME), (content, unit)]
        keys = [key for key in units if key in set(frame[frame["content"] == content]["receiver"])]
        before, after = ([float(said[(key, *end)] == "refused") for key in keys] for end in ends)
        expected = net_effect(before, after, [units[key] for key in keys])
        assert effect["net"] == pytest.approx(np.mean(before) - np.mean(after))
        assert (effect["low"], effect["high"]) == pytest.approx((expected.low, expected.high))


def test_a_receiver_without_one_of_the_two_donors_is_in_no_pair() -> None:
    frame, units = answers(5)
    first = frame["receiver"].iloc[0]
    content = frame["content"].iloc[0]
    fewer = frame[~((frame["receiver"] == first) & (frame["route"] == "answered") & (frame["unit"] == ANOTHER))]
    found, whole = (graft_effects(each, CLASSES, units) for each in (fewer, frame))
    keys = ["content", "unit", "compared"]
    place = (content, ANOTHER, "class")
    assert found.set_index(keys).loc[place, "prompts"] == whole.set_index(keys).loc[place, "prompts"] - 1
