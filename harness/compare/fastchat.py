"""MT-Bench: a bench's folder, or FastChat's JSON lines of answers (model_answer) and of ratings (model_judgment).

Each turn of each choice is an answer of its own; turns and choices of one question are one unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mote.harness.compare.answers import Answers, rows_of, scores_of
from mote.harness.errors import MoteError, nearest
from mote.harness.lines import Row, json_lines
from mote.judges import Markers

ANSWERS: Final = "model_answer"
_JUDGMENTS: Final = "model_judgment"
_FAILED: Final = "$ERROR$"  # fastchat.llm_judge.common.API_ERROR_OUTPUT
_UNUSABLE: Final = -1
_WHAT: Final = "a file of MT-Bench"
# How `mote mt-bench` says that a turn has an answer, and how it ended.
_STATES: Final = {"answered": "stop", "cut-off": "length"}


def is_fastchat(row: Mapping[str, Any]) -> bool:
    """Whether a line is one of FastChat's: of answers, of ratings or of matches."""
    return "question_id" in row and ("choices" in row or "judge" in row)


def read_bench(folder: Path, model: str | None, markers: Markers) -> Answers:
    """Read a model's answers, with their ratings, from a folder that has ``model_answer/``.

    Raises MoteError where there is no answer of ``model``, or several models and none is named.
    """
    files = sorted((folder / ANSWERS).glob("*.jsonl"))
    if not files:
        raise MoteError(f"{folder / ANSWERS} holds no answers (*.jsonl).")
    found = {_model(file): file for file in files}
    if model is None and len(found) > 1:
        raise MoteError(f"{folder} holds answers of {len(found)} models; name one: {folder}:{min(found)}")
    model = min(found) if model is None else model
    if model not in found:
        raise MoteError(f"{folder} has no answers of the model '{model}'.{nearest(model, found)}")
    judgments = sorted((folder / _JUDGMENTS).glob("*_single*.jsonl"))
    ratings = [row for file in judgments for row in _ratings(file, model)]
    side = read_answers_file(found[model], model, markers)
    return Answers(**{**vars(side), "name": f"{folder.name}:{model}", "scores": scores_of(ratings)})


def read_fastchat(path: Path, model: str | None, markers: Markers) -> Answers:
    """Read FastChat's answers or ratings of one model. Raises MoteError for matches of two, and as ``read_bench``."""
    first = next(json_lines(path, _WHAT))[1]
    if "choices" in first:
        return read_answers_file(path, model, markers)
    if "model_1" in first:
        raise MoteError(
            f"{path} holds matches of two models, which are no answers; give *_single.jsonl or model_answer."
        )
    names = {str(row.get("model")) for _, row in json_lines(path, _WHAT)}
    if model is None and len(names) > 1:
        raise MoteError(f"{path} rates {len(names)} models; name one: {path}:{min(names)}")
    model = min(names) if model is None else model
    if model not in names:
        raise MoteError(f"{path} rates no model '{model}'.{nearest(model, names)}")
    ratings = list(_ratings(path, model))
    rows = [{"key": key, "unit": key.partition("/")[0]} for key in dict.fromkeys(row["key"] for row in ratings)]
    return Answers(f"{path.name}:{model}", "mt-bench", rows_of(rows), scores_of(ratings), task="mt_bench")


def read_answers_file(path: Path, model: str | None, markers: Markers) -> Answers:
    """Read FastChat's answers; raises MoteError where they are of another model, or one question occurs twice."""
    rows: list[dict[str, Any]] = []
    lines: dict[str, int] = {}
    found = _model(path)
    if model not in (None, found):
        raise MoteError(f"{path} holds answers of '{found}', not of '{model}'.")
    for number, row in json_lines(path, _WHAT):
        name = str(_value(path, number, row, "question_id"))
        if str(row.get("model_id")) != found:
            raise MoteError(f"{path}, line {number} is of '{row.get('model_id')}', the first line of '{found}'.")
        if name in lines:
            raise MoteError(f"{path} has two answers to question {name} (lines {lines[name]} and {number}).")
        lines[name] = number
        rows += list(_turns(path, number, name, row))
    lost = sum(row["finish_reason"] == "error" for row in rows)
    notes = (f"{lost} of {len(rows)} turns of {path.name} have no answer; they are UNSCORED.",) if lost else ()
    return Answers(
        name=path.name, source="mt-bench", task="mt_bench", rows=rows_of(rows), scores=scores_of(), markers=markers,
        notes=notes,
    )  # fmt: skip


def _turns(path: Path, number: int, name: str, row: Row) -> Iterator[dict[str, Any]]:
    for choice in _value(path, number, row, "choices"):
        turns = choice.get("turns") if isinstance(choice, Mapping) else None
        if not isinstance(turns, list) or not all(isinstance(text, str) for text in turns):
            raise MoteError(f"{path}, line {number}: a choice has no 'turns', a list of texts.")
        states = choice.get("states") or [None] * len(turns)
        for turn, (text, state) in enumerate(zip(turns, states, strict=True), start=1):
            ended = _STATES.get(state, "error") if state else None
            failed = not text.strip() or text.strip() == _FAILED
            yield {
                "key": _key(name, choice.get("index", 0), turn),
                "unit": name,
                "question": f"MT-Bench question {name}, turn {turn}",
                "raw": text,
                "finish_reason": "error" if failed else ended,
            }


def _ratings(path: Path, model: str) -> Iterator[dict[str, Any]]:
    for number, row in json_lines(path, _WHAT):
        if str(_value(path, number, row, "model")) != model:
            continue
        score = _value(path, number, row, "score")
        if not isinstance(score, int | float):
            raise MoteError(f"{path}, line {number}: the score is {score!r}, not a number.")
        if score != _UNUSABLE:
            key = _key(str(_value(path, number, row, "question_id")), row.get("choice", 0), row.get("turn", 1))
            # Which references a rating goes by stands in the file's name alone.
            judge = path.name.removesuffix(".jsonl").replace("_single", "", 1)
            yield {"key": key, "metric": f"rating by {judge}", "filter": "mt-bench", "value": float(score)}


def _key(question: str, choice: Any, turn: Any) -> str:
    return f"{question}/choice {choice}/turn {turn}"


def _model(path: Path) -> str:
    number, row = next(json_lines(path, _WHAT))
    return str(_value(path, number, row, "model_id"))


def _value(path: Path, number: int, row: Row, name: str) -> Any:
    if name not in row:
        raise MoteError(f"{path}, line {number} has no '{name}': it is not {_WHAT}.{nearest(name, row)}")
    return row[name]
