"""What every store of ours does with SQLite: WAL, one writing process, whole transactions, and traceless reading."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from mote.harness.errors import MoteError
from mote.harness.files import open_own

_LARGEST_VALUE: Final = 32 << 20
UNREADABLE: Final = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file may raise: a name of its schema that is no text is not even SQLite's own error."""


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Return a connection without implicit transactions; a reading one can't write and leaves no files behind.

    The file may be a stranger's: links are not followed, no value is larger than 32 MiB, and functions that could
    reach beyond the database are not called by what stands in it. Raises MoteError for a link, and for a journal that
    no store of ours has: SQLite would delete the file that such a journal names.
    """
    for end in ("", "-wal", "-shm", "-journal"):
        if (beside := path.with_name(path.name + end)).is_symlink():
            raise MoteError(f"{beside} is a link: it is not followed. Take it away.")
    journal = path.with_name(f"{path.name}-journal")
    if journal.exists() and journal.stat().st_size:
        raise MoteError(f"{journal} is a journal that this store does not keep: take it away.")
    db = _connection(path, read_only)
    db.execute("pragma trusted_schema = off")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
    return db


def _connection(path: Path, read_only: bool) -> sqlite3.Connection:
    if not read_only:
        db = sqlite3.connect(path, isolation_level=None)
        # A crash of this process can't lose a committed row in WAL mode with NORMAL; a power cut may.
        for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
            db.execute(f"pragma {pragma}")
        return db
    if os.access(path.parent, os.W_OK):
        # The last connection that closes takes the write-ahead log's files away; one in SQLite's own read-only mode
        # would leave them beside a finished run.
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("pragma query_only = on")
        return db
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)


def lock(path: Path) -> IO[bytes]:
    """Take the lock of a folder; closing the file gives it back. Raises MoteError where another process has it."""
    file = open_own(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise MoteError(
            f"{path.parent} is in use by another mote; wait for it or choose another folder with --out."
        ) from None
    return file


class Transaction:
    """``begin`` on entry; ``commit`` on a clean exit, ``rollback`` on any exception (Ctrl-C too)."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        """Begin, taking SQLite's write lock at once."""
        self._db.execute("begin immediate")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit or roll back; SQLite itself rolls back what finds no room on the disk."""
        try:
            if kind is None:
                self._db.execute("commit")
        finally:
            if self._db.in_transaction:
                self._db.execute("rollback")


def copy_of(db: sqlite3.Connection) -> sqlite3.Connection:
    """Return a copy of a database that is gone when it is closed; what does not fit SQLite's cache lies on the disk."""
    copy = sqlite3.connect("", isolation_level=None)
    db.backup(copy)
    return copy


def run_script(db: sqlite3.Connection, text: str) -> None:
    """Execute statements one by one, within the caller's transaction; Python's ``executescript`` would commit it."""
    statement = ""
    for part in text.split(";")[:-1]:
        statement += f"{part};"
        # Not within a trigger's body, nor at a semicolon of a comment.
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""
