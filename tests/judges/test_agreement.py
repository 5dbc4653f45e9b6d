from __future__ import annotations

import math

import krippendorff
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa  # type: ignore[import-untyped]

from mote.judges.agreement import (
    AgreementError,
    _alpha,
    _alphas,
    _coincidences,
    cohen_kappa,
    confusion,
    kappas,
    krippendorff_alpha,
)
from mote.judges.misclassification import (
    Audit,
    CorrectionError,
    audit,
    corrected_flips,
)

LABELS = ("0-REFUSED", "1-ALIGNED", "2-REASONED")


def noisy(size: int, error: float, seed: int = 0, judges: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=size)
    columns = {}
    for judge in range(judges):
        wrong = rng.random(size) < error
        columns[f"judge-{judge}"] = np.array(LABELS)[np.where(wrong, rng.integers(3, size=size), truth)]
    return pd.DataFrame(columns)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(5, 60))
def test_kappa_is_that_of_statsmodels(seed: int, error: float, size: int) -> None:
    labels = noisy(size, error, seed)
    found = cohen_kappa(labels, "judge-0", "judge-1", draws=50)
    table = confusion(labels, "judge-0", "judge-1", LABELS).to_numpy()
    with np.errstate(all="ignore"):
        expected = float(cohens_kappa(table).kappa)
    assert found.kappa == pytest.approx(expected, nan_ok=True)
    assert found.agreed == pytest.approx(np.trace(table) / table.sum())
    assert found.items == size


def test_the_interval_of_kappa_covers_the_one_that_large_samples_show() -> None:
    whole = cohen_kappa(noisy(200_000, 0.3), "judge-0", "judge-1", draws=10).kappa
    found = [cohen_kappa(noisy(120, 0.3, seed), "judge-0", "judge-1", draws=300) for seed in range(1, 101)]
    covered = sum(one.low <= whole <= one.high for one in found)
    assert 88 <= covered <= 100


def test_clusters_widen_the_interval() -> None:
    labels = noisy(40, 0.3, 3)
    repeated = pd.concat([labels] * 25, ignore_index=True)
    clusters = list(range(40)) * 25
    alone = cohen_kappa(labels, "judge-0", "judge-1")
    naive = cohen_kappa(repeated, "judge-0", "judge-1")
    clustered = cohen_kappa(repeated, "judge-0", "judge-1", clusters)
    assert clustered.kappa == pytest.approx(alone.kappa) == pytest.approx(naive.kappa)
    assert naive.high - naive.low < 0.5 * (clustered.high - clustered.low)
    assert (clustered.low, clustered.high) == pytest.approx((alone.low, alone.high), abs=0.05)
    alpha_naive, alpha = krippendorff_alpha(repeated), krippendorff_alpha(repeated, clusters)
    assert alpha_naive.high - alpha_naive.low < 0.5 * (alpha.high - alpha.low)


def test_unscored_and_missing_labels_are_left_out_and_counted() -> None:
    labels = pd.DataFrame(
        {
            "a": ["0-REFUSED", "1-ALIGNED", "UNSCORED", "0-REFUSED", None],
            "b": ["0-REFUSED", "1-ALIGNED", "1-ALIGNED", None, None],
        }
    )
    found = cohen_kappa(labels, "a", "b")
    assert (found.items, found.left_out, found.kappa) == (2, 2, 1.0)
    table = confusion(labels, "a", "b", LABELS)
    assert list(table.index) == ["0-REFUSED", "1-ALIGNED", "UNSCORED", "none"]
    assert int(table.to_numpy().sum()) == 5
    assert table.at["UNSCORED", "1-ALIGNED"] == 1
    with pytest.raises(AgreementError, match="no text has a label of both"):
        cohen_kappa(pd.DataFrame({"a": ["UNSCORED"], "b": ["x"]}), "a", "b")
    with pytest.raises(AgreementError, match="labelled by two of a, b"):
        krippendorff_alpha(pd.DataFrame({"a": ["UNSCORED"], "b": ["x"]}))


def test_agreement_by_one_label_alone_has_no_kappa() -> None:
    labels = pd.DataFrame({"a": ["0-REFUSED"] * 9, "b": ["0-REFUSED"] * 9})
    found = cohen_kappa(labels, "a", "b")
    assert found.agreed == 1.0
    assert math.isnan(found.kappa)
    assert math.isnan(krippendorff_alpha(labels).alpha)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(2, 4))
def test_alpha_is_that_of_its_authors_data_layout(seed: int, error: float, judges: int) -> None:
    labels = noisy(30, error, seed, judges)
    labels = labels.mask(np.random.default_rng(seed).random(labels.shape) < 0.2)
    data = labels.apply(lambda column: column.map({name: number for number, name in enumerate(LABELS)})).to_numpy().T
    found = krippendorff_alpha(labels, draws=20)
    assert found.alpha == pytest.approx(krippendorff.alpha(data, level_of_measurement="nominal"))
    assert found.low <= found.high


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(4, 60), st.integers(2, 4))
def test_alpha_of_summed_coincidences_is_that_of_the_texts(seed: int, error: float, size: int, judges: int) -> None:
    labels = noisy(size, error, seed, judges)
    counts = np.stack([(labels == name).sum(axis=1).to_numpy() for name in LABELS], axis=1)
    units = np.random.default_rng(seed).integers(3, size=size)
    units[:3] = range(3)
    summed = _alphas(_coincidences(counts, units).sum(axis=0, keepdims=True))
    assert summed[0] == pytest.approx(_alpha(counts), nan_ok=True)


