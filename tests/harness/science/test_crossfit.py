from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mote.harness.preconditions import DataError
from mote.harness.science.clustered import net_effect
from mote.harness.science.crossfit import FoldRows, both_ways, grouped_folds, pooled_effect, pooled_null, third_controls
from mote.harness.science.splits import stratified_half
from mote.harness.science.verdict import control_leg
from tests.harness.science.synthetic import synthetic_study


def test_each_prompt_is_measured_once_and_never_by_what_it_chose() -> None:
    ids = [f"p{i}" for i in range(21)]
    labels = ["a", "b", "c"] * 7
    places = [f"g{i % 5}" for i in range(21)]
    for folds in (both_ways(stratified_half(ids, labels, 0)), grouped_folds(ids, places, labels, 0)):
        assert sorted(folds[0].measure + folds[1].measure) == sorted(ids)
        assert all(not set(fold.select) & set(fold.measure) for fold in folds)


def test_the_pooled_effect_is_that_of_all_prompts() -> None:
    rng = np.random.default_rng(0)
    before, after = (rng.random((2, 20)) < np.array([[0.9], [0.6]])).astype(float)
    ids = [f"p{i}" for i in range(20)]
    units = {name: i % 4 for i, name in enumerate(ids)}
    folds = [FoldRows(ids[:12], before[:12], after[:12]), FoldRows(ids[12:], before[12:], after[12:])]
    assert pooled_effect(folds, units) == net_effect(before, after, list(units.values()))
    assert pooled_effect(folds, None).units == 20
    with pytest.raises(DataError, match="'p0' occurs twice"):
        pooled_effect([folds[0], folds[0]], units)


def test_the_pooled_null_is_one_of_joined_sets() -> None:
    observed, null = pooled_null({"a": 3, "b": 4}, {"a": [1, 2, 3], "b": [5, 0]})
    assert (observed, null.tolist()) == (7.0, [6.0, 2.0])
    with pytest.raises(DataError, match="each fold needs its own"):
        pooled_null({"a": 3}, {"b": [1]})
    with pytest.raises(DataError, match="at least one random set"):
        pooled_null({"a": 3}, {"a": []})


def test_pooling_keeps_the_level_and_finds_more() -> None:
    rng = np.random.default_rng(0)
    false = found = alone = 0
    for _ in range(400):
        null = {fold: rng.poisson(rng.gamma(0.5, 4.0, 39)) for fold in "ab"}
        same = {fold: float(rng.poisson(rng.gamma(0.5, 4.0))) for fold in "ab"}
        more = {fold: float(rng.poisson(9)) for fold in "ab"}
        false += control_leg("mass", *_leg(pooled_null(same, null))).p <= 0.05
        found += control_leg("mass", *_leg(pooled_null(more, null))).p <= 0.05
        alone += control_leg("mass", more["a"], null["a"].tolist()).p <= 0.05
    assert false / 400 <= 0.05 + 2.6 * (0.05 * 0.95 / 400) ** 0.5
    assert found > alone


def _leg(pooled: tuple[float, np.ndarray[tuple[int], np.dtype[np.float64]]]) -> tuple[float, list[float]]:
    return pooled[0], pooled[1].tolist()


def test_thirds_have_controls_of_their_own() -> None:
    study = synthetic_study(0, prompts=30, layers=(1, 2, 3, 4, 5, 6), experts=16, planted=0)
    tuned = [(1, 3), (2, 4), (2, 5), (6, 0)]
    mass = study.maps.mean(axis=0)
    found = third_controls("layers", tuned, mass, study.layers, 9, 0)
    assert set(found) == {"early", "late"}
    assert all(Counter(layer for layer, _ in one) == {1: 1, 2: 2} for one in found["early"])
    assert len(third_controls("mass", tuned, mass, study.layers, 9, 0)["early"]) == 9
