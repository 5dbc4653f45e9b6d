"""``mote judge ask``: another judge over the same text. Labels are added under the judge's own name, never replaced.

The judge's name is its model, prompt and the prompt's digest, so another version of a prompt is another judge. What it
replied is in the table ``judgments``; a label is made when all parts of its judgment are there. A judgment that got no
reply leaves its generations without a label of this judge: they are counted, and asked for at the next start. So does
one whose reply was cut off, once more tokens are allowed. ``study.llm_labels`` has the work itself.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from mote.harness.errors import MoteError, nearest
from mote.harness.science.controls import BASELINE
from mote.harness.science.splits import evenly
from mote.harness.store.judgments import Judge, Judgments
from mote.harness.study.llm_labels import Work, check_free, check_name, prompt_of, tasks_of
from mote.harness.study.session import open_run
from mote.judges.llm.asks import Tally
from mote.judges.llm.endpoint import Endpoint, JudgeError
from mote.judges.llm.kinds import ALL_KINDS, SIDE_BY_SIDE


class Scope(NamedTuple):
    """The generations that are judged: of these profiles (all if none is named), of so many prompts, evenly spread."""

    profiles: tuple[str, ...] = ()
    limit: int | None = None


class Judged(NamedTuple):
    """The outcome of a start of a judge: its name, its judgments by outcome, and the labels of its scope by now.

    ``labels`` and ``waiting`` (no reply, cut off, or not asked for) add up to ``generations``; ``cut`` judgments were
    cut off at ``max_tokens``, at this start or an earlier one that allowed as much.
    """

    judge: str
    tally: Tally
    labels: dict[str, int]
    waiting: int
    generations: int
    cut: int


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
    if kind not in ALL_KINDS:
        raise MoteError(f"there is no kind of judgment '{kind}'.{nearest(kind, ALL_KINDS)}")
    check_free(name, "--name")
    judge_prompt = prompt_of(kind, prompt)
    try:
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
        store = run.store
        frame = _in_scope(store.generations_frame(judge.name), scope)
        check_name(Judgments(store), judge)
        work = Work(store, judge, endpoint.max_tokens)
        work.plan(tasks_of(frame, kind, judge_prompt, run.markers, run.manifest["recipe"]["study"]["target"]))
        tally = work.ask(endpoint, max_judgments, console)
        after = _in_scope(store.generations_frame(judge.name), scope)
    # The baseline is what others are set beside; it isn't better or worse than itself.
    labels = after.loc[(after["profile"] != BASELINE) | (kind != SIDE_BY_SIDE), "label"]
    counts = Counter(str(label) for label in labels.dropna())
    return Judged(judge.name, tally, dict(sorted(counts.items())), int(labels.isna().sum()), len(labels), work.cut)


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
