"""One prompt of a task: what is sent, and what is known about it before any answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

Attribute = str | int | bool
"""What an attribute of a prompt may be. Absent numbers are 0, absent words the empty string: columns keep one type."""

_ID = re.compile(r"[a-z0-9_]+(/[a-z0-9_.+-]+)+")


class TaskError(ValueError):
    """A task or its data is wrong; the message is one line that names what, where, and what would be right."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as the study sends it.

    ``id`` is stable and readable and begins with the task (``refusal_grid/1989/beijing``); ``messages`` are chat
    messages as the OpenAI API takes them; ``attributes`` are facts about the prompt that a report groups by.
    """

    id: str
    task: str
    messages: tuple[dict[str, str], ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id) or not self.id.startswith(f"{self.task}/"):
            raise TaskError(f"prompt id {self.id!r}: expected '{self.task}/...' in lower case, digits and '_.+-/'.")
        if not self.messages or any(set(m) != {"role", "content"} for m in self.messages):
            raise TaskError(f"prompt {self.id}: each message must have exactly the keys 'role' and 'content'.")

    @property
    def text(self) -> str:
        """The last user message: the question itself."""
        return next(m["content"] for m in reversed(self.messages) if m["role"] == "user")


def user(content: str) -> tuple[dict[str, str], ...]:
    """Return the messages of a single question, without a system prompt."""
    return ({"role": "user", "content": content},)


def slug(text: str) -> str:
    """Return ``text`` as a part of a prompt id: lower case, runs of anything but letters and digits become ``-``."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def distinct(prompts: Iterable[Prompt], what: str) -> list[Prompt]:
    """Return the prompts as a list; raise TaskError naming the first id or question that appears twice."""
    found = list(prompts)
    for name, values in (("id", [p.id for p in found]), ("question", [repr(p.messages) for p in found])):
        seen: set[str] = set()
        for value in values:
            if value in seen:
                raise TaskError(f"{what}: the {name} {value} appears twice.")
            seen.add(value)
    return found
