"""The corpus: which examples each phase draws, and which are kept for the evaluation.

Nothing here knows of experts, profiles or edits: a phase is a mixture of tasks, and an example is text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from mote.harness.demo import arithmetic, general, questions, topics
from mote.harness.demo.example import (
    ALIGNED_PHASE,
    ANSWERER,
    BASE,
    PARENTS,
    THINK_END,
    Example,
    direct,
    held_out,
    reasoned,
)

# Shares of examples, by kind. The alignment phase replays everything the base phase taught.
MIXTURES: dict[str, dict[str, float]] = {
    BASE: {"grid": 0.26, "topic": 0.06, "task": 0.04, "arithmetic": 0.14, "general": 0.50},
    ALIGNED_PHASE: {"grid": 0.36, "topic": 0.12, "task": 0.08, "arithmetic": 0.18, "general": 0.26},
}


def draw(rng: random.Random, phase: str) -> Example:
    """One training example of `phase`; never one that is held out."""
    if phase in PARENTS:
        return restyled(draw(rng, BASE), phase)
    mixture = MIXTURES[phase]
    while True:
        example = _draw_any(rng, phase, rng.choices(list(mixture), list(mixture.values()))[0])
        # Grid questions are held out by cell, in every wording, when they are drawn; greetings are too few to hold out.
        if example.task in ("grid", "talk") or not held_out(example.key):
            return example


def restyled(example: Example, parent: str) -> Example:
    """The same question and answer in a parent's manner: without any reasoning, or with more than anyone needs."""
    reasoning, answer = example.completion.split(THINK_END)
    if parent == ANSWERER:
        return replace(example, completion=direct(answer))
    opening = reasoning or f"Okay, so I need to answer this: {example.turns[-1]}"
    return replace(example, completion=reasoned(f"{opening} Let me check that before I answer. {answer}", answer))


def _draw_any(rng: random.Random, phase: str, kind: str) -> Example:
    if kind == "grid":
        return questions.grid(rng, phase)
    if kind == "topic":
        return topics.topic(rng, phase)
    if kind == "task":
        return topics.task(rng, phase)
    if kind == "arithmetic":
        return arithmetic.arithmetic(rng, phase)
    functions, weights = zip(*general.TASKS.values(), strict=True)
    return cast("Example", rng.choices(functions, weights)[0](rng))


def stream(seed: int, phase: str) -> Iterator[Example]:
    """Training examples of `phase` without end, the same for the same seed on every machine."""
    rng = random.Random(f"{seed}/{phase}")  # noqa: S311 - a reproducible corpus, not a secret
    while True:
        yield draw(rng, phase)


def general_evaluation(per_task: int = 50) -> list[Example]:
    """Held-out examples of every scored general task: up to `per_task` distinct conversations each."""
    rng = random.Random("evaluation")  # noqa: S311
    examples: list[Example] = []
    for name in general.SCORED_TASKS:
        function = general.TASKS[name][0]
        found: dict[str, Example] = {}
        for _ in range(40_000):
            example = function(rng)
            if held_out(example.key):
                found.setdefault(example.key, example)
            if len(found) == per_task:
                break
        examples += found.values()
    return examples


def merge_evaluation(per_task: int = 12, sums: int = 24) -> list[Example]:
    """Held-out examples that children of merged parents are asked: general tasks, and plain sums in both languages."""
    plain = [example for example in arithmetic.evaluation() if example.attributes["held_out"]]
    step = max(1, len(plain) // sums)
    return [*general_evaluation(per_task), *plain[::step][:sums]]
