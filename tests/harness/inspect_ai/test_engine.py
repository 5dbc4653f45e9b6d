"""A task of Inspect on the packaged model, by the command alone: a server of its own, receipts, and no server left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm")
pytest.importorskip("inspect_ai")

from mote.harness.compare.sources import read_answers
from mote.harness.errors import MoteError
from mote.harness.inspect_ai.own_server import own_server
from tests.test_docs import ROOT

OPTIONS = ("dtype=float32", "max_model_len=256", "enforce_eager=true", "kv_cache_memory_bytes=268435456")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_task_runs_on_the_demo_model_under_a_profile_and_its_shams(tmp_path: Path) -> None:
    run = "from mote.harness.cli.main import main; main()"
    task, profile = ROOT / "results" / "inspect" / "tasks.py", ROOT / "results" / "demo"
    command = [sys.executable, "-c", run, "inspect", "run", f"{task}@refusals", "--profile", f"{profile}:suppress-20"]
    command += ["--shams", "2", "--limit", "6", "--logs", str(tmp_path / "logs"), "--json", "-", "-G", "max_tokens=64"]
    done = subprocess.run(
        [*command, *(word for one in OPTIONS for word in ("-M", one))],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["metric"], row["samples"], row["shams"], row["left_out"]) == ("includes", 6, 2, 0)
    # No two of them were answered under one profile, and the patch counted what each edit did.
    sides = [read_answers(str(path)) for path in sorted((tmp_path / "logs").iterdir())]
    assert len({next(iter(side.digests)) for side in sides}) == len(sides) == 4
    assert {side.profile for side in sides} == {
        *("baseline", "suppress-20", "suppress-20-sham-1", "suppress-20-sham-2"),
    }
    # The server ended with its process, and took its log along.
    assert not list(tmp_path.glob("mote-inspect-*"))


@pytest.mark.slow
def test_a_server_that_does_not_come_up_is_one_line() -> None:
    with pytest.raises(
        MoteError, match=r"ended with \d+ before it was up .*unrecognized arguments: --no-such-option"
    ) as raised:
        own_server("demo", {"no_such_option": 1})
    assert "\n" not in str(raised.value)
