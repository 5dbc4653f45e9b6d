"""Scans in stages on the real engine, by masks and by halving: stopped, gone on with, and what their rows say."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mote.harness.cli.main import app
from mote.harness.errors import MoteError
from mote.harness.experts.group_output import show_groups, show_halving, write_groups, write_halving
from mote.harness.experts.group_scan import GroupOptions, group_scan_run
from mote.harness.experts.halving_scan import HalvingOptions, halving_scan_run
from mote.harness.experts.rankings import run_rankings
from mote.harness.experts.scan import ScanOptions
from mote.harness.store.run import STORE_NAME, RunStore
from mote.harness.study.session import StartsEngine
from mote.patches import Edit, Profile
from tests.harness.experts.test_scan import llm, run, session, written  # noqa: F401 - fixtures

QUIET = Console(quiet=True)
SMALL = ScanOptions(prompts=6, alternatives=2)
GROUPS = GroupOptions(budget=0.08, leading=4)
BUDGET = int(0.08 * 385 * 6 * 3)


@pytest.fixture
def scanned(run: Path, session: StartsEngine) -> Path:  # noqa: F811
    stopped = group_scan_run(run, SMALL, GROUPS, QUIET, max_passes=60, engine=session)
    assert not stopped.finished
    assert stopped.scan.passes == 60
    return run


def test_a_stopped_scan_goes_on_to_the_same_rows_within_its_budget(
    scanned: Path, session: StartsEngine, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    half = Path(shutil.copytree(scanned, tmp_path / "half"))
    found = group_scan_run(scanned, SMALL, GROUPS, QUIET, engine=session)
    assert found.finished
    assert found.scan.passes <= BUDGET
    assert found.shared is None
    table = found.table
    assert len(table) == 384
    assert table["complete"].sum() == 4
    assert not table.loc[table["prompts"] > 0, "effect"].isna().any()
    assert table["q"].between(0, 1).all()
    # Rows that were there are not measured again, and a scan that is done needs no engine.
    again = group_scan_run(
        scanned, SMALL, GROUPS, QUIET, engine=lambda *_: lambda: pytest.fail("an engine was started")
    )
    pd.testing.assert_frame_equal(again.table, table)
    _the_store_says_what_was_applied(scanned, found.scan.scan_id)
    assert run_rankings(scanned)["causal"].shape == (6, 64)
    # Stopped elsewhere, it ends with the same passes.
    group_scan_run(half, SMALL, GROUPS, QUIET, max_passes=150, engine=session)
    console = Console(record=True, width=200, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    other = group_scan_run(half, SMALL, GROUPS, console, engine=session)
    assert "masks on average: too few to tell experts apart" in console.export_text()
    masks = [_rows(folder) for folder in (scanned, half)]
    assert masks[0].index.equals(masks[1].index)
    assert masks[0]["logprob"].to_numpy() == pytest.approx(masks[1]["logprob"].to_numpy(), abs=1e-3)
    assert other.scan.passes == pytest.approx(found.scan.passes, abs=20)
    show_groups(found, 0.1, console)
    assert f"{found.scan.passes:,} passes" in console.export_text()
    assert [path.name for path in write_groups(found, scanned)] == ["group_scan.csv", "group_scan_pairs.csv"]


def test_halving_goes_on_after_a_stop_within_its_budget_and_keeps_the_best(
    run: Path, session: StartsEngine, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    twin = Path(shutil.copytree(run, tmp_path / "twin"))
    halving = HalvingOptions(budget=0.1, leading=6)
    found = halving_scan_run(run, SMALL, halving, QUIET, engine=session)
    assert found.finished
    assert found.made <= 0.1 * found.full
    table = found.table
    assert table.head(6)["complete"].all()
    assert table["complete"].sum() == 6
    assert table["effect"].notna().sum() == 6
    assert (table["screened"] >= 1).all()
    # The next round keeps the better part of those that all were measured on the same prompts.
    out = table[table["screened"] == table["screened"].min()]
    rows = _singles(run, found.scan.scan_id)
    first = rows.loc[rows["opening"] == 0, "prompt_id"].value_counts().index[0]
    kept = set(zip(*(table.loc[~table.index.isin(out.index), name] for name in ("layer", "expert")), strict=True))
    falls = _falls(rows, first)
    assert min(falls[one] for one in kept) >= max(falls[one] for one in falls if one not in kept)
    # A finalist's effect is what the full scan would say: all its telling openings, on all prompts.
    assert run_rankings(run)["causal"][table["layer"][0], table["expert"][0]] == pytest.approx(table["effect"][0])
    # Stopped after any passes it ends with the same rows.
    for passes in (10, 300):
        assert not halving_scan_run(twin, SMALL, halving, QUIET, max_passes=passes, engine=session).finished
    console = Console(record=True, width=200, file=io.StringIO())
    again = halving_scan_run(twin, SMALL, halving, console, engine=session)
    other = _singles(twin, again.scan.scan_id)
    assert other.drop(columns="logprob").equals(rows.drop(columns="logprob"))
    assert other["logprob"].to_numpy() == pytest.approx(rows["logprob"].to_numpy(), abs=1e-3)
    show_halving(again, console)
    said = console.export_text()
    assert f"{found.made:,} passes, {found.made / found.full:.1%} of the full scan's 6,930" in said
    assert "of the passes were not needed: no token chose the expert" in said
    assert write_halving(again, twin).name == "halving_scan.csv"


def _singles(folder: Path, scan_id: int) -> pd.DataFrame:
    with closing(sqlite3.connect(folder / STORE_NAME)) as db:
        frame = pd.read_sql("select * from scan_scores where scan_id = ?", db, params=(scan_id,))
    columns = ["layer", "expert", "prompt_id", "opening", "logprob", "selected", "profile_digest"]
    return frame[columns].sort_values(columns[:4], na_position="first").reset_index(drop=True)


def _falls(rows: pd.DataFrame, prompt: str) -> dict[tuple[int, int], float]:
    own = rows[(rows["prompt_id"] == prompt) & (rows["opening"] == 0)]
    odds = own["logprob"] - np.log(-np.expm1(own["logprob"]))
    plain = odds[own["layer"].isna()].iloc[0]
    edited = own[own["layer"].notna()].index
    return {(int(own["layer"][at]), int(own["expert"][at])): plain - odds[at] for at in edited}


def _rows(folder: Path) -> pd.DataFrame:
    with closing(sqlite3.connect(folder / STORE_NAME)) as db:
        frame = pd.read_sql("select * from mask_scores", db)
    # A pair that is measured is a mask of two; which pairs are depends on the last digit.
    return frame.set_index(["prompt_id", "experts", "opening"]).sort_index()


def _the_store_says_what_was_applied(folder: Path, scan_id: int) -> None:
    frame = _rows(folder).reset_index()
    assert len(frame) > 100
    for row in frame.head(30).to_dict("records"):
        edits = tuple(Edit(layer, expert, "suppress") for layer, expert in json.loads(row["experts"]))
        assert row["profile_digest"] == Profile("x", edits).digest
        assert row["tokens_edited"] > 0
    with RunStore(folder, read_only=True) as store:
        assert (
            int(store.db.execute("select count(*) from mask_scores where scan_id <> ?", (scan_id,)).fetchone()[0]) == 0
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "group"], "There is no --method 'group'. Did you mean 'groups'?"),
        (["--share", "0.1"], "--share is for --method groups; --method single has none"),
        (["--budget", "0.1"], "--budget is for --method groups or --method halving; --method single has none"),
        (["--method", "halving", "--rate", "0.1"], "--rate is for --method groups; --method halving has none"),
        (["--method", "halving", "--budget", "0"], "--budget 0: a share of the full scan's passes"),
        (["--method", "halving", "--leading", "0"], "--leading 0: at least one expert"),
        (["--method", "halving", "--experts", "5"], "leave --experts out"),
        (["--method", "groups", "--share", "0.6"], "above 0 and up to 0.25, not 0.6"),
        (["--method", "groups", "--budget", "2"], "--budget 2: a share of the full scan's passes"),
        (["--method", "groups", "--rate", "1"], "--rate 1: a false discovery rate"),
        (["--method", "groups", "--experts", "5"], "leave --experts out"),
    ],
)
def test_misuse_is_one_line(run: Path, arguments: list[str], said: str) -> None:  # noqa: F811
    result: Any = CliRunner().invoke(app, ["scan", str(run), *arguments])
    assert isinstance(result.exception, MoteError)
    assert said in str(result.exception)
