"""Answers of any tool: a table with a row an answer, as JSONL, CSV or Parquet.

Columns: ``id`` or ``question`` (at least one), ``answer``; if there are such ``reasoning``, ``finish_reason``,
``label``, ``model``, ``sample`` (which of several answers to one question) and ``unit`` (answers of one unit are not
independent of each other). What a column is called can be said. The whole file is read and checked before anything is
compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from mote.harness.compare.answers import Answers, finish_of, raw_of, rows_of, scores_of
from mote.harness.errors import MoteError, nearest
from mote.harness.lines import Row, table_rows
from mote.judges import Markers

COLUMNS: Final = ("id", "question", "answer", "reasoning", "finish_reason", "label", "model", "sample", "unit")
_NEEDED: Final = ("id", "question", "answer")
SUFFIXES: Final = (".jsonl", ".ndjson", ".csv", ".parquet")
_SHOWN: Final = 6
"""Lines that an error names."""


def parse_columns(text: str | None) -> dict[str, str]:
    """Read ``answer=text,id=qid``: what a file calls its columns. Raises MoteError for a name that is none of ours."""
    found: dict[str, str] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        ours, separator, theirs = part.partition("=")
        ours, theirs = ours.strip(), theirs.strip()
        if not separator or not theirs:
            raise MoteError(f"--columns {part}: write ours=theirs, for instance answer=text.")
        if ours not in COLUMNS:
            raise MoteError(f"--columns {part}: '{ours}' is none of ours.{nearest(ours, COLUMNS)}")
        if ours in found:
            raise MoteError(f"--columns names '{ours}' twice.")
        found[ours] = theirs
    return found


def read_table(
    path: Path, model: str | None, columns: Mapping[str, str], markers: Markers, *, blanks: bool = False
) -> Answers:
    """Read the answers of a table, or those of one ``model`` where it has a column of that name.

    ``blanks`` takes a blank answer for one that could not be scored. Raises MoteError, with one line, for columns that
    are missing, ids that occur twice, blank answers, values of another kind, and several models of which none is named.
    """
    first = next(iter(table_rows(path)))[1]
    absent = [
        f"{path.name} has no column '{theirs}' (--columns {ours}={theirs})."
        for ours, theirs in columns.items()
        if theirs not in first and ours not in first and ours not in _NEEDED
    ]
    columns = _called(path, first, columns)
    taken = _of_model(path, model, columns["model"])
    keyed = "id" if columns["id"] in first else "question"
    rows: list[dict[str, Any]] = []
    lines: dict[str, list[int]] = {}
    empty = [number for number, row in taken if columns["answer"] in row and _blank(row[columns["answer"]])]
    for number, row in taken:
        rows.append(_answer(path, number, row, columns, keyed, markers))
        lines.setdefault(rows[-1]["key"], []).append(number)
    found = {name: any(not _blank(row.get(columns[name])) for _, row in taken) for name in COLUMNS}
    _check_once(path, lines, keyed)
    if empty and not blanks:
        raise MoteError(
            f"{path}: {len(empty)} of {len(rows)} answers are blank ({_lines(empty)}); --blanks takes them for"
            " UNSCORED."
        )
    return Answers(
        name=f"{path.name}:{model}" if model else path.name,
        source="table",
        rows=rows_of(rows),
        scores=scores_of(),
        keyed=keyed,
        markers=markers,
        judge=f"the column '{columns['label']}'" if found["label"] else "",
        notes=(*absent, *_notes(path.name, found, len(empty), markers, rows)),
    )


def _answer(
    path: Path, number: int, row: Row, columns: Mapping[str, str], keyed: str, markers: Markers
) -> dict[str, Any]:
    """Return one row of ``Answers.rows``; raise MoteError where the key or the answer is missing, or is no text."""
    for name in (keyed, "answer"):
        _check(path, number, row, name, columns)
    values = {name: row.get(columns[name]) for name in COLUMNS}
    answer, reasoning = (_text(path, number, name, values[name]) for name in ("answer", "reasoning"))
    key = " ".join(str(values[keyed]).split())
    unit = "" if _blank(values["unit"]) else str(values["unit"])
    if not _blank(values["sample"]):
        key, unit = f"{key}#{values['sample']}", unit or key
    return {
        "key": key,
        "question": _text(path, number, "question", values["question"]),
        "raw": raw_of(answer, reasoning, markers),
        "label": None if _blank(values["label"]) else str(values["label"]),
        "finish_reason": finish_of(values["finish_reason"]),
        "unit": unit,
    }


def _called(path: Path, first: Row, columns: Mapping[str, str]) -> dict[str, str]:
    """What this file calls each column: two files of one comparison may have names of their own."""
    for ours, theirs in columns.items():
        if theirs not in first and ours not in first and ours in _NEEDED:
            raise MoteError(f"{path} has no column '{theirs}' (--columns {ours}={theirs}).{nearest(theirs, first)}")
    return {name: columns[name] if columns.get(name) in first else name for name in COLUMNS}


def _of_model(path: Path, model: str | None, column: str) -> list[tuple[int, Row]]:
    """The rows of one model; the others are passed over as they are read."""
    counts: Counter[str] = Counter()
    taken = []
    for number, row in table_rows(path):
        found = row.get(column)
        counts[str(found)] += 1
        if model is None or str(found) == model:
            taken.append((number, row))
        if model is None and len(counts) > 1:
            names = ", ".join(list(counts))
            raise MoteError(f"{path} holds answers of several models ({names}, ...); name one: {path}:{min(counts)}")
    if not taken:
        known = "" if counts.keys() == {"None"} else nearest(str(model), counts)
        raise MoteError(f"{path} has no answer whose '{column}' is '{model}'.{known}")
    return taken


def _check(path: Path, number: int, row: Row, name: str, columns: Mapping[str, str]) -> None:
    column = columns[name]
    if column in row and (name == "answer" or not _blank(row[column])):
        return
    if column in row:
        raise MoteError(f"{path}, line {number}: its '{column}' is blank.")
    keys = "neither 'id' nor 'question'" if name == "question" else f"no '{column}'"
    hint = nearest("id" if name == "question" else column, map(str, row))
    raise MoteError(f"{path}, line {number} has {keys}.{hint} Say what the column is called: --columns {name}=...")


def _text(path: Path, number: int, name: str, value: Any) -> str:
    if value is None or value != value:
        return ""
    if not isinstance(value, str):
        raise MoteError(f"{path}, line {number}: the {name} is {_kind(value)}, not text.")
    return value


def _kind(value: Any) -> str:
    known = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return known.get(type(value), type(value).__name__)


def _blank(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _check_once(path: Path, lines: Mapping[str, list[int]], keyed: str) -> None:
    twice = {key: numbers for key, numbers in lines.items() if len(numbers) > 1}
    if not twice:
        return
    key, numbers = next(iter(twice.items()))
    more = f" ({len(twice) - 1} more of them occur twice)" if len(twice) > 1 else ""
    raise MoteError(
        f"{path}: the {keyed} '{key[:80]}' occurs {len(numbers)} times ({_lines(numbers)}){more}; it needs one answer a"
        " side. Of several samples, name the column that numbers them: --columns sample=..."
    )


def _lines(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
    return f"line {shown}" if len(numbers) == 1 else f"lines {shown}"


def _notes(
    name: str, found: Mapping[str, bool], empty: int, markers: Markers, rows: list[dict[str, Any]]
) -> Iterable[str]:
    if empty:
        yield f"{empty} answers of {name} are blank; they are UNSCORED."
    if not found["finish_reason"]:
        yield f"{name} does not say how answers ended: one that was cut off is read as whole."
    if not found["reasoning"] and not any(markers.close in row["raw"] for row in rows):
        yield f"{name} holds no reasoning: no answer of it can be told to have reasoned."
