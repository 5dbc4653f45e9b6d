from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mote.harness.preconditions import DataError
from mote.harness.science.detectors import detector
from mote.harness.science.inference import permutation_p
from mote.harness.science.resonance import resonance
from mote.harness.science.stability import bootstrap_ranking, shuffled_maxima
from mote.judges import ALIGNED, REFUSED, STATES
from tests.harness.science.synthetic import synthetic_study


def test_a_clear_ranking_is_stable_and_a_noisy_one_is_not() -> None:
    clear = synthetic_study(0, prompts=120, planted=5, layers=(1, 2), experts=32)
    found = bootstrap_ranking(clear.maps, clear.labels, REFUSED, 5, draws=200)
    planted = tuple(np.array([(clear.layers.index(layer), e) for layer, e in clear.planted]).T)
    assert np.array_equal(found.score, resonance(clear.maps, clear.labels, REFUSED))
    assert found.in_top_k[planted].min() > 0.8
    assert found.overlap > 0.9
    assert (found.low[planted] > 0).all()
    noisy = synthetic_study(0, prompts=120, planted=5, layers=(1, 2), experts=32, effect=0.0)
    assert bootstrap_ranking(noisy.maps, noisy.labels, REFUSED, 5, draws=200).overlap < 0.6


def test_intervals_hold_the_score_and_the_rank() -> None:
    study = synthetic_study(1, prompts=60, layers=(1,), experts=16, planted=3)
    found = bootstrap_ranking(study.maps, study.labels, REFUSED, 3, draws=300, level=0.9)
    assert (found.low <= found.score).all()
    assert (found.score <= found.high).all()
    assert (found.rank_low <= found.rank).mean() > 0.9
    assert found.rank.min() == 1
    assert found.in_top_k.sum() >= 3  # ties may bring in more than k
    weighted = bootstrap_ranking(study.weights, study.labels, REFUSED, 3, draws=100)
    assert weighted.in_top_k.sum() == pytest.approx(3)  # sums of weights do not tie


def test_the_fast_road_is_the_general_one() -> None:
    study = synthetic_study(2, prompts=40, layers=(1,), experts=16, planted=3)
    ways: list[dict[str, Any]] = [{}, {"clusters": study.places}, {"clusters": study.places, "ignore": [ALIGNED]}]
    for way in ways:
        slow_detector = detector("resonance", REFUSED, ignore=way.get("ignore", STATES))
        shared: dict[str, Any] = {"draws": 50, "seed": 5, **way}
        fast = bootstrap_ranking(study.maps, study.labels, REFUSED, 3, **shared)
        slow = bootstrap_ranking(
            study.maps, study.labels, REFUSED, 3, detector=slow_detector, tokens=study.tokens, **shared
        )
        assert fast.score == pytest.approx(slow.score)
        assert fast.low == pytest.approx(slow.low)
        assert fast.high == pytest.approx(slow.high)
        assert np.array_equal(fast.in_top_k, slow.in_top_k)


def test_an_ignored_class_is_never_drawn() -> None:
    study = synthetic_study(2, prompts=40, layers=(1,), experts=16, planted=3)

    def only_two(maps: NDArray[Any], labels: Sequence[str], tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        assert ALIGNED not in labels
        return resonance(maps, labels, REFUSED)

    for clusters in (None, study.places):
        found = bootstrap_ranking(
            study.maps,
            study.labels,
            REFUSED,
            3,
            detector=only_two,
            tokens=study.tokens,
            draws=20,
            clusters=clusters,
            ignore=[ALIGNED],
        )
        assert found.draws == 20


def test_the_bootstraps_spread_is_the_standard_error() -> None:
    # The mean of n prompts has the standard error s / sqrt(n), by either side: an interval from the formula.
    rng = np.random.default_rng(0)
    maps = rng.poisson(6.0, (400, 1, 8))
    labels = [REFUSED] * 150 + [ALIGNED] * 250
    found = bootstrap_ranking(maps, labels, REFUSED, 2, draws=2000)
    error = np.sqrt(maps[:150].var(axis=0, ddof=1) / 150 + maps[150:].var(axis=0, ddof=1) / 250)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_clusters_are_drawn_whole() -> None:
    rng = np.random.default_rng(0)
    by_place = rng.integers(0, 10, (8, 1, 4))
    maps = np.repeat(by_place, 10, axis=0)  # ten identical prompts a place: eight observations, not eighty
    labels = [REFUSED] * 40 + [ALIGNED] * 40
    places = [i // 10 for i in range(80)]
    alone = bootstrap_ranking(maps, labels, REFUSED, 1, draws=400)
    whole = bootstrap_ranking(maps, labels, REFUSED, 1, draws=400, clusters=places)
    assert ((whole.high - whole.low) > 2 * (alone.high - alone.low)).all()
    with pytest.raises(DataError, match="at least two clusters"):
        bootstrap_ranking(maps, labels, REFUSED, 1, clusters=["one"] * 80)
    with pytest.raises(DataError, match="80 maps but 3 clusters"):
        bootstrap_ranking(maps, labels, REFUSED, 1, clusters=[1, 2, 3])


def test_names_what_is_missing() -> None:
    maps = np.ones((4, 1, 2), dtype=int)
    labels = [REFUSED, REFUSED, ALIGNED, ALIGNED]
    with pytest.raises(DataError, match="needs the tokens"):
        bootstrap_ranking(maps, labels, REFUSED, 1, detector=detector("auc", REFUSED))
    with pytest.raises(DataError, match="between 1 and the 2 experts"):
        bootstrap_ranking(maps, labels, REFUSED, 3)
    with pytest.raises(DataError, match="No prompt has the label"):
        bootstrap_ranking(maps, labels, "2-REASONED", 1)
    with pytest.raises(DataError, match="at least 2 draws"):
        bootstrap_ranking(maps, labels, REFUSED, 1, draws=1)


def test_shuffled_maxima_against_plain_shuffling() -> None:
    rng = np.random.default_rng(0)
    maps = rng.poisson(4.0, (30, 2, 5))
    labels = [REFUSED] * 10 + [ALIGNED] * 20
    plain = [resonance(maps, rng.permutation(labels).tolist(), REFUSED).max() for _ in range(1500)]
    found = shuffled_maxima(maps, labels, REFUSED, draws=1500)
    assert np.quantile(found, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(plain, [0.1, 0.5, 0.9]), abs=0.08)


def test_shuffling_within_places_clears_the_topic() -> None:
    # Experts follow the place, and so does the class (not wholly): the class itself uses no expert more.
    study = synthetic_study(
        3, prompts=240, layers=(1, 2), experts=32, planted=0, topical=6, topic_effect=2.5, place_decides=0.7
    )
    best = float(resonance(study.maps, study.labels, REFUSED).max())
    everywhere = shuffled_maxima(study.maps, study.labels, REFUSED, draws=199)
    within = shuffled_maxima(study.maps, study.labels, REFUSED, draws=199, groups=study.places)
    assert permutation_p(best, everywhere) == 1 / 200
    assert permutation_p(best, within) > 0.05
    with pytest.raises(DataError, match="changes nothing"):
        shuffled_maxima(study.maps, study.labels, REFUSED, groups=study.labels)
    with pytest.raises(DataError, match="240 labels but 1 groups"):
        shuffled_maxima(study.maps, study.labels, REFUSED, groups=["a"])
