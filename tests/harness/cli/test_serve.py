"""Where a server listens, and what is said where it is open to others."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from mote.harness.cli.serve import open_without_key
from mote.patches.streams import TOP, unfit
from tests.harness.strangers.calls import mote


def started(monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[list[str], str]:
    """The command line that a server would be started with, and what was said before."""
    found: list[str] = []

    class Started(SystemExit):
        pass

    def execv(_: str, arguments: list[str]) -> None:
        found.extend(arguments)
        raise Started(0)

    monkeypatch.setattr("os.execv", execv)
    called = mote("serve", "demo", *options)
    assert found[0] == sys.executable
    return found, called.err


def test_a_server_listens_on_this_machine_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    command, said = started(monkeypatch, "--port", "8000")
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert said == ""
    command, said = started(monkeypatch, "--host", "0.0.0.0")  # noqa: S104
    assert command.count("--host") == 1
    assert "set --api-key" in said
    assert said.count("\n") == 1
    for quiet in (["--host=0.0.0.0", "--api-key", "k"], ["--host", "::1"], ["--host=localhost"], ["--uds", "/x"]):
        assert started(monkeypatch, *quiet)[1] == ""
    assert open_without_key(["--host=0.0.0.0"], "k") is None
    assert open_without_key(["--host"], None) is not None


@pytest.mark.parametrize(
    ("extra", "xargs", "said"),
    [
        ({"mote": {"profile": "p"}}, {}, TOP),
        ({"MOTE": {}}, {"mote": "{}"}, TOP),
        ({}, {"Mote": "{}"}, "in small letters"),
        ({"seed": 1}, {"mote": "{}"}, None),
        ({}, None, None),
    ],
)
def test_mote_where_nothing_reads_it_is_refused(extra: Any, xargs: Any, said: str | None) -> None:
    found = unfit(SimpleNamespace(model_extra=extra, vllm_xargs=xargs), None)
    assert found == said if said is None else said in str(found)
