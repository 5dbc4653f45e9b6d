from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats import weightstats  # type: ignore[import-untyped]

from mote.harness.compare.scores import agresti_min, paired_difference, paired_scores
from mote.harness.preconditions import DataError
from mote.harness.science.inference import mcnemar_exact

BITS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def test_the_interval_of_a_textbooks_matched_pairs() -> None:
    """Agresti, Categorical Data Analysis (2002), 10.1: 150 and 86 changed of 1,600; Wald's 95% is 0.021 to 0.059."""
    low, high = agresti_min(150, 86, 1600)
    assert [low, high] == pytest.approx([0.021, 0.059], abs=0.001)


def test_no_change_still_leaves_room_for_one() -> None:
    low, high = agresti_min(0, 0, 20)
    assert -0.15 < low < 0 < high < 0.15
    assert agresti_min(0, 0, 2000).high < high


def test_the_interval_covers_the_true_difference() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(2000):
        up, down, _same = rng.multinomial(25, [0.15, 0.05, 0.8])
        low, high = agresti_min(int(up), int(down), 25)
        inside += low <= 0.1 <= high
    assert inside / 2000 >= 0.93


@given(BITS)
@settings(deadline=None)
def test_right_or_wrong_is_counted_as_it_changed(pairs: list[tuple[bool, bool]]) -> None:
    before, after = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    found = paired_difference(before, after)
    up = sum(not left and right for left, right in pairs)
    down = sum(left and not right for left, right in pairs)
    assert (found.up, found.down, found.pairs) == (up, down, len(pairs))
    assert found.difference == pytest.approx((up - down) / len(pairs))
    assert found.p == mcnemar_exact(up, down).p
    assert found.low < found.high
    other = paired_difference(after, before)
    assert [other.low, other.high] == pytest.approx([-found.high, -found.low])


def test_other_numbers_are_tested_by_their_signs_and_sizes() -> None:
    before = np.array([0.2, 0.4, 0.6, 0.3, 0.9, 0.5])
    found = paired_difference(before, before + 0.25)
    assert found.p == pytest.approx(2 / 2**6)
    assert [found.low, found.high] == pytest.approx([0.25, 0.25])
    assert found.test == "sign-flip permutation"
    alone = paired_difference(np.array([0.3]), np.array([0.4]))
    assert math.isnan(alone.low)


def test_metrics_are_paired_by_document_and_filter() -> None:
    def frame(rows: list[tuple[str, str, str, float]]) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=["key", "metric", "filter", "value"])

    before = frame([("a", "acc", "none", 1), ("b", "acc", "none", 0), ("c", "acc", "none", 1), ("a", "f1", "x", 0.5)])
    after = frame([("b", "acc", "none", 1), ("a", "acc", "none", 1), ("d", "acc", "none", 1), ("a", "f1", "y", 0.5)])
    (row,) = paired_scores(before, after).to_dict("records")
    assert (row["metric"], row["pairs"], row["up"], row["before"], row["after"]) == ("acc", 2, 1, 0.5, 1.0)
    after.loc[0, "value"] = math.nan
    assert paired_scores(before, after)["pairs"].tolist() == [1]
    assert paired_scores(before, after.iloc[:0]).empty
    with pytest.raises(DataError, match="'acc' of 'a' occurs twice before"):
        paired_scores(pd.concat([before, before]), after)


@pytest.mark.parametrize(("up", "down", "pairs"), [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_are_none_are_refused(up: int, down: int, pairs: int) -> None:
    with pytest.raises(DataError, match="these are no counts of pairs"):
        agresti_min(up, down, pairs)


def test_lists_of_two_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="two equally long lists, not 1 and 2"):
        paired_difference(np.zeros(1), np.zeros(2))


def frame(values: list[float], metric: str = "score") -> pd.DataFrame:
    keys = [str(number) for number in range(len(values))]
    return pd.DataFrame({"key": keys, "metric": metric, "filter": "none", "value": values})


def test_a_change_is_shown_to_be_smaller_than_a_margin_by_two_one_sided_tests() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(5, 1, 40)
    after = before + rng.normal(0.1, 0.5, 40)
    (row,) = paired_scores(frame(before.tolist()), frame(after.tolist()), margin=0.4).to_dict("records")
    # statsmodels' own paired test of equivalence.
    theirs = weightstats.ttost_paired(after, before, -0.4, 0.4)[0]
    assert row["equivalence_p"] == pytest.approx(theirs, abs=1e-9)
    assert (row["margin"], row["equivalent"]) == (0.4, theirs <= 0.05)
    (row,) = paired_scores(frame(before.tolist()), frame(after.tolist()), margin=0.05).to_dict("records")
    assert not row["equivalent"]


def test_right_or_wrong_within_a_margin_is_read_off_the_interval_and_one_document_shows_nothing() -> None:
    same = [1.0, 0.0] * 60
    assert paired_scores(frame(same, "acc"), frame(same, "acc"), margin=0.1)["equivalent"].tolist() == [True]
    few = [1.0, 0.0, 1.0]
    assert paired_scores(frame(few, "acc"), frame(few, "acc"), margin=0.1)["equivalent"].tolist() == [False]
    (row,) = paired_scores(frame([1.0]), frame([1.0]), margin=0.1).to_dict("records")
    assert math.isnan(row["equivalence_p"])
    assert "margin" not in paired_scores(frame(few), frame(few))
