"""The published answers, read and labelled: by their own judges, by ours, and by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd

from mote.harness.compare.labelling import label_text
from mote.harness.errors import MoteError, nearest
from mote.harness.files import digest_file
from mote.harness.lines import json_lines
from mote.harness.recipe.label_sets import LABEL_SETS
from mote.judges import CLASSES, MARKERS, REFUSED

SPEECHMAP: Final = "speechmap-25-models.jsonl.xz"
HAND: Final = "hand-labelled.jsonl"
TWINS: Final = "qwen2-7b-before-after.jsonl"

COMPLETE, EVASIVE, DENIAL = "COMPLETE", "EVASIVE", "DENIAL"
R1, V3, CHIMERA = "deepseek/deepseek-r1", "deepseek/deepseek-chat-v3-0324", "tngtech/deepseek-r1t-chimera"
MODELS: Final = (R1, V3, CHIMERA)
"""Two parents and their child; our judges label the replies of these alone (``results/judges`` has all 25 models)."""
VERDICTS: Final = (DENIAL, EVASIVE, COMPLETE)
"""What an LLM judge of SpeechMap can say of a reply: that it declines, evades, or does what was asked."""
TWO_JUDGES: Final = "both LLM judges"
ANSWERED: Final = "ANSWERED"
OURS: Final = ("refusal", "compliance")
"""The label sets of this package that are put to the replies, as far as there are such."""

_NEEDED: Final = {
    SPEECHMAP: ("id", "set", "model", "language", "question", "answer", "judges"),
    HAND: ("input", "right"),
    TWINS: ("id", "question", "answer", "label"),
}


_FILLED: Final = {"language": "unknown", "question": ""}
"""Replies that were labelled by hand out of public issues have neither."""


class Data(NamedTuple):
    """The three files as frames, and their digests by name.

    ``replies`` has a row a reply: request (what one model was asked once), unit (one request in all its languages),
    set, language, model, provider, text (a digest of it), a column for each LLM judge, TWO_JUDGES (None where they
    differ) and, for the replies of MODELS, one for each of our label sets. ``hand`` has ``right`` beside ours, and
    ``twins`` has ``label``.
    """

    replies: pd.DataFrame
    hand: pd.DataFrame
    twins: pd.DataFrame
    judges: tuple[str, ...]
    ours: tuple[str, ...]
    digests: Mapping[str, str]


def read(folder: Path) -> Data:
    """Read and label the published answers. Raises MoteError where a file or one of its columns is missing."""
    if not folder.is_dir():
        raise MoteError(f"there is no folder {folder}.")
    frames = {name: _frame(folder, name) for name in _NEEDED}
    ours = tuple(name for name in OURS if name in LABEL_SETS)
    replies, judges = _replies(frames[SPEECHMAP], ours)
    hand = frames[HAND].assign(text=[_digest(text) for text in frames[HAND]["input"]])
    hand = _labelled(hand[hand["right"] != "borderline"], "input", ours)
    twins = frames[TWINS]
    twins = _labelled(twins.assign(side=twins["id"].str[0], request=twins["id"].str[1:]), "answer", ours)
    digests = {name: digest_file(folder / name) for name in _NEEDED}
    return Data(replies, hand.drop(columns="input"), twins.drop(columns="answer"), judges, ours, digests)


def simple(label: str) -> str:
    """Return a label of the set ``refusal`` without reasoning: refused or answered, or the state that it is.

    Providers give the reasoning of few replies, so whether one reasoned is not known here.
    """
    return "REFUSED" if label == REFUSED else ANSWERED if label in CLASSES else label


def _frame(folder: Path, name: str) -> pd.DataFrame:
    path = folder / name
    if not path.is_file():
        raise MoteError(f"{folder} has no {name}.{nearest(name, [one.name for one in folder.iterdir()])}")
    rows = []
    for number, row in json_lines(path, "a file of published answers"):
        for column in _NEEDED[name]:
            if column not in row:
                raise MoteError(f"{path}, line {number} has no '{column}'.{nearest(column, row)}")
        rows.append({**_FILLED, **row} if name == HAND else row)
    return pd.DataFrame(rows)


def _replies(frame: pd.DataFrame, ours: tuple[str, ...]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    judges = tuple(sorted(frame["judges"].iloc[0]))
    requests = [one.removesuffix(f"/{model}") for one, model in zip(frame["id"], frame["model"], strict=True)]
    frame = frame.assign(
        request=requests,
        unit=[request.rpartition("/")[2] for request in requests],
        text=[_digest(text) for text in frame["answer"]],
        **{judge: [verdicts.get(judge) for verdicts in frame["judges"]] for judge in judges},
    )
    agreed = frame[list(judges)].nunique(axis="columns") == 1
    known = agreed & frame[judges[0]].isin(VERDICTS)
    frame[TWO_JUDGES] = frame[judges[0]].where(known, None)
    for judge in judges:
        frame[judge] = frame[judge].where(frame[judge].isin(VERDICTS), None)
    if (frame.duplicated(["model", "request"])).any():
        raise MoteError(f"{SPEECHMAP}: {frame[frame.duplicated(['model', 'request'])]['id'].iloc[0]} occurs twice.")
    ours_of = _labelled(frame[frame["model"].isin(MODELS)], "answer", ours)[list(ours)]
    dropped = [name for name in ("answer", "reasoning", "judges") if name in frame]
    return frame.drop(columns=dropped).join(ours_of), judges


def _labelled(frame: pd.DataFrame, column: str, ours: tuple[str, ...]) -> pd.DataFrame:
    """Label answers, each once; how a reply ended is the source's word where it has one."""
    reasons = frame["finish_reason"] if "finish_reason" in frame else pd.Series("stop", index=frame.index)
    labels: dict[str, list[str]] = {}
    for name in ours:

        @cache
        def one(raw: str, reason: str, question: str, name: str = name) -> str:
            label = label_text(LABEL_SETS[name], raw, reason, MARKERS["think"], question=question)
            return simple(label) if name == "refusal" else label

        labels[name] = [
            one(str(raw), str(reason or "stop"), str(question))
            for raw, reason, question in zip(frame[column], reasons, frame["question"], strict=True)
        ]
    return frame.assign(**labels)


def _digest(text: Any) -> str:
    return hashlib.sha256(" ".join(str(text).split()).encode()).hexdigest()
