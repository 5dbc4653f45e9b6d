"""Files of prompts of one's own: the three formats, and what is wrong in them, named by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mote.harness.errors import MoteError
from mote.harness.recipe.own_prompts import ColumnsPart, read_prompts

ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "Why is the sky blue?", "topic": "sky", "level": 1, "leading": True},
    {"id": "b", "prompt": "Why is grass green?", "topic": "grass", "level": 2, "leading": False},
]


def jsonl(folder: Path, *rows: Any, name: str = "mine.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_the_three_formats_give_the_same_prompts(tmp_path: Path, suffix: str) -> None:
    path, frame = tmp_path / f"mine.{suffix}", pd.DataFrame(ROWS)
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        jsonl(tmp_path, *ROWS)
    found = read_prompts(path, ColumnsPart(unit="topic", attributes=["level"]), ["leading"])
    assert [one.key for one in found] == ["a", "b"]
    assert found[0].messages == [{"role": "user", "content": "Why is the sky blue?"}]
    assert [one.attributes["unit"] for one in found] == ["sky", "grass"]
    # CSV has no types: its values are text.
    expected = {"level": "1", "leading": "True"} if suffix == "csv" else {"level": 1, "leading": True}
    assert found[0].attributes == {**expected, "unit": "sky"}


def test_messages_and_columns_by_other_names(tmp_path: Path) -> None:
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Why?"},
    ]
    path = jsonl(tmp_path, {"messages": talk}, {"messages": "Why not?"})
    found = read_prompts(path, ColumnsPart())
    assert [one.key for one in found] == ["1", "2"]
    assert (found[0].messages, found[1].messages[0]["content"]) == (talk, "Why not?")
    named = jsonl(tmp_path, {"q": "Why?", "number": 7}, name="other.jsonl")
    assert read_prompts(named, ColumnsPart(prompt="q", id="number"))[0].key == "7"


def test_messages_of_parquet_are_lists(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pd.DataFrame({"messages": [[{"role": "user", "content": "Why?"}]]}).to_parquet(path)
    assert read_prompts(path, ColumnsPart())[0].messages == [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([{"promt": "x"}], {}, "has no column 'prompt' or 'messages'; name yours in task.columns.prompt. Did you mean"),
        ([{"prompt": "x"}], {"prompt": "question"}, "line 1 has no 'question'"),
        ([{"prompt": "x"}, {"id": "b"}], {}, "line 2 has no 'prompt'"),
        ([{"prompt": "x", "id": "a"}, {"prompt": "y"}], {}, "line 2 has no 'id'"),
        ([{"prompt": " "}], {}, "line 1: its 'prompt' is blank"),
        ([{"prompt": 7}], {}, "line 1: its 'prompt' is a number, neither text nor a list of messages"),
        ([{"prompt": "x", "id": "a"}, {"prompt": "y", "id": "a"}], {}, "line 2: the id 'a' is that of line 1 as well"),
        ([{"prompt": "x"}, {"prompt": "x"}], {}, "line 2 asks what line 1 asks; for several answers to a prompt set"),
        ([{"prompt": "x", "id": ""}], {}, "its 'id' is blank"),
        ([{"prompt": "x", "id": 1.5}], {}, "its 'id' is a number, not text or a whole number"),
        ([{"prompt": "x", "id": "a\nb"}], {}, "characters that do not print"),
        ([{"prompt": "x", "topic": None}], {"unit": "topic"}, "its 'topic' is missing"),
        ([{"prompt": "x", "topic": "a"}], {"unit": "topik"}, "has no 'topik'. Did you mean 'topic'?"),
        ([{"prompt": "x", "level": [1]}], {"attributes": ["level"]}, "its 'level' is a list; an attribute is"),
        (['{"prompt": "x", "level": NaN}'], {"attributes": ["level"]}, "its 'level' is not a finite number"),
        ([{"prompt": []}], {}, "its 'prompt' is a list, neither text nor"),
        ([{"prompt": [{"role": "user"}]}], {}, "message 1 should be an object of exactly 'role' and 'content'"),
        ([{"prompt": [{"role": "usr", "content": "x"}]}], {}, "message 1 has the role 'usr'. Did you mean 'user'?"),
        ([{"prompt": [{"role": "user", "content": " "}]}], {}, "message 1 has no text: its content is blank"),
        ([{"prompt": [{"role": "assistant", "content": "x"}]}], {}, "its last message is of the role 'assistant'"),
        (
            [{"prompt": [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]}],
            {},
            "its last message is of the role 'system'",
        ),
        (["{"], {}, "line 1 is not JSON"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(
    tmp_path: Path, rows: list[Any], columns: dict[str, Any], said: str
) -> None:
    with pytest.raises(MoteError) as caught:
        read_prompts(jsonl(tmp_path, *rows), ColumnsPart(**columns))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_of_another_kind_is_named(tmp_path: Path) -> None:
    jsonl(tmp_path, *ROWS)
    with pytest.raises(MoteError, match=r"there is no file .*Did you mean 'mine.jsonl'"):
        read_prompts(tmp_path / "mine.json", ColumnsPart())
    with pytest.raises(MoteError, match=r"There is no folder .* either"):
        read_prompts(tmp_path / "nowhere" / "mine.jsonl", ColumnsPart())
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(MoteError, match=r"ends in none of .jsonl"):
        read_prompts(tmp_path / "mine.txt", ColumnsPart())
