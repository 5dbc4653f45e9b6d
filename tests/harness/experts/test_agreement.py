"""Rankings against each other, on planted truth: agreement with a scan, top sets, and the table of flips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mote.harness.experts.agreement import TopSet, agreement, falls_of, flips_table, overlap, plan_sets, reliability
from mote.harness.experts.rankings import CAUSAL, FREQUENCY, Halves, frame_of, seen_rankings, unit_names
from mote.harness.preconditions import DataError
from mote.harness.recipe.label_sets import LABEL_SETS
from mote.harness.recipe.sides import Sides
from mote.harness.science.causal import ScanMargins
from mote.harness.science.controls import Expert
from mote.harness.science.inference import mcnemar_exact
from mote.harness.science.removed import target_mass
from mote.harness.store.run import PromptRow
from mote.judges import ALIGNED, REFUSED

LAYERS = (1, 2, 4)
EXPERTS = 16


def halves(rng: np.random.Generator, lean: NDArray[np.float64], prompts: int = 120) -> Halves:
    """Maps in which the class uses experts more by their ``lean``, on top of another load for each expert."""
    labels = [REFUSED if i % 3 == 0 else ALIGNED for i in range(prompts)]
    rates = rng.gamma(2.0, 2.0, (len(LAYERS), EXPERTS)) + 1
    means = np.stack([rates * np.exp(lean) if label == REFUSED else rates for label in labels])
    ids = [f"p{i}" for i in range(prompts)]
    maps = rng.poisson(means).astype(np.int32)
    named = dict(zip(ids, labels, strict=True))
    return Halves(
        target=REFUSED,
        label_set=LABEL_SETS["refusal"],
        layers=LAYERS,
        experts=EXPERTS,
        prompts={},
        labels=named,
        ids=ids,
        maps=maps,
        tokens=[1000] * prompts,
        sides=Sides(named, REFUSED, REFUSED, "activations a prompt", contrast=False),
        mass=target_mass(maps, labels, REFUSED),
        other_maps={},
        chosen=[key for key, label in zip(ids, labels, strict=True) if label == REFUSED],
        measured=[],
        raws={},
    )


def test_a_ranking_that_sees_what_matters_agrees_with_the_scan_and_one_that_does_not_does_not() -> None:
    rng = np.random.default_rng(5)
    effect = rng.normal(0, 1, (len(LAYERS), EXPERTS))
    falls = effect + rng.normal(0, 0.3, (24, len(LAYERS), EXPERTS))
    found = agreement(halves(rng, 0.3 * effect), falls, draws=60)
    assert set(found) >= {"resonance", "risk_difference", "log_odds", "smd", "auc", FREQUENCY}
    for name in ("risk_difference", "log_odds", "smd", "auc"):
        assert found[name].spearman > 0.6, name
        assert 0.4 < found[name].low <= found[name].spearman, name
        assert found[name].experts == len(LAYERS) * EXPERTS
    # What the class uses more is a little busier in all; far less than a detector says of it.
    assert found[FREQUENCY].high < min(found[name].low for name in ("risk_difference", "log_odds", "smd", "auc"))
    blind = agreement(halves(rng, np.zeros_like(effect)), falls, draws=60)
    assert blind["log_odds"].low < 0.1
    assert abs(blind["log_odds"].spearman) < 0.35


def test_pairs_are_drawn_whole_and_rank_by_their_signs() -> None:
    rng = np.random.default_rng(7)
    effect = rng.normal(0, 1, (len(LAYERS), EXPERTS))
    falls = effect + rng.normal(0, 0.3, (24, len(LAYERS), EXPERTS))
    alone = halves(rng, 0.3 * effect, 60)
    # The second of each pair is not of the class; what a pair shares is far larger than what its sides differ in.
    marks = {f"p{at}": REFUSED if at % 2 == 0 else ALIGNED for at in range(60)}
    shared = np.repeat(rng.poisson(300.0, (30, len(LAYERS), EXPERTS)), 2, axis=0)
    lean = np.array([at % 2 == 0 for at in range(60)])[:, None, None] * np.rint(2 * effect)
    maps = (shared + lean + rng.poisson(3.0, shared.shape)).astype(np.int32)
    paired = replace(
        alone, maps=maps, sides=replace(alone.sides, marks=marks), pairs=[at // 2 for at in range(60)],
        tokens=[9000] * 60,
    )  # fmt: skip
    found = agreement(paired, falls, draws=60)
    assert found["pair_signs"].spearman > 0.6
    # Drawn one by one, prompts of pairs would have brought what pairs share into the difference.
    loose = agreement(replace(paired, pairs=()), falls, draws=60)
    width = {name: each["resonance"].high - each["resonance"].low for name, each in (("p", found), ("l", loose))}
    assert width["p"] < 0.8 * width["l"]


def test_only_experts_that_were_seen_and_scanned_on_all_prompts_are_compared() -> None:
    rng = np.random.default_rng(6)
    one = halves(rng, np.zeros((len(LAYERS), EXPERTS)))
    one.maps[:, 0, 3] = 0
    falls = rng.normal(0, 1, (6, len(LAYERS), EXPERTS))
    falls[2, 1, 5] = np.nan
    assert agreement(one, falls, draws=3)["resonance"].experts == len(LAYERS) * EXPERTS - 2
    falls[0, :, 2:] = np.nan
    falls[0, 1:] = np.nan
    with pytest.raises(DataError, match="Only 2 experts"):
        agreement(one, falls)


def test_a_scan_agrees_with_itself_as_far_as_it_is_not_noise() -> None:
    rng = np.random.default_rng(7)
    one = halves(rng, np.zeros((len(LAYERS), EXPERTS)))
    effect = rng.normal(0, 1, (len(LAYERS), EXPERTS))
    noise = rng.normal(0, 1, (24, len(LAYERS), EXPERTS))
    assert reliability(one, effect + 1e-6 * noise) == pytest.approx(1.0, abs=1e-3)
    assert abs(reliability(one, noise)) < 0.45
    assert 0.9 < reliability(one, effect + noise) < 1
    assert np.isnan(reliability(one, noise[:3]))


def test_falls_are_of_the_untouched_margin_and_missing_ones_are_nan() -> None:
    untouched = pd.Series({"a": 5.0, "b": 4.0})
    scan = pd.DataFrame(
        [(2, 1, "a", 4.5), (2, 1, "b", 4.25), (4, 0, "b", 1.0)], columns=["layer", "expert", "prompt_id", "margin"]
    )
    falls = falls_of(ScanMargins(untouched, scan), LAYERS, 2)
    assert falls.shape == (2, 3, 2)
    assert falls[:, 1, 1].tolist() == [0.5, -0.25]
    assert falls[1, 2, 0] == 3.0
    assert np.isnan(falls).sum() == 12 - 3


def test_rankings_with_the_same_top_share_controls_and_more_sets_are_further_ones() -> None:
    rng = np.random.default_rng(8)
    one = rng.normal(0, 1, (len(LAYERS), EXPERTS))
    frequency = rng.gamma(2, 2, one.shape)
    # Another order of the same top: what is switched off is the same.
    other = one.copy()
    top = np.argsort(-one, axis=None)[:4]
    other.flat[top] = one.flat[top[::-1]]
    few = plan_sets({"one": one, "other": other, "none": -one}, [4], 5, frequency, LAYERS, 3)
    more = plan_sets({"one": one}, [4], 9, frequency, LAYERS, 3)
    assert sorted(few[0].experts) == sorted(few[1].experts)
    assert few[0].experts != few[1].experts
    assert few[0].controls == few[1].controls == more[0].controls[:5]
    assert few[2].controls != few[0].controls
    for drawn in few[0].controls:
        assert sorted(drawn) != sorted(few[0].experts)
        # As often chosen in sum, by experts of the same layers, however many that takes.
        assert {layer for layer, _ in drawn} <= {layer for layer, _ in few[0].experts}
        gone, instead = (sum(frequency[LAYERS.index(x), e] for x, e in some) for some in (few[0].experts, drawn))
        assert instead == pytest.approx(gone, rel=0.5)
    assert plan_sets({"one": one}, [4], 5, frequency, LAYERS, 4)[0].controls != few[0].controls


def test_top_sets_that_cannot_be_are_refused_by_name() -> None:
    frequency = np.ones((len(LAYERS), EXPERTS))
    scan = np.full(frequency.shape, np.nan)
    scan[0, :3] = [0.5, -0.1, 0.2]
    with pytest.raises(DataError, match=r"causal: Only 2 experts have a positive score, fewer than the 3"):
        plan_sets({"causal": scan}, [3], 2, frequency, LAYERS, 0)
    assert plan_sets({"causal": scan}, [2], 2, frequency, LAYERS, 0)[0].experts == [(1, 0), (1, 2)]
    with pytest.raises(DataError, match="--k 49: the model has 48 routed experts"):
        plan_sets({"causal": scan}, [49], 2, frequency, LAYERS, 0)
    with pytest.raises(DataError, match="lies between 1 and 48"):
        plan_sets({"causal": scan}, [0], 2, frequency, LAYERS, 0)


def answers(flips: int, broken: int, prompts: int = 20) -> dict[str, str]:
    texts = [ALIGNED] * flips + ["DEGENERATE"] * broken + [REFUSED] * (prompts - flips - broken)
    return {f"p{i}": label for i, label in enumerate(texts)}


def table_of(top: Mapping[str, tuple[int, int]], controls: list[int], units: Mapping[str, str]) -> pd.DataFrame:
    """Two controls' worth of sets for each ranking; its n-th top set is the experts (n, 0) and (n, 1)."""
    sets, labels = [], {}
    for n, (name, (flips, broken)) in enumerate(top.items()):
        experts: list[Expert] = [(1, 2 * n), (2, 2 * n)]
        drawn: list[list[Expert]] = [[(1, 100 * n + i + 50), (2, 3)] for i in range(len(controls))]
        sets.append(TopSet(name, 2, experts, drawn))
        labels[tuple(experts)] = answers(flips, broken)
        for each, control in zip(drawn, controls, strict=True):
            labels[tuple(sorted(each))] = answers(control, 0)
    return flips_table(sets, labels, units, np.ones((3, 400)), LAYERS, REFUSED).set_index("ranking")


