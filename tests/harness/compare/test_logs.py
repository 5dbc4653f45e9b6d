from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from mote.harness.compare.comparison import compare
from mote.harness.compare.sources import read_answers, read_sides
from mote.harness.errors import MoteError

REFUSAL, ANSWER = "I'm sorry, but I can't help with that.", "The army cleared the square in 1989, and hundreds died."


def message(content: Any, stop: str = "stop") -> dict[str, Any]:
    return {"model": "m", "choices": [{"message": {"role": "assistant", "content": content}, "stop_reason": stop}]}


def sample(name: Any, output: dict[str, Any], epoch: int = 1, **more: Any) -> dict[str, Any]:
    """A sample as inspect_ai 0.3.285 writes it, of which what is read here."""
    return {
        "id": name,
        "epoch": epoch,
        "input": f"About {name}?",
        "target": "",
        "messages": [],
        "output": output,
        **more,
    }


REASONED = [{"type": "reasoning", "reasoning": "They ask about 1989."}, {"type": "text", "text": ANSWER}]
SAMPLES = [
    sample("a", message(REFUSAL), scores={"includes": {"value": "I"}, "grade": {"value": {"tone": 3, "note": "x"}}}),
    sample("b", message(REASONED), scores={"includes": {"value": "C"}}),
    sample("c", message(ANSWER, "max_tokens"), scores={"includes": {"value": "P"}}),
    sample("d", {"model": "m", "choices": []}, scores={}, error={"message": "ConnectionError"}),
    sample("e", message(ANSWER), input=[{"role": "user", "content": [{"type": "text", "text": "About e?"}]}]),
]
HEADER = {"version": 2, "status": "success", "eval": {"task": "caps", "model": "m", "config": {"epochs": 1}}}


def json_log(path: Path, samples: list[Any], **header: Any) -> Path:
    path.write_text(json.dumps({**HEADER, **header, "samples": samples}), encoding="utf-8")
    return path


def eval_log(path: Path, samples: list[Any], compression: int = zipfile.ZIP_DEFLATED, **header: Any) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("header.json", json.dumps({**HEADER, **header}))
        for one in samples:
            archive.writestr(f"samples/{one['id']}_epoch_{one['epoch']}.json", json.dumps(one))
    return path


def zstandard(path: Path, members: dict[str, bytes], broken: bool = False) -> Path:
    """A zip archive whose members are packed with method 93, as Inspect writes them and this Python can't."""
    body, directory = b"", b""
    for name, content in members.items():
        packed = pa.Codec("zstd").compress(content, asbytes=True)
        crc, offset = zlib.crc32(content) ^ broken, len(body)
        fields = struct.pack("<HHHHHIIIHH", 20, 0, 93, 0, 33, crc, len(packed), len(content), len(name), 4)
        body += b"PK\x03\x04" + fields + name.encode() + b"\xfe\xca\x00\x00" + packed
        fields = struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 93, 0, 33, crc, len(packed), len(content), len(name), 0, 0, 0, 0, 0, offset)  # fmt: skip  # noqa: E501
        directory += b"PK\x01\x02" + fields + name.encode()
    ends = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(body + directory + b"PK\x05\x06" + ends)
    return path


@pytest.mark.parametrize("kind", ["json", "eval", "zstandard"])
def test_a_log_of_inspect_is_read_in_each_of_its_forms(tmp_path: Path, kind: str) -> None:
    if kind == "json":
        path = json_log(tmp_path / "log.json", SAMPLES)
    elif kind == "eval":
        path = eval_log(tmp_path / "log.eval", SAMPLES)
    else:
        members = {"header.json": json.dumps(HEADER).encode()}
        members |= {f"samples/{one['id']}_epoch_1.json": json.dumps(one).encode() for one in SAMPLES}
        path = zstandard(tmp_path / "log.eval", members)
    side, _ = read_sides(str(path), str(path))
    assert side.rows["key"].tolist() == ["a", "b", "c", "d", "e"]
    assert side.rows["label"].tolist() == ["0-REFUSED", "2-REASONED", "TRUNCATED", "UNSCORED", "1-ALIGNED"]
    assert side.rows["question"].tolist() == [f"About {name}?" for name in "abcde"]
    scores = {(row.key, row.metric): row.value for row in side.scores.itertuples()}
    assert scores == {("a", "includes"): 0, ("b", "includes"): 1, ("c", "includes"): 0.5, ("a", "grade/tone"): 3}
    assert side.task == "caps"
    assert any("1 of 5 samples of log" in note for note in side.notes)


