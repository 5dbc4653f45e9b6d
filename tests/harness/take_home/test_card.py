"""Cards: the run's own figures, a sample that nobody chooses, and what comes of running the sample again."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mote.harness.engine.trust import Own
from mote.harness.errors import MoteError
from mote.harness.report.frames import open_run
from mote.harness.take_home import reproduce as reproducing
from mote.harness.take_home.card import Card, read_card, write_card
from mote.harness.take_home.evidence import card_of_run, text_digest
from mote.harness.take_home.reproduce import Reproduction, reproduce
from tests.harness.strangers.calls import mote
from tests.harness.study.scripted_engine import ScriptedEngine

QUIET = Console(quiet=True)


def again(path: Path, engine: ScriptedEngine | None = None) -> Reproduction:
    return reproduce(path, Own("demo"), QUIET, path.with_suffix(".log"), lambda *_: lambda: engine or ScriptedEngine())


@pytest.fixture(scope="module")
def card(scripted: Path) -> Card:
    return card_of_run(scripted, "suppress-3", 10)


@pytest.fixture
def path(card: Card, tmp_path: Path) -> Path:
    write_card(card, tmp_path / "card.json")
    return tmp_path / "card.json"


def test_a_card_has_the_run_s_own_figures(card: Card, scripted: Path, path: Path) -> None:
    run = open_run(scripted)
    flips = run.flips[(run.flips["profile"] == "suppress-3") & (run.flips["part"] == "measure")]
    ours = flips[flips["before"] == run.target]
    assert card.effect is not None
    assert card.harm is not None
    assert card.verdict is not None
    assert (card.effect.flips, card.effect.of) == (int(ours["flipped"].sum()), len(ours))
    found = run.result.effect.flips
    assert found is not None
    assert (card.effect.share.low, card.effect.share.high) == (found.low, found.high)
    assert card.verdict.kind == run.result.chance.verdict.kind
    assert {one.kind: one.p for one in card.controls if one.kind != "noise"} == {
        leg.kind: leg.p for leg in run.result.chance.verdict.legs
    }
    assert card.harm.of_others == len(flips) - len(ours)
    assert card.edits.digest == run.profile("suppress-3").digest
    assert read_card(path) == card
    assert str(scripted) not in path.read_text()


def test_the_sample_is_of_measured_prompts_and_drawn_by_the_rows(card: Card, scripted: Path) -> None:
    run = open_run(scripted)
    columns = (run.generations[name] for name in ("profile", "prompt_id", "raw", "label", "seed", "part"))
    rows = {(str(name), str(key)): rest for name, key, *rest in zip(*columns, strict=True)}
    assert len(card.sample.rows) == 10
    for row in card.sample.rows:
        before, after = (rows[name, row.prompt_id] for name in ("baseline", "suppress-3"))
        assert after[3] == "measure"
        assert (row.before.digest, row.after.digest) == (text_digest(before[0]), text_digest(after[0]))
        assert (row.before.label, row.after.label, row.seed) == (before[1], after[1], before[2])
    assert sum(row.before.label == card.target for row in card.sample.rows) == 5
    assert card_of_run(scripted, "suppress-3", 10) == card
    fewer = card_of_run(scripted, "suppress-3", 4)
    assert {row.prompt_id for row in fewer.sample.rows} < {row.prompt_id for row in card.sample.rows}


def test_other_rows_have_another_digest(card: Card, scripted: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scripted, tmp_path / "run"))
    with closing(sqlite3.connect(folder / "run.sqlite", isolation_level=None)) as db:
        changed = db.execute(
            "update label_rows set label = '1-ALIGNED' where label = '0-REFUSED' and generation_id = 1"
        )
        if not changed.rowcount:
            db.execute("update label_rows set label = '0-REFUSED' where generation_id = 1")
    assert card_of_run(folder, "suppress-3", 4).rows != card.rows


def test_a_profile_beside_the_study_s_own_has_no_verdict(scripted: Path) -> None:
    other = open_run(scripted).profiles
    name = next(name for name in other.index if str(name).startswith("random-"))
    found = card_of_run(scripted, str(name), 0)
    assert (found.verdict, found.controls, found.sample.rows) == (None, [], [])
    with pytest.raises(MoteError, match="edits nothing"):
        card_of_run(scripted, "baseline", 0)
    with pytest.raises(MoteError, match="Did you mean 'suppress-3'"):
        card_of_run(scripted, "suppress-4", 0)


def test_the_same_model_reproduces_it_and_another_does_not(path: Path) -> None:
    found = again(path)
    assert found.holds
    assert len(found.rows) == 20
    assert all(row.same_text and row.same_label for row in found.rows)
    weaker = again(path, ScriptedEngine(effect=0.0))
    lost = [row for row in weaker.rows if not row.same_label]
    assert not weaker.holds
    assert {row.profile for row in lost} == {"suppress-3"}
    assert all((row.was, row.label) == ("1-ALIGNED", "0-REFUSED") for row in lost)


def test_another_text_with_the_same_label_holds_where_labels_are_known(path: Path, card: Card) -> None:
    content = card.model_dump(mode="json")
    content["sample"]["rows"][0]["after"]["digest"] = "0" * 64
    path.write_text(json.dumps(content))
    found = again(path)
    assert found.holds
    assert sum(not row.same_text for row in found.rows) == 1
    content["asking"]["label"] = None
    path.write_text(json.dumps(content))
    found = again(path)
    assert not found.holds
    assert [row.label for row in found.rows] == [None] * 20


def test_the_command_says_it_with_its_exit_code(path: Path, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = reproducing.reproduce
    monkeypatch.setattr(
        reproducing, "reproduce", lambda *given: real(*given, starter=lambda *_: lambda: ScriptedEngine())
    )
    called = mote("reproduce", path, "--model", "demo")
    assert (called.code, called.out.splitlines()[-1]) == (0, "Reproduced.")
    assert "suppress-3: of 10 answers 10 texts, 10 labels are the card's" in called.out
    content = card.model_dump(mode="json")
    content["sample"]["rows"][0]["before"] = {"label": "2-REASONED", "digest": "0" * 64}
    path.write_text(json.dumps(content))
    called = mote("reproduce", path, "--model", "demo")
    assert (called.code, called.out.splitlines()[-1]) == (1, "Not reproduced.")
    assert "2-REASONED in the card" in called.out


def test_a_card_without_a_sample_and_a_prompt_that_does_not_fit_are_refused(path: Path, card: Card) -> None:
    engine = ScriptedEngine()
    engine.fits = lambda request: False  # type: ignore[method-assign]
    with pytest.raises(MoteError, match="does not fit the model's context"):
        again(path, engine)
    write_card(card.model_copy(update={"sample": card.sample.model_copy(update={"rows": []})}), path)
    with pytest.raises(MoteError, match="has no sample"):
        again(path)
