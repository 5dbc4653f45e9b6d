"""Judge a bench: a rating of every answer, and each tuned model against the original in both orders.

The judgments against a reference exist twice where our corrections change the reference: by GPT-4's and by the
corrected one. The others are asked for once and count in both sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import pandas as pd
from rich.console import Console

from mote.harness.errors import MoteError
from mote.harness.mt_bench.answers import BenchQuestion
from mote.harness.mt_bench.store import JUDGED, BenchStore, JudgmentKey
from mote.harness.progress import step
from mote.judges.llm.asks import Judgment, Tally
from mote.judges.llm.endpoint import Endpoint, JudgeError
from mote.judges.mt_bench import REFERENCED, BenchAsk, Conversation, Form, pair_ask, single_ask

NONE, ORIGINAL, CORRECTED = "none", "gpt-4", "corrected"
REFERENCE_SETS: Final = (ORIGINAL, CORRECTED)

Reference = tuple[str, str]
Mode = Literal["single", "pair"]


class Material(NamedTuple):
    """The material of judging beside the answers: questions, forms, and both sets of references by question id."""

    questions: Sequence[BenchQuestion]
    forms: Mapping[str, Form]
    original: Mapping[int, Reference]
    corrected: Mapping[int, Reference]

    def references(self, question: BenchQuestion, turn: int) -> dict[str, Reference | None]:
        """Return the references that a turn is to be judged by, under their names.

        Raises MoteError where a category is judged by reference and there is none.
        """
        if question.category not in REFERENCED:
            return {NONE: None}
        given = self.original.get(question.id)
        if given is None:
            raise MoteError(f"question {question.id} ({question.category}) has no reference answer.")
        found: dict[str, Reference | None] = {ORIGINAL: given}
        mended = self.corrected.get(question.id, given)
        # Turn 1 is judged by the first reference alone, turn 2 by both.
        if mended[:turn] != given[:turn]:
            found[CORRECTED] = mended
        return found


def judge_bench(
    store: BenchStore,
    material: Material,
    mode: Mode,
    endpoint: Endpoint,
    console: Console,
    *,
    judge: str | None = None,
    original: str | None = None,
    max_judgments: int | None = None,
) -> Tally:
    """Ask for the judgments of a mode that are missing; each reply is stored as it comes.

    ``judge`` names the judge, by default as its model; ``original`` is the model that pairs are judged against, by
    default the first. Raises MoteError for an endpoint that can't be used; what was stored stays.
    """
    asks = list(missing_asks(store, material, mode, judge or endpoint.model, original, max_tokens=endpoint.max_tokens))
    if not asks:
        return Tally(0, 0, 0, 0)
    try:
        from mote.judges.llm.panel import judge_all
    except ImportError as error:
        raise MoteError(f'LLM judges need another package ({error}): pip install ".[judge]".') from None
    with step(console, f"Judgments, {mode}", len(asks)) as advance:

        def done(ask: BenchAsk, judgment: Judgment) -> None:
            key = JudgmentKey(*ask.key)
            store.add_judgment(key, endpoint.url, ask.prompt_name, ask.prompt_sha256, ask.guarded, judgment)
            advance(1)

        try:
            return judge_all(asks, endpoint, done, max_judgments=max_judgments)
        except JudgeError as error:
            raise MoteError(str(error)) from None


def missing_asks(
    store: BenchStore,
    material: Material,
    mode: Mode,
    judge: str,
    original: str | None = None,
    *,
    max_tokens: int,
) -> Iterator[BenchAsk]:
    """Yield what has to be asked for, question by question: a budget that ends early cuts questions, not models.

    What was cut off at fewer than ``max_tokens`` is asked for again.

    Raises MoteError where ``original`` is no model of the bench, or there is nothing to set beside it.
    """
    talks = conversations(store.answers(), material.questions)
    ended = store.ended(max_tokens)
    for key, reference, first, second in _wanted(store, material, mode, judge, original, talks):
        if key in ended:
            continue
        if second is None:
            yield single_ask(key, material.forms, first, key.turn, reference)
        elif key.game == 1:
            yield pair_ask(key, material.forms, first, second, key.turn, reference)
        else:
            yield pair_ask(key, material.forms, second, first, key.turn, reference)


def pairs_of(store: BenchStore, original: str | None) -> list[tuple[str, str]]:
    """Return (tuned, original) for every model beside the original, by default the first."""
    names = [model.model_id for model in store.models()]
    base = original or names[0]
    if base not in names:
        raise MoteError(f"the bench has no model '{base}'. Known: {', '.join(names)}.")
    return [(name, base) for name in names if name != base]


def conversations(
    answers: pd.DataFrame, questions: Sequence[BenchQuestion]
) -> dict[tuple[str, int, int], Conversation]:
    """Return (model, question, choice) -> the turns that have an answer; those without a first one are left out."""
    turns = {question.id: question.turns for question in questions}
    usable = answers[answers["state"].isin(JUDGED) & answers["question_id"].isin(turns)]
    found: dict[tuple[str, int, int], Conversation] = {}
    for (model, question, choice), rows in usable.groupby(["model_id", "question_id", "choice"], sort=False):
        ordered = rows.sort_values("turn")
        if int(ordered["turn"].iloc[0]) == 1:
            number = int(str(question))
            found[str(model), number, int(str(choice))] = Conversation(
                turns[number], tuple(map(str, ordered["answer"]))
            )
    return found


def _wanted(
    store: BenchStore,
    material: Material,
    mode: Mode,
    judge: str,
    original: str | None,
    talks: Mapping[tuple[str, int, int], Conversation],
) -> Iterator[tuple[JudgmentKey, Reference | None, Conversation, Conversation | None]]:
    pairs = [(model.model_id, "") for model in store.models()] if mode == "single" else pairs_of(store, original)
    choices = sorted({choice for _, _, choice in talks})
    for question in material.questions:
        for choice in choices:
            for first, second in pairs:
                one = talks.get((first, question.id, choice))
                other = talks.get((second, question.id, choice)) if second else None
                if one is None or (second and other is None):
                    continue
                told = min(len(one.answers), len(other.answers)) if other else len(one.answers)
                for turn in range(1, told + 1):
                    for name, reference in material.references(question, turn).items():
                        for game in (1, 2) if second else (1,):
                            key = JudgmentKey(judge, mode, first, second, question.id, choice, turn, game, name)
                            yield key, reference, one, other
