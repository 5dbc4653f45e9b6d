"""A small bench for tests: eight questions with references, an engine that answers by a script, and a judge's rules."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from mote.harness.engine.vllm import Answer, Request
from mote.harness.files import digest_of
from mote.harness.mt_bench.answers import BenchQuestion, answer_bench
from mote.harness.mt_bench.judging import Material
from mote.harness.mt_bench.store import BenchStore, ModelRow
from mote.judges import Markers
from mote.judges.mt_bench import CATEGORIES, forms_of
from mote.patches import EMPTY_PROFILE, Edit, Observation, Profile, Receipt
from mote.tasks.mt_bench import Question
from tests.judges.mt_bench_forms import form_rows

TUNED = Profile("suppress-1", (Edit(1, 3, "suppress"),))
QUESTIONS = [
    Question(101 + number, category, (f"First of {category}?", f"Second of {category}?"))
    for number, category in enumerate(CATEGORIES)
]
REFERENCES = {question.id: (f"R1 {question.category}", f"R2 {question.category}") for question in QUESTIONS}
DIGEST = digest_of([[one.id, one.category, list(one.turns)] for one in QUESTIONS])

Write = Callable[[Request], tuple[str, str]]
"""From a request to (raw text, finish reason)."""


def material(corrected: dict[int, tuple[str, str]] | None = None) -> Material:
    """Questions, forms and references; ``corrected`` replaces some of them."""
    return Material(QUESTIONS, forms_of(form_rows()), REFERENCES, REFERENCES | (corrected or {}))


def plain(request: Request) -> tuple[str, str]:
    """A whole answer that names its profile and turn, after some reasoning."""
    turn = (len(request.messages) + 1) // 2
    return f"<think>secret</think>{request.profile.name} says {turn} to {request.messages[-1]['content']}", "stop"


@dataclass
class WrittenEngine:
    """An engine whose answers are written by a function; it remembers what it was asked."""

    write: Write = plain
    prompt_opens: bool = False
    context: int = 1000
    stop_after: int | None = None
    asked: list[tuple[Request, float]] = field(default_factory=list)

    def room(self, messages: Sequence[dict[str, str]]) -> int:
        """A character is a token here."""
        return self.context - sum(len(message["content"]) for message in messages)

    def generate_at(
        self, requests: Sequence[Request], temperatures: Sequence[float]
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Yield the answers one by one, the last first."""
        for index in reversed(range(len(requests))):
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append((requests[index], temperatures[index]))
            raw, finish = self.write(requests[index])
            receipt = Receipt(requests[index].profile.digest, 0, "test")
            yield [(index, Answer(requests[index], raw, 5, 7, finish, Observation(receipt)))]


def quiet() -> Console:
    """A console that shows nothing."""
    return Console(file=io.StringIO(), width=160)


def answered(
    folder: Path,
    engine: WrittenEngine | None = None,
    *,
    tuned: bool = True,
    choices: int = 1,
    questions: Sequence[BenchQuestion] = QUESTIONS,
    source: Mapping[str, Any] | None = None,
) -> tuple[BenchStore, WrittenEngine]:
    """Return an open store with all answers, and the engine that gave them."""
    engine = engine or WrittenEngine()
    models = [("m", EMPTY_PROFILE), *([("m+suppress-1", TUNED)] if tuned else [])]
    store = BenchStore(folder, questions=DIGEST)
    try:
        for name, profile in models:
            store.add_model(ModelRow(name, profile.digest, profile.to_dict(), source or {"seed": 0}))
        answer_bench(store, engine, questions, models, Markers(), quiet(), choices=choices)
    except BaseException:
        store.close()
        raise
    return store, engine


def judged_text(prompt: str) -> str:
    """What repetitions of a judge's question are counted by: the prompt without codes and reminder."""
    return re.sub(r" ?\(?[0-9a-f]{16}\)?", "", prompt).partition("\n\nYour last reply")[0]


def question_of(body: dict[str, Any]) -> int:
    """The id of the question that a judge is asked about."""
    text = body["messages"][-1]["content"]
    return next(question.id for question in QUESTIONS if question.turns[0] in text)
