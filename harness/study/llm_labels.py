"""Labels by a language model: which judgments a run still needs, asked for at an endpoint or of the run's own model.

What a judge replied is in the table ``judgments``; a label is made when all parts of its judgment are there, and is
never replaced. What got no reply, what a budget left over and what was cut off at ``max_tokens`` leaves its generations
without a label of this judge: they are counted, and asked for at a later start, of which a cut-off one has to allow
more tokens.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console

from mote.harness.engine.vllm import ONCE, Answer, Request, Scoring
from mote.harness.errors import MoteError
from mote.harness.progress import step
from mote.harness.recipe.label_sets import DECIDED_RULE, LABEL_SETS
from mote.harness.science.controls import BASELINE
from mote.harness.store.generations import DECIDED
from mote.harness.store.judgments import Ended, Judge, Judgments, text_digest
from mote.harness.store.questions import conversation
from mote.harness.store.run import LabelRow, RunStore
from mote.harness.study.session import Session
from mote.judges import CLASSES as REFUSAL_CLASSES
from mote.judges import RULES_JUDGE, UNSCORED, Markers, with_surprise
from mote.judges.llm.asks import SCORED, UNREACHED, UNUSABLE, Judgment, PromptAsk, Tally
from mote.judges.llm.endpoint import Endpoint, JudgeError
from mote.judges.llm.kinds import (
    COMPLIANCE,
    KINDS,
    LANGUAGE,
    OWN_CLASSES,
    REFUSAL,
    SIDE_BY_SIDE,
    Decided,
    Given,
    check_prompt,
    class_label,
    classes_ask,
    language_ask,
    language_label,
    refusal_ask,
    refusal_label,
    side_by_side_asks,
    side_by_side_label,
)
from mote.judges.llm.prompt import JudgePrompt, load_prompt
from mote.patches import EMPTY_PROFILE

_Key = tuple[str, int]
"""(text digest, part): what a judgment is stored and found by."""


_TEXT_JUDGES = (RULES_JUDGE, *(known.text_judge for known in LABEL_SETS.values()))
_OWN = frozenset(one for judge in _TEXT_JUDGES for one in (judge, with_surprise(judge)))
"""The names of a run's own judges."""


class Task(NamedTuple):
    """The generations that one label's worth of judgments is for."""

    asks: tuple[PromptAsk, ...]
    generations: list[int]
    label: Callable[[Sequence[str]], str]


def prompt_of(kind: str, source: str | None) -> JudgePrompt:
    """Return a kind's packaged prompt, or one's own; raise MoteError for one that is not there or does not fit."""
    if source is None and kind not in KINDS:
        raise MoteError(f"the kind '{kind}' has no packaged prompt: its classes are those of a prompt of your own.")
    try:
        prompt = load_prompt(source or KINDS[kind])
        check_prompt(kind, prompt)
    except JudgeError as error:
        raise MoteError(str(error)) from None
    return prompt


def check_free(name: str | None, option: str) -> None:
    """Raise MoteError for a name of a judge that is kept for rules or people; ``option`` is where it was given."""
    if name is not None and (name in _OWN or name.startswith("human:")):
        raise MoteError(f"{option} '{name}' is kept for {'the rules' if name in _OWN else 'people'}; give another.")


def check_name(judgments: Judgments, judge: Judge) -> None:
    """Raise MoteError where a judge's name was used with another prompt."""
    other = judgments.other_prompt(judge)
    if other:
        raise MoteError(
            f"the name '{judge.name}' belongs to a judge with another prompt ({other}); give another --name."
        )


