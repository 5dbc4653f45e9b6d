"""The ratings and matches of a bench as frames: one row a rating that is due, one row a match.

Every turn of every model is a row, also where there is no answer or no rating: its ``state`` says why, and the totals
add up.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from mote.harness.mt_bench.judging import CORRECTED, NONE, ORIGINAL
from mote.harness.mt_bench.store import JUDGED, BenchStore
from mote.judges.llm.asks import SCORED
from mote.judges.mt_bench import game_winner, match_winner

WAITING: Final = "waiting"
"""An answer that no judgment was asked for yet."""

_SLOT = ["question_id", "choice", "turn"]


def judges_of(store: BenchStore) -> list[str]:
    """Return the names of the judges of a bench."""
    return list(dict.fromkeys(map(str, store.judgments()["judge"])))


def ratings(store: BenchStore, judge: str, reference_set: str) -> pd.DataFrame:
    """Return one row a model, question, choice and turn: ``state`` and ``score`` (nan unless the state is scored).

    ``state`` is that of the answer where there is none, else scored, unusable, unreached or waiting.
    """
    answers = store.answers()[["model_id", "category", *_SLOT, "state"]].rename(
        columns={"model_id": "model", "state": "answer_state"}
    )
    given = _of_set(store.judgments(), judge, "single", reference_set)
    rows = answers.merge(given, how="left", left_on=["model", *_SLOT], right_on=["model_1", *_SLOT])
    judged = rows["answer_state"].isin(JUDGED)
    state = rows["state"].where(judged, rows["answer_state"]).fillna(WAITING)
    score = pd.to_numeric(rows["verdict"], errors="coerce").where(state == SCORED)
    return rows.assign(state=state, score=score)


def matches(store: BenchStore, judge: str, reference_set: str) -> pd.DataFrame:
    """Return one row a match that was begun: ``model_1`` tuned, ``model_2`` original, the games' winners, ``winner``.

    ``winner`` is model_1, model_2 or tie; "error" where a game has no usable verdict, or there was no answer to one.
    """
    answers = store.answers()
    given = _of_set(store.judgments(), judge, "pair", reference_set)
    found = []
    for tuned, base in given[["model_1", "model_2"]].drop_duplicates().itertuples(index=False):
        slots = answers.loc[answers["model_id"] == tuned, ["category", *_SLOT]]
        here = given[(given["model_1"] == tuned) & (given["model_2"] == base)]
        rows = slots.assign(model_1=tuned, model_2=base)
        for game in (1, 2):
            columns = {name: f"g{game}_{name}" for name in ("verdict", "user_prompt", "raw", "prompt", "tstamp")}
            one = here[here["game"] == game][[*_SLOT, *columns]].rename(columns=columns)
            rows = rows.merge(one, how="left", on=_SLOT)
            rows[f"g{game}_winner"] = [
                game_winner(verdict if isinstance(verdict, str) else None, swapped=game == 2)
                for verdict in rows[f"g{game}_verdict"]
            ]
        rows["winner"] = [match_winner(a, b) for a, b in zip(rows["g1_winner"], rows["g2_winner"], strict=True)]
        found.append(rows)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["model_1", "model_2", "winner"])


def _of_set(judgments: pd.DataFrame, judge: str, mode: str, reference_set: str) -> pd.DataFrame:
    """Return the judgments that count in a set: the corrected one where there is one, else the only one there is."""
    given = judgments[(judgments["judge"] == judge) & (judgments["mode"] == mode)].drop(columns="model")
    order = {NONE: 0, ORIGINAL: 1, CORRECTED: 2 if reference_set == CORRECTED else -1}
    given = given.assign(rank=given["reference"].map(order))
    given = given[given["rank"] >= 0].sort_values("rank", kind="stable")
    return given.drop_duplicates(["model_1", "model_2", *_SLOT, "game"], keep="last").drop(columns="rank")
