"""What is printed may have nowhere to go: a reader that has left, a disk that is full. No traceback in either case."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mote.harness.files import write_atomic
from tests.harness.strangers.calls import mote, refused

ROOT = Path(__file__).parents[3]
MOTE = [sys.executable, "-c", "from mote.harness.cli.main import main; main()"]
ENV = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


def test_a_reader_that_has_left_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*MOTE, "--help"], env=ENV, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    # The library that reads the options ends with 1, what we print ourselves with 141, as a shell has it.
    assert done.returncode in (1, 141)
    assert done.stderr == ""


def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*MOTE, "--help"], env=ENV, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "mote: writing: No space left on device.\n"


def test_a_file_for_which_there_is_no_room_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"plan\.json") as caught:
        write_atomic(tmp_path / "plan.json", "{}")
    assert (caught.value.errno, list(tmp_path.iterdir())) == (errno.ENOSPC, [])


def test_a_long_line_is_cut_in_its_middle() -> None:
    called = mote("run", "y" * 3000)
    refused(called, " … ")
    assert called.err.endswith("File name too long.\n")