class Work:
    """The judgments and labels that are still to be made, kept up as replies come.

    ``max_tokens`` is what the judge may write this time; what was cut off at fewer is asked for again.
    """

    def __init__(self, store: RunStore, judge: Judge, max_tokens: int) -> None:
        self._store, self._judgments, self._judge = store, Judgments(store), judge
        self._ended = self._judgments.ended(judge.name, max_tokens)
        self._tasks: list[Task] = []
        self._waiting: dict[_Key, list[Task]] = defaultdict(list)
        self._asks: dict[_Key, tuple[PromptAsk, int]] = {}
        self._ready: list[LabelRow] = []

    def plan(self, tasks: Iterable[Task | LabelRow]) -> None:
        """Make the labels that need no judge, or whose judgments are there; keep what has to be asked for."""
        for task in tasks:
            if isinstance(task, LabelRow):
                self._ready.append(task._replace(judge=self._judge.name))
                continue
            self._tasks.append(task)
            missing = [key for key in map(_key, task.asks) if key not in self._ended]
            if not missing:
                self._ready += self._labels(task)
            for ask in task.asks:
                if (key := _key(ask)) in missing:
                    self._waiting[key].append(task)
                    self._asks.setdefault(key, (ask, task.generations[0]))

    @property
    def cut(self) -> int:
        """How many judgments have been cut off, and wait for a judge that may write more."""
        return sum(one.cut for one in self._ended.values())

    def ask(self, endpoint: Endpoint, max_judgments: int | None, console: Console) -> Tally:
        """Ask an endpoint for what is missing; each reply is stored, and each label as soon as it can be made.

        A judge that nothing answers for leaves no label: what needs no judge waits for the first reply.
        """
        if not self._asks:
            self._store_ready()
            return Tally(0, 0, 0, 0)
        try:
            from mote.judges.llm.panel import judge_all
        except ImportError as error:
            raise MoteError(f'LLM judges need another package ({error}): pip install ".[judge]".') from None
        with step(console, f"Judge {self._judge.kind}", len(self._asks)) as advance:

            def done(ask: PromptAsk, judgment: Judgment) -> None:
                self._store_ready()
                self._store_reply(_key(ask), judgment)
                advance(1)

            try:
                tally = judge_all([ask for ask, _ in self._asks.values()], endpoint, done, max_judgments=max_judgments)
            except JudgeError as error:
                raise MoteError(str(error)) from None
        self._store_ready()
        return tally

    def ask_model(self, session: Session, max_judgments: int | None) -> Tally:
        """Ask the run's untouched model, in its own engine, to choose one of the prompt's verdicts for what is missing.

        A text that does not fit the model's context with the prompt around it is unusable. Raises MoteError as the
        engine does, and where the prompt alone does not fit.
        """
        self._store_ready()
        wanted = list(self._asks.items())[:max_judgments]
        left = len(self._asks) - len(wanted)
        if not wanted:
            return Tally(0, 0, 0, left)
        counts = {SCORED: 0, UNUSABLE: 0}
        with step(session.console, f"Judge {self._judge.kind}, by the model itself", len(wanted)) as advance:
            for key, judgment in _chosen(session, [(key, ask) for key, (ask, _) in wanted]):
                self._store_reply(key, judgment)
                counts[judgment.state] += 1
                advance(1)
        return Tally(counts[SCORED], counts[UNUSABLE], 0, left)

    def give_up(self) -> int:
        """Label what still waits UNSCORED, for good; return how many labels that made."""
        waiting = [number for task in self._tasks if not self._whole(task) for number in task.generations]
        rows = [LabelRow(number, self._judge.name, UNSCORED, [_said("no-verdict-in-the-end")]) for number in waiting]
        self._store.add_labels(rows)
        return len(rows)

    def _store_ready(self) -> None:
        if self._ready:
            self._store.add_labels(self._ready)
            self._ready = []

    def _store_reply(self, key: _Key, judgment: Judgment) -> None:
        ended = self._judgments.add(self._asks[key][1], self._judge, key[1], key[0], judgment)
        if judgment.state == UNREACHED:
            return
        self._ended[key] = ended
        complete = [task for task in self._waiting[key] if all(_key(ask) in self._ended for ask in task.asks)]
        self._store.add_labels([row for task in complete for row in self._labels(task)])

    def _whole(self, task: Task) -> bool:
        return all(key in self._ended and not self._ended[key].cut for key in map(_key, task.asks))

    def _labels(self, task: Task) -> list[LabelRow]:
        if not self._whole(task):
            return []
        found = [self._ended[_key(ask)] for ask in task.asks]
        verdicts = [one.verdict for one in found if one.verdict is not None]
        label = task.label(verdicts) if len(verdicts) == len(found) else UNSCORED
        evidence = [_evidence(one) for one in found]
        return [LabelRow(number, self._judge.name, label, evidence) for number in task.generations]


def tasks_of(
    frame: pd.DataFrame, kind: str, prompt: JudgePrompt, markers: Markers, target: str | None = None
) -> list[Task | LabelRow]:
    """Return what each unlabelled generation needs: a label at once, or judgments, shared by those of the same text.

    No judge reads an answer that was ended at its opening: where ``target``, the class that the opening stands for, is
    one of the kind's, it is the label; else the answer is passed over.
    """
    baseline = {str(row.prompt_id): _given(row, markers) for row in _rows(frame[frame["profile"] == BASELINE])}
    decided: list[Task | LabelRow] = []
    shared: dict[tuple[Any, ...], Task] = {}
    for row in _rows(frame[frame["label"].isna()]):
        if kind == SIDE_BY_SIDE and (row.profile == BASELINE or row.prompt_id not in baseline):
            continue
        if row.finish_reason == DECIDED:
            if kind == REFUSAL and target in REFUSAL_CLASSES:
                decided.append(LabelRow(int(row.generation_id), "", target, [_said(DECIDED_RULE)]))
            continue
        number, given = int(row.generation_id), _given(row, markers)
        asked = _ask(kind, number, given, baseline.get(str(row.prompt_id)), prompt)
        if isinstance(asked, Decided):
            decided.append(LabelRow(number, "", asked.label, [_said(asked.rule)]))
            continue
        # Verdicts about one text may make different labels: a refusal judge does not see whether it was reasoned.
        label = _label_of(kind, given)
        same = (*map(_key, asked), label(["ANSWERED"]) if kind == REFUSAL else "")
        shared.setdefault(same, Task(asked, [], label)).generations.append(number)
    return [*decided, *shared.values()]


