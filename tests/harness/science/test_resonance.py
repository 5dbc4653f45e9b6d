from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from mote.harness.errors import MoteError
from mote.harness.preconditions import DataError
from mote.harness.science.resonance import class_means, distinctive_experts, ranks_of, resonance, tied_at_cut

REFUSED, ALIGNED, REASONED = "0-REFUSED", "1-ALIGNED", "2-REASONED"

maps_and_labels = st.integers(3, 12).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int32, (n, 2, 3), elements=st.integers(0, 50)),
        st.lists(st.sampled_from([REFUSED, ALIGNED, REASONED]), min_size=n, max_size=n).filter(
            lambda labels: REFUSED in labels and len(set(labels)) > 1
        ),
    )
)


def test_a_table_worked_by_hand() -> None:
    maps = np.array([[[4, 0, 1]], [[2, 2, 1]], [[0, 3, 1]], [[1, 4, 1]], [[2, 2, 7]]])
    labels = [REFUSED, REFUSED, ALIGNED, ALIGNED, REASONED]
    assert class_means(maps, labels)[ALIGNED].tolist() == [[0.5, 3.5, 1.0]]
    # mean of the refused (3, 1, 1) minus the mean of the three others (1, 3, 3)
    assert resonance(maps, labels, REFUSED).tolist() == [[2.0, -2.0, -2.0]]
    # the others' class means are (0.5, 3.5, 1) and (2, 2, 7), their mean (1.25, 2.75, 4)
    assert resonance(maps, labels, REFUSED, others="classes").tolist() == [[1.75, -1.75, -3.0]]


@given(maps_and_labels)
@settings(deadline=None)
def test_agrees_with_plain_loops(data: tuple[NDArray[np.int32], list[str]]) -> None:
    maps, labels = data
    found = resonance(maps, labels, REFUSED)
    for layer in range(maps.shape[1]):
        for expert in range(maps.shape[2]):
            ours = [int(m[layer, expert]) for m, label in zip(maps, labels, strict=True) if label == REFUSED]
            rest = [int(m[layer, expert]) for m, label in zip(maps, labels, strict=True) if label != REFUSED]
            assert found[layer, expert] == pytest.approx(sum(ours) / len(ours) - sum(rest) / len(rest), abs=1e-12)


@given(maps_and_labels, st.integers(0, 99))
@settings(deadline=None)
def test_the_order_of_prompts_does_not_matter(data: tuple[NDArray[np.int32], list[str]], seed: int) -> None:
    maps, labels = data
    order = np.random.default_rng(seed).permutation(len(labels))
    assert np.array_equal(resonance(maps, labels, REFUSED), resonance(maps[order], [labels[i] for i in order], REFUSED))


def test_two_classes_mirror_each_other() -> None:
    maps = np.random.default_rng(0).integers(0, 9, (8, 3, 4))
    labels = [REFUSED] * 3 + [ALIGNED] * 5
    assert np.array_equal(resonance(maps, labels, REFUSED), -resonance(maps, labels, ALIGNED))


def test_outcomes_without_a_class_count_on_neither_side() -> None:
    maps = np.random.default_rng(1).integers(0, 9, (6, 2, 4))
    labels = [REFUSED, REFUSED, ALIGNED, ALIGNED, "DEGENERATE", "TRUNCATED"]
    assert np.array_equal(resonance(maps, labels, REFUSED), resonance(maps[:4], labels[:4], REFUSED))
    counted = resonance(maps, labels, REFUSED, ignore=())
    assert np.array_equal(counted, maps[:2].mean(axis=0) - maps[2:].mean(axis=0))
    assert np.isfinite(resonance(maps, labels, "DEGENERATE")).all()


