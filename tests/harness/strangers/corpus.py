"""How a corpus of malformed inputs is tried: every case is refused in a line, or taken and used, and counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mote.harness.errors import MoteError, one_line
from tests.harness.strangers.calls import MOST_SHOWN
from tests.harness.strangers.mutations import Case

MOST_SECONDS = 5.0
counted: dict[str, int] = {}
"""Cases tried so far, by kind."""


def said(error: BaseException) -> None:
    line = one_line(str(error))
    assert 0 < len(line) <= MOST_SHOWN
    assert line.isprintable()


def each(
    kind: str, cases: Iterator[Case], read: Callable[[bytes], Any], *, must: bool, errors: Any = MoteError
) -> None:
    """Read every case; ``must``: it has to be refused. Anything else than a refusal in words is a traceback."""
    taken = 0
    for name, content in cases:
        began = time.process_time()
        try:
            read(content)
        except errors as error:
            said(error)
        except Exception as error:
            raise AssertionError(f"{kind}, {name}: {type(error).__name__}: {error}") from error
        else:
            taken += 1
            assert not must, f"{kind}, {name}: was taken"
        assert time.process_time() - began < MOST_SECONDS, f"{kind}, {name}"
        counted[kind] = counted.get(kind, 0) + 1
    assert must or taken < counted[kind], kind


def writer(path: Path, read: Callable[[], Any]) -> Callable[[bytes], Any]:
    def take(content: bytes) -> Any:
        path.write_bytes(content)
        return read()

    return take


def whole(request: pytest.FixtureRequest) -> bool:
    """Return whether all tests of the request's file run, and not only those that were named."""
    file = request.path
    here = sum(1 for item in request.session.items if item.path == file)
    return here == sum(1 for name in vars(request.module) if name.startswith("test_"))
