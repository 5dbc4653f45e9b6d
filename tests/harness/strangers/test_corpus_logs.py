"""Malformed logs and tables of answers, of any tool that is read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mote.harness.errors import MoteError
from tests.harness.strangers.calls import mote, refused
from tests.harness.strangers.corpus import counted, each, whole, writer
from tests.harness.strangers.mutations import Case, broken_texts, not_json, wrong_values

NOTE = {"digest": "d", "profile": "p", "model": "m", "seed": 1, "raw": "x", "finish_reason": "stop"}
SAMPLE: dict[str, Any] = {
    "doc_id": 0,
    "doc": {"id": "refusal_grid/1/a", "question": "q", "messages": [{"role": "user", "content": "q"}]},
    "doc_hash": "h",
    "prompt_hash": "p",
    "target": "",
    "arguments": {"gen_args_0": {"arg_0": "q", "arg_1": {"temperature": 0.0, "until": []}, "arg_2": {"mote": [NOTE]}}},
    "resps": [["x"]],
    "filtered_resps": ["x"],
    "filter": "none",
    "metrics": ["refused"],
    "refused": 1.0,
    "label": "0-REFUSED",
}


def test_logs_of_lm_eval(tmp_path: Path) -> None:
    from mote.harness.compare.sources import read_answers

    path = tmp_path / "samples_refusal_grid_2026-01-01T00-00-00.0.jsonl"
    read = writer(path, lambda: read_answers(str(path)))
    path.write_text(json.dumps(SAMPLE) + "\n")
    assert len(read_answers(str(path)).rows) == 1
    each("lm-eval", broken_texts(SAMPLE), read, must=True)
    # Loggers write NaN, and whoever compares numbers looks at them; else what is no JSON is no log.
    strict = ((name, text) for name, text in not_json(SAMPLE) if b"NaN" not in text and b"Infinity" not in text)
    each("lm-eval", strict, read, must=True)
    with pytest.raises(MoteError, match="nothing to compare"):
        read(json.dumps({**SAMPLE, "refused": float("nan")}).encode())
    each("lm-eval", wrong_values(SAMPLE, 120), read, must=False)
    for name, content in (("bomb.jsonl.gz", gzip.compress(b"[" * (200 << 20))), ("one.jsonl", b"x" * (40 << 20))):
        (tmp_path / name).write_bytes(content)
        refused(mote("compare", tmp_path / name, tmp_path / name), "longer than" if "one" in name else "")
        (tmp_path / name).unlink()
    refused(mote("compare", "/dev/zero", "/dev/zero"))


def test_tables_of_answers(tmp_path: Path) -> None:
    from mote.harness.compare.sources import read_answers

    row = {
        "id": "a",
        "question": "q",
        "answer": "x",
        "reasoning": "",
        "finish_reason": "stop",
        "sample": 1,
        "unit": "u",
    }
    path = tmp_path / "table.jsonl"
    read = writer(path, lambda: read_answers(str(path)))
    each("table", broken_texts(row), read, must=True)
    each("table", wrong_values(row, 40), read, must=False)
    csv = tmp_path / "table.csv"
    take = writer(csv, lambda: read_answers(str(csv)))
    texts = (
        b"id,answer\n1,x\n",
        b"id,id\n1,2\n",
        b'id,answer\n1,"x\n',
        b"id\xff,answer\n",
        b"\x00",
        b"id,answer\n1\n",
        b"a",
    )
    each("csv", ((f"csv {at}", text) for at, text in enumerate(texts)), take, must=False)
    parquet = tmp_path / "table.parquet"
    each("parquet", (("cut", b"PAR1"), ("other", b"PAR1" * 100), ("nothing", b"")).__iter__(),
         writer(parquet, lambda: read_answers(str(parquet))), must=True)  # fmt: skip
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet as pq

    pq.write_table(pa.table({"id": pa.DictionaryArray.from_arrays(pa.array([0] * 30_000_000), ["x" * 1000])}), parquet)
    refused(mote("compare", parquet, parquet), "far more than its size bears")


def test_logs_of_inspect(tmp_path: Path) -> None:
    from mote.harness.compare.sources import read_answers
    from tests.harness.compare.test_logs import HEADER, SAMPLES

    path = tmp_path / "log.json"
    log = {**HEADER, "samples": SAMPLES[:3]}
    read = writer(path, lambda: read_answers(str(path)))
    read(json.dumps(log).encode())
    each("inspect", broken_texts(log), read, must=True)
    each("inspect", wrong_values(log, 60), read, must=False)
    import zipfile

    bomb = tmp_path / "bomb.eval"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", b" " * (70 << 20))
    refused(mote("compare", bomb, bomb), "more than")


RANKINGS = "ranking,k,share,low,high,matched_mean,matched_max\nresonance,5,0.5,0.4,0.6,0.1,0.2\nauc,5,0.5,0.4,0.6,,\n"


def test_tables_of_rankings(tmp_path: Path) -> None:
    from mote.harness.report.ranking_figure import read_rankings

    path = tmp_path / "rankings.csv"
    assert read_rankings(path).empty
    path.write_text(RANKINGS)
    assert len(read_rankings(path)) == 2

    def cases() -> Iterator[Case]:
        for name, old, new in (
            ("text", "0.5", "much"),
            ("infinity", "0.5", "inf"),
            ("blank", "0.5", ""),
            ("twice", "auc", "resonance"),
            ("a cell more", "0.2", "0.2,7"),
            ("quotes", "auc", '"auc'),
            ("a huge number", "0.5", "9" * 5000),
        ):
            yield name, RANKINGS.replace(old, new).encode()
        yield "nothing", b""
        yield "no Unicode", b"\xff" + RANKINGS.encode()
        yield "a NUL", RANKINGS.replace("0.4", "\x00").encode()
        yield "many", RANKINGS.encode() + b"".join(b"r%d,5,0,0,0,0,0\n" % number for number in range(1000))
        yield "large", RANKINGS.encode() + b" " * (5 << 20)

    each("rankings", cases(), writer(path, lambda: read_rankings(path)), must=True)


def test_there_were_as_many_as_is_said(request: pytest.FixtureRequest) -> None:
    """The last of this file: it counts what the others tried, where all of them ran before it."""
    if whole(request):
        assert sum(counted.values()) >= 280, counted
