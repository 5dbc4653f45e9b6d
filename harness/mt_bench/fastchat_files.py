"""A bench's answers and judgments as the JSON lines that FastChat writes and reads.

Where a turn has no answer or no rating FastChat's rows have -1, or "error", which its ``show_result`` leaves out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mote.harness.files import subfolder, write_atomic
from mote.harness.mt_bench.judging import ORIGINAL, REFERENCE_SETS
from mote.harness.mt_bench.ratings import judges_of, matches, ratings
from mote.harness.mt_bench.store import JUDGED, BenchStore
from mote.judges.mt_bench import UNSCORED


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
    subfolder(path.parent.parent, path.parent.name)
    write_atomic(path, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
    return path
