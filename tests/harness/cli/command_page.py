"""``docs/commands.md``, the ``--help`` of every command, and ``help.txt``, that of ``mote`` itself.

``make docs`` writes both, ``test_command_page`` holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer
from typer.testing import CliRunner

import mote.harness.cli.entry as entry
from mote.harness.cli.main import app

HELP: Final = Path(entry.__file__).with_name("help.txt")
PAGE: Final = Path(__file__).parents[3] / "docs" / "commands.md"
WIDTH: Final = 110
_HEAD = """# Commands

Every command with its own `--help`, as it is printed at a width of {width} columns. `make docs` writes this page, and a
test fails where it is old. `mote lm-eval` hands its arguments over to lm-eval: [lm-eval.md](lm-eval.md).
"""


def page() -> str:
    """Return the page as the code would have it."""
    parts = [_HEAD.format(width=WIDTH)]
    for names in _commands(typer.main.get_command(app), ()):
        if names == ("lm-eval",):
            continue
        done = CliRunner().invoke(
            app, [*names, "--help"], prog_name="mote", terminal_width=WIDTH, max_content_width=WIDTH, color=False
        )
        assert done.exit_code == 0, done.output
        parts.append(f"## mote {' '.join(names)}".rstrip() + f"\n\n```\n{_tidy(done.output)}\n```\n")
    return "\n".join(parts)


def own_help() -> str:
    """Return the help of ``mote`` itself as it is printed at the entry point's width."""
    done = CliRunner().invoke(app, ["--help"], prog_name="mote", terminal_width=entry.WIDTH - 2, color=False)
    assert done.exit_code == 0, done.output
    return done.output


def _commands(command: Any, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield a command and all below it, in the order in which ``--help`` lists them."""
    yield names
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, (*names, name))


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    HELP.write_text(own_help(), encoding="utf-8")
