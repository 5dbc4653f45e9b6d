from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mote.harness.preconditions import DataError
from mote.harness.science.controls import random_experts
from mote.harness.science.inference import against_controls
from mote.harness.science.maps import tokens_counted
from mote.harness.science.resonance import resonance
from mote.harness.science.transitions import flip_rates, transition_matrix
from mote.judges import ALIGNED, CLASSES, REASONED, REFUSED
from tests.harness.science.synthetic import SyntheticStudy, answers, baseline, flip_chance, synthetic_study


def flips(study: SyntheticStudy, tuned: list[tuple[int, int]], seed: int) -> float:
    return flip_rates(transition_matrix(baseline(study), answers(study, tuned, seed), CLASSES)).flips.share


def test_maps_are_what_a_router_gives() -> None:
    study = synthetic_study(0, prompts=50, layers=(3, 7), experts=16, top_k=3, planted=4)
    assert study.maps.shape == study.weights.shape == (50, 2, 16)
    assert np.array_equal(tokens_counted(study.maps, 3), study.tokens)
    assert study.maps.max() <= study.tokens.max()
    # Each token's weights sum to 1 in each layer, and only chosen experts have any.
    assert study.weights.sum(axis=2) == pytest.approx(np.repeat(study.tokens[:, None], 2, axis=1))
    assert ((study.weights > 0) == (study.maps > 0)).all()
    assert {layer for layer, _ in study.planted} <= {3, 7}


def test_the_seed_decides_everything() -> None:
    one, same, other = (synthetic_study(seed, prompts=30, layers=(1,), experts=8, planted=2) for seed in (1, 1, 2))
    assert np.array_equal(one.maps, same.maps)
    assert one.labels == same.labels
    assert not np.array_equal(one.maps, other.maps)
    assert answers(one, [], 3).equals(answers(same, [], 3))
    assert not answers(one, [], 3, retest=0.5).equals(answers(one, [], 4, retest=0.5))


def test_shares_of_the_classes_and_places() -> None:
    study = synthetic_study(0, prompts=3000, layers=(1,), experts=8, planted=1, places=6, refused=0.3)
    counts = Counter(study.labels)
    assert counts[REFUSED] / 3000 == pytest.approx(0.3, abs=0.03)
    assert counts[ALIGNED] / 3000 == pytest.approx(0.35, abs=0.03)
    assert counts[REASONED] / 3000 == pytest.approx(0.35, abs=0.03)
    assert set(Counter(study.places).values()) == {500}


def test_planted_experts_resonate_by_their_effect_and_topical_ones_by_the_topic() -> None:
    study = synthetic_study(0, topical=6, topic_effect=2.5, place_decides=0.8)
    ranking = resonance(study.maps, study.labels, REFUSED)
    row = {layer: i for i, layer in enumerate(study.layers)}
    scores = {kind: [ranking[row[layer], e] for layer, e in getattr(study, kind)] for kind in ("planted", "topical")}
    rest = np.abs(ranking[ranking < np.quantile(ranking, 0.9)]).mean()
    assert np.mean(scores["planted"]) > 5 * rest
    # The confound: experts of the topic stand out too, though they have no part in the class.
    assert np.mean(scores["topical"]) > 4 * rest


def test_planted_experts_follow_the_class_and_not_the_place() -> None:
    study = synthetic_study(1, prompts=400, place_decides=0.5)
    rows = tuple(np.array([(study.layers.index(layer), e) for layer, e in study.planted]).T)
    by_prompt = study.maps[:, *rows].sum(axis=1)
    refused = np.array(study.labels) == REFUSED
    sensitive = np.array(study.places) < "place-05"
    within = [by_prompt[refused & side].mean() / by_prompt[~refused & side].mean() for side in (sensitive, ~sensitive)]
    assert min(within) > 1.5
    across = [by_prompt[side & sensitive].mean() / by_prompt[side & ~sensitive].mean() for side in (refused, ~refused)]
    assert across == pytest.approx([1.0, 1.0], abs=0.1)


def test_answers_flip_with_the_chance_that_is_stated() -> None:
    study = synthetic_study(0, prompts=4000, layers=(1,), experts=16, planted=4)
    half = list(study.planted[:2])
    assert flip_chance(study, half) == pytest.approx(0.02 + 0.38 / 2)
    assert flip_chance(study, []) == 0.02
    assert flip_chance(study, study.planted) == pytest.approx(0.4)
    for tuned in ([], half, list(study.planted)):
        rates = flip_rates(transition_matrix(baseline(study), answers(study, tuned, 1, broken=0.1), CLASSES))
        assert rates.flips.share == pytest.approx(0.9 * flip_chance(study, tuned), abs=0.03)
        assert rates.reverse.share == pytest.approx(0.009, abs=0.006)
        assert rates.broken.share == pytest.approx(0.1, abs=0.03)


def test_places_have_their_own_chance_around_the_same_mean() -> None:
    study = synthetic_study(0, prompts=12_000, layers=(1,), experts=8, planted=2, places=200, refused=0.5)
    refused = np.array(study.labels) == REFUSED
    _, place, size = np.unique(np.array(study.places)[refused], return_inverse=True, return_counts=True)
    shares = []
    for seed in range(12):
        after = answers(study, study.planted, seed, place_correlation=0.2).to_numpy()[refused]
        shares.append(np.bincount(place, weights=after != REFUSED) / size)
    assert np.mean(shares) == pytest.approx(0.4, abs=0.02)
    # The variance of a Beta with correlation rho is rho p (1 - p); sampling adds a share of the rest.
    assert np.var(shares) == pytest.approx(0.2 * 0.24 + 0.8 * 0.24 / size.mean(), rel=0.08)


def test_the_whole_way_finds_the_effect_and_clears_the_controls() -> None:
    study = synthetic_study(5)
    tuned = list(study.planted)
    frequency = study.maps.mean(axis=0)
    for kind in ("uniform", "layers", "frequency"):
        sets = random_experts(kind, tuned, frequency, study.layers, 20, 0)
        found = against_controls(flips(study, tuned, 1), [flips(study, one, 2 + i) for i, one in enumerate(sets)])
        assert found.p == pytest.approx(1 / 21)
        # Tuned experts may be drawn, and among the nearest in frequency they often are: then a set does its share.
        expected = np.mean([flip_chance(study, one) for one in sets])
        assert found.mean == pytest.approx(expected, abs=0.02)
        assert found.difference > 0.25


def test_refuses_a_study_that_cannot_be() -> None:
    with pytest.raises(DataError, match="too few"):
        synthetic_study(0, layers=(1,), experts=8, planted=9)
    with pytest.raises(DataError, match="between 0 and 1"):
        synthetic_study(0, refused=1.0)
    with pytest.raises(DataError, match="below 1, not 1"):
        answers(synthetic_study(0, prompts=10, layers=(1,), experts=8, planted=1), [], 0, place_correlation=1)