def test_all_pairs_of_judges_that_share_a_text() -> None:
    labels = noisy(30, 0.2, judges=3)
    labels["idle"] = None
    found = kappas(labels, draws=20)
    assert list(zip(found["first"], found["second"], strict=True)) == [
        ("judge-0", "judge-1"),
        ("judge-0", "judge-2"),
        ("judge-1", "judge-2"),
    ]


def observed(truth: np.ndarray, sensitivity: float, specificity: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(truth, rng.random(truth.size) < sensitivity, rng.random(truth.size) >= specificity)


def exact(sensitivity: float, specificity: float, share: float, size: float) -> Audit:
    """The audit that would be found in a sample without chance."""
    said = share * sensitivity + (1 - share) * (1 - specificity)
    return Audit(
        share * sensitivity / said, share * (1 - sensitivity) / (1 - said), size, size, said * 1000, (1 - said) * 1000
    )


@given(st.floats(0.6, 1), st.floats(0.6, 1), st.floats(0.1, 0.9))
def test_an_audit_gives_back_sensitivity_and_specificity(sensitivity: float, specificity: float, share: float) -> None:
    found = exact(sensitivity, specificity, share, 50)
    assert found.sensitivity == pytest.approx(sensitivity)
    assert found.specificity == pytest.approx(specificity)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.7, 1), st.floats(0.7, 1), st.lists(st.integers(5, 200), min_size=4, max_size=4))
def test_the_correction_undoes_the_error_and_its_margins_are_rogan_and_gladens(
    sensitivity: float, specificity: float, cells: list[int]
) -> None:
    truth = np.array(cells, dtype=float).reshape(2, 2)
    error = np.array([[sensitivity, 1 - sensitivity], [1 - specificity, specificity]])
    seen = np.rint((error.T @ truth @ error) * 50).astype(int)
    before = np.repeat([True, True, False, False], seen.ravel())
    after = np.repeat([True, False, True, False], seen.ravel())
    audited = exact(sensitivity, specificity, 0.4, 1e6)
    found = corrected_flips(before, after, audited, draws=50)
    assert found.flips.corrected == pytest.approx(truth[0, 1] / truth[0].sum(), abs=0.01)
    assert found.reverse.corrected == pytest.approx(truth[1, 0] / truth[1].sum(), abs=0.01)
    # Rogan and Gladen's estimate of the share itself, written out.
    share = (before.mean() + specificity - 1) / (sensitivity + specificity - 1)
    assert share == pytest.approx(truth[0].sum() / truth.sum(), abs=0.01)


def test_a_judge_that_errs_makes_flips_where_there_are_none() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(20_000) < 0.4
    before, after = observed(truth, 0.9, 0.95, rng), observed(truth, 0.9, 0.95, rng)
    found = corrected_flips(before, after, exact(0.9, 0.95, 0.4, 1e6), draws=200)
    assert found.flips.raw > 0.12
    assert found.flips.corrected < 0.02
    assert found.flips.low <= 0.01


def test_intervals_cover_the_true_flip_rate() -> None:
    rng = np.random.default_rng(1)
    covered, total = 0, 100
    for _ in range(total):
        before = rng.random(300) < 0.5
        after = np.where(before, rng.random(300) >= 0.3, rng.random(300) < 0.05)
        said_before, said_after = observed(before, 0.9, 0.93, rng), observed(after, 0.9, 0.93, rng)
        pool_truth, pool_said = np.concatenate([before, after]), np.concatenate([said_before, said_after])
        picks = np.concatenate(
            [rng.choice(np.flatnonzero(pool_said == side), 60, replace=False) for side in (True, False)]
        )
        weights = np.where(pool_said[picks], pool_said.sum() / 60, (~pool_said).sum() / 60)
        audited = audit(pool_said[picks], pool_truth[picks], weights)
        found = corrected_flips(said_before, said_after, audited, draws=400).flips
        covered += found.low <= 0.3 <= found.high
    assert covered >= 90


def test_a_judge_that_errs_more_on_tuned_answers_is_corrected_by_its_error_there() -> None:
    rng = np.random.default_rng(5)
    truth_before = np.repeat([True, False], 20_000)
    truth_after = truth_before & (rng.random(truth_before.size) < 0.8)
    before = observed(truth_before, 0.95, 0.98, rng)
    after = observed(truth_after, 0.70, 0.98, rng)
    untouched, tuned = exact(0.95, 0.98, 0.5, 1e6), exact(0.70, 0.98, 0.4, 1e6)
    blind = corrected_flips(before, after, untouched, draws=200).flips
    apart = corrected_flips(before, after, untouched, after_audited=tuned, draws=200).flips
    # 0.2 of the class flips; what the judge no longer sees would count as more flips.
    assert blind.corrected > 0.35
    assert apart.corrected == pytest.approx(0.2, abs=0.02)
    assert apart.low < 0.2 < apart.high


