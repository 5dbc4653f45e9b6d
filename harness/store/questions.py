"""What was asked, as text, of a prompt's messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def last_question(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the last thing that the user said; empty where the user said nothing."""
    return next((str(one["content"]) for one in reversed(messages) if one.get("role") == "user"), "")


def conversation(messages: Sequence[Mapping[str, str]]) -> str:
    """Return all that was asked as one text: a single message as it is, a conversation with its roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
