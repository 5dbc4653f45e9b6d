"""MT-Bench's numbers, from rows to rows: means by category and turn, tuned minus original, wins, and what is missing.

A mean is over all ratings, as FastChat's ``show_result`` takes it. The unit of the bootstrap is the question: the two
turns and the choices of a question are not independent. What has no rating is in no mean, so a model that loses its
worst answers looks better than it is: ``if_worst`` is the mean with a 1 for every one of them, and stands beside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import pandas as pd

from mote.harness.compare.scores import EQUIVALENCE, within
from mote.harness.science.equivalence import equivalent_scores
from mote.harness.science.inference import cluster_rate_interval, cluster_sign_test
from mote.judges.llm.asks import SCORED
from mote.judges.mt_bench import CATEGORIES, ERROR, MODEL_1, MODEL_2, TIE

ALL: Final = "all"
"""The category, or turn, of a row over all of them."""

_WORST: Final = 1.0


def score_table(ratings: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return one row a model, category and turn (1, 2, both as ``all``), and over all categories.

    ``mean`` of ``scored`` ratings of ``questions`` questions, its interval ``low`` to ``high`` (nan with fewer than two
    questions), ``unscored`` turns without a rating, and ``if_worst``.
    """
    rows = []
    for model, category, turn, some in _groups(ratings, ["model"]):
        known = some[some["state"] == SCORED]
        low, high = _interval(known["score"], known["question_id"], level)
        unscored = len(some) - len(known)
        rows.append(
            {
                "model": model,
                "category": category,
                "turn": turn,
                "questions": int(known["question_id"].nunique()),
                "scored": len(known),
                "mean": float(known["score"].mean()) if len(known) else math.nan,
                "low": low,
                "high": high,
                "unscored": unscored,
                "if_worst": float((known["score"].sum() + _WORST * unscored) / len(some)),
            }
        )
    return pd.DataFrame(rows)


def difference_table(
    ratings: pd.DataFrame, original: str, level: float = 0.95, margin: float | None = None
) -> pd.DataFrame:
    """Return each model minus the original, paired by question, choice and turn, by category and turn.

    With a ``margin``, in points, ``equivalent`` says whether the change is shown to be smaller, at alpha 0.05, with
    ``equivalence_p``; questions are the units.

    ``pairs`` have a rating of both, ``unpaired`` of one or none; ``p`` is of the sign-flip test over questions.
    """
    slot = ["category", "question_id", "choice", "turn"]
    base = ratings[ratings["model"] == original].set_index(slot)["score"].rename("base")
    rest = ratings[ratings["model"] != original].join(base, on=slot, how="left")
    rest = rest.assign(difference=rest["score"] - rest["base"])
    rows = []
    for model, category, turn, some in _groups(rest, ["model"]):
        known = some.dropna(subset=["difference"])
        low, high = _interval(known["difference"], known["question_id"], level)
        questions = list(known["question_id"])
        equal = {} if margin is None else within(known["base"], known["score"], margin, questions, equivalent_scores)
        rows.append(
            {
                "model": model,
                "original": original,
                "category": category,
                "turn": turn,
                "pairs": len(known),
                "unpaired": len(some) - len(known),
                "difference": float(known["difference"].mean()) if len(known) else math.nan,
                "low": low,
                "high": high,
                "p": cluster_sign_test(known["difference"], questions).p if len(known) else math.nan,
                **equal,
            }
        )
    columns = ["model", "original", "category", "turn", "pairs", "unpaired", "difference", "low", "high", "p"]
    return pd.DataFrame(rows, columns=[*columns, *([] if margin is None else EQUIVALENCE)])


def win_table(matches: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return wins, losses and ties of each tuned model against the original, by category and turn.

    ``win_rate`` counts a tie as half a win (FastChat's ``win_rate_adjusted``); ``unscored`` matches are in no rate.
    """
    rows = []
    for tuned, category, turn, some in _groups(matches, ["model_1"]):
        known = some[some["winner"] != ERROR]
        points = known["winner"].map({MODEL_1: 1.0, TIE: 0.5, MODEL_2: 0.0}).astype(float)
        low, high = _interval(points, known["question_id"], level)
        counts = known["winner"].value_counts()
        rows.append(
            {
                "model": tuned,
                "original": str(some["model_2"].iloc[0]),
                "category": category,
                "turn": turn,
                "wins": int(counts.get(MODEL_1, 0)),
                "ties": int(counts.get(TIE, 0)),
                "losses": int(counts.get(MODEL_2, 0)),
                "unscored": len(some) - len(known),
                "win_rate": float(points.mean()) if len(points) else math.nan,
                "low": low,
                "high": high,
            }
        )
    columns = ["model", "original", "category", "turn", "wins", "ties", "losses", "unscored", "win_rate", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def state_table(ratings: pd.DataFrame) -> pd.DataFrame:
    """Return how many turns of each model ended in each state; every row adds up to the turns of the model."""
    return pd.crosstab(ratings["model"], ratings["state"]).reindex(list(dict.fromkeys(ratings["model"])))


def _groups(frame: pd.DataFrame, by: list[str]) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Yield (model, category, turn, rows) for each category and all, and each turn and both."""
    for key, rows in frame.groupby(by[0], sort=False):
        found = set(rows["category"])
        for category in (*(name for name in CATEGORIES if name in found), ALL):
            in_category = rows if category == ALL else rows[rows["category"] == category]
            for turn in (1, 2, ALL):
                some = in_category if turn == ALL else in_category[in_category["turn"] == turn]
                if len(some):
                    yield str(key), category, str(turn), some


def _interval(values: pd.Series[Any], questions: pd.Series[Any], level: float) -> tuple[float, float]:
    if questions.nunique() < 2:
        return math.nan, math.nan
    return cluster_rate_interval(values.to_numpy(), list(questions), level)
