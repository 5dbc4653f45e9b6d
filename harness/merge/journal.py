"""The journal of a merge: which child a folder is becoming, and which shards are done. One line of JSON each, synced.

A shard is written to ``.part``, synced, renamed, and only then named here: what the journal names is whole. A line that
a kill cut short is no line. The journal goes when the child is finished; ``merge.json`` stays.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mote.harness.errors import MoteError
from mote.harness.files import Closing, open_own
from mote.reading import UnreadableError, parse_json, read_bytes

JOURNAL: Final = "merge.journal"
RECORD: Final = "merge.json"
BAKED: Final = "bake.json"
"""The record of a child that is one model with some experts scaled (``mote bake``)."""
RECORDS: Final = (RECORD, BAKED)
PART: Final = ".part"
"""Ends the name of a shard that is being written."""


class Journal(Closing):
    """The journal in a folder, locked against a second merge; ``shards`` are the finished ones' entries by file."""

    def __init__(self, folder: Path, child: Mapping[str, Any]) -> None:
        """Open or begin the journal of a child.

        Raises MoteError where the folder is becoming another child, or somebody is at work in it.
        """
        self.path = folder / JOURNAL
        self.shards: dict[str, dict[str, Any]] = {}
        self._file = open_own(self.path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise MoteError(f"{folder}: another merge is at work in this folder.") from None
        self._file.seek(0)
        lines, whole = _whole_lines(self._file.read())
        if not lines:
            self._file.truncate(0)
            self._append({"child": dict(child)})
            return
        begun = lines[0].get("child")
        if begun != child:
            self.close()
            raise MoteError(
                f"{folder} holds a merge begun with another recipe or other parents ({_changed(begun, child)})."
                " Take another folder with --out, or remove this one."
            )
        self.shards = {str(line["shard"]): line for line in lines[1:] if isinstance(line.get("size"), int)}
        # What a kill cut short goes, so that the next line does not join it.
        self._file.truncate(whole)

    def add(self, shard: str, entry: Mapping[str, Any]) -> None:
        """Note a finished shard; its file must be renamed and synced."""
        self.shards[shard] = {"shard": shard, **entry}
        self._append(self.shards[shard])

    def remove(self) -> None:
        """Take the journal away: the child is finished."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the lock."""
        self._file.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def begun_child(folder: Path) -> Any:
    """Return what a folder's journal says it is becoming, or None without a journal."""
    path = folder / JOURNAL
    if not path.is_file():
        return None
    try:
        lines, _ = _whole_lines(read_bytes(path))
    except UnreadableError as error:
        raise MoteError(f"{path} {error}.") from None
    return lines[0].get("child") if lines else {}


def _whole_lines(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the lines that are whole, and the bytes they take."""
    found, at = [], 0
    for line in data.split(b"\n")[:-1]:
        try:
            content = parse_json(line)
        except UnreadableError:
            break
        if not isinstance(content, dict):
            break
        found.append(content)
        at += len(line) + 1
    return found, at


def _changed(old: Any, new: Mapping[str, Any]) -> str:
    known = old if isinstance(old, dict) else {}
    return ", ".join(key for key in new if known.get(key) != new[key]) or "its journal is not readable"
