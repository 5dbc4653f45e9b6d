"""Do the intervals cover, are the p-values uniform where nothing is there, is what was planted found?

Simulated with fixed seeds on synthetic truth: a failure is a change of the code, not bad luck. With 500 repetitions the
observed coverage of a true 95% has a standard error of one point.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from mote.harness.science.controls import random_experts
from mote.harness.science.detectors import auc, log_odds, risk_difference, standardised_mean_difference
from mote.harness.science.inference import (
    cluster_rate_interval,
    cluster_sign_test,
    mcnemar_exact,
    permutation_p,
    rate,
    stuart_maxwell,
)
from mote.harness.science.maps import contrast, per_token
from mote.harness.science.resonance import distinctive_experts, resonance
from mote.harness.science.splits import stratified_half
from mote.harness.science.stability import bootstrap_ranking, shuffled_maxima
from mote.harness.science.transitions import flip_rates, transition_matrix
from mote.judges import CLASSES, REFUSED
from tests.harness.science.synthetic import (
    DETECTABLE_EFFECTS,
    SyntheticStudy,
    answers,
    baseline,
    flip_chance,
    synthetic_study,
)

REPETITIONS = 500


def assert_uniform(p_values: NDArray[np.float64]) -> None:
    """At most 6% below 5%, and no share below any level further above it than chance explains (1 in 1000)."""
    assert float((p_values <= 0.05).mean()) <= 0.06
    assert stats.kstest(p_values, "uniform", alternative="greater").pvalue > 0.001


def small_study(seed: int, **options: float) -> SyntheticStudy:
    return synthetic_study(seed, prompts=60, layers=(1, 2), experts=16, top_k=2, planted=2, tokens=(5, 8), **options)  # type: ignore[arg-type]


class TestCoverage:
    def test_exact_intervals_of_flip_rates(self) -> None:
        study = synthetic_study(0, prompts=500, layers=(1,), experts=16, planted=4)
        before, true = baseline(study), flip_chance(study, study.planted)
        covered = {"flips": 0, "reverse": 0}
        for seed in range(REPETITIONS):
            after = answers(study, study.planted, seed, reverse=0.1)
            found = flip_rates(transition_matrix(before, after, CLASSES))
            covered["flips"] += found.flips.low <= true <= found.flips.high
            covered["reverse"] += found.reverse.low <= 0.1 <= found.reverse.high
        for name, count in covered.items():
            assert 0.93 <= count / REPETITIONS <= 0.97, (name, count)

    def test_clustered_intervals_where_prompts_share_a_place(self) -> None:
        study = synthetic_study(0, prompts=600, layers=(1,), experts=16, planted=4, places=30, refused=0.5)
        true = flip_chance(study, study.planted)
        refused = np.array(study.labels) == REFUSED
        places = np.array(study.places)[refused].tolist()
        clustered = plain = 0
        for seed in range(REPETITIONS):
            after = answers(study, study.planted, seed, place_correlation=0.15).to_numpy()[refused]
            flipped = (after != REFUSED).astype(int)
            low, high = cluster_rate_interval(flipped, places, draws=600, seed=seed)
            clustered += low <= true <= high
            naive = rate(int(flipped.sum()), flipped.size)
            plain += naive.low <= true <= naive.high
        assert 0.93 <= clustered / REPETITIONS <= 0.97
        # What it is for: the exact interval, which takes prompts as independent, misses far more often.
        assert plain / REPETITIONS < 0.85

    def test_bootstrap_intervals_of_resonance(self) -> None:
        size = 80
        world = synthetic_study(
            1, prompts=REPETITIONS * size, layers=(1,), experts=16, top_k=3, planted=3, effect=1.0, tokens=(5, 9)
        )
        true = resonance(world.maps, world.labels, REFUSED)
        covered = np.zeros(true.shape)
        for i in range(REPETITIONS):
            part = slice(i * size, (i + 1) * size)
            found = bootstrap_ranking(world.maps[part], world.labels[part], REFUSED, 3, draws=250, seed=i)
            covered += (found.low <= true) & (true <= found.high)
        assert 0.93 <= covered.mean() / REPETITIONS <= 0.97
        # Rare experts have skewed counts; even there the interval is no more than a few points off.
        assert covered.min() / REPETITIONS > 0.88


class TestNull:
    def test_a_set_like_its_controls_has_a_uniform_percentile(self) -> None:
        study = synthetic_study(0, prompts=400, layers=(1, 2), experts=32, planted=4)
        idle = [(layer, e) for layer in (1, 2) for e in range(32) if (layer, e) not in study.planted]
        refused = np.array(study.labels) == REFUSED
        rng = np.random.default_rng(0)
        found = []
        for _ in range(REPETITIONS):
            tuned = [idle[i] for i in rng.choice(len(idle), 4, replace=False)]
            sets = [tuned, *random_experts("layers", tuned, study.maps.mean(axis=0), study.layers, 19, rng)]
            # Here all sets do nothing: planted experts that were drawn as controls are taken out.
            sets = [[e for e in one if e not in study.planted] for one in sets]
            effects = [
                (answers(study, one, int(rng.integers(2**31)), retest=0.2).to_numpy()[refused] != REFUSED).mean()
                for one in sets
            ]
            found.append(permutation_p(effects[0], effects[1:]))
        p_values = np.array(found)
        assert_uniform(p_values)
        # The mean of 1/20, 2/20, ..., 1 is 0.525; a control that ties (two binomial counts are equal) counts as well.
        ties = float((stats.binom.pmf(np.arange(refused.sum() + 1), refused.sum(), 0.2) ** 2).sum())
        assert p_values.mean() == pytest.approx((1 + 19 * (0.5 + ties / 2)) / 20, abs=0.05)

    def test_mcnemar_never_exceeds_its_level(self) -> None:
        for changed in range(1, 80):
            chance = stats.binom.pmf(np.arange(changed + 1), changed, 0.5)
            p_values = np.array([mcnemar_exact(b, changed - b).p for b in range(changed + 1)])
            for level in (0.01, 0.05, 0.2):
                assert chance[p_values <= level].sum() <= level

    def test_clustered_sign_test_where_whole_places_move(self) -> None:
        rng = np.random.default_rng(0)
        places = np.repeat(np.arange(25), 8).tolist()
        clustered, plain = [], []
        for seed in range(REPETITIONS):
            # Each place leans to one side or the other, by chance: nothing moves on the whole.
            lean = np.repeat(rng.normal(0, 0.25, 25), 8)
            draw = rng.random(200)
            change = np.where(draw < 0.2 + lean, 1, np.where(draw > 0.8 + lean, -1, 0))
            clustered.append(cluster_sign_test(change, places, draws=400, seed=seed).p)
            plain.append(mcnemar_exact(int((change > 0).sum()), int((change < 0).sum())).p)
        assert_uniform(np.array(clustered))
        assert stats.kstest(clustered, "uniform").pvalue > 0.001
        assert (np.array(plain) <= 0.05).mean() > 0.15

    def test_stuart_maxwell_of_symmetric_tables(self) -> None:
        rng = np.random.default_rng(0)
        symmetric = np.array([[0.3, 0.08, 0.04], [0.08, 0.2, 0.05], [0.04, 0.05, 0.16]])
        tables = rng.multinomial(400, symmetric.ravel(), size=4 * REPETITIONS).reshape(-1, 3, 3)
        p_values = np.array([stuart_maxwell(table).p for table in tables])
        assert_uniform(p_values)
        assert stats.kstest(p_values, "uniform").pvalue > 0.001

    def test_the_best_of_all_experts_when_labels_mean_nothing(self) -> None:
        found = []
        for seed in range(REPETITIONS):
            study = small_study(seed, effect=0.0)
            best = float(resonance(study.maps, study.labels, REFUSED).max())
            found.append(permutation_p(best, shuffled_maxima(study.maps, study.labels, REFUSED, draws=99, seed=seed)))
        assert_uniform(np.array(found))
        assert stats.kstest(found, "uniform").pvalue > 0.001


RANKINGS: dict[str, Callable[[SyntheticStudy], NDArray[np.float64]]] = {
    "log_odds": lambda s: log_odds(contrast(s.maps, s.labels, REFUSED, s.tokens)),
    "smd": lambda s: standardised_mean_difference(contrast(s.maps, s.labels, REFUSED, s.tokens)),
    "auc": lambda s: auc(s.maps, s.labels, REFUSED) - 0.5,
    "resonance": lambda s: resonance(s.maps, s.labels, REFUSED),
    "resonance_per_token": lambda s: resonance(per_token(s.maps, s.tokens), s.labels, REFUSED),
    "risk_difference": lambda s: risk_difference(contrast(s.maps, s.labels, REFUSED, s.tokens)),
    "router_weight_resonance": lambda s: resonance(s.weights, s.labels, REFUSED),
}


class TestDetection:
    @pytest.mark.parametrize("effect", sorted(set(DETECTABLE_EFFECTS.values())))
    def test_planted_experts_are_the_top_k_at_the_documented_effect(self, effect: float) -> None:
        names = [name for name, needed in DETECTABLE_EFFECTS.items() if needed == effect]
        runs = 100
        whole = dict.fromkeys(names, 0)
        for seed in range(runs):
            study = synthetic_study(seed, effect=effect)
            for name in names:
                top = distinctive_experts(RANKINGS[name](study), len(study.planted), study.layers)
                whole[name] += {(e.layer, e.expert) for e in top} == set(study.planted)
        assert all(count / runs >= 0.95 for count in whole.values()), whole

    def test_every_ranking_has_a_documented_effect(self) -> None:
        assert set(DETECTABLE_EFFECTS) == set(RANKINGS)

    def test_selecting_and_measuring_on_the_same_prompts_shows_what_is_not_there(self) -> None:
        seen: list[float] = []
        unseen: list[float] = []
        for seed in range(100):
            study = small_study(seed, effect=0.0)
            split = stratified_half(study.prompt_ids, study.labels, seed)
            halves = []
            for part in split:
                at = [study.prompt_ids.index(name) for name in part]
                halves.append(resonance(study.maps[at], [study.labels[i] for i in at], REFUSED))
            top = distinctive_experts(halves[0], 5, study.layers)
            for scores, half in ((seen, halves[0]), (unseen, halves[1])):
                scores.append(float(np.mean([half[study.layers.index(e.layer), e.expert] for e in top])))
        assert np.mean(seen) > 5 * np.std(unseen) / 10
        assert stats.ttest_1samp(unseen, 0.0).pvalue > 0.01