def test_flips_stand_among_the_controls_of_their_own_set() -> None:
    table = table_of({"resonance": (3, 0), "causal": (9, 4), "auc": (0, 1)}, [0, 1, 3, 4], {})
    row = table.loc["causal"]
    assert (row["prompts"], row["flips"], row["broken"], row["sets"]) == (20, 9, 4, 4)
    # Exact binomial interval of 9 in 20: R's binom.test(9, 20).
    assert (row["low"], row["high"]) == (pytest.approx(0.2305779, abs=1e-6), pytest.approx(0.6847219, abs=1e-6))
    assert (row["matched_mean"], row["matched_max"]) == (pytest.approx(0.1), pytest.approx(0.2))
    assert row["p"] == row["least_p"] == pytest.approx(1 / 5)
    assert table["p"].tolist() == [pytest.approx(3 / 5), pytest.approx(1 / 5), 1.0]
    assert table["p_holm"].tolist() == [1.0, pytest.approx(3 / 5), 1.0]
    assert table["busier"].tolist() == [0.0, 0.0, 0.0]
    assert row["experts"] == "(1,2) (2,2)"


def test_flips_are_compared_with_the_resonances_prompt_by_prompt() -> None:
    table = table_of({"resonance": (3, 0), "causal": (9, 0), "auc": (3, 0)}, [0], {})
    assert table.loc["causal", "p_vs_resonance"] == pytest.approx(mcnemar_exact(6, 0).p)
    assert table.loc["auc", "p_vs_resonance"] == 1.0
    assert table["p_vs_resonance"].isna().tolist() == [True, False, False]
    # All six further flips in one place are one event, not six.
    together = table_of({"resonance": (3, 0), "causal": (9, 0)}, [0], {f"p{i}": "there" for i in range(3, 9)})
    assert together.loc["causal", "p_vs_resonance"] == 1.0


