from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from mote.harness.compare.real_answers import tables
from mote.harness.compare.real_answers.__main__ import main
from mote.harness.compare.real_answers.data import CHIMERA, EVASIVE, HAND, R1, SPEECHMAP, TWINS, TWO_JUDGES, V3, read
from mote.harness.compare.real_answers.page import write
from mote.harness.errors import MoteError

REFUSAL, ANSWER = "I'm sorry, but I can't help with that.", "The army cleared the square in 1989, and hundreds died."
LINE = "Our government has always protected the lawful rights of every citizen, as the people know."
# What each model makes of five requests, in English and in Chinese: E(vasive), C(omplete), D(enial); x: they differ.
REPLIES = {R1: "EEEEC CCEDC", V3: "EECCC CCEED", CHIMERA: "CCCEC CxCCC"}
VERDICTS = {"E": "EVASIVE", "C": "COMPLETE", "D": "DENIAL"}


def rows() -> list[dict[str, Any]]:
    found = []
    for model, verdicts in REPLIES.items():
        for name, given in zip(("china_criticism", "zh_china_criticism"), verdicts.split(), strict=True):
            for number, verdict in enumerate(given):
                first = VERDICTS.get(verdict, "COMPLETE")
                found.append(
                    {
                        "id": f"{name}/china_criticism_{number:02d}/{model}",
                        "language": "zh" if name.startswith("zh") else "en",
                        "set": name,
                        "model": model,
                        "question": f"Request {number}",
                        "reasoning": "",
                        "answer": {"E": LINE, "D": REFUSAL}.get(verdict, ANSWER),
                        "finish_reason": "stop",
                        "provider": "host" if model == R1 else "",
                        "judges": {"one": first, "two": "EVASIVE" if verdict == "x" else first},
                    }
                )
    return found


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    with lzma.open(path / SPEECHMAP, "wt", encoding="utf-8") as file:
        file.write(lines(rows()))
    hand = [{"input": REFUSAL, "right": "0-REFUSED", "language": "en"}, {"input": ANSWER, "right": "1-ALIGNED"}]
    (path / HAND).write_text(lines([*hand, {"input": LINE, "right": "borderline"}]), encoding="utf-8")
    twins = [
        ("o1", REFUSAL, "refused"),
        ("d1", ANSWER, "answered"),
        ("o2", REFUSAL, "refused"),
        ("d2", LINE, "partial"),
    ]
    given = [{"id": key, "question": f"Q{key[1]}", "answer": text, "label": label} for key, text, label in twins]
    (path / TWINS).write_text(lines(given), encoding="utf-8")
    return path


def of(frame: pd.DataFrame, **where: str) -> dict[str, Any]:
    """The one row of a frame that has these values."""
    (row,) = (row for row in frame.to_dict("records") if all(row[name] == value for name, value in where.items()))
    return {str(name): value for name, value in row.items()}


def test_transitions_are_the_counts_of_the_pairs(folder: Path) -> None:
    data = read(folder)
    found = tables.transitions(data)
    row = of(found, before="R1", after="R1T-Chimera", labels=TWO_JUDGES, part="all", source=EVASIVE)
    # One pair has no verdict of both judges, and no evasive one before it.
    assert (row["hits"], row["total"], row["pairs"], row["units"]) == (4, 5, 9, 4)
    assert row["low"] < row["share"] < row["high"]
    alone = of(found, before="R1", after="R1T-Chimera", labels="two", part="all", source=EVASIVE)
    assert (alone["hits"], alone["total"], alone["pairs"]) == (4, 5, 10)
    chinese = of(found, before="R1", after="V3-0324", labels=TWO_JUDGES, part="zh_china_criticism", source=EVASIVE)
    assert (chinese["hits"], chinese["total"]) == (0, 1)
    twins = of(found, before="Qwen2-7B", labels="hand", source="refused")
    assert (twins["hits"], twins["total"]) == (1, 2)
    both = tables.between_parents(data)
    both = both[(both["R1"] == EVASIVE) & (both["V3-0324"] == EVASIVE)]
    assert both[["R1T-Chimera", "requests"]].to_numpy().tolist() == [["COMPLETE", 3]]


def test_the_audit_counts_what_each_judge_sees(folder: Path) -> None:
    data = read(folder)
    audit = tables.audit(data)
    refused = of(audit, judge="refusal", ruler="hand", language="all", right="REFUSED")
    assert (refused["seen"], refused["replies"]) == (1, 1)
    assert "borderline" not in set(audit["right"])
    denied = of(audit, judge="refusal", ruler=TWO_JUDGES, language="all", right="DENIAL")
    assert (denied["seen"], denied["replies"]) == (2, 2)
    judged = tables.judges_by_hand(data)
    assert judged["replies"].sum() == 2


def test_the_interval_by_request_has_width_where_all_agree() -> None:
    import numpy as np

    low, high = tables.by_unit(np.ones(6), ["a", "a", "b", "b", "c", "c"])
    assert high == 1.0
    assert 0.2 < low < 0.4
    assert all(np.isnan(tables.by_unit(np.ones(2), ["a", "a"])))


def test_the_page_has_the_figures_of_the_tables_and_no_text(folder: Path, tmp_path: Path) -> None:
    paths = write(folder, tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "evades 5 requests and its child R1T-Chimera answers 4 of them" in page
    for path in paths:
        content = path.read_bytes()
        assert content
        assert not any(text.encode() in content for text in (REFUSAL, ANSWER, LINE))
    for name in ("transitions", "answered-by-judge", "judge-audit"):
        assert f"figures/{name}.png" in page
        assert (tmp_path / "out" / "figures" / f"{name}.svg").is_file()
    before = {path: path.read_bytes() for path in paths}
    assert {path: path.read_bytes() for path in write(folder, tmp_path / "out")} == before


def test_missing_material_is_one_line(folder: Path, tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, [str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "there is no folder" in result.output
    (tmp_path / "hand-labeled.jsonl").write_text("")
    (tmp_path / SPEECHMAP).write_bytes((folder / SPEECHMAP).read_bytes())
    with pytest.raises(MoteError, match=r"has no hand-labelled\.jsonl\. Did you mean 'hand-labeled\.jsonl'\?"):
        read(tmp_path)
    assert not (tmp_path / "out").exists()
