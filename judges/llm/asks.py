"""One judgment: what is asked, and how asking for it ended. No client library is needed here.

A judgment ends in one of three states:

* ``scored``: a usable verdict.
* ``unusable``: the judge replied in every try, and no reply held one: it rambled, or answered otherwise than asked.
  Final: the text is kept, the label is UNSCORED. A last reply that was cut off at ``max_tokens`` is the exception: it
  is asked for again once more tokens are allowed, and there is no label until then.
* ``unreached``: no reply, or the request was rejected. It counts as UNSCORED and is asked for again at the next start.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from mote.judges.llm.prompt import JudgePrompt, fresh_nonce
from mote.judges.llm.verdict import json_verdict, text_verdict
from mote.judges.reasoning import Markers

State = Literal["scored", "unusable", "unreached"]
SCORED: State = "scored"
UNUSABLE: State = "unusable"
UNREACHED: State = "unreached"


class Ask(Protocol):
    """One judgment to be asked for: how to put the question, and how to read the reply."""

    @property
    def key(self) -> Hashable:
        """What the judgment is stored under."""
        ...

    @property
    def prompt_name(self) -> str:
        """The name of the prompt."""
        ...

    @property
    def prompt_sha256(self) -> str:
        """The digest of the prompt, before any text under judgment was put in."""
        ...

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The JSON schema of a structured reply; None where the prompt asks for text in any case."""
        ...

    def messages(self, *, as_json: bool, again: bool) -> list[dict[str, str]]:
        """Return the chat messages; ``again`` after a reply without a usable verdict."""
        ...

    def verdict(self, reply: str, *, as_json: bool, markers: Markers) -> str | None:
        """Return the verdict of a reply, or None where it holds none."""
        ...


@dataclass(frozen=True)
class PromptAsk:
    """A judgment by one of our own prompt files; its values are the texts under judgment."""

    key: Hashable
    prompt: JudgePrompt
    values: Mapping[str, str]

    @property
    def prompt_name(self) -> str:
        """The name of the prompt."""
        return self.prompt.name

    @property
    def prompt_sha256(self) -> str:
        """The digest of the prompt's file."""
        return self.prompt.sha256

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The schema that the prompt's verdicts make."""
        return self.prompt.schema

    def messages(self, *, as_json: bool, again: bool) -> list[dict[str, str]]:
        """Return the chat messages, with a code of their own."""
        return self.prompt.messages(self.values, as_json=as_json, again=again, nonce=fresh_nonce(self.values))

    def verdict(self, reply: str, *, as_json: bool, markers: Markers) -> str | None:
        """Return the verdict of a reply, or None."""
        return (json_verdict if as_json else text_verdict)(reply, self.prompt.verdicts, markers)


class Judgment(NamedTuple):
    """How asking for one judgment ended. ``verdict`` is None unless ``state`` is ``scored``; ``messages`` as sent."""

    state: State
    verdict: str | None
    raw: str
    reasoning: str
    error: str
    messages: list[dict[str, str]]
    model: str
    as_json: bool
    finish_reason: str | None
    tries: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    max_tokens: int = 0

    @property
    def cut_off(self) -> bool:
        """Whether no verdict came because the reply ran into ``max_tokens``: with more there may be one."""
        return self.state == UNUSABLE and self.finish_reason == "length"


def cut_off_words(count: int, max_tokens: int, option: str = "--max-tokens") -> str:
    """Say in one line that replies were cut off, and which option to raise."""
    replies = "1 reply has" if count == 1 else f"{count} replies have"
    return f"{replies} no verdict, cut off at {max_tokens} tokens or fewer: raise {option} to ask again."


class Tally(NamedTuple):
    """What became of the judgments of one start.

    ``left`` were not asked for, since the budget was spent; of ``cut`` the last reply was cut off at ``max_tokens``.
    """

    scored: int
    unusable: int
    unreached: int
    left: int
    cut: int = 0

    @property
    def total(self) -> int:
        """All judgments that were wanted."""
        return sum(self)
