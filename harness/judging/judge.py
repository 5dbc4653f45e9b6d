"""``mote judge ask``: another judge over the same text. Labels are added under the judge's own name, never replaced.

The judge's name is its model, prompt and the prompt's digest, so another version of a prompt is another judge. What it
replied is in the table ``judgments``; a label is made when all parts of its judgment are there. A judgment that got no
reply leaves its generations without a label of this judge: they are counted, and asked for at the next start.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console

from mote.harness.errors import MoteError, nearest
from mote.harness.progress import step
from mote.harness.science.controls import BASELINE
from mote.harness.science.splits import evenly
from mote.harness.store.judgments import Ended, Judge, Judgments, text_digest
from mote.harness.store.questions import conversation
from mote.harness.store.run import LabelRow, RunStore
from mote.harness.study.session import open_run
from mote.judges import COMPLIANCE_JUDGE, JUDGE, LANGUAGE_JUDGE, RULES_JUDGE, UNSCORED, Markers, with_surprise
from mote.judges.llm.asks import UNREACHED, Judgment, PromptAsk, Tally
from mote.judges.llm.endpoint import Endpoint, JudgeError
from mote.judges.llm.kinds import (
    KINDS,
    LANGUAGE,
    REFUSAL,
    SIDE_BY_SIDE,
    Decided,
    Given,
    language_ask,
    language_label,
    refusal_ask,
    refusal_label,
    side_by_side_asks,
    side_by_side_label,
)
from mote.judges.llm.prompt import JudgePrompt, load_prompt

_OWN = frozenset(
    {one for judge in (JUDGE, RULES_JUDGE, COMPLIANCE_JUDGE, LANGUAGE_JUDGE) for one in (judge, with_surprise(judge))}
)
"""The names of a run's own judges."""


class Scope(NamedTuple):
    """The generations that are judged: of these profiles (all if none is named), of so many prompts, evenly spread."""

    profiles: tuple[str, ...] = ()
    limit: int | None = None


class Judged(NamedTuple):
    """The outcome of a start of a judge: its name, its judgments by outcome, and the labels of its scope by now.

    ``labels`` and ``waiting`` (no reply, or not asked for) add up to ``generations``.
    """

    judge: str
    tally: Tally
    labels: dict[str, int]
    waiting: int
    generations: int


class _Task(NamedTuple):
    """The generations that one label's worth of judgments is for."""

    asks: tuple[PromptAsk, ...]
    generations: list[int]
    label: Callable[[Sequence[str]], str]


def judge_run(
    folder: Path,
    kind: str,
    endpoint: Endpoint,
    console: Console,
    *,
    scope: Scope = Scope(),  # noqa: B008 - immutable
    prompt: str | None = None,
    name: str | None = None,
    max_judgments: int | None = None,
) -> Judged:
    """Let a judge label what it has not labelled yet of a run.

    Raises MoteError for a kind, profile, prompt or endpoint that is not there, for a name that another judge has, and
    where the judge is gone; what it had replied until then is stored.
    """
    if kind not in KINDS:
        raise MoteError(f"there is no kind of judgment '{kind}'.{nearest(kind, KINDS)}")
    if name is not None and (name in _OWN or name.startswith("human:")):
        raise MoteError(f"--name '{name}' is kept for {'the rules' if name in _OWN else 'people'}; give another.")
    try:
        judge_prompt = load_prompt(prompt or KINDS[kind])
        endpoint.key()
    except JudgeError as error:
        raise MoteError(str(error)) from None
    judge = Judge(
        name or f"{endpoint.model}/{judge_prompt.name}@{judge_prompt.sha256[:8]}",
        kind,
        endpoint.url,
        judge_prompt.name,
        judge_prompt.sha256,
    )
    with open_run(folder, console) as run:
        store, judgments = run.store, Judgments(run.store)
        frame = _in_scope(store.generations_frame(judge.name), scope)
        _check_name(judgments, judge)
        work = _Work(store, judgments, judge)
        work.plan(_tasks(frame, kind, judge_prompt, run.markers))
        tally = work.ask(endpoint, max_judgments, console)
        after = _in_scope(store.generations_frame(judge.name), scope)
    # The baseline is what others are set beside; it isn't better or worse than itself.
    labels = after.loc[(after["profile"] != BASELINE) | (kind != SIDE_BY_SIDE), "label"]
    counts = Counter(str(label) for label in labels.dropna())
    return Judged(judge.name, tally, dict(sorted(counts.items())), int(labels.isna().sum()), len(labels))


