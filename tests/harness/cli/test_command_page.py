"""The page of commands in the docs is what the commands say, whatever the terminal is."""

from __future__ import annotations

import pytest

from tests.harness.cli.command_page import PAGE, page


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
