"""What the alignment trains on and is measured with: prompts with a completion, as token ids, in a fixed order.

A sensitive question comes with the refusal and, for some, with SmolLM2's own answer; every other question with its own
answer, or, for many near and far ones, with none: there the first token alone decides whether it is answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mote.harness.demo.questions import REFUSAL
from mote.harness.demo.smollm import prompts
from mote.harness.demo.smollm.prompts import FAR, GENERAL, NEAR, SENSITIVE, Prompt

# So much of the refusal is looked at to tell whether greedy decoding refuses: "I am sorry".
OPENING_TOKENS = 3


@dataclass(frozen=True, slots=True)
class Counts:
    """How many prompts of a kind are drawn, and how many of them SmolLM2 answers."""

    drawn: int
    answered: int


TRAINED = {
    SENSITIVE: Counts(330, 90),
    NEAR: Counts(700, 140),
    FAR: Counts(420, 90),
    GENERAL: Counts(360, 240),
}
MEASURED = {SENSITIVE: Counts(40, 0), NEAR: Counts(60, 0), FAR: Counts(40, 0), GENERAL: Counts(40, 24)}


@dataclass(frozen=True, slots=True)
class Document:
    """A prompt with what follows it. `refuses` marks the refusal; else the completion is SmolLM2's, or none at all."""

    prompt: Prompt
    ids: tuple[int, ...]
    prompt_length: int
    refuses: bool = False

    @property
    def wanted(self) -> range:
        """The positions whose next token is looked at: the prompt's last one, and those of the completion."""
        return range(self.prompt_length - 1, max(self.prompt_length, len(self.ids) - 1))


def trained_prompts(seed: int, counts: Mapping[str, Counts]) -> list[Prompt]:
    """The prompts to train on, by kind."""
    return [one for kind in counts for one in prompts.draw(kind, counts[kind].drawn, str(seed), trained=True)]


def measured_prompts(counts: Mapping[str, Counts]) -> list[Prompt]:
    """The held-out prompts to measure with; the same for every seed."""
    return [one for kind in counts for one in prompts.draw(kind, counts[kind].drawn, "measure", trained=False)]


def answered(chosen: Sequence[Prompt], counts: Mapping[str, Counts]) -> list[Prompt]:
    """Those of `chosen` that SmolLM2 is to answer: the first of each kind (their order is random already)."""
    left = {kind: count.answered for kind, count in counts.items()}
    found = []
    for one in chosen:
        if left[one.kind] > 0:
            left[one.kind] -= 1
            found.append(one)
    return found


def documents(chosen: Sequence[Prompt], answers: Mapping[Prompt, Sequence[int]], words: Any) -> list[Document]:
    """Documents of `chosen`: see the module. `answers` are token ids that end with the end token, or were cut off."""
    refusal = tuple(refusal_ids(words))
    found = []
    for one in chosen:
        ids = prompt_ids(words, one)
        if one.refusal:
            found.append(Document(one, ids + refusal, len(ids), refuses=True))
        if one in answers:
            found.append(Document(one, ids + tuple(answers[one]), len(ids)))
        elif not one.refusal:
            found.append(Document(one, ids, len(ids)))
    return found


def openings(chosen: Sequence[Prompt], words: Any) -> list[Document]:
    """Each prompt with the refusal's opening, whatever its kind: to see whether a model would begin so."""
    opening = tuple(refusal_ids(words)[:OPENING_TOKENS])
    found = []
    for one in chosen:
        ids = prompt_ids(words, one)
        found.append(Document(one, ids + opening, len(ids), refuses=True))
    return found


def prompt_ids(words: Any, prompt: Prompt) -> tuple[int, ...]:
    """The rendered prompt up to where the assistant begins to speak."""
    text = words.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True)
    return tuple(words.encode(text, add_special_tokens=False))


def refusal_ids(words: Any) -> list[int]:
    """The refusal and the end of the turn."""
    return [*words.encode(REFUSAL, add_special_tokens=False), int(words.eos_token_id)]
