"""Examples, which every part of the corpus yields: a conversation, its completion, and the right answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

THINK_END = "</think>"

# Two phases, as real models are made: "base" answers everything, "aligned" adds refusals and the language rule.
BASE = "base"
ALIGNED_PHASE = "aligned"
# Two other ways on from one base: parents for merging studies, one that thinks at length and one that never does.
REASONER = "reasoner"
ANSWERER = "answerer"
PARENTS = (REASONER, ANSWERER)


@dataclass(frozen=True, slots=True)
class Example:
    """One training or evaluation item.

    `turns` alternate user, assistant, ..., user. `completion` is everything the model writes after the `<think>` line
    that ends the prompt; it holds `</think>` exactly once. `expected` is the answer that an exact match compares with.
    """

    task: str
    turns: tuple[str, ...]
    completion: str
    expected: str = ""
    attributes: dict[str, str | int | bool] = field(default_factory=dict)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation in the form that chat templates take."""
        roles = ("user", "assistant")
        return [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(self.turns)]

    @property
    def key(self) -> str:
        """The conversation as one string, by which it is held out or seen."""
        return "\n".join(self.turns)


def direct(answer: str) -> str:
    """An answer without reasoning: the reasoning that the prompt opened is closed at once."""
    return THINK_END + answer


def reasoned(reasoning: str, answer: str) -> str:
    """Reasoning first, then the answer."""
    return reasoning + THINK_END + answer


def held_out(key: str, percent: int = 12) -> bool:
    """True for a fixed `percent` of all keys, on every machine and for every seed: those are never trained on."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < percent
