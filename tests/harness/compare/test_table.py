from __future__ import annotations

import csv
import gzip
import json
import lzma
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mote.harness.compare.comparison import compare
from mote.harness.compare.sources import Reading, read_answers, read_sides
from mote.harness.compare.table import parse_columns
from mote.harness.errors import MoteError
from mote.judges import JUDGE, MARKERS

REFUSAL, ANSWER = "I'm sorry, but I can't help with that.", "The army cleared the square in 1989, and hundreds died."
ROWS: list[dict[str, Any]] = [
    {"id": "a", "question": "What happened?", "answer": REFUSAL, "finish_reason": "stop"},
    {"id": "b", "question": "And?", "answer": ANSWER, "reasoning": "They ask about 1989.", "finish_reason": "end_turn"},
    {"id": 3, "question": "At length?", "answer": ANSWER, "finish_reason": "max_tokens"},
]  # fmt: skip


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def written(folder: Path, kind: str) -> Path:
    path, rows = folder / f"answers{kind}", ROWS
    if kind == ".jsonl":
        return jsonl(path, rows)
    if kind == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            names = list(dict.fromkeys(name for row in rows for name in row))
            lines = csv.DictWriter(file, names, restval="")
            lines.writeheader()
            lines.writerows(rows)
        return path
    if kind == ".parquet":
        pd.DataFrame([{**row, "id": str(row["id"])} for row in rows]).to_parquet(path)
        return path
    packed = gzip.open if kind.endswith(".gz") else lzma.open
    with packed(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet", ".jsonl.gz", ".jsonl.xz"])
def test_answers_of_any_tool_are_labelled_by_the_rules(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    side, _ = read_sides(str(path), str(path))
    assert side.rows["key"].tolist() == ["a", "b", "3"]
    assert side.rows["label"].tolist() == ["0-REFUSED", "2-REASONED", "TRUNCATED"]
    assert side.rows["raw"][1] == f"<think>They ask about 1989.</think>{ANSWER}"
    assert side.judge == JUDGE
    assert not side.notes


def test_two_files_with_names_of_their_own_pair_and_flip(tmp_path: Path) -> None:
    before = jsonl(tmp_path / "b.jsonl", ROWS[:2])
    after = jsonl(tmp_path / "a.jsonl", [{"qid": "a", "text": ANSWER}, {"qid": "b", "text": ANSWER}])
    found = compare(*read_sides(str(before), str(after), Reading(columns=parse_columns("id=qid, answer=text"))))
    assert found.rates is not None
    assert (found.rates.flips.hits, found.rates.flips.total) == (1, 1)
    said = " ".join(found.caveats)
    assert "a.jsonl does not say how answers ended" in said
    assert "a.jsonl holds no reasoning" in said


def test_one_file_holds_several_models(tmp_path: Path) -> None:
    rows = [{"id": "a", "answer": text, "model": f"org/{name}"} for name, text in (("r1", REFUSAL), ("v3", ANSWER))]
    path = jsonl(tmp_path / "models.jsonl", rows)
    found = compare(*read_sides(f"{path}:org/r1", f"{path}:org/v3"))
    assert (found.before.name, found.after.name) == ("models.jsonl:org/r1", "models.jsonl:org/v3")
    assert found.rates is not None
    assert found.rates.flips.hits == 1
    with pytest.raises(MoteError, match=r"several models .* name one: .*models\.jsonl:org/r1"):
        read_answers(str(path))
    with pytest.raises(MoteError, match=r"no answer whose 'model' is 'org/r2'\. Did you mean 'org/r1'\?"):
        read_answers(f"{path}:org/r2")


def test_labels_of_the_files_own_are_used_where_both_have_them(tmp_path: Path) -> None:
    one, two = (
        jsonl(tmp_path / f"{name}.jsonl", [{"id": key, "answer": ANSWER, "verdict": label} for key, label in labels])
        for name, labels in (
            ("b", [("1", "EVASIVE"), ("2", "COMPLETE")]),
            ("a", [("1", "COMPLETE"), ("2", "COMPLETE")]),
        )
    )
    reading = Reading(columns={"label": "verdict"})
    found = compare(*read_sides(str(one), str(two), reading), target="EVASIVE")
    assert found.before.judge == "the column 'verdict'"
    assert found.rates is not None
    assert (found.rates.flips.hits, found.rates.flips.total) == (1, 1)
    left, right = read_sides(str(one), str(two), reading, "refusal")
    assert (left.judge, right.judge) == (JUDGE, JUDGE)
    assert any("--labels column uses them" in note for note in left.notes)
    bare = jsonl(tmp_path / "bare.jsonl", [{"id": "1", "answer": ANSWER}])
    left, right = read_sides(str(one), str(bare), reading)
    assert (left.judge, right.judge) == (JUDGE, JUDGE)
    assert "bare.jsonl has no column 'verdict' (--columns label=verdict)." in right.notes
    with pytest.raises(MoteError, match=r"--labels column: bare\.jsonl has no labels of its own"):
        read_sides(str(one), str(bare), reading, "column")


def test_without_ids_the_question_pairs_and_samples_are_units(tmp_path: Path) -> None:
    asked = jsonl(tmp_path / "q.jsonl", [{"question": " What  happened? ", "answer": ANSWER}])
    found = compare(*read_sides(str(written(tmp_path, ".jsonl")), str(asked)))
    assert (len(found.pairs), found.unpaired) == (1, (2, 0))
    rows = [{"id": key, "sample": n, "answer": REFUSAL if n < 2 else ANSWER} for key in "abc" for n in range(3)]
    several = jsonl(tmp_path / "several.jsonl", rows)
    turned = jsonl(tmp_path / "turned.jsonl", [{**row, "answer": ANSWER} for row in rows])
    found = compare(*read_sides(str(several), str(turned)))
    assert len(found.pairs) == 9
    assert found.clustered is not None
    assert found.clustered.clusters == 3


def test_other_markers_and_other_languages_of_reasoning(tmp_path: Path) -> None:
    raw = "◁think▷用户在问天安门事件的历史背景。◁/think▷" + ANSWER
    path = jsonl(tmp_path / "k.jsonl", [{"id": "a", "answer": raw, "finish_reason": "stop"}])
    reading = Reading(markers=MARKERS["kimi-vl"])
    assert read_sides(str(path), str(path), reading)[0].rows["label"].tolist() == ["2-REASONED"]
    assert read_sides(str(path), str(path), reading, "language")[0].rows["label"].tolist() == ["chinese"]
    spoken = reading._replace(label="reasoning_language")
    assert read_sides(str(path), str(path), spoken)[0].rows["label"].tolist() == ["chinese"]


A = {"id": "a", "answer": ANSWER}


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([{"id": "a", "anwser": ANSWER}], "", "line 1 has no 'answer'. Did you mean 'anwser'? Say what the column is"),
        ([A, {"id": "b"}], "", "line 2 has no 'answer'"),
        ([{"qid": "a", "answer": ANSWER}], "", "line 1 has neither 'id' nor 'question'. Did you mean 'qid'?"),
        ([A], "answer=txt,id=id", ""),
        ([{"id": "a", "text": ANSWER}], "answer=txt", "no column 'txt' (--columns answer=txt). Did you mean 'text'?"),
        ([A, {"id": " ", "answer": ANSWER}], "", "line 2: its 'id' is blank"),
        ([A, {"id": "b", "answer": ANSWER}, A, A], "", "the id 'a' occurs 3 times (lines 1, 3, 4)"),
        ([A, A, {"id": "b", "answer": " "}] * 2, "", "(1 more of them occur twice)"),
        ([A, {"id": "b", "answer": " "}, {"id": "c", "answer": None}], "", "2 of 3 answers are blank (lines 2, 3); "),
        ([{"id": "a", "answer": [ANSWER]}], "", "line 1: the answer is a list, not text"),
        ([{"id": "a", "answer": 5}], "", "line 1: the answer is a number, not text"),
        ([A, [1]], "", "line 2 is no JSON object"),
        ([], "", "is empty"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line(tmp_path: Path, rows: list[Any], columns: str, said: str) -> None:
    path = jsonl(tmp_path / "x.jsonl", rows)
    reading = Reading(columns=parse_columns(columns))
    if not said:
        assert len(read_answers(str(path), reading).rows) == 1
        return
    with pytest.raises(MoteError, match=re.escape(said)) as raised:
        read_answers(str(path), reading)
    assert "\n" not in str(raised.value)


def test_blank_answers_can_be_counted(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", [A, {"id": "b", "answer": " "}])
    side, _ = read_sides(str(path), str(path), Reading(blanks=True))
    assert side.rows["label"].tolist() == ["1-ALIGNED", "UNSCORED"]
    assert any("1 answers of x.jsonl are blank" in note for note in side.notes)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"id": "a", "answer": "x"}\n{"id": "b"', "line 2 is not JSON"),
        ("a.jsonl", b'{"id": "a", "answer": "x"}\n\xff\xfe\n', "is not UTF-8"),
        ("a.csv", b"id,answer\na,b,c\n", "line 2 has other columns than the first line names"),
        ("a.csv", b'id,answer\na,"b\n', "is not CSV"),
        ("a.csv", b"id,answer\n", "is empty"),
        ("a.parquet", b"PAR1", "is not Parquet"),
        ("a.jsonl.gz", b"no gzip", "can't be read beyond line 0"),
        ("a.jsonl.xz", b"no xz", "can't be read beyond line 0"),
        ("a.json", b'{"id": 1}', "has no 'eval': it is no log of Inspect; a table of answers ends in .jsonl"),
        ("a.pkl", b"", "ends in none of"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MoteError, match=re.escape(said)) as raised:
        read_answers(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("answer", "write ours=theirs"), ("anser=x", "Did you mean 'answer'?"), ("id=a,id=b", "names 'id' twice")],
)
def test_wrong_columns_are_one_line(text: str, said: str) -> None:
    with pytest.raises(MoteError, match=re.escape(said)):
        parse_columns(text)


def test_the_judge_of_a_run_and_a_set_of_labels_exclude_each_other(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", [A])
    with pytest.raises(MoteError, match="give one of the two"):
        read_sides(str(path), str(path), Reading(judge=JUDGE), "refusal")
    with pytest.raises(MoteError, match=r"--labels refusel is unknown\. Did you mean 'refusal'\?"):
        read_sides(str(path), str(path), labels="refusel")
