"""A call of the command line in this process, as a stranger's victim makes it: what it said, and what it left."""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from mote.harness.cli import main as cli
from mote.harness.store import foreign as store

MOST_SHOWN = 500
"""Characters of the line that an error may be: a few hundred."""


class Called(NamedTuple):
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


def mote(*arguments: str | Path) -> Called:
    """Call ``mote`` as its entry point is called; an exception that it lets through is a traceback to its user."""
    out, err = io.StringIO(), io.StringIO()
    store.forget_opened()
    with (
        patch.object(sys, "argv", ["mote", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as left:
            return Called(left.code if isinstance(left.code, int) else 0, out.getvalue(), err.getvalue())
    raise AssertionError("main() returned")


def refused(called: Called, said: str = "") -> None:
    """Assert that a call ended as a user's mistake does: exit code 2, one line of at most a few hundred characters."""
    assert called.code == 2, called
    assert called.err.startswith("mote: "), called
    assert called.err.count("\n") == 1, called
    assert len(called.err) <= MOST_SHOWN, called
    assert called.err.strip().isprintable(), called
    assert said in called.err, called


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of everything in a folder, links as where they lead."""
    return dict(_digests(folder))


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            yield name, f"-> {path.readlink()}"
        elif path.is_file():
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            yield name, "folder"