@pytest.mark.parametrize(
    ("labels", "target", "message"),
    [
        ([ALIGNED] * 3, REFUSED, r"No prompt has the label '0-REFUSED'. Labels present: 1-ALIGNED\."),
        ([REFUSED] * 3, REFUSED, r"No prompt to compare '0-REFUSED' with: the labels present are 0-REFUSED"),
        ([REFUSED, "UNSCORED", "TRUNCATED"], REFUSED, "A second class is needed"),
        ([REFUSED, ALIGNED, ALIGNED], "0-REFUSE", "Did you mean '0-REFUSED'"),
        ([REFUSED, ALIGNED], REFUSED, "3 activation maps but 2 labels"),
    ],
)
def test_says_what_is_missing(labels: list[str], target: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        resonance(np.ones((3, 2, 4), dtype=int), labels, target)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, MoteError)
    assert isinstance(caught.value, ValueError)


def test_refuses_maps_that_are_not_maps() -> None:
    with pytest.raises(DataError, match="shape"):
        resonance(np.ones((3, 4)), [REFUSED, REFUSED, ALIGNED], REFUSED)
    broken = np.ones((2, 1, 1))
    broken[0] = np.nan
    with pytest.raises(DataError, match="not finite"):
        class_means(broken, [REFUSED, ALIGNED])


def test_distinctive_experts_carry_the_models_layer_numbers() -> None:
    ranking = np.array([[0.1, 0.9, 0.0], [0.5, -2.0, 0.2]])
    assert [tuple(e) for e in distinctive_experts(ranking, 3, layers=[3, 7])] == [
        (3, 1, 0.9, 1),
        (7, 0, 0.5, 2),
        (7, 2, 0.2, 3),
    ]


def test_ties_share_a_rank_and_are_taken_by_layer_then_expert() -> None:
    ranking = np.array([[0.5, 1.0, 0.5], [0.5, 0.0, 0.25]])
    # The rows' own numbers decide, not their place: layer 2 is the second row here.
    top = distinctive_experts(ranking, 3, layers=[5, 2])
    assert [(e.layer, e.expert, e.rank) for e in top] == [(5, 1, 1), (2, 0, 2), (5, 0, 2)]
    assert tied_at_cut(ranking, 3) == [(1, 0)]
    assert tied_at_cut(ranking, 4) == []
    assert ranks_of(ranking).tolist() == [[2, 1, 2], [2, 6, 5]]


def test_rounding_does_not_break_a_tie() -> None:
    ranking = np.array([[0.3, 0.1 + 0.2, 0.0]])  # 0.1 + 0.2 is above 0.3 by one bit
    assert ranking[0, 1] > ranking[0, 0]
    assert [e.expert for e in distinctive_experts(ranking, 2, [0])] == [0, 1]
    assert ranks_of(ranking).tolist() == [[1, 1, 3]]


@given(hnp.arrays(np.int64, (3, 5), elements=st.integers(1, 6)), st.integers(1, 15))
@settings(deadline=None)
def test_top_k_is_the_sorted_list(ranking: NDArray[np.int64], k: int) -> None:
    plain = sorted((-int(ranking[row, e]), row, e) for row in range(3) for e in range(5))[:k]
    assert [(e.layer, e.expert) for e in distinctive_experts(ranking, k, range(3))] == [(r, e) for _, r, e in plain]


def test_never_fills_up_with_experts_that_are_not_distinctive() -> None:
    ranking = np.array([[1.0, 0.0, -1.0, 2.0]])
    with pytest.raises(DataError, match="Only 2 experts have a positive score, fewer than the 3"):
        distinctive_experts(ranking, 3, [0])
    with pytest.raises(DataError, match="Only 0 experts"):
        distinctive_experts(np.zeros((2, 2)), 1, [0, 1])
    with pytest.raises(DataError, match="between 1 and the 4 experts"):
        distinctive_experts(ranking, 0, [0])
    with pytest.raises(DataError, match="1 layers but 2 layer numbers"):
        distinctive_experts(ranking, 1, [0, 1])
    with pytest.raises(DataError, match="not finite"):
        distinctive_experts(np.array([[np.nan, 1.0]]), 1, [0])
