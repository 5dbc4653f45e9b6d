"""From a bench's store to rows: one a rating that is due, one a match; and FastChat's JSON lines of both.

Every turn of every model is a row, also where there is no answer or no rating: its ``state`` says why, and the totals
add up. FastChat's rows have -1, or "error", there, which its ``show_result`` leaves out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from mote.harness.files import write_atomic
from mote.harness.mt_bench.judging import CORRECTED, NONE, ORIGINAL, REFERENCE_SETS
from mote.harness.mt_bench.store import JUDGED, BenchStore
from mote.judges.llm.asks import SCORED
from mote.judges.mt_bench import UNSCORED, game_winner, match_winner

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


def export(store: BenchStore) -> list[Path]:
    """Write FastChat's files into the bench's folder: ``model_answer/``, ``model_judgment/``; return their paths."""
    written = []
    for model, rows in store.answers().groupby("model_id", sort=False):
        lines = [_answer_row(str(model), question, some) for question, some in rows.groupby("question_id", sort=True)]
        written.append(_write(store.folder / "model_answer" / f"{file_name(str(model))}.jsonl", lines))
    judged = store.judgments()
    for judge in judges_of(store):
        for reference_set in REFERENCE_SETS:
            ending = ".jsonl" if reference_set == ORIGINAL else f".{reference_set}.jsonl"
            stem = store.folder / "model_judgment" / file_name(judge)
            modes = set(judged.loc[judged["judge"] == judge, "mode"])
            if "single" in modes:
                lines = [_single_row(judge, row) for row in _records(ratings(store, judge, reference_set))]
                written.append(_write(Path(f"{stem}_single{ending}"), lines))
            if "pair" in modes:
                lines = [_pair_row(judge, row) for row in _records(matches(store, judge, reference_set))]
                written.append(_write(Path(f"{stem}_pair{ending}"), lines))
    return written


def file_name(name: str) -> str:
    """Return a model's or judge's name as a file's, unlike that of any other name."""
    safe = re.sub(r"[^A-Za-z0-9._+-]", "_", name)
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _of_set(judgments: pd.DataFrame, judge: str, mode: str, reference_set: str) -> pd.DataFrame:
    """Return the judgments that count in a set: the corrected one where there is one, else the only one there is."""
    given = judgments[(judgments["judge"] == judge) & (judgments["mode"] == mode)].drop(columns="model")
    order = {NONE: 0, ORIGINAL: 1, CORRECTED: 2 if reference_set == CORRECTED else -1}
    given = given.assign(rank=given["reference"].map(order))
    given = given[given["rank"] >= 0].sort_values("rank", kind="stable")
    return given.drop_duplicates(["model_1", "model_2", *_SLOT, "game"], keep="last").drop(columns="rank")


def _answer_row(model: str, question: Any, rows: pd.DataFrame) -> dict[str, Any]:
    choices = []
    for choice, some in rows.groupby("choice", sort=True):
        turns = some.sort_values("turn")
        # Where there is no answer the text is empty, as FastChat's reader expects one; the state says why.
        texts = [text if state in JUDGED else "" for text, state in zip(turns["answer"], turns["state"], strict=True)]
        choices.append({"index": int(str(choice)), "turns": texts, "states": list(turns["state"])})
    identity = hashlib.sha256(json.dumps([model, int(question), choices]).encode()).hexdigest()[:22]
    return {
        "question_id": int(question),
        "answer_id": identity,
        "model_id": model,
        "choices": choices,
        "tstamp": float(rows["tstamp"].max()),
    }


def _single_row(judge: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "question_id": int(row["question_id"]),
        "model": row["model"],
        "judge": [judge, _text(row["prompt"])],
        "user_prompt": _text(row["user_prompt"]),
        "judgment": _text(row["raw"]),
        "score": UNSCORED if pd.isna(row["score"]) else _number(row["score"]),
        "turn": int(row["turn"]),
        "tstamp": 0.0 if pd.isna(row["tstamp"]) else float(row["tstamp"]),
        "choice": int(row["choice"]),
        "state": row["state"],
        "guarded": bool(row["guarded"]) if row["guarded"] == row["guarded"] else False,
    }


def _pair_row(judge: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "question_id": int(row["question_id"]),
        "model_1": row["model_1"],
        "model_2": row["model_2"],
        "g1_winner": row["g1_winner"],
        "g2_winner": row["g2_winner"],
        "judge": [judge, _text(row["g1_prompt"])],
        "g1_user_prompt": _text(row["g1_user_prompt"]),
        "g1_judgment": _text(row["g1_raw"]),
        "g2_user_prompt": _text(row["g2_user_prompt"]),
        "g2_judgment": _text(row["g2_raw"]),
        "turn": int(row["turn"]),
        "tstamp": max([float(row[name]) for name in ("g1_tstamp", "g2_tstamp") if not pd.isna(row[name])], default=0.0),
        "choice": int(row["choice"]),
    }


def _number(score: float) -> int | float:
    return int(score) if float(score).is_integer() else float(score)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _write(path: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
    return path
