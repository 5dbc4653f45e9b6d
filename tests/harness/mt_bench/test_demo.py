"""MT-Bench end to end: the demo model in the real engine, FastChat's own questions, a judge over HTTP, and kills."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mote.harness.demo import MODEL_DIR
from mote.harness.mt_bench.ratings import matches, ratings
from mote.harness.mt_bench.scores import state_table
from mote.harness.mt_bench.store import BenchStore
from mote.patches import Edit, ModelLayout, Profile
from tests.judges.mt_bench_forms import REAL, needs_real
from tests.judges.scripted_judge import Fail, Say, Step, scripted_judge

LIMIT = 8
TURNS = 2 * 2 * LIMIT


def mote(*arguments: str, wait: bool = True) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "2",
    }
    code = "import typer; from mote.harness.cli.mt_bench import mount; app = typer.Typer(); mount(app); app()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "mt-bench", *arguments], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if wait:
        output = process.communicate(timeout=900)[0]
        assert process.returncode == 0, output
    return process


def stored(folder: Path, table: str) -> int:
    if not (folder / "mt_bench.sqlite").is_file():
        return 0
    with closing(sqlite3.connect(folder / "mt_bench.sqlite")) as db:
        if not db.execute("select 1 from sqlite_master where name = ?", (table,)).fetchone():
            return 0
        return int(db.execute(f"select count(*) from {table}").fetchone()[0])  # noqa: S608


def kill_at(process: subprocess.Popen[str], folder: Path, table: str, rows: int) -> None:
    deadline = time.monotonic() + 600
    while stored(folder, table) < rows and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def judge(body: dict[str, Any], number: int) -> Step:
    system, user = (message["content"] for message in body["messages"])
    if '"[[A]]" if assistant A' in system:
        return Say("Much alike. [[C]]")
    if number == 0 and len(user) % 5 == 0:
        return Fail(429 if len(user) % 2 else 500)
    if len(user) % 7 == 0:
        return Say("Rating: [[15]]")
    return Say("<think>Perhaps [[3]].</think>Rating: [[6]]")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs_real
def test_the_demo_model_is_answered_judged_and_shown_through_kills(tmp_path: Path) -> None:
    layout = ModelLayout.from_config(MODEL_DIR)
    tuned = Profile("suppress-3", tuple(Edit(layer, 5, "suppress") for layer in layout.layers[:3]), layout)
    tuned.write(tmp_path / "tuned.json")
    folder = tmp_path / "bench"
    answering = [
        "answer", "demo", "--out", str(folder), "--profile", str(tmp_path / "tuned.json"), "--limit", str(LIMIT),
        "--max-tokens", "96", "--data", str(REAL), "--engine", "enforce_eager=true",
    ]  # fmt: skip
    kill_at(mote(*answering, wait=False), folder, "answers", 4)
    before = stored(folder, "answers")
    assert 4 <= before < TURNS
    mote(*answering)
    assert stored(folder, "answers") == TURNS

    with scripted_judge(judge) as server:
        judging = ["judge", str(folder), "--judge", "scripted", "--url", server.url, "--data", str(REAL)]
        kill_at(mote(*judging, wait=False), folder, "judgments", 9)
        begun = stored(folder, "judgments")
        assert begun >= 9
        mote(*judging)
        asked = len(server.requests)
        mote(*judging)
        assert len(server.requests) == asked
    mote("show", str(folder))

    with BenchStore(folder, read_only=True) as store:
        answers = store.answers()
        for name in ("gpt-4", "corrected"):
            states = state_table(ratings(store, "scripted", name))
            assert int(states.to_numpy().sum()) == TURNS
            # Every turn with an answer ended with a score or as unusable; the others say why there is none.
            assert set(states.columns) <= {
                "scored", "unusable", "no-answer", "no-first-answer", "reasoning-cut-off", "prompt-too-long",
            }  # fmt: skip
            scores = ratings(store, "scripted", name)["score"].dropna()
            assert set(scores) == {6.0}
            assert set(matches(store, "scripted", name)["winner"]) <= {"tie", "error"}
    digests = answers.loc[answers["receipt"] != "{}", ["model_id", "receipt"]]
    found = {(row.model_id, json.loads(str(row.receipt))["digest"]) for row in digests.itertuples(index=False)}
    assert {model for model, _ in found} == {"demo", "demo+suppress-3"}
    assert ("demo+suppress-3", tuned.digest) in found
    assert len(found) == 2
    lines = [json.loads(line) for line in (folder / "model_judgment/scripted_single.jsonl").read_text().splitlines()]
    assert len(lines) == TURNS
    assert {line["score"] for line in lines} <= {6, -1}
    assert pd.read_csv(folder / "tables/mt-bench-scores-scripted-gpt-4.csv")["model"].nunique() == 2
    assert (folder / "figures/mt-bench-radar-scripted-corrected.png").stat().st_size > 10_000