def test_flips_about_the_place_that_was_asked_are_counted_apart() -> None:
    sets = [TopSet("resonance", 1, [(1, 0)], [])]
    labels: dict[tuple[Expert, ...], dict[str, str]] = {((1, 0),): answers(5, 2)}
    # Of p0 to p4, which flipped, two; and two that did not flip.
    named: dict[tuple[Expert, ...], set[str]] = {((1, 0),): {"p0", "p3", "p5", "p19"}}
    table = flips_table(sets, labels, {}, np.ones((3, 4)), LAYERS, REFUSED, named)
    assert table[["flips", "flips_named"]].to_numpy().tolist() == [[5, 2]]
    assert flips_table(sets, labels, {}, np.ones((3, 4)), LAYERS, REFUSED)["flips_named"].isna().all()


def test_a_units_name_is_what_the_question_calls_it() -> None:
    one = halves(np.random.default_rng(1), np.zeros((len(LAYERS), EXPERTS)))
    asked = {"a": "What happened in 1987 at the Berlin Wall?", "b": "What is it?", "c": "1980年光州事件的起因是什么？"}
    prompts = {key: PromptRow(key, "t", ({"role": "user", "content": text},), {}) for key, text in asked.items()}
    units = {"a": "at the Berlin Wall", "b": "in Rome", "c": "光州事件"}
    assert unit_names(replace(one, prompts=prompts, units=units)) == {"a": "berlin wall", "c": "光州事件"}


