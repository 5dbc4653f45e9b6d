"""Files that are never seen half-written, folders that lead nowhere else, and digests of what a run was made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from mote.harness.errors import MoteError
from mote.reading import MOST_BYTES, UnreadableError, read_json

MODEL_DIR = Path(__file__).parent / "demo" / "model"
"""The packaged checkpoint, which recipes call ``demo``: a Hugging Face folder that vLLM loads as it is."""

_CHUNK = 1 << 20
_MOST_ENTRIES: Final = 20_000
_UNFINISHED: Final = re.compile(r"\..+\.[a-z0-9_]{8}")

RUNS: Final = Path("results/runs")
"""Where runs lie, from where one stands, unless a folder is named."""


class Closing(ABC):
    """What is closed at the end of its ``with`` block, whatever happens there."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held."""

    def __enter__(self) -> Self:
        """Return the thing itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write by way of a temporary file in the same folder, fsync and rename: a kill leaves the old file or the new.

    A link of the name is replaced, not followed. Raises OSError with the path, also where the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a report is for others to read, as far as the user's umask allows.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, temporary):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def is_unfinished(path: Path, of: str) -> bool:
    """Return whether a path is what a kill within ``write_atomic`` left of the file ``of``."""
    return path.name.startswith(f".{of}.") and bool(_UNFINISHED.fullmatch(path.name)) and not path.is_symlink()


def refuse_links(folder: Path) -> None:
    """Raise MoteError where anything in a run's folder is neither a file nor a folder of its own.

    A run may come from a stranger. What is read through a link or written through it lies outside of the run, and a
    pipe or device never ends.
    """
    for entry in _entries(folder):
        if entry.is_symlink():
            raise MoteError(f"{entry.path} is a link: nothing in a run's folder may lead out of it. Take it away.")
        if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            raise MoteError(f"{entry.path} is neither a file nor a folder: it does not belong in a run. Take it away.")


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    waiting, seen = [str(folder)], 0
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                entries = list(found)
        except (FileNotFoundError, NotADirectoryError):
            continue
        seen += len(entries)
        if seen > _MOST_ENTRIES:
            raise MoteError(f"{folder} holds more than {_MOST_ENTRIES:,} files: it is not the folder of a run.")
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)


def open_own(path: Path) -> IO[bytes]:
    """Open a file of a folder's own for reading and appending, made if it is not there; its content stays.

    Raises MoteError for a link, for a file that has a second name elsewhere, and for what is no file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    if path.is_symlink():
        raise MoteError(f"{path} is a link: it is not written through. Take it away.")
    handle = os.open(path, flags, 0o666)
    known = os.fstat(handle)
    if not stat.S_ISREG(known.st_mode) or known.st_nlink > 1:
        os.close(handle)
        raise MoteError(f"{path} is a file of another name too, or none: it is not written to. Take it away.")
    return os.fdopen(handle, "a+b")


def subfolder(folder: Path, name: str) -> Path:
    """Return a folder within a folder, made if it is not there; raise MoteError where a link has its name."""
    path = folder / name
    if path.is_symlink():
        raise MoteError(f"{path} is a link: nothing is written through it. Take it away.")
    path.mkdir(exist_ok=True)
    return path


def read_json_file(path: Path, most: int = MOST_BYTES) -> Any:
    """Return what a JSON file holds; raise MoteError, one line that names it, as ``mote.reading.read_json`` does."""
    try:
        return read_json(path, most)
    except UnreadableError as error:
        raise MoteError(f"{path} {error}.") from None


def read_document(path: Path, form: str, most: int = MOST_BYTES) -> dict[str, Any]:
    """Return a JSON object of ours, whose ``format`` says which; raise MoteError for any other."""
    document = read_json_file(path, most)
    if not isinstance(document, dict) or document.get("format") != form:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise MoteError(f"{path} has format {found!r}; this mote reads {form!r}.")
    return document


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """Return the sha256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
