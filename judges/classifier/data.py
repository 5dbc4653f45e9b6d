"""The material that the classifier is trained and measured on: read from a folder, never fetched.

``speechmap-*.jsonl.xz`` holds replies of many models to the same requests, each with the verdicts of two LLM judges:
COMPLETE, EVASIVE or DENIAL. Finnish replies are left out: the judge reads English and Chinese.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from mote.judges.language import OTHER, language

REPLIES: Final = "speechmap-*.jsonl.xz"
HAND_LABELLED: Final = "hand-labelled.jsonl"
BEFORE_AFTER: Final = "qwen2-7b-before-after.jsonl"
MINIMAL: Final = "minimal.jsonl"
SOUND: Final = "degenerate-false.jsonl"
VERDICTS: Final = ("DENIAL", "EVASIVE", "COMPLETE")
"""In the order of the classes REFUSED, EVASIVE and ANSWERED."""


class Reply(NamedTuple):
    """A model's reply to a request with two verdicts. ``request`` is one name for a request in all its languages."""

    id: str
    model: str
    request: str
    language: str
    question: str
    answer: str
    verdicts: tuple[str, str]

    @property
    def agreed(self) -> str | None:
        """The verdict that both judges gave."""
        return self.verdicts[0] if self.verdicts[0] == self.verdicts[1] else None


def read_replies(folder: Path) -> list[Reply]:
    """Return the English and Chinese replies of ``folder`` that both judges gave a verdict."""
    found = []
    for path in _files(folder):
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            found += [_reply(json.loads(line)) for line in lines]
    return [r for r in found if r.language in ("en", "zh") and set(r.verdicts) <= set(VERDICTS)]


def readable(replies: Sequence[Reply]) -> list[Reply]:
    """Return the replies in a language that the judge reads."""
    return [r for r in replies if language(r.answer).name != OTHER]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def digest(folder: Path) -> str:
    """Return the SHA-256 of the replies' files, as they are stored."""
    whole = hashlib.sha256()
    for path in _files(folder):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def _files(folder: Path) -> list[Path]:
    found = sorted(folder.glob(REPLIES))
    if not found:
        raise FileNotFoundError(f"{folder} holds no {REPLIES}.")
    return found


def _reply(row: dict[str, Any]) -> Reply:
    first, second = (row["judges"][judge] for judge in sorted(row["judges"]))
    name = str(row["id"]).split("/")[1]
    request = re.sub(r"^(?:zh|fi)_", "", name)
    return Reply(
        row["id"], row["model"], request, row["language"], row["question"], row["answer"], (str(first), str(second))
    )
