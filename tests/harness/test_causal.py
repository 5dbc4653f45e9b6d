from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from mote.harness.causal import (
    Measurement,
    margins,
    plan_scan,
    remaining,
    scan_effects,
    scan_ranking,
    strongest_experts,
)
from mote.harness.checks import DataError
from mote.harness.detection import compare_rankings

LAYERS = (3, 5)

SLEEP = {
    "drug_1": [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    "drug_2": [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
}
"""Extra hours of sleep of ten patients with each of two drugs: Student's own data (1908), R's data set `sleep`."""


def scan_of(falls: dict[tuple[int, int], list[float]], untouched: list[float]) -> tuple[pd.Series[float], pd.DataFrame]:
    ids = [f"p{i}" for i in range(len(untouched))]
    rows = [
        (layer, expert, ids[i], untouched[i] - fall)
        for (layer, expert), each in falls.items()
        for i, fall in enumerate(each)
    ]
    return pd.Series(untouched, index=ids), pd.DataFrame(rows, columns=["layer", "expert", "prompt_id", "margin"])


def test_margins_are_log_odds_against_all_alternatives() -> None:
    found = margins(np.log([0.5, 0.2]), np.log([[0.25, 0.125], [0.3, 0.1]]))
    assert found == pytest.approx([math.log(0.5 / 0.375), math.log(0.2 / 0.4)])
    with pytest.raises(DataError, match="not above 0"):
        margins([0.5], [[-1.0]])
    with pytest.raises(DataError, match="finite"):
        margins([-np.inf], [[-1.0]])
    with pytest.raises(DataError, match=r"not \[2\] and \[1, 1\]"):
        margins([-1.0, -2.0], [[-1.0]])


def test_the_plan_says_its_cost_and_takes_a_pre_filter() -> None:
    whole = plan_scan(LAYERS, 4, ["a", "b", "c"])
    assert (len(whole.experts), whole.cost) == (8, 27)
    assert str(whole) == "8 experts x 3 prompts = 27 forward passes (3 of them untouched)"
    ranking = np.array([[0.1, -5.0, 3.0, 0.0], [-1.0, 3.0, -2.0, -3.0]])
    # The top of a ranking even where it is not positive: a scan asks what the ranking does not know.
    assert plan_scan(LAYERS, 4, ["a", "b"], ranking=ranking, top=5).experts == [(3, 2), (5, 1), (3, 0), (3, 3), (5, 0)]
    assert plan_scan(LAYERS, 4, ["a", "b"], ranking=ranking).experts[-1] == (3, 1)


def test_a_stopped_scan_goes_on_where_it_was() -> None:
    plan = plan_scan(LAYERS, 1, ["a", "b"])
    order = remaining(plan, [])
    assert len(order) == plan.cost
    assert order[:3] == [Measurement("a", None), Measurement("b", None), Measurement("a", (3, 0))]
    assert remaining(plan, order[:3]) == order[3:]
    assert remaining(plan, order) == []


def test_an_effect_is_students_paired_t_test() -> None:
    # R: t.test(extra ~ group, sleep, paired = TRUE): t = -4.0621, df = 9, p-value = 0.002833,
    # 95 percent confidence interval -2.4598858 to -0.7001142, mean difference -1.58.
    falls = [b - a for a, b in zip(SLEEP["drug_1"], SLEEP["drug_2"], strict=True)]
    row = scan_effects(*scan_of({(3, 1): falls}, [5.0] * 10)).iloc[0]
    assert row["effect"] == pytest.approx(1.58)
    assert (row["low"], row["high"]) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert row["p"] == pytest.approx(0.002833, abs=5e-7)
    assert (row["prompts"], row["complete"]) == (10, True)


def test_experts_are_ranked_by_what_they_do() -> None:
    rng = np.random.default_rng(0)
    falls = {
        (3, 0): (rng.normal(0.0, 0.3, 20)).tolist(),
        (3, 2): (rng.normal(1.0, 0.3, 20)).tolist(),
        (5, 1): (rng.normal(-0.8, 0.3, 20)).tolist(),
        (5, 3): (rng.normal(2.0, 0.3, 20)).tolist()[:15],  # stopped before its last prompts
    }
    untouched, scan = scan_of(falls, rng.normal(3, 1, 20).tolist())
    table = scan_effects(untouched, scan.sample(frac=1, random_state=1))
    assert list(zip(table["layer"], table["expert"], strict=True)) == [(5, 3), (3, 2), (3, 0), (5, 1)]
    assert table["complete"].tolist() == [False, True, True, True]
    # Three complete experts are one family; the incomplete one has no say in it.
    assert table["p_holm"].isna().tolist() == [True, False, False, False]
    assert table["p_holm"][1:].min() == pytest.approx(3 * table["p"][1:].min())
    ranking = scan_ranking(table, LAYERS, 4)
    assert np.isnan(ranking).sum() == 5
    assert ranking[0, 2] == pytest.approx(np.mean(falls[3, 2]))
    assert [(e.layer, e.expert, e.rank) for e in strongest_experts(table, 1, LAYERS, 4)] == [(3, 2, 1)]
    with pytest.raises(DataError, match="fewer than the 3"):
        strongest_experts(table, 3, LAYERS, 4)
    compared = compare_rankings({"scan": ranking, "same": np.nan_to_num(ranking)}, k=1)
    assert (compared["experts"][0], compared["spearman"][0]) == (3, pytest.approx(1.0))
    with pytest.raises(DataError, match=r"Expert \(5, 1\) is none of this model's"):
        scan_ranking(table, (3, 4), 4)


def test_equal_differences_are_evidence_by_their_sign_alone() -> None:
    table = scan_effects(*scan_of({(3, 0): [0.5] * 6, (3, 1): [0.0] * 6}, [1.0] * 6)).set_index("expert")
    assert table.loc[0, "p"] == 2 / 2**6
    assert table.loc[1, "p"] == 1.0


def test_refuses_measurements_that_do_not_belong_together() -> None:
    untouched, scan = scan_of({(3, 0): [0.1, 0.2, 0.3]}, [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="Prompt 'p2' was scanned but not measured untouched"):
        scan_effects(untouched.iloc[:2], scan)
    with pytest.raises(DataError, match=r"Expert \(3, 0\) was measured twice on 'p0'"):
        scan_effects(untouched, pd.concat([scan, scan.iloc[:1]]))
    with pytest.raises(DataError, match="no column 'margin'"):
        scan_effects(untouched, scan.drop(columns="margin"))
    with pytest.raises(DataError, match="not finite"):
        scan_effects(untouched, scan.assign(margin=np.inf))
    with pytest.raises(DataError, match="at least two prompts"):
        plan_scan(LAYERS, 4, ["a"])
    with pytest.raises(DataError, match="'a' occurs twice"):
        plan_scan(LAYERS, 4, ["a", "a"])
    with pytest.raises(DataError, match="needs the ranking"):
        plan_scan(LAYERS, 4, ["a", "b"], top=3)
    with pytest.raises(DataError, match="1 to 8 experts, not 9"):
        plan_scan(LAYERS, 4, ["a", "b"], ranking=np.ones((2, 4)), top=9)
    with pytest.raises(DataError, match="the model"):
        plan_scan(LAYERS, 4, ["a", "b"], ranking=np.ones((2, 3)))
