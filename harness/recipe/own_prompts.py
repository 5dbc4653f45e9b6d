"""Prompts of one's own: a file of rows (JSONL, CSV, Parquet) that a recipe names, checked before anything is loaded.

A row's prompt is a text, or a list of chat messages. What a row lacks or says twice is named by its line (of Parquet by
its row), which is also the prompt's id where the file has no column for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import Field, model_validator

from mote.harness.errors import MoteError, nearest
from mote.harness.files import canonical_json
from mote.harness.lines import Row, suffix, table_rows
from mote.harness.recipe.strict import Part

SUFFIXES: Final = (".jsonl", ".ndjson", ".csv", ".parquet")
UNIT: Final = "unit"
"""The attribute that keeps what ``columns.unit`` says of a prompt; the first of ``science.splits.UNITS``."""
_PROMPTS: Final = ("prompt", "messages")
_ROLES: Final = ("system", "user", "assistant")

Value = str | int | float | bool


class ColumnsPart(Part):
    """What a file of prompts calls its columns; attributes are kept beside each prompt and go into every table."""

    prompt: str | None = Field(default=None, description="text or chat messages; left out, prompt or messages")
    id: str | None = Field(default=None, description="left out, id if there is such a column, else the line's number")
    unit: str | None = Field(default=None, description="prompts of one unit are not independent; split: units")
    attributes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_unit(self) -> ColumnsPart:
        if UNIT in self.attributes:
            raise ValueError(f"the attribute '{UNIT}' is the column that columns.unit names: write unit: {UNIT}")
        return self


class OwnPrompt(NamedTuple):
    """A row of the file as a prompt; ``key`` is its id within the file."""

    key: str
    messages: list[dict[str, str]]
    attributes: dict[str, Value]


def read_prompts(path: Path, columns: ColumnsPart, kept: Iterable[str] = ()) -> list[OwnPrompt]:
    """Return the prompts of a file in its order; ``kept`` are further columns that the recipe speaks of.

    Raises MoteError, with one line, for a file that is none of the three kinds, columns that are missing, and the first
    row whose prompt, id or unit is blank or of another kind, or whose id or prompt an earlier row has.
    """
    if not path.is_file():
        raise MoteError(f"task.file: there is no file {path}.{_beside(path)}")
    if suffix(path) not in SUFFIXES:
        raise MoteError(f"task.file: {path} ends in none of {', '.join(SUFFIXES)}.")
    return checked_prompts(str(path), table_rows(path), columns, kept)


def checked_prompts(
    source: str, rows: Iterable[tuple[int, Row]], columns: ColumnsPart, kept: Iterable[str] = (), unit: str = "line"
) -> list[OwnPrompt]:
    """Return the prompts of numbered rows; ``unit`` is what a row is called. Raises MoteError as ``read_prompts``."""
    found: list[OwnPrompt] = []
    wanted = dict.fromkeys([*columns.attributes, *kept])
    ids: dict[str, int] = {}
    asked: dict[str, int] = {}
    called: ColumnsPart | None = None
    for line, row in rows:
        called = called or _called(source, row, columns)
        one = _prompt(f"{source}, {unit} {line}", line, row, called, wanted)
        if (first := ids.setdefault(one.key, line)) != line:
            raise MoteError(f"{source}, {unit} {line}: the id '{one.key[:80]}' is that of {unit} {first} as well.")
        if (first := asked.setdefault(canonical_json(one.messages), line)) != line:
            raise MoteError(
                f"{source}, {unit} {line} asks what {unit} {first} asks; for several answers to a prompt set"
                " task.samples."
            )
        found.append(one)
    return found


def _called(source: str, first: Row, columns: ColumnsPart) -> ColumnsPart:
    """Return the columns with what was left out; raise MoteError for one that the file's first row does not have."""
    prompt = columns.prompt or next((name for name in _PROMPTS if name in first), None)
    if prompt is None:
        known = nearest(_PROMPTS[0], map(str, first))
        raise MoteError(f"{source} has no column 'prompt' or 'messages'; name yours in task.columns.prompt.{known}")
    return columns.model_copy(update={"prompt": prompt, "id": columns.id or ("id" if "id" in first else None)})


def _prompt(where: str, line: int, row: Row, columns: ColumnsPart, attributes: Iterable[str]) -> OwnPrompt:
    key = str(line) if columns.id is None else _word(where, columns.id, _of(where, row, columns.id))
    found = {name: _attribute(where, name, _of(where, row, name)) for name in attributes}
    if columns.unit is not None:
        found[UNIT] = _word(where, columns.unit, _of(where, row, columns.unit))
    return OwnPrompt(key, _messages(where, str(columns.prompt), _of(where, row, str(columns.prompt))), found)


def _of(where: str, row: Row, column: str) -> Any:
    if column not in row:
        raise MoteError(f"{where} has no '{column}'.{nearest(column, map(str, row))}")
    return row[column]


def _word(where: str, column: str, value: Any) -> str:
    """Return an id or a unit as text: one line, not blank."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise MoteError(f"{where}: its '{column}' is {_kind(value)}, not text or a whole number.")
    text = str(value)
    if not text.strip():
        raise MoteError(f"{where}: its '{column}' is blank.")
    if text != text.strip() or not text.isprintable():
        raise MoteError(f"{where}: its '{column}' has blanks around it or characters that do not print.")
    return text


def _attribute(where: str, column: str, value: Any) -> Value:
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise MoteError(f"{where}: its '{column}' is {_kind(value)}; an attribute is text, a number, or true or false.")


def _messages(where: str, column: str, value: Any) -> list[dict[str, str]]:
    if isinstance(value, str):
        if not value.strip():
            raise MoteError(f"{where}: its '{column}' is blank.")
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise MoteError(f"{where}: its '{column}' is {_kind(value)}, neither text nor a list of messages.")
    messages = [_message(where, number, one) for number, one in enumerate(value, start=1)]
    if messages[-1]["role"] != "user":
        raise MoteError(
            f"{where}: its last message is of the role '{messages[-1]['role']}'; the last one asks: 'user'."
        )
    late = next((number for number, one in enumerate(messages, start=1) if number > 1 and one["role"] == "system"), 0)
    if late:
        raise MoteError(f"{where}, message {late} is of the role 'system', which only the first may be.")
    return messages


def _message(where: str, number: int, one: Any) -> dict[str, str]:
    at = f"{where}, message {number}"
    if not isinstance(one, Mapping) or set(one) != {"role", "content"}:
        raise MoteError(f"{at} should be an object of exactly 'role' and 'content'.")
    role, content = one["role"], one["content"]
    if role not in _ROLES:
        raise MoteError(f"{at} has the role {role!r}.{nearest(str(role), _ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise MoteError(f"{at} has no text: its content is {'blank' if isinstance(content, str) else _kind(content)}.")
    return {"role": role, "content": content}


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    known = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "not a finite number" if value != value else known.get(type(value), f"a {type(value).__name__}")


def _beside(path: Path) -> str:
    """Say which file of the folder was meant, or that there is no such folder."""
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    return nearest(path.name, [item.name for item in path.parent.iterdir() if suffix(item) in SUFFIXES])
