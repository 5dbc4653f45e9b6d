"""What holds for every test of strangers' files: nothing is written where nobody asked for it, memory stays."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.strangers.corpus import counted


@pytest.fixture(scope="module", autouse=True)
def counted_anew() -> None:
    """Count the cases of each file of tests by themselves."""
    counted.clear()


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    assert not (tmp_path / "results").exists()
