"""Broken text by surprise: what the untouched model itself would hardly have written.

The measures in ``degenerate`` see loops, noise and word salad. What they cannot see is a splice, half of one sentence
run on into half of another, each in order by itself; switching many experts off writes much of that. The untouched
model sees it: given the same prompt and the text so far, some tokens are next to impossible. A sound flip is not: its
first token may be unlikely (that is what a flip is), what follows is not.

The surprise of a text is one number: the log-probability of its k-th least likely token, k being three, or three in a
hundred of a long text. A text is broken when that lies below a threshold:

* -6 nats, a chance of less than one in 400, is where next to impossible begins for any model;
* a model that samples such tokens by itself (a high temperature, a large vocabulary) sets it lower: at the 1% quantile
  of the surprise of its own untouched answers in the same run, so that at most one in a hundred of those is broken.

The second is what makes the measure move to other models; how often it is wrong on text that nothing was done to is
then a figure of every run: the share of the retest control that it calls broken.

Measured on 1,064 answers of the demo model with 10 to 300 of its 384 experts switched off at random, against the
sentences of its corpus, at -6 nats: of 435 answers that hold together nowhere or break in two places or more, the
measures of ``degenerate`` let 223 pass as a class, with surprise 58 did; of 470 sound ones none was called broken, with
surprise one. The log-probabilities cost one prefill for each distinct answer to a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mote.judges.labels import DEGENERATE, STATES, Evidence, Label

IMPOSSIBLE = -6.0
"""Nats: the model gave the token a chance of less than one in 400."""
TOKENS = 3
SHARE = 0.03
"""In a long text three are nothing: a model that samples at temperature 1 writes some in a thousand tokens."""
QUANTILE = 0.01
"""Of the untouched answers of a run at most this share may be called broken."""
_SUFFIX = "+surprise"


class Improbable(NamedTuple):
    """A token that the untouched model found unlikely: its log-probability in nats, and its place in the raw text."""

    logprob: float
    start: int
    end: int


class Measured(NamedTuple):
    """The surprise of one text of ``tokens`` tokens.

    ``surprise`` is the log-probability of the k-th least likely of them, 0 for a text of fewer than three;
    ``lowest`` has those k in the order of the text.
    """

    tokens: int
    surprise: float
    lowest: tuple[Improbable, ...]


def with_surprise(judge: str) -> str:
    """Return the name of the judge that adds this measure to another's labels: its labels are not the other's."""
    return f"{judge}{_SUFFIX}"


def measure(raw: str, tokens: Sequence[str], logprobs: Sequence[float]) -> Measured:
    """Return the surprise of ``raw`` from its tokens' texts and their log-probabilities after the prompt.

    The log-probabilities are natural ones under the untouched model. Raises ValueError where they are not as many as
    the tokens.
    """
    if len(tokens) != len(logprobs):
        raise ValueError(f"{len(tokens)} tokens and {len(logprobs)} log-probabilities don't pair.")
    count = least_likely(len(logprobs))
    if not count:
        return Measured(len(logprobs), 0.0, ())
    order = sorted(range(len(logprobs)), key=lambda place: (logprobs[place], place))[:count]
    spans = _spans(raw, tokens)
    lowest = tuple(Improbable(logprobs[place], *spans[place]) for place in sorted(order))
    return Measured(len(logprobs), logprobs[order[-1]], lowest)


def least_likely(tokens: int) -> int:
    """Return how many unlikely tokens a text of so many must hold to be broken; 0 where it is too short for any."""
    return max(TOKENS, math.ceil(SHARE * tokens)) if tokens >= TOKENS else 0


def threshold(untouched: Sequence[float]) -> float:
    """Return the surprise below which a text is broken, from that of the run's own untouched answers."""
    if not len(untouched):
        return IMPOSSIBLE
    return min(IMPOSSIBLE, float(np.quantile(np.asarray(untouched, dtype=np.float64), QUANTILE, method="lower")))


def label_by_surprise(text: Label, raw: str, measured: Measured | None, below: float) -> Label:
    """Label a generation by its text's label and its surprise: a class may become DEGENERATE, nothing else changes.

    ``measured`` is None where no log-probabilities could be had. The evidence names measure and threshold.
    """
    judge = with_surprise(text.judge)
    if text.label in STATES:
        return Label(text.label, judge, text.evidence)
    if measured is None:
        return replace(text, judge=judge, evidence=(*text.evidence, Evidence.of("surprise-not-measured", raw, 0, 0)))
    if not measured.surprise < below:
        rule = f"surprise {measured.surprise:.1f}, not below {below:.1f}"
        return replace(text, judge=judge, evidence=(*text.evidence, Evidence.of(rule, raw, 0, 0)))
    start, end = measured.lowest[0].start, max(one.end for one in measured.lowest)
    rule = f"impossible-tokens: {len(measured.lowest)} of {measured.tokens} below {below:.1f}"
    places = (Evidence.of(f"impossible-token {one.logprob:.1f}", raw, one.start, one.end) for one in measured.lowest)
    return Label(DEGENERATE, judge, (Evidence.of(rule, raw, start, end), *places))


def _spans(raw: str, tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Return the place of each token in ``raw``.

    Some tokenizers drop a blank before a word, and a token that is no whole character has no text of its own: a token
    that is not found where it should be, or a little on, has the place of the text between its neighbours.
    """
    spans: list[tuple[int, int]] = []
    cursor = 0
    for token in tokens:
        found = raw.find(token, cursor, cursor + len(token) + 4) if token else -1
        start = cursor if found < 0 else found
        cursor = start if found < 0 else start + len(token)
        spans.append((start, cursor))
    return [(start, min(len(raw), max(end, start + 1))) for start, end in spans]