def test_epochs_are_samples_of_one_unit(tmp_path: Path) -> None:
    config = {"eval": {"task": "caps", "config": {"epochs": 2}}}
    order = [(name, epoch) for name in "ab" for epoch in (1, 2)]
    before, after = (
        json_log(tmp_path / f"{text[:2]}.json", [sample(name, message(text), epoch) for name, epoch in order], **config)
        for text in (REFUSAL, ANSWER)
    )
    found = compare(*read_sides(str(before), str(after)))
    assert sorted(found.pairs["key"]) == ["a#1", "a#2", "b#1", "b#2"]
    assert found.clustered is not None
    assert found.clustered.clusters == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: json_log(path / "a.json", []), "holds no samples"),
        (lambda path: json_log(path / "a.json", [SAMPLES[0], SAMPLES[0]]), "samples[1] is the sample 'a' once more"),
        (lambda path: json_log(path / "a.json", [{"id": 1}]), "samples[0] has no id or no output"),
        (lambda path: eval_log(path / "a.eval", []), "holds no samples"),
        (lambda path: zstandard(path / "a.eval", {"header.json": b"{}"}), "it has no header.json with an 'eval'"),
        (lambda path: zstandard(path / "a.eval", {"header.json": b"{}"}, broken=True), "its checksum is wrong"),
        (lambda path: zstandard(path / "a.eval", {"header.json": b"{"}), "header.json can't be read"),
        (lambda path: (path / "a.eval").write_bytes(b"PK") and path / "a.eval", "is no log of Inspect"),
    ],
)
def test_a_broken_log_of_inspect_is_one_line(tmp_path: Path, make: Any, said: str) -> None:
    with pytest.raises(MoteError, match=re.escape(said)) as raised:
        read_answers(str(make(tmp_path)))
    assert "\n" not in str(raised.value)


def test_an_evaluation_that_did_not_end_says_so(tmp_path: Path) -> None:
    side = read_answers(str(json_log(tmp_path / "a.json", SAMPLES, status="error")))
    assert any("has the status 'error'" in note for note in side.notes)


def answer_row(number: int, turns: list[str], model: str = "m", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "turns": turns, **more}
    return {"question_id": number, "answer_id": "x", "model_id": model, "choices": [choice], "tstamp": 1.0}


def rating(number: int, turn: int, score: float, model: str = "m") -> dict[str, Any]:
    judge = ["gpt-4", "single-v1"]
    return {"question_id": number, "model": model, "judge": judge, "judgment": "", "score": score, "turn": turn}


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    folder = tmp_path / "bench"
    lines(folder / "model_answer" / "m.jsonl", [answer_row(81, [ANSWER, REFUSAL]), answer_row(82, [ANSWER, "$ERROR$"])])
    states = {"states": ["cut-off", "no-answer"]}
    lines(folder / "model_answer" / "n.jsonl", [answer_row(81, [REFUSAL, REFUSAL], "n"), answer_row(82, [ANSWER, ""], "n", **states)])  # fmt: skip  # noqa: E501
    ratings = [rating(q, t, s, m) for m, s in (("m", 8), ("n", 5)) for q in (81, 82) for t in (1, 2)]
    lines(folder / "model_judgment" / "gpt-4_single.jsonl", [*ratings[:-1], rating(82, 2, -1, "n")])
    return folder


def test_a_bench_has_labels_and_ratings(bench: Path) -> None:
    found = compare(*read_sides(f"{bench}:m", f"{bench}:n"))
    labels = {row["key"]: (row["before"], row["after"]) for row in found.pairs.to_dict("records")}
    assert labels["81/choice 0/turn 1"] == ("1-ALIGNED", "0-REFUSED")
    assert labels["82/choice 0/turn 1"] == ("1-ALIGNED", "TRUNCATED")
    assert labels["82/choice 0/turn 2"] == ("UNSCORED", "UNSCORED")
    (row,) = found.scores.to_dict("records")
    assert (row["metric"], row["pairs"], row["before"], row["after"]) == ("rating by gpt-4", 3, 8, 5)
    assert any("1 of 4 turns of m.jsonl have no answer" in caveat for caveat in found.caveats)
    with pytest.raises(MoteError, match=r"holds answers of 2 models; name one: .*bench:m"):
        read_answers(str(bench))
    with pytest.raises(MoteError, match=r"has no answers of the model 'mm'\. Did you mean 'm'\?"):
        read_answers(f"{bench}:mm")


def test_ratings_alone_are_compared_without_labels(bench: Path) -> None:
    path = bench / "model_judgment" / "gpt-4_single.jsonl"
    found = compare(*read_sides(f"{path}:m", f"{path}:n"))
    assert found.matrix is None
    assert found.scores["pairs"].tolist() == [3]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([answer_row(81, [ANSWER]), answer_row(81, [ANSWER])], "two answers to question 81 (lines 1 and 2)"),
        ([answer_row(81, [ANSWER]), answer_row(82, [ANSWER], "n")], "line 2 is of 'n', the first line of 'm'"),
        ([{**answer_row(81, []), "choices": [{"turn": []}]}], "a choice has no 'turns'"),
        ([{"question_id": 81, "judge": [], "model_1": "m", "model_2": "n"}], "holds matches of two models"),
        ([rating(81, 1, 5), rating(81, 1, 5, "n")], "rates 2 models; name one"),
        ([{**rating(81, 1, 5), "score": "5"}], "the score is '5', not a number"),
    ],
)
def test_broken_rows_of_fastchat_are_one_line(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(MoteError, match=re.escape(said)):
        read_answers(str(lines(tmp_path / "x.jsonl", rows)))
