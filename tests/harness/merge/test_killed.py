"""SIGKILL at random moments of a merge: the same command goes on, and ends with the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mote.harness.errors import MoteError
from mote.harness.merge.journal import Journal


@pytest.mark.parametrize(("kills", "seed"), [(4, 1), pytest.param(20, 2, marks=pytest.mark.slow)])
def test_a_killed_merge_ends_as_the_undisturbed_one(kills: int, seed: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.harness.merge.killed_merge", str(tmp_path), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["moments"]) == kills
    assert all(child == result["whole"] for child in result["children"])
    # Kills that all came before the first byte would show nothing.
    caught = [names for names in result["found"] if any(name.startswith("model-") for name in names)]
    assert len(caught) >= kills // 4, result["found"]
    assert all("config.json" not in names or "merge.json" in names for names in result["found"])


def test_a_torn_line_is_no_line(tmp_path: Path) -> None:
    child = {"plan": "p"}
    with Journal(tmp_path, child) as journal:
        journal.add("one.safetensors", {"size": 1, "sha256": "x", "outcomes": []})
    path = tmp_path / "merge.journal"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"shard": "two.safetens')
    with Journal(tmp_path, child) as journal:
        assert list(journal.shards) == ["one.safetensors"]
    assert path.read_bytes() == whole
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(tmp_path, child) as journal:
            assert set(journal.shards) <= {"one.safetensors"}


def test_two_merges_do_not_share_a_folder(tmp_path: Path) -> None:
    with Journal(tmp_path, {"plan": "p"}), pytest.raises(MoteError, match="another merge is at work"):
        Journal(tmp_path, {"plan": "p"})
    with pytest.raises(MoteError, match=r"other parents \(plan\)"):
        Journal(tmp_path, {"plan": "q"})