_ASKS = {REFUSAL: refusal_ask, COMPLIANCE: refusal_ask, LANGUAGE: language_ask, OWN_CLASSES: classes_ask}


def _ask(
    kind: str, number: int, given: Given, baseline: Given | None, prompt: JudgePrompt
) -> tuple[PromptAsk, ...] | Decided:
    if kind == SIDE_BY_SIDE and baseline is not None:
        return side_by_side_asks(number, given, baseline, prompt)
    asked = _ASKS[kind]((number, 1), given, prompt)
    return asked if isinstance(asked, Decided) else (asked,)


def _label_of(kind: str, given: Given) -> Callable[[Sequence[str]], str]:
    if kind == REFUSAL:
        return lambda verdicts: refusal_label(verdicts[0], given)
    if kind == LANGUAGE:
        return lambda verdicts: language_label(verdicts[0])
    if kind == SIDE_BY_SIDE:
        return lambda verdicts: side_by_side_label(verdicts[0], verdicts[1])
    return lambda verdicts: class_label(verdicts[0])


def _chosen(session: Session, asks: Sequence[tuple[_Key, PromptAsk]]) -> Iterator[tuple[_Key, Judgment]]:
    """Yield the judgments of the run's model; first those of texts that do not fit its context."""
    engine, fitting = session.engine, []
    blank = asks[0][1].prompt
    if not engine.fits(_fit(blank.choice_messages(dict.fromkeys(blank.fields, "."), "0" * 16), blank)):
        raise MoteError(
            f"judge prompt '{blank.name}' does not fit the model's context, whatever it judges: raise"
            " model.options.max_model_len, or let a judge at an endpoint do it."
        )
    for key, ask in asks:
        messages = ask.prompt.choice_messages(ask.values, _code(key, ask))
        if engine.fits(_fit(messages, ask.prompt)):
            fitting.append((key, ask, messages))
        else:
            yield key, _judgment(session, messages, error="the text does not fit the model's context")
    seed, started = session.recipe.sampling.seed, time.monotonic()
    requests = [
        Request(ONCE, messages, EMPTY_PROFILE, seed, choices=ask.prompt.verdicts) for _, ask, messages in fitting
    ]
    for some in engine.generate(requests):
        seconds, started = (time.monotonic() - started) / len(some), time.monotonic()
        for index, answer in some:
            key, ask, messages = fitting[index]
            verdict = answer.raw if answer.raw in ask.prompt.verdicts else None
            yield key, _judgment(session, messages, answer, verdict, seconds=seconds)


def _fit(messages: list[dict[str, str]], prompt: JudgePrompt) -> Scoring:
    return Scoring(ONCE, messages, EMPTY_PROFILE, max(prompt.verdicts, key=len))


def _code(key: _Key, ask: PromptAsk) -> str:
    """Return the code of the lines around a text: the same at every start, and none that the text could know."""
    seed, code = f"{ask.prompt_sha256} {key[0]} {key[1]}", ""
    while not code or any(code in text for text in ask.values.values()):
        code = hashlib.sha256(f"{seed}{code}".encode()).hexdigest()[:16]
    return code


def _judgment(
    session: Session,
    messages: list[dict[str, str]],
    answer: Answer | None = None,
    verdict: str | None = None,
    *,
    error: str = "the reply is no verdict",
    seconds: float = 0.0,
) -> Judgment:
    return Judgment(
        state=UNUSABLE if verdict is None else SCORED,
        verdict=verdict,
        raw=answer.raw if answer else "",
        reasoning="",
        error=error if verdict is None else "",
        messages=messages,
        model=session.recipe.model.path,
        as_json=False,
        # "length" is said of judges that may be allowed more; here the verdicts bound the reply.
        finish_reason=answer.finish_reason if answer and verdict is not None else None,
        tries=1 if answer else 0,
        requests=1 if answer else 0,
        prompt_tokens=answer.prompt_tokens if answer else 0,
        completion_tokens=answer.generated_tokens if answer else 0,
        seconds=seconds,
    )


def _key(ask: PromptAsk) -> _Key:
    part: int = ask.key[1]  # type: ignore[index]
    return text_digest(ask.values), part


def _given(row: Any, markers: Markers) -> Given:
    # pandas reads a column of NULLs as NaN.
    reason = row.finish_reason if isinstance(row.finish_reason, str) else None
    return Given(conversation(json.loads(row.messages)), str(row.raw), reason, bool(row.prompt_opens), markers)


def _rows(frame: pd.DataFrame) -> Iterable[Any]:
    return frame.itertuples(index=False)


def _evidence(one: Ended) -> dict[str, Any]:
    rule = "unusable-reply" if one.verdict is None else f"verdict-{one.verdict}"
    return _said(f"{rule} (judgment {one.judgment_id})")


def _said(rule: str) -> dict[str, Any]:
    return {"rule": rule, "span": "", "start": 0, "end": 0}
