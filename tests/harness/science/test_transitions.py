from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mote.harness.preconditions import STATES, DataError
from mote.harness.science.inference import clopper_pearson, mcnemar_exact
from mote.harness.science.transitions import clustered_flips, flip_rates, row_shares, transition_matrix

REFUSED, ALIGNED, REASONED = CLASSES = ("0-REFUSED", "1-ALIGNED", "2-REASONED")
LABELS = [*CLASSES, *STATES]

pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=60)


def series(labels: list[str]) -> pd.Series[str]:
    return pd.Series(labels, index=[f"p{i}" for i in range(len(labels))], dtype="str")


def matrix_of(moves: dict[tuple[str, str], int]) -> pd.DataFrame:
    before = [row for (row, _), n in moves.items() for _ in range(n)]
    after = [column for (_, column), n in moves.items() for _ in range(n)]
    return transition_matrix(series(before), series(after), CLASSES)


@given(pairs)
@settings(deadline=None)
def test_counts_are_those_of_a_plain_loop_and_of_crosstab(moves: list[tuple[str, str]]) -> None:
    before, after = series([b for b, _ in moves]), series([a for _, a in moves])
    found = transition_matrix(before, after, CLASSES)
    assert list(found.index) == list(found.columns) == LABELS
    assert (found.index.name, found.columns.name) == ("before", "after")
    for row in LABELS:
        for column in LABELS:
            assert found.loc[row, column] == sum(move == (row, column) for move in moves)
    theirs = pd.crosstab(before, after).reindex(index=LABELS, columns=LABELS, fill_value=0)
    assert np.array_equal(found, theirs)


@given(pairs, st.integers(0, 9))
@settings(deadline=None)
def test_pairs_by_prompt_not_by_place(moves: list[tuple[str, str]], seed: int) -> None:
    before, after = series([b for b, _ in moves]), series([a for _, a in moves])
    shuffled = after.iloc[np.random.default_rng(seed).permutation(len(moves))]
    pd.testing.assert_frame_equal(
        transition_matrix(before, shuffled, CLASSES), transition_matrix(before, after, CLASSES)
    )


@given(pairs)
@settings(deadline=None)
def test_rates_share_out_every_prompt(moves: list[tuple[str, str]]) -> None:
    rates = flip_rates(transition_matrix(series([b for b, _ in moves]), series([a for _, a in moves]), CLASSES))
    assert rates.flips.hits == sum(b == REFUSED and a in (ALIGNED, REASONED) for b, a in moves)
    assert rates.reverse.hits == sum(b in (ALIGNED, REASONED) and a == REFUSED for b, a in moves)
    assert rates.broken.hits == sum(b == REFUSED and a in STATES for b, a in moves)
    assert rates.flips.total == rates.broken.total == sum(b == REFUSED for b, _ in moves)
    assert rates.reverse.total == rates.broken_others.total == sum(b in (ALIGNED, REASONED) for b, _ in moves)
    assert rates.flips.total + rates.reverse.total + rates.unusable == len(moves)


def test_broken_text_is_never_a_flip_and_never_leaves_the_denominator() -> None:
    moves = {(REFUSED, ALIGNED): 4, (REFUSED, REASONED): 1, (REFUSED, REFUSED): 10, (REFUSED, "DEGENERATE"): 5}
    rates = flip_rates(matrix_of(moves))
    assert rates.flips[:3] == (5, 20, 0.25)
    assert (rates.flips.low, rates.flips.high) == clopper_pearson(5, 20)
    assert rates.broken[:3] == (5, 20, 0.25)
    assert rates.reverse.total == 0
    assert math.isnan(rates.reverse.share)


def test_other_targets_and_shares() -> None:
    matrix = matrix_of({(ALIGNED, REFUSED): 1, (ALIGNED, ALIGNED): 3, ("UNSCORED", REFUSED): 2})
    assert flip_rates(matrix, ALIGNED).flips[:2] == (1, 4)
    assert flip_rates(matrix, ALIGNED).unusable == 2
    shares = row_shares(matrix)
    assert shares.loc[ALIGNED, REFUSED] == 0.25
    assert shares.loc[REASONED].isna().all()
    with pytest.raises(DataError, match=r"'0-REFUSE' is no class of the transition matrix. Did you mean '0-REFUSED'"):
        flip_rates(matrix, "0-REFUSE")
    with pytest.raises(DataError, match="'DEGENERATE' is no class"):
        flip_rates(matrix, "DEGENERATE")
    with pytest.raises(DataError, match="same labels as rows and columns"):
        flip_rates(matrix.iloc[:2])


