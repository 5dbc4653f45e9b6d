from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mote.harness.preconditions import DataError
from mote.harness.science.causal import (
    Measurement,
    choose_alternatives,
    margins,
    plan_scan,
    remaining,
    scan_effects,
    scan_margins,
    scan_ranking,
)
from mote.harness.science.detectors import compare_rankings
from mote.harness.science.resonance import distinctive_experts

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
    whole = plan_scan(LAYERS, 4, ["a", "b", "c"], 5)
    assert (len(whole.experts), whole.cost) == (8, 135)
    assert str(whole) == "(8 experts + untouched) x 3 prompts x 5 openings = 135 forward passes"
    ranking = np.array([[0.1, -5.0, 3.0, 0.0], [-1.0, 3.0, -2.0, -3.0]])
    # The top of a ranking even where it is not positive: a scan asks what the ranking does not know.
    assert plan_scan(LAYERS, 4, ["a", "b"], 2, ranking=ranking, top=5).experts == [
        (3, 2), (5, 1), (3, 0), (3, 3), (5, 0)
    ]  # fmt: skip
    assert plan_scan(LAYERS, 4, ["a", "b"], 2, ranking=ranking).experts[-1] == (3, 1)


def test_a_stopped_scan_goes_on_where_it_was() -> None:
    plan = plan_scan(LAYERS, 1, ["a", "b"], 2)
    order = remaining(plan, [])
    assert len(order) == len(set(order)) == plan.cost
    assert order[:3] == [Measurement("a", None, 0), Measurement("a", None, 1), Measurement("b", None, 0)]
    assert order[4] == Measurement("a", (3, 0), 0)
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
    # An expert that was not scanned is none of the strongest.
    scanned = np.nan_to_num(ranking, nan=0.0)
    assert [(e.layer, e.expert, e.rank) for e in distinctive_experts(scanned, 1, LAYERS)] == [(3, 2, 1)]
    with pytest.raises(DataError, match="fewer than the 3"):
        distinctive_experts(scanned, 3, LAYERS)
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
        plan_scan(LAYERS, 4, ["a"], 2)
    with pytest.raises(DataError, match="'a' occurs twice"):
        plan_scan(LAYERS, 4, ["a", "a"], 2)
    with pytest.raises(DataError, match="at least one alternative"):
        plan_scan(LAYERS, 4, ["a", "b"], 1)
    with pytest.raises(DataError, match="needs the ranking"):
        plan_scan(LAYERS, 4, ["a", "b"], 2, top=3)
    with pytest.raises(DataError, match="1 to 8 experts, not 9"):
        plan_scan(LAYERS, 4, ["a", "b"], 2, ranking=np.ones((2, 4)), top=9)
    with pytest.raises(DataError, match="the model"):
        plan_scan(LAYERS, 4, ["a", "b"], 2, ranking=np.ones((2, 3)))


def test_alternatives_are_the_openings_of_each_other_class_in_turn() -> None:
    others = {
        "REASONED": ["Okay, so", "Okay, so", "Hmm, the"],
        "ALIGNED": ["In 2001", "In 2001", "In 1999", "In 1999", "In 1999", "I am sorry to", "Last year"],
    }
    # The larger class begins; what goes with an own opening or one already chosen is left out.
    own = ["I am sorry"]
    assert choose_alternatives(others, own, 3) == ["In 1999", "Okay, so", "In 2001"]
    assert choose_alternatives(others, own, 9) == ["In 1999", "Okay, so", "In 2001", "Hmm, the", "Last year"]
    assert choose_alternatives({"A": ["In 2", "In 2", "In"]}, own, 3) == ["In 2"]
    with pytest.raises(DataError, match="take more tokens"):
        choose_alternatives({"A": ["I am", "I am sorry, I", ""]}, own, 3)
    with pytest.raises(DataError, match="At least one"):
        choose_alternatives(others, own, 0)


@given(
    st.dictionaries(st.sampled_from("ABC"), st.lists(st.text("xy", max_size=3), max_size=9), min_size=1),
    st.lists(st.text("xy", min_size=1, max_size=3), max_size=3),
    st.integers(1, 5),
)
def test_no_alternative_begins_with_another_or_an_own_opening(
    others: dict[str, list[str]], own: list[str], count: int
) -> None:
    try:
        found = choose_alternatives(others, own, count)
    except DataError:
        found = []
    assert len(found) <= count
    all_of_them = [*own, *found]
    for i, one in enumerate(found):
        assert one
        assert any(one in each for each in others.values())
        rest = all_of_them[: len(own) + i] + all_of_them[len(own) + i + 1 :]
        assert not any(one.startswith(other) or other.startswith(one) for other in rest)
    # Nothing that could stand beside the chosen ones was left out.
    if len(found) < count:
        for text in {text for each in others.values() for text in each if text}:
            assert any(text.startswith(other) or other.startswith(text) for other in all_of_them)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(2, 4))
def test_planted_effects_are_recovered_from_log_probabilities(seed: int, prompts: int, openings: int) -> None:
    """Log-probabilities whose margins fall by a planted amount give that amount back, whatever else they hold."""
    rng = np.random.default_rng(seed)
    planted = {(layer, expert): float(rng.normal()) for layer in LAYERS for expert in range(3)}
    # Prompts differ from each other, and the effect is their mean.
    noise = {edit: rng.normal(0, 0.5, prompts) for edit in planted}
    edits: list[tuple[int, int] | None] = [None, *planted]
    rows = []
    for prompt in range(prompts):
        others = -rng.exponential(5, openings - 1) - 1
        margin = rng.normal()
        for edit in edits:
            fall = planted[edit] + noise[edit][prompt] - noise[edit].mean() if edit else 0.0
            own = margin - fall + np.log(np.exp(others).sum())
            # All of them shifted below 0 by the same amount: a margin does not feel it.
            shift = max(own, 0.0) + rng.exponential()
            layer, expert = edit or (None, None)
            for opening, logprob in enumerate([own - shift, *(others - shift)]):
                rows.append((layer, expert, f"p{prompt}", opening, logprob))
    scores = pd.DataFrame(rows, columns=["layer", "expert", "prompt_id", "opening", "logprob"])
    found = scan_margins(scores.sample(frac=1, random_state=seed % 1000), openings)
    table = scan_effects(found.untouched, found.scan).set_index(["layer", "expert"])
    assert len(table) == len(planted)
    for edit, fall in planted.items():
        assert table.loc[edit, "effect"] == pytest.approx(fall, abs=1e-9)


def test_what_is_half_measured_has_no_margin_and_an_effect_can_be_of_the_own_opening_alone() -> None:
    scores = pd.DataFrame(
        [
            (None, None, "a", 0, -1.0), (None, None, "a", 1, -2.0),
            (3, 0, "a", 0, -1.5), (3, 0, "a", 1, -1.8),
            (3, 1, "a", 0, -1.5),
        ],
        columns=["layer", "expert", "prompt_id", "opening", "logprob"],
    )  # fmt: skip
    found = scan_margins(scores, 2)
    assert found.untouched.to_dict() == {"a": pytest.approx(1.0)}
    assert found.scan.to_dict("records") == [{"layer": 3, "expert": 0, "prompt_id": "a", "margin": pytest.approx(0.3)}]
    assert scan_margins(scores, 2, "own").scan["margin"].tolist() == [-1.5]
    with pytest.raises(DataError, match="Opening 0 of 'a' was measured twice"):
        scan_margins(pd.concat([scores, scores.iloc[:1]]), 2)
