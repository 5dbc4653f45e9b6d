"""The engine's words go to its log, also where ``sys.stdout`` is no file descriptor's, as in a notebook."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from pathlib import Path

from rich.console import Console

from mote.harness.engine.log import EngineLog


def test_in_a_notebook_a_logger_fills_the_log_and_the_console_shows_in_the_notebook(tmp_path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as cell:
        console = Console()
        with EngineLog(console) as log:
            log.keep(tmp_path / "vllm.log")
            handler = logging.StreamHandler(sys.stdout)
            handler.emit(logging.makeLogRecord({"msg": "said by the logger"}))
            os.write(1, b"said by C++\n")
            console.print("said by us")
        assert sys.stdout is cell
        console.print("said later")
    assert cell.getvalue() == "said by us\nsaid later\n"
    assert (tmp_path / "vllm.log").read_text() == "said by the logger\nsaid by C++\n"
