"""The entry point of ``mote``: its own ``--help`` without importing all that it describes."""

from __future__ import annotations

import os
import sys

WIDTH = 80
"""The widest that help is set; ``help.txt`` holds it at that width, and ``make docs`` writes the file."""


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] in (["--help"], ["-h"]) and _columns() >= WIDTH and _printed():
        return
    from mote.harness.cli.main import main as run

    run()


def _columns() -> int:
    given = os.environ.get("COLUMNS", "")
    if given:
        # An odd value is the command line's own to judge.
        return int(given) if given.isdecimal() else 0
    try:
        return os.get_terminal_size(1).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH


def _printed() -> bool:
    """Print the help that was made before; return whether that went well, else the command line tries, and says why."""
    try:
        with open(os.path.join(os.path.dirname(__file__), "help.txt"), encoding="utf-8") as file:
            text = file.read()
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        return False
    return True
