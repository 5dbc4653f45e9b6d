"""The page of commands in the docs is what the commands say, whatever the terminal is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.harness.cli.command_page import HELP, PAGE, own_help, page


@pytest.fixture(scope="module")
def written() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "60")
        return page()


def test_the_page_of_commands_is_what_help_prints(written: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == written, "docs/commands.md is old: make docs"


def test_every_command_gives_an_example(written: str) -> None:
    for part in written.split("\n## ")[1:]:
        if "\nCommands:\n" not in part:
            assert "Example: mote" in part, part.splitlines()[0]


def test_the_help_of_mote_itself_is_ready_and_the_same() -> None:
    assert HELP.read_text(encoding="utf-8") == own_help(), "harness/cli/help.txt is old: make docs"
    environment = {**os.environ, "COLUMNS": "100"}
    for module in ("entry", "main"):
        code = f"from mote.harness.cli.{module} import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "--help"], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.replace("Usage: -c ", "Usage: mote ") == HELP.read_text(encoding="utf-8")


def test_help_imports_nothing_of_what_it_describes() -> None:
    code = (
        "import sys; from mote.harness.cli.entry import main; main();"
        "sys.exit(','.join(name for name in ('typer', 'rich', 'pandas', 'yaml') if name in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_narrow_terminal_gets_help_of_its_own_width() -> None:
    code = "from mote.harness.cli.entry import main; main()"
    environment = {**os.environ, "COLUMNS": "60"}
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], env=environment, capture_output=True, text=True, check=True
    )
    assert max(map(len, done.stdout.splitlines())) <= 60
