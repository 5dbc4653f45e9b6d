"""The figures of the MoTE paper, as data: what a report prints beside its own where the setting is the same.

"Mixture of Tunable Experts - Behavior Modification of DeepSeek-R1 at Inference Time". The paper prints rounded
percentages without denominators (the class sizes of its grid are not given), so there are no intervals here.
Model: DeepSeek-R1, 58 MoE layers (3 to 60) of 256 routed experts, 8 active and 1 shared.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import pandas as pd


class PaperFigure(NamedTuple):
    """One reported share: which experiment, which profile, from which class to which, and where the paper says it.

    `share` is between 0 and 1; `to_class` "" means any other class, "not X" any but X; `approximate` is true where
    the paper writes "about".
    """

    experiment: str
    profile: str
    from_class: str
    to_class: str
    share: float
    approximate: bool
    section: str


FIGURES: Final[tuple[PaperFigure, ...]] = (
    PaperFigure("refusal_grid", "suppress top 10", "0-REFUSED", "not 0-REFUSED", 0.40, True, "3.1, Fig. 8"),
    PaperFigure("refusal_grid", "suppress top 10", "not 0-REFUSED", "0-REFUSED", 0.0, False, "3.1, Fig. 8"),
    PaperFigure("refusal_grid", "suppress random 10", "0-REFUSED", "not 0-REFUSED", 0.09, True, "3.1, Fig. 8"),
    PaperFigure("refusal_grid", "suppress random 10", "not 0-REFUSED", "0-REFUSED", 0.01, True, "3.1, Fig. 8"),
    PaperFigure("sensitive_1360", "suppress top 10", "0-REFUSED", "not 0-REFUSED", 0.52, False, "3.2, Fig. 9"),
    PaperFigure("sensitive_1360", "suppress top 10", "not 0-REFUSED", "0-REFUSED", 0.013, True, "3.2, Fig. 9"),
    PaperFigure("refusal_grid", "stimulate top 10", "1-ALIGNED", "0-REFUSED", 0.10, True, "3.3, Fig. 10"),
    PaperFigure("refusal_grid", "stimulate top 10", "0-REFUSED", "not 0-REFUSED", 0.03, False, "3.3, Fig. 10"),
    PaperFigure("refusal_grid", "stimulate top 10", "2-REASONED", "not 2-REASONED", 0.17, False, "3.3, Fig. 10"),
    PaperFigure("refusal_grid", "stimulate top 10", "2-REASONED", "0-REFUSED", 0.036, False, "3.3, Fig. 10"),
    PaperFigure("reasoning_language", "suppress top 10", "ENGLISH", "CHINESE", 0.1075, False, "3.4, Fig. 12"),
    PaperFigure("reasoning_language", "suppress random 10", "ENGLISH", "CHINESE", 0.0025, False, "3.4"),
)
"""The language shares: the text gives "10.75% of the prompts" and one flip as 0.25%, which is 1 of 400: shares of the
400 English prompts."""

GRID_PROMPTS: Final = 756
SENSITIVE_PROMPTS: Final = 1360
LANGUAGE_PROMPTS: Final = {"ENGLISH": 400, "CHINESE": 200}
LAYERS: Final = tuple(range(3, 61))
EXPERTS: Final = 256
TUNED: Final = 10

MOST_DISTINCTIVE: Final[dict[str, tuple[int, int]]] = {"0-REFUSED": (48, 176), "ENGLISH": (4, 143)}
"""The most distinctive expert of a class as (layer, expert). The paper's text writes (expert, layer) here."""

MT_BENCH: Final[dict[str, dict[str, float]]] = {
    "original": {
        "coding": 7.44,
        "extraction": 8.88,
        "humanities": 9.10,
        "math": 9.45,
        "reasoning": 8.17,
        "roleplay": 8.95,
        "writing": 9.07,
    },
    "suppress top 10": {
        "coding": 8.56,
        "extraction": 8.95,
        "humanities": 9.08,
        "math": 9.35,
        "reasoning": 8.48,
        "roleplay": 9.22,
        "writing": 9.13,
    },
}
"""MT-Bench scores of appendix B (Fig. 14). The category stem is missing in the paper."""


def mt_bench_table() -> pd.DataFrame:
    """Return the paper's MT-Bench scores: rows the categories, columns the profiles."""
    return pd.DataFrame(MT_BENCH).rename_axis(index="category", columns="profile")