def test_an_audit_of_equal_size_on_both_sides_changes_no_estimate() -> None:
    rng = np.random.default_rng(6)
    before, after = rng.random(400) < 0.5, rng.random(400) < 0.4
    audited = exact(0.9, 0.95, 0.45, 200)
    one, two = (corrected_flips(before, after, audited, after_audited=other).flips for other in (None, audited))
    assert one.corrected == pytest.approx(two.corrected, abs=1e-12)
    with pytest.raises(CorrectionError, match="hardly better than chance"):
        corrected_flips(before, after, audited, after_audited=exact(0.5, 0.52, 0.5, 50))


def test_whole_clusters_are_resampled() -> None:
    rng = np.random.default_rng(4)
    before, after = rng.random(40) < 0.6, rng.random(40) < 0.4
    audited = exact(0.95, 0.95, 0.5, 1e6)
    few = corrected_flips(before, after, audited).flips
    many, clusters = (np.tile(before, 25), np.tile(after, 25)), list(range(40)) * 25
    naive = corrected_flips(*many, audited).flips
    clustered = corrected_flips(*many, audited, clusters).flips
    assert naive.corrected == pytest.approx(few.corrected) == pytest.approx(clustered.corrected)
    assert naive.high - naive.low < 0.4 * (clustered.high - clustered.low)
    assert (clustered.low, clustered.high) == pytest.approx((few.low, few.high), abs=0.06)


def test_a_perfect_judge_is_not_corrected_but_its_audit_is_still_a_sample() -> None:
    before, after = np.repeat([True, False], 50), np.tile([True, False], 50)
    small, large = (corrected_flips(before, after, Audit(1.0, 0.0, size, size, 500, 500)).flips for size in (10, 1e6))
    assert small.raw == small.corrected == large.corrected == 0.5
    assert small.high - small.low > large.high - large.low


def test_weights_undo_the_strata() -> None:
    said = [True] * 10 + [False] * 10
    truth = [True] * 9 + [False] + [True] + [False] * 9
    plain, weighted = audit(said, truth), audit(said, truth, [10.0] * 10 + [90.0] * 10)
    assert plain.sensitivity == pytest.approx(0.9)
    assert weighted.sensitivity == pytest.approx(90 / (90 + 90))
    assert weighted.specificity == pytest.approx(810 / (810 + 10))
    assert weighted.size_target == pytest.approx(10)


@pytest.mark.parametrize(
    ("said", "truth", "message"),
    [
        ([True, True], [True, False], "the judge put into another class"),
        ([False, False], [True, False], "the judge put into the target class"),
        ([True, False], [False, False], "people put into the target class"),
        ([True, False], [True, True], "people put into another class"),
        ([True, False], [True], "don't pair"),
    ],
)
def test_a_sample_that_says_nothing_is_refused(said: list[bool], truth: list[bool], message: str) -> None:
    with pytest.raises(CorrectionError, match=message):
        audit(said, truth)


def test_a_judge_without_skill_is_refused_and_one_without_data_is_unknown() -> None:
    with pytest.raises(CorrectionError, match="hardly better than chance"):
        corrected_flips([True, False], [True, False], exact(0.5, 0.52, 0.5, 50))
    found = corrected_flips([False] * 9, [False] * 9, exact(0.9, 1.0, 0.5, 50))
    assert math.isnan(found.flips.raw)
    assert (found.flips.low, found.flips.high) == (0.0, 1.0)
    vague = corrected_flips([True, False] * 20, [True, True] * 20, exact(0.75, 0.6, 0.5, 4))
    assert (vague.flips.low, vague.flips.high) == (0.0, 1.0)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.75, 1), st.floats(0.75, 1), st.lists(st.integers(10, 200), min_size=6, max_size=6))
def test_broken_answers_stay_in_the_denominator(sensitivity: float, specificity: float, cells: list[int]) -> None:
    truth = np.array(cells, dtype=float).reshape(2, 3)
    error = np.array([[sensitivity, 1 - sensitivity], [1 - specificity, specificity]])
    columns = np.eye(3)
    columns[:2, :2] = error
    seen = np.rint(error.T @ truth @ columns * 50).astype(int).ravel()
    before = np.repeat([True] * 3 + [False] * 3, seen)
    after, broken = np.repeat([True, False, True] * 2, seen), np.repeat([False, False, True] * 2, seen)
    found = corrected_flips(before, after, exact(sensitivity, specificity, 0.4, 1e6), broken=broken, draws=50)
    assert found.flips.raw == pytest.approx(seen[1] / seen[:3].sum())
    assert found.flips.corrected == pytest.approx(truth[0, 1] / truth[0].sum(), abs=0.01)
    assert found.reverse.corrected == pytest.approx(truth[1, 0] / truth[1].sum(), abs=0.01)
