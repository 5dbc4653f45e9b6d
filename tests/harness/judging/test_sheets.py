from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from mote.harness.cli import judge as cli_judge
from mote.harness.errors import MoteError
from mote.harness.judging.audit import agreement_frame, agreement_words, audit_run, write_audit
from mote.harness.judging.sheet import read_sheet, write_sheet
from mote.harness.store.run import LabelRow, RunStore
from mote.harness.store.samples import strata
from mote.judges import ALIGNED, CLASSES, ENGLISH, JUDGE, LANGUAGE_JUDGE
from tests.harness.judging.test_judge import RUN, honest, table
from tests.harness.report.written_run import write_run
from tests.judges.scripted_judge import scripted_judge


def filled(path: Path, label: Any) -> pd.DataFrame:
    sheet = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    column = next(name for name in sheet if str(name).startswith("label"))
    sheet[column] = [label(row) for row in sheet.to_dict("records")]
    sheet.to_csv(path, index=False, encoding="utf-8-sig")
    return sheet


def by_text(row: dict[str, str]) -> str:
    if "sorry" in row["answer"].lower() or "cannot" in row["answer"].lower():
        return "refused"
    return "REASONED" if row["reasoning"] else "1-aligned"


def test_a_sheet_is_blind_stratified_and_read_back(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    path = tmp_path / "sheet.csv"
    count = write_sheet(folder, path, 40, JUDGE)
    text = path.read_text(encoding="utf-8-sig")
    assert not any(word in text for word in ("baseline", "suppress", "retest", "random", "0-REFUSED,", "select"))
    with RunStore(folder, read_only=True) as store:
        drawn = strata(store)
    assert len(drawn) == 40
    sizes = dict(table(folder, "select label, count(*) from labels group by label"))
    assert len({name.partition(" / ")[0] for name in drawn["stratum"]}) == len([x for x in sizes if x != "UNSCORED"])
    sheet = filled(path, by_text)
    assert len(sheet) == count <= 40
    found = read_sheet(folder, path, "anna")
    assert (found.rater, found.added, found.known, found.blank) == ("human:anna", 40, 0, 0)
    assert read_sheet(folder, path, "anna").known == 40
    rows = audit_run(folder)
    assert set(rows.corrected["truth"]) == {"human:anna"}
    assert "suppress-3" in set(rows.corrected["profile"])
    one = rows.corrected.set_index("profile").loc["suppress-3"]
    assert one["flips_low"] <= one["flips_corrected"] <= one["flips_high"]
    with RunStore(folder, read_only=True) as store:
        frame = store.generations_frame(JUDGE)
    measured = frame[frame["part"] == "measure"]
    before = measured[measured["profile"] == "baseline"].set_index("prompt_id")["label"]
    after = measured[measured["profile"] == "suppress-3"].set_index("prompt_id")["label"]
    refused = before[before == "0-REFUSED"].index
    assert one["flips"] == pytest.approx(after[refused].isin(["1-ALIGNED", "2-REASONED"]).mean())


def test_a_judge_is_audited_apart_for_untouched_and_tuned_answers(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    with RunStore(folder) as store:
        frame = store.generations_frame(JUDGE).dropna(subset=["label"])
        # A judge that is always right of untouched answers, and sees none of the refusals under edits.
        columns = zip(frame["generation_id"], frame["kind"], frame["label"], strict=True)
        deaf = [
            LabelRow(int(number), "deaf", label if kind in ("baseline", "retest") else ALIGNED, [])
            for number, kind, label in columns
            if label in CLASSES
        ]
        store.add_labels(deaf)
    found = audit_run(folder, truth=JUDGE).apart.set_index("answers")
    assert set(zip(found["first"], found["second"], strict=True)) == {("deaf", JUDGE)}
    assert [found.at["untouched", name] for name in ("agreed", "sensitivity", "specificity")] == [1.0, 1.0, 1.0]
    # What it never says can't be weighed; how far the two agree can.
    assert float(str(found.at["tuned", "agreed"])) < 0.9
    assert found["items"].sum() == len(deaf)
    path = write_audit(audit_run(folder, truth=JUDGE), folder)
    assert folder / "tables/judge-agreement-apart.csv" in path
    # Pooled, it would look skilled, and all its deafness would be flips.
    assert re.match(
        r"of \d+ tuned answers that are 0-REFUSED it calls none",
        audit_run(folder, truth=JUDGE).uncorrected["deaf", JUDGE],
    )


def test_flip_rates_are_corrected_by_the_errors_of_their_own_answers(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    with RunStore(folder) as store:
        frame = store.generations_frame(JUDGE).dropna(subset=["label"])
        # Right of the baseline; under edits every third refusal is an answer to it, of any profile alike.
        rows = []
        for at, (number, kind, label) in enumerate(
            zip(frame["generation_id"], frame["kind"], frame["label"], strict=True)
        ):
            if label in CLASSES:
                dull = kind not in ("baseline", "retest") and label == "0-REFUSED" and at % 3 == 0
                rows.append(LabelRow(int(number), "dull", ALIGNED if dull else label, []))
        store.add_labels(rows)
    found = audit_run(folder, truth=JUDGE).corrected.set_index("profile")
    assert set(found["errors"]) == {"apart"}
    tuned = found[~found["kind"].isin(("baseline", "retest"))]
    assert (tuned["sensitivity"] < 0.8).all()
    assert (found.loc[found["kind"] == "retest", "sensitivity"] == 1).all()
    truth = audit_run(folder, truth="dull").corrected.set_index("profile")
    raw, undone = tuned["flips"].mean(), tuned["flips_corrected"].mean()
    assert abs(undone - truth.loc[tuned.index, "flips"].mean()) < abs(raw - truth.loc[tuned.index, "flips"].mean())


def test_what_a_person_changes_or_mistypes_is_named_with_its_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    path = tmp_path / "sheet.csv"
    write_sheet(folder, path, 10, JUDGE)
    with pytest.raises(MoteError, match="exists"):
        write_sheet(folder, path, 10, JUDGE)
    assert read_sheet(folder, path, "ben").blank == len(list(csv.reader(path.open(encoding="utf-8-sig")))) - 1
    filled(path, lambda row: "0-REFUSD")
    with pytest.raises(MoteError, match=r"line \d+: '0-REFUSD' is no label. Did you mean '0-REFUSED'"):
        read_sheet(folder, path, "ben")
    filled(path, lambda row: "REFUSED")
    assert read_sheet(folder, path, "ben").added == 10
    filled(path, lambda row: "ALIGNED")
    with pytest.raises(MoteError, match="never replaced"):
        read_sheet(folder, path, "ben")
    semicolons = tmp_path / "excel.csv"
    rows = list(csv.reader(path.open(encoding="utf-8-sig")))
    with semicolons.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    assert read_sheet(folder, semicolons, "carla").added == 10
    rows[1][0] = "0000000000"
    with semicolons.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(MoteError, match="no item of a sheet"):
        read_sheet(folder, semicolons, "carla")
    semicolons.write_text("a,b\n1,2\n")
    with pytest.raises(MoteError, match="is not a sheet"):
        read_sheet(folder, semicolons, "carla")
    with pytest.raises(MoteError, match="short name"):
        read_sheet(folder, path, "an na")
    with pytest.raises(MoteError, match="Did you mean"):
        write_sheet(folder, tmp_path / "x.csv", 5, JUDGE[:-1])


def test_a_cell_is_never_a_formula(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN.changed(write=lambda *_: '=HYPERLINK("http://x", "y")'))
    path = tmp_path / "sheet.csv"
    write_sheet(folder, path, 10, JUDGE)
    for row in csv.DictReader(path.open(encoding="utf-8-sig")):
        assert row["answer"].startswith("'=")


def test_a_sheet_asks_for_the_label_set_of_its_run_and_of_its_strata(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"]["task"]["label"] = "language"
    manifest["recipe"]["study"]["target"] = "english"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with RunStore(folder) as store:
        numbers = [int(number) for number in store.generations_frame(JUDGE)["generation_id"]]
        store.add_labels(LabelRow(number, LANGUAGE_JUDGE, ENGLISH, []) for number in numbers)
    app = typer.Typer()
    cli_judge.mount(app)
    arguments = ["judge", "sheet", str(folder), "--size", "10", "--out", str(tmp_path / "sheet.csv")]
    for other in (["--kind", "refusal"], ["--by", JUDGE]):
        wrong = CliRunner().invoke(app, [*arguments, *other])
        assert isinstance(wrong.exception, MoteError)
        assert "gives labels of another set than" in str(wrong.exception)
        assert "\n" not in str(wrong.exception)
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert "label: english" in (tmp_path / "sheet.csv").read_text(encoding="utf-8-sig")


def test_the_command_judges_samples_reads_and_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = write_run(tmp_path / "run", RUN)
    app = typer.Typer()
    cli_judge.mount(app)

    def call(command: str, *arguments: str) -> str:
        result = CliRunner().invoke(app, ["judge", command, str(folder), *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    with scripted_judge(honest) as server:
        output = call("ask", "--judge", "scripted", "--url", server.url, "--limit", "12", "--structured", "text")
    assert "judgments scored" in output
    assert "Agreement" in output
    sheet = tmp_path / "sheet.csv"
    assert "answers to label" in call("sheet", "--size", "40", "--out", str(sheet))
    filled(sheet, by_text)
    output = call("read", str(sheet), "--rater", "anna")
    assert "40 labels added" in output
    assert output.count("Confusion") == 1
    assert f"human:anna \\ {JUDGE}" in output
    assert "2 more confusion matrices: mote judge show RUN --all" in output
    assert call("show", "--all").count("Confusion") == 3
    assert "Flip rates" in output
    assert "95% by place" in output
    with RunStore(folder, read_only=True) as store:
        words = agreement_words(store, JUDGE)
        assert re.search(r"“human:anna” gives the same label to \d+\.\d% of 40 answers, kappa", words)
        assert words.count("gives the same label") == len(agreement_frame(store)) - 1 == 2
    flips = pd.read_csv(folder / "tables/judge-corrected-flips.csv")
    assert set(flips["unit"]) == {"place"}
    assert (flips["groups"] > 5).all()
    assert (flips["flips_high_by_unit"] >= flips["flips_corrected"]).all()
    assert flips["reverse_high_by_unit"].notna().all()
    assert {path.name for path in (folder / "tables").glob("judge-*.csv")} == {
        "judge-agreement.csv",
        "judge-agreement-apart.csv",
        "judge-alpha.csv",
        "judge-confusion.csv",
        "judge-corrected-flips.csv",
    }
    for arguments, message in (
        (["ask", str(folder), "--judge", "x", "--body", "3"], "JSON object"),
        (["ask", str(folder), "--judge", "x", "--url", "ftp://x"], "write for instance"),
        ([str(folder)], "Write: mote judge show RUN"),
        ([str(folder), "--judge", "x"], "Write: mote judge ask RUN --judge MODEL"),
        (["--sample=3", str(folder)], "Write: mote judge sheet RUN --size N"),
        ([str(folder), "--read", str(sheet)], "Write: mote judge read RUN SHEET"),
        (["shwo", str(folder)], "Did you mean 'show'"),
    ):
        with pytest.raises(MoteError, match=message):
            CliRunner().invoke(app, ["judge", *arguments], catch_exceptions=False)
