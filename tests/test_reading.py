"""What the one reader of JSON and YAML takes, and takes unchanged; what it refuses is tried in ``strangers``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mote.reading import (
    MOST_DEPTH,
    UnreadableError,
    check_http_url,
    open_regular,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_text,
)

ROOT = Path(__file__).parents[1]
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12)
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


@given(VALUES)
def test_what_json_can_write_is_read_as_it_was(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(VALUES)
def test_yaml_is_read_as_the_json_that_it_writes_down(value: Any) -> None:
    assert parse_yaml(json.dumps(value)) == value


@pytest.mark.parametrize("path", sorted(ROOT.glob("harness/*/recipes/*.yaml")) + sorted(ROOT.glob("judges/prompts/*")))
def test_our_own_files_are_read_as_pyyaml_reads_them(path: Path) -> None:
    assert parse_yaml(path.read_bytes()) == yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: yes", {"a": "yes"}),
        ("a: on", {"a": "on"}),
        ("no: x", {"no": "x"}),
        ("a: 1e-5", {"a": 1e-5}),
        ("a: 2020-01-01", {"a": "2020-01-01"}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: '1'", {"a": "1"}),
        ("a: !!str 1", {"a": "1"}),
        ("a: ~\nb:\n", {"a": None, "b": None}),
        ("- |\n  two\n  lines\n- >\n  one\n  line\n", ["two\nlines\n", "one line\n"]),
        ("'<<': 1", {"<<": 1}),
        ("", None),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_yaml_means_what_it_says(text: str, value: Any) -> None:
    assert parse_yaml(text.encode()) == value


def assert_deep(text: str, refused: bool) -> None:
    json.loads(text)
    if refused:
        with pytest.raises(UnreadableError, match="nested deeper"):
            parse_json(text)
    else:
        parse_json(text)


def test_as_deep_as_is_said_and_no_deeper() -> None:
    for parse in (parse_json, parse_yaml):
        assert parse("[" * MOST_DEPTH + "]" * MOST_DEPTH) is not None
        with pytest.raises(UnreadableError, match="nested deeper"):
            parse("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1))
    for depth in (MOST_DEPTH, MOST_DEPTH + 1):
        branch = '[{"a[": ' * (depth // 2) + "[]" * (depth % 2) + "1" * (1 - depth % 2) + "}]" * (depth // 2)
        text = f"[{{}}, {branch[1:-1]}, [[]]]"
        assert_deep(text, depth > MOST_DEPTH)
    # Brackets within texts are none.
    assert parse_json(json.dumps(["[" * 1000 + '"' + "{" * 1000])) == ["[" * 1000 + '"' + "{" * 1000]


def test_only_files_are_read_and_no_more_of_them_than_is_allowed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), Path("/dev/null"), tmp_path / "pipe", tmp_path, tmp_path / "nothing"):
        with pytest.raises(UnreadableError):
            open_regular(path)
    (tmp_path / "file").write_bytes(b'{"a": "\xc3\xa9"}')
    assert read_json(tmp_path / "file") == {"a": "é"}
    with pytest.raises(UnreadableError, match="larger than 3 bytes"):
        read_bytes(tmp_path / "file", 3)
    (tmp_path / "file").write_bytes(b"\xff")
    with pytest.raises(UnreadableError, match="not UTF-8"):
        read_text(tmp_path / "file")


def test_nan_passes_where_a_log_may_hold_it_and_nowhere_else() -> None:
    assert parse_json('{"a": -Infinity}', nan=True) == {"a": float("-inf")}
    with pytest.raises(UnreadableError, match="NaN, which is no JSON"):
        parse_json('{"a": NaN}')


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "https://api.example.com/v1/", "http://[::1]:8000", "http://localhost/v1"]
)
def test_urls_of_apis(url: str) -> None:
    check_http_url(url)
