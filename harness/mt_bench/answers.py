"""Both turns of MT-Bench through an engine, under any number of profiles, in one continuous batch a turn.

Temperatures are FastChat's by category; every choice has a seed of its own, and the same question has the same seed
under every profile, so that profiles share their noise. Only the answer of turn 1 goes into turn 2, never its
reasoning. A turn without an answer is a state with its reason, not a text: it is never judged and always counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Final, NamedTuple, Protocol

import pandas as pd
from rich.console import Console

from mote.harness.engine.vllm import Answer, Request, request_seed
from mote.harness.mt_bench.store import (
    ANSWERED,
    CUT_OFF,
    FAILED,
    JUDGED,
    NO_ANSWER,
    NO_FIRST,
    REASONING_CUT_OFF,
    TOO_LONG,
    AnswerRow,
    BenchStore,
)
from mote.harness.progress import step
from mote.judges import Markers, split_reasoning
from mote.judges.mt_bench import TEMPERATURES
from mote.judges.reasoning import has_word
from mote.patches import Profile

LEAST_ROOM: Final = 16
"""Tokens that the model's context must leave for an answer; with fewer the prompt counts as too long."""


class BenchQuestion(Protocol):
    """A question as the loader gives it."""

    @property
    def id(self) -> int:
        """FastChat's id."""
        ...

    @property
    def category(self) -> str:
        """One of the eight categories."""
        ...

    @property
    def turns(self) -> tuple[str, str]:
        """The user's messages."""
        ...


class BenchEngine(Protocol):
    """The engine as a bench needs one: a temperature of each request's own, and to know what fits."""

    @property
    def prompt_opens(self) -> bool:
        """Whether the chat template ends the prompt inside the reasoning."""
        ...

    def room(self, messages: Sequence[dict[str, str]]) -> int:
        """Return how many tokens the model's context leaves for an answer; negative where the prompt is longer."""
        ...

    def generate_at(
        self, requests: Sequence[Request], temperatures: Sequence[float]
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Yield (index of the request, answer), some at a time, in the order in which they are done."""
        ...


class _Slot(NamedTuple):
    """A turn that is to be answered."""

    model_id: str
    profile: Profile
    question: BenchQuestion
    choice: int
    turn: int
    seed: int

    @property
    def temperature(self) -> float:
        return TEMPERATURES[self.question.category]

    def row(self, state: str, prompt_opens: bool) -> AnswerRow:
        return AnswerRow(
            self.model_id, self.question.id, self.question.category, self.choice, self.turn, state, self.seed,
            self.temperature, prompt_opens,
        )  # fmt: skip


def answer_bench(
    store: BenchStore,
    engine: BenchEngine,
    questions: Sequence[BenchQuestion],
    models: Sequence[tuple[str, Profile]],
    markers: Markers,
    console: Console,
    *,
    choices: int = 1,
    seed: int = 0,
) -> None:
    """Answer what is missing: turn 1 of all models, then turn 2. Every answer is stored as it comes.

    ``models`` are (model id, profile), stored before. Raises MoteError for what the engine refuses.
    """
    for turn in (1, 2):
        stored = store.answers()
        there = set(zip(stored["model_id"], stored["question_id"], stored["choice"], stored["turn"], strict=True))
        slots = [
            _Slot(name, profile, question, choice, turn, request_seed(seed + choice, f"mt_bench/{question.id}/{turn}"))
            for name, profile in models
            for question in questions
            for choice in range(choices)
        ]
        missing = [slot for slot in slots if (slot.model_id, slot.question.id, slot.choice, turn) not in there]
        first = _first_answers(stored)
        with step(console, f"Answers, turn {turn}", len(slots), len(slots) - len(missing)) as advance:
            ready: list[tuple[_Slot, list[dict[str, str]]]] = []
            for slot in missing:
                messages = _messages(slot, first)
                if messages is None or engine.room(messages) < LEAST_ROOM:
                    state = NO_FIRST if messages is None else TOO_LONG
                    store.add_answers([slot.row(state, engine.prompt_opens)])
                    advance(1)
                else:
                    ready.append((slot, messages))
            for rows in _generate(engine, ready, markers):
                store.add_answers(rows)
                advance(len(rows))


def answer_state(raw: str, finish_reason: str | None, markers: Markers, prompt_opens: bool) -> str:
    """Return the state of a generated turn."""
    split = split_reasoning(raw, markers, prompt_opens)
    if finish_reason == "length" and split.opened and not split.closed:
        return REASONING_CUT_OFF
    if finish_reason not in ("stop", "length", None):
        return FAILED
    if not has_word(split.answer):
        return NO_ANSWER
    return CUT_OFF if finish_reason == "length" else ANSWERED


def _generate(
    engine: BenchEngine, ready: Sequence[tuple[_Slot, list[dict[str, str]]]], markers: Markers
) -> Iterator[list[AnswerRow]]:
    if not ready:
        return
    requests = [
        # The id names the rendered prompt: turn 2 depends on who answered turn 1.
        Request(
            f"mt_bench/{slot.question.id}/{slot.turn}/{slot.choice}/{slot.model_id}",
            messages,
            slot.profile,
            slot.seed,
        )
        for slot, messages in ready
    ]
    for some in engine.generate_at(requests, [slot.temperature for slot, _ in ready]):
        yield [_row(ready[index][0], answer, markers, engine.prompt_opens) for index, answer in some]


def _row(slot: _Slot, answer: Answer, markers: Markers, prompt_opens: bool) -> AnswerRow:
    split = split_reasoning(answer.raw, markers, prompt_opens)
    state = answer_state(answer.raw, answer.finish_reason, markers, prompt_opens)
    return slot.row(state, prompt_opens)._replace(
        raw=answer.raw,
        reasoning=split.reasoning,
        answer=split.answer,
        prompt_tokens=answer.prompt_tokens,
        generated_tokens=answer.generated_tokens,
        finish_reason=answer.finish_reason,
        receipt=answer.observation.receipt.to_dict(),
        mechanism=tuple(asdict(entry) for entry in answer.observation.mechanism),
    )


def _first_answers(stored: pd.DataFrame) -> dict[tuple[str, int, int], str]:
    usable = stored[(stored["turn"] == 1) & stored["state"].isin(JUDGED)]
    keys: Iterable[tuple[str, int, int]] = zip(usable["model_id"], usable["question_id"], usable["choice"], strict=True)
    return dict(zip(keys, map(str, usable["answer"]), strict=True))


def _messages(slot: _Slot, first: dict[tuple[str, int, int], str]) -> list[dict[str, str]] | None:
    """Return the conversation up to the user's turn; None for turn 2 where turn 1 has no answer."""
    opening = {"role": "user", "content": slot.question.turns[0]}
    if slot.turn == 1:
        return [opening]
    answer = first.get((slot.model_id, slot.question.id, slot.choice))
    if answer is None:
        return None
    return [opening, {"role": "assistant", "content": answer}, {"role": "user", "content": slot.question.turns[1]}]
