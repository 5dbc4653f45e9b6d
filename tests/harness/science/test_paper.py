from __future__ import annotations

from mote.harness.preconditions import STATES
from mote.harness.science.paper import EXPERTS, FIGURES, LANGUAGE_PROMPTS, LAYERS, mt_bench_table


def test_the_model_has_the_experts_that_the_paper_counts() -> None:
    assert len(LAYERS) * EXPERTS == 14_848


def test_shares_are_shares_and_no_figure_is_given_twice() -> None:
    assert all(0.0 <= figure.share < 1.0 for figure in FIGURES)
    keys = [(f.experiment, f.profile, f.from_class, f.to_class) for f in FIGURES]
    assert len(keys) == len(set(keys))
    assert not {f.from_class for f in FIGURES} & set(STATES)


def test_the_language_shares_are_whole_prompts() -> None:
    shares = [f.share for f in FIGURES if f.experiment == "reasoning_language"]
    assert [share * LANGUAGE_PROMPTS["ENGLISH"] for share in shares] == [43.0, 1.0]


def test_mt_bench_has_the_same_seven_categories_for_both() -> None:
    table = mt_bench_table()
    assert table.shape == (7, 2)
    assert table.notna().all(axis=None)
    # Section 3.5: "indications of increased model performance"; coding gains most, math and humanities lose a little.
    gain = table["suppress top 10"] - table["original"]
    assert gain.idxmax() == "coding"
    assert set(gain[gain < 0].index) == {"math", "humanities"}