def test_without_controls_there_is_no_p_value() -> None:
    table = table_of({"resonance": (3, 0)}, [], {})
    assert table.loc["resonance", "flips"] == 3
    assert table[["p", "p_holm", "matched_mean"]].isna().all(axis=None)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(0, 20))
def test_a_p_value_is_the_rank_among_the_controls(controls: list[int], flips: int) -> None:
    row = table_of({"resonance": (flips, 0)}, controls, {}).iloc[0]
    assert row["p"] == pytest.approx((1 + sum(other >= flips for other in controls)) / (len(controls) + 1))
    assert row["p_holm"] == row["p"] >= row["least_p"]


def test_shared_experts_are_counted_where_the_scan_has_enough() -> None:
    scan = np.full((len(LAYERS), EXPERTS), np.nan)
    scan[0] = np.arange(EXPERTS)
    other = np.zeros_like(scan)
    other[0] = np.arange(EXPERTS)[::-1] + 1.0
    other[0, -1] = 99
    found = overlap({"other": other, CAUSAL: scan}, [2, 20])
    assert found.to_dict("records") == [{"ranking": "other", "k": 2, "shared": 1, "chance": 4 / 16}]


def test_the_table_of_experts_has_scores_and_ranks_and_blanks_where_nothing_was_measured() -> None:
    one = halves(np.random.default_rng(9), np.zeros((len(LAYERS), EXPERTS)))
    found = seen_rankings(replace(one, other_maps={"prompt_last": one.maps}))
    assert np.array_equal(found["resonance_prompt_last"], found["resonance"])
    weighted = seen_rankings(replace(one, weights=one.maps.astype(np.float32)))
    assert weighted["router_weight_resonance"] == pytest.approx(found["resonance"])
    scan = np.full((len(LAYERS), EXPERTS), np.nan)
    scan[2, 5], scan[1, 1] = 0.5, 0.7
    table = frame_of({**found, CAUSAL: scan}, LAYERS)
    assert len(table) == len(LAYERS) * EXPERTS
    known = table[table[CAUSAL].notna()]
    assert known[["layer", "expert", "causal_rank"]].to_numpy().tolist() == [[2, 1, 1], [4, 5, 2]]
    assert table["causal_rank"].isna().sum() == len(table) - 2
    best = table.loc[table["resonance_rank"] == 1].iloc[0]
    assert best["resonance"] == found["resonance"].max()
