from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from mote.harness.preconditions import DataError
from mote.harness.science.clustered import net_effect
from mote.harness.science.equivalence import divergence, equivalent_scores, equivalent_shares


def test_scores_are_statsmodels_paired_tost() -> None:
    from statsmodels.stats.weightstats import ttost_paired  # type: ignore[import-untyped]

    rng = np.random.default_rng(0)
    for shift in (0.0, 0.2, 0.6):
        before = rng.normal(7.0, 2.0, 80)
        after = before + rng.normal(shift, 1.0, 80)
        p, _, _ = ttost_paired(after, before, -0.5, 0.5)
        found = equivalent_scores(before, after, 0.5)
        assert found.p == pytest.approx(p)
        assert found.equivalent == (p <= 0.05) == (found.low > -0.5 and found.high < 0.5)


def test_scores_of_few_units_are_less_sure() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(8), 10)
    before = rng.normal(7.0, 1.0, 80)
    after = before + rng.normal(0.0, 0.6, 8)[units] + rng.normal(0.0, 0.2, 80)
    alone = equivalent_scores(before, after, 0.5)
    whole = equivalent_scores(before, after, 0.5, units.tolist())
    assert whole.high - whole.low > 2 * (alone.high - alone.low)
    assert (whole.rows, whole.units, alone.units) == (80, 8, 80)


def test_no_difference_at_all_is_no_certainty() -> None:
    assert equivalent_scores([1, 2, 3], [1, 2, 3], 0.1).p == 1 / 8
    assert not equivalent_scores([1, 2, 3], [1, 2, 3], 0.1).equivalent
    assert equivalent_scores(range(5), range(5), 0.1).equivalent
    assert equivalent_scores(range(5), range(1, 6), 0.1).p == 1.0
    # Three hundred prompts that all stay, in five places, leave room for a change that five places hide.
    units = [i % 5 for i in range(300)]
    assert not equivalent_shares([1] * 300, [1] * 300, 0.05, units).equivalent
    assert equivalent_shares([1] * 300, [1] * 300, 0.05, list(range(300))).equivalent


def test_shares_lie_within_where_their_interval_does() -> None:
    rng = np.random.default_rng(1)
    before = np.ones(200)
    after = (rng.random(200) > 0.03).astype(float)
    units = list(range(200))
    for margin in (0.02, 0.05, 0.08, 0.2):
        found = equivalent_shares(before, after, margin, units)
        interval = net_effect(before, after, units, 0.90)
        assert (found.low, found.high) == pytest.approx((-interval.high, -interval.low))
        assert found.equivalent == (-margin < found.low and found.high < margin) == (found.p <= 0.05)
    assert equivalent_shares(before, 1 - before, 0.05, units).p == 1.0


def test_equivalence_is_rarely_found_where_the_change_is_the_margin() -> None:
    rng = np.random.default_rng(0)
    found = sum(
        equivalent_shares(np.ones(150), rng.random(150) >= 0.06, 0.06, list(range(150))).equivalent for _ in range(60)
    )
    assert found / 60 <= 0.05 + 2.6 * (0.05 * 0.95 / 60) ** 0.5


def test_divergence_against_the_sum_over_the_vocabulary() -> None:
    rng = np.random.default_rng(0)
    p, q = (special.log_softmax(rng.normal(0, s, 30)) for s in (1.0, 1.2))
    exact = float((np.exp(p) * (p - q)).sum())
    texts = [rng.choice(30, int(rng.integers(20, 60)), p=np.exp(p)) for _ in range(300)]
    found = divergence([p[text] for text in texts], [q[text] for text in texts])
    assert found.low < exact < found.high
    assert found.kl == pytest.approx(exact, rel=0.05)
    assert found.tokens == sum(len(text) for text in texts)
    assert divergence([p[text] for text in texts], [p[text] for text in texts]).kl == 0.0


def test_divergences_interval_covers() -> None:
    rng = np.random.default_rng(2)
    p, q = (special.log_softmax(rng.normal(0, s, 12)) for s in (1.0, 1.1))
    exact = float((np.exp(p) * (p - q)).sum())
    held = 0
    for _ in range(300):
        texts = rng.choice(12, (15, 20), p=np.exp(p))
        found = divergence(list(p[texts]), list(q[texts]), [i // 2 for i in range(15)])
        held += found.low <= exact <= found.high
    assert held / 300 >= 0.95 - 2.6 * (0.95 * 0.05 / 300) ** 0.5


def test_names_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="margin of equivalence is above 0"):
        equivalent_scores([1, 2], [1, 2], 0)
    with pytest.raises(DataError, match="at least two units"):
        equivalent_scores([1, 2], [1, 2], 1, ["a", "a"])
    with pytest.raises(DataError, match="Text 1 has 2 tokens untouched and 1 edited"):
        divergence([[-1], [-1, -2]], [[-1], [-1]])
    with pytest.raises(DataError, match="not finite or above 0"):
        divergence([[-1], [0.5]], [[-1], [-1]])
    with pytest.raises(DataError, match="two texts or more"):
        divergence([[-1]], [[-1]])