def test_refuses_labels_that_are_not_of_the_same_prompts() -> None:
    before = series([REFUSED, ALIGNED, ALIGNED])
    with pytest.raises(DataError, match=r"same prompts before and after: 1 only before, for instance 'p2'\."):
        transition_matrix(before, before.iloc[:2], CLASSES)
    with pytest.raises(DataError, match=r"1 only before, for instance 'p0'; 1 only after, for instance 'q'"):
        transition_matrix(before, before.rename({"p0": "q"}), CLASSES)
    twice = pd.concat([before, before.iloc[:1]])
    with pytest.raises(DataError, match="Prompt 'p0' occurs twice in the labels after"):
        transition_matrix(before, twice, CLASSES)


def test_refuses_labels_it_does_not_know() -> None:
    before = series([REFUSED, ALIGNED])
    with pytest.raises(DataError, match=r"'0-REFUSD' of prompt 'p0' \(after\) .* Did you mean '0-REFUSED'"):
        transition_matrix(before, series(["0-REFUSD", ALIGNED]), CLASSES)
    missing = before.copy()
    missing.iloc[1] = None
    with pytest.raises(DataError, match="Prompt 'p1' has no label after; one that could not be scored is UNSCORED"):
        transition_matrix(before, missing, CLASSES)
    with pytest.raises(DataError, match="one class twice"):
        transition_matrix(before, before, [REFUSED, REFUSED])


def test_several_samples_are_pairs_with_the_prompt_as_cluster() -> None:
    index = pd.MultiIndex.from_product([["p0", "p1", "p2"], [0, 1]], names=["prompt_id", "seed"])
    before = pd.Series([REFUSED] * 4 + [ALIGNED] * 2, index=index, dtype="str")
    after = pd.Series([ALIGNED, ALIGNED, REFUSED, ALIGNED, ALIGNED, ALIGNED], index=index, dtype="str")
    assert transition_matrix(before, after, CLASSES).loc[REFUSED, ALIGNED] == 3
    prompts = pd.Series(index.get_level_values("prompt_id"), index=index)
    found = clustered_flips(before, after, prompts, CLASSES)
    assert found.flips == 0.75
    assert found.reverse == 0.0
    assert found.reverse_interval is None  # a single prompt has the class: no spread between prompts to see
    assert found.flips_interval is not None
    assert found.flips_interval.low >= 0.5
    assert found.clusters == 3
    assert found.test.p == pytest.approx(0.5)  # two prompts changed, both one way: 2 of the 4 signs


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=14))
@settings(deadline=None)
def test_a_cluster_for_each_prompt_gives_the_plain_rates_and_mcnemar(moves: list[tuple[str, str]]) -> None:
    before, after = series([b for b, _ in moves]), series([a for _, a in moves])
    plain = flip_rates(transition_matrix(before, after, CLASSES))
    found = clustered_flips(before, after, pd.Series(before.index, index=before.index), CLASSES)
    assert found.flips == pytest.approx(plain.flips.share, nan_ok=True)
    assert found.reverse == pytest.approx(plain.reverse.share, nan_ok=True)
    assert found.test.p == pytest.approx(mcnemar_exact(plain.flips.hits, plain.reverse.hits).p)


def test_flips_of_one_place_are_weak_evidence() -> None:
    before = series([REFUSED] * 60)
    after = series([ALIGNED] * 10 + [REFUSED] * 50)
    places = pd.Series(["Beijing"] * 10 + ["Shanghai"] * 25 + ["Hong Kong"] * 25, index=before.index)
    assert mcnemar_exact(10, 0).p < 0.01
    found = clustered_flips(before, after, places, CLASSES)
    assert found.test.p == 1.0
    assert found.flips_interval is not None
    assert found.flips_interval.low == 0.0
    with pytest.raises(DataError, match="one cluster for each prompt"):
        clustered_flips(before, after, places.iloc[:5], CLASSES)
    with pytest.raises(DataError, match="Prompt 'p0' has no cluster"):
        clustered_flips(before, after, places.mask(places == "Beijing"), CLASSES)


def test_exact_interval_covers_for_every_true_rate() -> None:
    for n, true in ((20, 0.1), (100, 0.4), (400, 0.09)):
        hits = np.arange(n + 1)
        covered = np.array([low <= true <= high for low, high in (clopper_pearson(int(x), n) for x in hits)])
        coverage = float((stats.binom.pmf(hits, n, true) * covered).sum())
        assert 0.95 <= coverage <= 0.99, (n, true)
