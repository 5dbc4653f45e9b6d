from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mote.harness.preconditions import DataError
from mote.harness.science.causal import scan_margins
from mote.harness.science.group_plan import mask_rounds, plan_singles
from mote.harness.science.openings import telling_openings, with_untouched

UNTOUCHED = pd.DataFrame(
    [("a", 0, np.log(0.5)), ("a", 1, np.log(0.004)), ("a", 2, np.log(0.4)), ("b", 0, np.log(0.5)),
     ("b", 1, np.log(0.2)), ("b", 2, np.log(0.2)), ("c", 0, -1.0)], columns=["prompt_id", "opening", "logprob"],
)  # fmt: skip


def test_the_openings_that_hold_the_probability_are_scored() -> None:
    # c is not measured whole.
    assert telling_openings(UNTOUCHED, 3, 0.99) == {"a": [0, 2], "b": [0, 1, 2]}
    assert telling_openings(UNTOUCHED, 3, 1.0)["a"] == [0, 1, 2]
    with pytest.raises(DataError, match="above 0 and up to 1, not 0"):
        telling_openings(UNTOUCHED, 3, 0.0)


def test_what_was_not_scored_stays_as_it_is_untouched_and_what_is_missing_stays_missing() -> None:
    scores = pd.DataFrame(
        [(0, 1, "a", 0, -2.0), (0, 1, "a", 2, -0.5), (0, 1, "b", 0, -1.0)],
        columns=["layer", "expert", "prompt_id", "opening", "logprob"],
    )
    telling = telling_openings(UNTOUCHED, 3, 0.99)
    filled = with_untouched(scores, UNTOUCHED, telling, ["layer", "expert"], 3)
    assert len(filled) == 4
    assert filled.iloc[-1]["logprob"] == pytest.approx(np.log(0.004))
    plain = UNTOUCHED[UNTOUCHED["prompt_id"] != "c"].assign(layer=None, expert=None)
    found = scan_margins(pd.concat([plain.astype({"layer": float, "expert": float}), filled]), 3)
    assert found.scan["prompt_id"].tolist() == ["a"]
    assert found.scan["margin"].iloc[0] == pytest.approx(-2.0 - np.log(np.exp(-0.5) + 0.004))


def test_no_stage_costs_more_than_the_budget() -> None:
    telling = {f"p{i}": [0, 1] for i in range(10)}
    rounds = mask_rounds(1000, telling)
    assert rounds == 20
    with pytest.raises(DataError, match="100 passes is too small for 40 masks: they take 200"):
        mask_rounds(100, telling)
    for left in (0, 9, 35, 200, 600, 5000):
        plan = plan_singles(left, 10, 20, 30, 50)
        assert plan.passes <= left
        assert plan.finalists <= min(plan.looked, 30)
        assert plan.looked <= 50
    assert plan_singles(5000, 10, 20, 30, 50) == (50, 30, 800)
