"""Data that is not ours: fetched once from its source, checked by sha256 or by shape, cached, never in the package.

The cache is ``$MOTE_DATA``, else ``~/.cache/mote-harness``. Without a network an error says what to download, from
where, and where to put it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mote.tasks.prompt import TaskError

HOME_VARIABLE = "MOTE_DATA"
_TIMEOUT_S = 30
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "MOTE_OFFLINE")

State = Literal["missing", "cached", "changed"]


def data_home() -> Path:
    """Return the folder where fetched data lies; it need not exist yet."""
    given = os.environ.get(HOME_VARIABLE)
    return Path(given).expanduser() if given else Path.home() / ".cache" / "mote-harness"


def offline() -> str | None:
    """Return the environment variable that forbids the network, or None."""
    return next(
        (name for name in _OFFLINE_VARIABLES if os.environ.get(name, "0").lower() not in ("", "0", "false")), None
    )


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set: its name in the cache, where it comes from, and the sha256 of its bytes."""

    name: str
    url: str
    sha256: str

    def state(self, folder: Path) -> State:
        """Return whether ``folder`` has the file: ``missing``, ``cached``, or ``changed`` when the bytes are others."""
        path = folder / self.name
        if not path.is_file():
            return "missing"
        return "cached" if digest(path.read_bytes()) == self.sha256 else "changed"

    def read(self, folder: Path) -> bytes:
        """Return the bytes from ``folder``; raise TaskError where they are missing or not the pinned ones."""
        path = folder / self.name
        if not path.is_file():
            raise TaskError(f"{path} is missing. Download {self.url} to that place.")
        content = path.read_bytes()
        self._check(content, str(path))
        return content

    def fetch(self, folder: Path) -> Path:
        """Return the path of the file in ``folder``, downloading it if it is not there or not the pinned bytes."""
        path = folder / self.name
        if self.state(folder) == "cached":
            return path
        if variable := offline():
            raise TaskError(f"{path} is missing and {variable} forbids the network. Download {self.url} to that place.")
        try:
            with urllib.request.urlopen(self.url, timeout=_TIMEOUT_S) as reply:  # noqa: S310 - a pinned https address
                content: bytes = reply.read()
        except (urllib.error.URLError, TimeoutError, OSError) as error:
            raise TaskError(
                f"{self.url} cannot be reached ({error}). Download it elsewhere and put it at {path}."
            ) from None
        self._check(content, self.url)
        write_whole(path, content)
        return path

    def _check(self, content: bytes, where: str) -> None:
        found = digest(content)
        if found != self.sha256:
            raise TaskError(
                f"{where}: sha256 is {found}, but {self.sha256} is pinned. Download it anew from {self.url}."
            )


def digest(content: bytes) -> str:
    """Return the sha256 of ``content`` in hex."""
    return hashlib.sha256(content).hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    temporary.replace(path)
