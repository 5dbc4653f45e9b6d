"""The commands that README and docs print: each is one that ``mote`` takes, and those that need no engine are run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from mote.harness.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/*.md"), *ROOT.glob("results/*/README.md")]
)
BLOCK = re.compile(r"^```(?:\w+)?\n(.*?)^```", re.S | re.M)
INLINE = re.compile(r"`(mote [^`]+)`")
# What stands for something else, or goes on elsewhere.
LEFT_OUT = re.compile(r"\.\.\.|…|\$\(|[|<>]")


def printed(page: Path) -> list[tuple[str, bool]]:
    """Every line of a page that begins with ``mote``, continued lines joined, and whether it stands in a block."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in BLOCK.findall(text) for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    found = [(line.strip().removeprefix("$ "), True) for line in lines]
    found += [(" ".join(said.split()), False) for said in INLINE.findall(BLOCK.sub("", text))]
    commands = {re.sub(r"\s+#.*", "", line).strip(): block for line, block in found if line.startswith("mote ")}
    return [(line, block) for line, block in commands.items() if not LEFT_OUT.search(line)]


CASES = [(page, *said) for page in PAGES if page.name != "commands.md" for said in printed(page)]


@pytest.mark.parametrize(("page", "line", "block"), CASES, ids=[f"{page.name}: {line}" for page, line, _ in CASES])
def test_a_printed_command_is_one_that_mote_takes(page: Path, line: str, block: bool) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    name = "mote"
    while words and (below := getattr(command, "commands", {}).get(words[0])) is not None:
        command, name, words = below, words[0], words[1:]
    assert name != "mote" or words == ["--help"], f"{page.name}: mote has no command '{words[0]}'"
    # A command that a sentence names has no arguments, or not all of them, and N for a number.
    if words and block:
        command.make_context(name, words)
    elif words:
        command.make_context(name, ["1" if word == "N" else word for word in words], resilient_parsing=True)


RUN_FOLDERS = ("results/runs/demo", "results/demo")
ENGINELESS = ("compare", "check", "export", "ls", "report", "plan", "label")


def runs(line: str) -> bool:
    """Whether a line needs no engine, and nothing that is not in the clone."""
    words = shlex.split(line)
    files = [word.partition(":")[0] for word in words[2:] if re.search(r"/|\.\w+$", word) and word[0] != "-"]
    return words[1] in ENGINELESS and bool(files) and all(name in (*RUN_FOLDERS, "results/runs") for name in files)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's run where the pages have it."""
    place = tmp_path_factory.mktemp("clone")
    for name in RUN_FOLDERS:
        (place / name).mkdir(parents=True)
        for file in ("manifest.json", "run.sqlite.xz"):
            shutil.copy(ROOT / "results" / "demo" / file, place / name)
    return place


# The folders hold the same run: what was run on one of them tells of both.
RUN = list({line.replace(*RUN_FOLDERS): line for _, line, _ in CASES if runs(line)}.values())


def test_there_are_lines_to_run() -> None:
    assert {shlex.split(line)[1] for line in RUN} >= {"compare", "report", "export"}


@pytest.mark.parametrize("line", RUN)
def test_a_printed_command_runs(clone: Path, line: str) -> None:
    code = "from mote.harness.cli.main import main; main()"
    command = [sys.executable, "-c", code, *shlex.split(line)[1:]]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-400:]
    assert "Traceback" not in done.stderr
