"""vLLM without the patch, asked in a process of its own what ``mote verify`` then asks the one with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mote.harness.engine.options import engine_arguments, start_llm
from mote.harness.errors import MoteError
from mote.patches.guards import SWITCH
from mote.patches.rotary import OFF_OPTION, is_misread
from mote.patches.verify import Stock, ask_stock


def stock_answers(path: str, options: Mapping[str, Any], rounds: int, log: Path) -> Stock:
    """Load the model without the patch in a new process and return its answers; the process's words go to ``log``.

    Raises MoteError where that vLLM does not start or does not answer.
    """
    with tempfile.TemporaryDirectory() as work:
        asked, said = Path(work) / "asked.json", Path(work) / "said.json"
        asked.write_text(json.dumps({"path": path, "options": dict(options), "rounds": rounds}))
        command = [sys.executable, "-m", __name__, str(asked), str(said), str(log)]
        with log.open("ab") as sink:
            done = subprocess.run(  # noqa: S603 - our own interpreter
                command,
                env={**os.environ, SWITCH: "0"},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                check=False,
            )
        if done.returncode or not said.is_file():
            raise MoteError(
                f"vLLM without the patch did not answer with {path}: see {log}, or go without by --no-stock."
            )
        found = json.loads(said.read_text())
    return Stock(found["tokens"], found["seconds"])


def main(asked: Path, said: Path, log: Path) -> None:
    """Answer as the file asks, in this process, which has no patch."""
    given = json.loads(asked.read_text())
    arguments = engine_arguments(given["path"], given["options"])
    if is_misread(arguments.create_engine_config()):
        # The patch sets this option by itself: without it stock vLLM would be wrong, and no comparison.
        arguments.compilation_config.custom_ops.append(OFF_OPTION)
    answers = ask_stock(start_llm(arguments, log), rounds=given["rounds"])
    said.write_text(json.dumps(answers._asdict()))


if __name__ == "__main__":
    main(*(Path(name) for name in sys.argv[1:4]))
