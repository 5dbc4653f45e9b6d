from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mote.harness.preconditions import DataError
from mote.harness.science.dose import best_dose, dose_curve, doses, layer_shares, layer_thirds
from mote.harness.science.inference import clopper_pearson
from mote.harness.science.resonance import distinctive_experts
from mote.harness.science.transitions import transition_matrix

REFUSED, ALIGNED = "0-REFUSED", "1-ALIGNED"
CLASSES = (REFUSED, ALIGNED, "2-REASONED")


def matrix(flips: int, broken: int = 0, reverse: int = 0) -> pd.DataFrame:
    """Forty refused and forty aligned prompts before."""
    after = [ALIGNED] * flips + ["DEGENERATE"] * broken + [REFUSED] * (40 - flips - broken)
    after += [REFUSED] * reverse + [ALIGNED] * (40 - reverse)
    return transition_matrix(pd.Series([REFUSED] * 40 + [ALIGNED] * 40), pd.Series(after), CLASSES)


def test_doses_are_nested_and_as_long_as_the_ranking() -> None:
    ranked = distinctive_experts(np.arange(1.0, 13.0).reshape(3, 4), 12, [4, 5, 6])
    sets = doses(ranked)
    assert list(sets) == [1, 3, 5, 10]
    assert sets[1] == [(6, 3)]
    assert sets[3] == [(6, 3), (6, 2), (6, 1)]
    assert all(set(sets[a]) < set(sets[b]) for a, b in ((1, 3), (3, 5), (5, 10)))
    with pytest.raises(DataError, match="2 experts is too short"):
        doses(ranked[:2], (5, 10))


def test_a_curve_has_a_row_for_each_dose_with_its_rates() -> None:
    curve = dose_curve(
        {("suppress", 10): matrix(16, 2, 1), ("stimulate", 10): matrix(0), ("suppress", 1): matrix(3)},
        quality={("suppress", 10): 0.93},
    )
    assert list(zip(curve["action"], curve["dose"], strict=True)) == [
        ("stimulate", 10),
        ("suppress", 1),
        ("suppress", 10),
    ]
    row = curve.iloc[2]
    assert (row["flips"], row["flips_hits"], row["flips_total"]) == (0.4, 16, 40)
    assert (row["flips_low"], row["flips_high"]) == clopper_pearson(16, 40)
    assert (row["broken"], row["reverse"], row["quality"]) == (0.05, 0.025, 0.93)
    assert (row["kept"], row["kept_hits"], row["kept_total"]) == (0.975, 39, 40)
    assert curve["quality"].isna().tolist() == [True, True, False]
    with pytest.raises(DataError, match="has no transition matrix"):
        dose_curve({("suppress", 1): matrix(3)}, quality={("suppress", 2): 1.0})


def test_the_best_dose_flips_most_without_breaking_text() -> None:
    curve = dose_curve(
        {
            ("suppress", 1): matrix(4),
            ("suppress", 5): matrix(12),
            ("suppress", 10): matrix(12),
            ("suppress", 20): matrix(30, broken=9),
            ("suppress", 50): matrix(35, reverse=8),
        }
    )
    best = best_dose(curve)
    assert best is not None
    assert (best["dose"], best["flips"]) == (5, 0.3)
    loose = best_dose(curve, max_broken=0.5)
    assert loose is not None
    assert loose["dose"] == 20
    assert best_dose(curve[curve["dose"] > 10]) is None


def test_thirds_are_of_the_models_layers_not_of_the_experts() -> None:
    experts = [(3, 0), (9, 1), (10, 2), (4, 5), (5, 5), (8, 1)]
    assert layer_thirds(experts, range(3, 11)) == {
        "early": [(3, 0), (4, 5)],
        "middle": [(5, 5), (8, 1)],
        "late": [(9, 1), (10, 2)],
    }
    assert layer_thirds([(3, 0)], range(3, 11))["late"] == []
    with pytest.raises(DataError, match=r"Layer 11 of expert \(11, 0\) is no MoE layer of 3 to 10"):
        layer_thirds([(11, 0)], range(3, 11))
    with pytest.raises(DataError, match="at least three"):
        layer_thirds([(1, 0)], [1, 2])


def test_shares_and_what_only_comes_together() -> None:
    table = layer_shares({"early": 0.02, "middle": 0.12, "late": 0.22}, whole=0.42, nothing=0.02).set_index("part")
    assert table["share"].to_dict() == pytest.approx({"early": 0.0, "middle": 0.25, "late": 0.5, "together": 0.25})
    assert table.loc["together", "effect"] == pytest.approx(0.1)
    assert layer_shares({"early": 0.1}, whole=0.0)["share"].isna().all()