class _Work:
    """The judgments and labels that are still to be made, kept up as replies come."""

    def __init__(self, store: RunStore, judgments: Judgments, judge: Judge) -> None:
        self._store, self._judgments, self._judge = store, judgments, judge
        self._ended = judgments.ended(judge.name)
        self._waiting: dict[tuple[str, int], list[_Task]] = defaultdict(list)
        self._asks: dict[tuple[str, int], tuple[PromptAsk, int]] = {}
        self._ready: list[LabelRow] = []

    def plan(self, tasks: Iterable[_Task | LabelRow]) -> None:
        """Make the labels that need no judge, or whose judgments are there; keep what has to be asked for."""
        rows = self._ready
        for task in tasks:
            if isinstance(task, LabelRow):
                rows.append(task._replace(judge=self._judge.name))
                continue
            missing = [key for key in map(_key, task.asks) if key not in self._ended]
            if not missing:
                rows += self._labels(task)
            for ask in task.asks:
                if (key := _key(ask)) in missing:
                    self._waiting[key].append(task)
                    self._asks.setdefault(key, (ask, task.generations[0]))

    def _store_ready(self) -> None:
        if self._ready:
            self._store.add_labels(self._ready)
            self._ready = []

    def ask(self, endpoint: Endpoint, max_judgments: int | None, console: Console) -> Tally:
        """Ask for what is missing; each reply is stored, and each label as soon as it can be made.

        A judge that nothing answers for leaves no label: what needs no judge waits for the first reply.
        """
        if not self._asks:
            self._store_ready()
            return Tally(0, 0, 0, 0)
        try:
            from mote.judges.llm.panel import judge_all
        except ImportError as error:
            raise MoteError(f'LLM judges need another package ({error}): pip install "mote-harness[judge]".') from None
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

    def _store_reply(self, key: tuple[str, int], judgment: Judgment) -> None:
        ended = self._judgments.add(self._asks[key][1], self._judge, key[1], key[0], judgment)
        if judgment.state == UNREACHED:
            return
        self._ended[key] = ended
        complete = [task for task in self._waiting[key] if all(_key(ask) in self._ended for ask in task.asks)]
        self._store.add_labels([row for task in complete for row in self._labels(task)])

    def _labels(self, task: _Task) -> list[LabelRow]:
        found = [self._ended[_key(ask)] for ask in task.asks]
        verdicts = [one.verdict for one in found if one.verdict is not None]
        label = task.label(verdicts) if len(verdicts) == len(found) else UNSCORED
        evidence = [_evidence(one) for one in found]
        return [LabelRow(number, self._judge.name, label, evidence) for number in task.generations]


def _tasks(frame: pd.DataFrame, kind: str, prompt: JudgePrompt, markers: Markers) -> list[_Task | LabelRow]:
    """Return what each unlabelled generation needs: a label at once, or judgments, shared by those of the same text."""
    baseline = {str(row.prompt_id): _given(row, markers) for row in _rows(frame[frame["profile"] == BASELINE])}
    decided: list[_Task | LabelRow] = []
    shared: dict[tuple[Any, ...], _Task] = {}
    for row in _rows(frame[frame["label"].isna()]):
        if kind == SIDE_BY_SIDE and (row.profile == BASELINE or row.prompt_id not in baseline):
            continue
        number, given = int(row.generation_id), _given(row, markers)
        asked = _ask(kind, number, given, baseline.get(str(row.prompt_id)), prompt)
        if isinstance(asked, Decided):
            entry = {"rule": asked.rule, "span": "", "start": 0, "end": 0}
            decided.append(LabelRow(number, "", asked.label, [entry]))
            continue
        # Verdicts about one text may make different labels: a refusal judge does not see whether it was reasoned.
        label = _label_of(kind, given)
        same = (*map(_key, asked), label(["ANSWERED"]) if kind == REFUSAL else "")
        shared.setdefault(same, _Task(asked, [], label)).generations.append(number)
    return [*decided, *shared.values()]


def _ask(
    kind: str, number: int, given: Given, baseline: Given | None, prompt: JudgePrompt
) -> tuple[PromptAsk, ...] | Decided:
    if kind == SIDE_BY_SIDE and baseline is not None:
        return side_by_side_asks(number, given, baseline, prompt)
    asked = (language_ask if kind == LANGUAGE else refusal_ask)((number, 1), given, prompt)
    return asked if isinstance(asked, Decided) else (asked,)


def _label_of(kind: str, given: Given) -> Callable[[Sequence[str]], str]:
    if kind == REFUSAL:
        return lambda verdicts: refusal_label(verdicts[0], given)
    if kind == LANGUAGE:
        return lambda verdicts: language_label(verdicts[0])
    return lambda verdicts: side_by_side_label(verdicts[0], verdicts[1])


def _key(ask: PromptAsk) -> tuple[str, int]:
    """(text digest, part): what a judgment is stored and found by."""
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
    return {"rule": f"{rule} (judgment {one.judgment_id})", "span": "", "start": 0, "end": 0}


def _in_scope(frame: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    known = list(dict.fromkeys(frame["profile"].astype(str)))
    for name in scope.profiles:
        if name not in known:
            raise MoteError(f"the run has no answers under a profile '{name}'.{nearest(name, known)}")
    if scope.profiles:
        # The baseline is what every profile is compared with.
        frame = frame[frame["profile"].isin([BASELINE, *scope.profiles])]
    if scope.limit is not None:
        prompts = list(dict.fromkeys(frame.sort_values("position", kind="stable")["prompt_id"]))
        frame = frame[frame["prompt_id"].isin(evenly(prompts, scope.limit))]
    return frame


def _check_name(judgments: Judgments, judge: Judge) -> None:
    other = judgments.other_prompt(judge)
    if other:
        raise MoteError(
            f"the name '{judge.name}' belongs to a judge with another prompt ({other}); give another --name."
        )
