"""Sample logs of lm_eval 0.4.13 (``--log_samples``): one JSON object a line, one line a document and filter.

Nothing is taken from text without its receipt: a log whose answers carry none, or several, is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mote.harness.compare.answers import Answers, finish_of, rows_of, sampling_of, scores_of
from mote.harness.errors import MoteError, nearest
from mote.harness.lines import json_lines
from mote.harness.store.questions import last_question
from mote.judges import LANGUAGES, STATES
from mote.tasks import TASKS

LOG_NAME: Final = re.compile(r"samples_(?P<task>.+?)_\d{4}-\d\d-\d\dT[\d.-]+\.jsonl")
_Text = Annotated[str, Field(max_length=100_000)]
_Number = Annotated[float, Field(strict=False)]


class _Note(BaseModel):
    """A receipt as our model of lm_eval leaves it beside a request's arguments."""

    model_config = ConfigDict(extra="allow", strict=True)

    digest: _Text | None = None
    profile: _Text | None = None
    model: _Text | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    raw: str | None = None
    finish_reason: _Text | None = None


class _Arguments(BaseModel):
    """What of a request's arguments is read: how its answer was drawn."""

    model_config = ConfigDict(extra="allow", strict=True)

    temperature: _Number | None = None
    top_p: _Number | None = None
    mote: list[_Note] | None = None


class _Sample(BaseModel):
    """What of a sample is read, by its types; everything else may be anything."""

    model_config = ConfigDict(extra="allow", strict=True)

    doc_id: int | _Text
    doc_hash: int | _Text
    filter: _Text
    metrics: list[_Text]
    prompt_hash: int | _Text | None = None
    arguments: dict[str, dict[str, Any] | list[Any] | Any] | list[Any] = Field(default_factory=dict)

    @field_validator("arguments")
    @classmethod
    def _drawn(cls, given: Any) -> Any:
        for one in given.values() if isinstance(given, dict) else given:
            parts = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
            for part in parts:
                if isinstance(part, dict):
                    _Arguments.model_validate(part)
        return given


_NEEDED = ("doc_id", "doc", "doc_hash", "filter", "metrics", "resps")


def only_log(folder: Path, task: str | None) -> Path:
    """Return the one log in a folder, or the one of a task; raise MoteError where there are several, or none."""
    logs = sorted(folder.rglob("samples_*.jsonl"))
    if task is not None:
        tasks = [(match["task"] if (match := LOG_NAME.fullmatch(log.name)) else "") for log in logs]
        if logs and task not in tasks:
            raise MoteError(f"{folder} holds no log of the task '{task}'.{nearest(task, set(tasks) - {''})}")
        logs = [log for log, name in zip(logs, tasks, strict=True) if name == task]
    if len(logs) == 1:
        return logs[0]
    if not logs:
        raise MoteError(
            f"{folder} holds neither a run (run.sqlite), nor a bench of MT-Bench (model_answer/), nor a sample log of"
            " lm_eval (samples_*.jsonl)."
        )
    shown = ", ".join(str(log.relative_to(folder)) for log in logs[:4]) + (", ..." if len(logs) > 4 else "")
    raise MoteError(f"{folder} holds {len(logs)} sample logs; name one, or its --task: {shown}")


def read_lm_eval(path: Path, label: str, receipts: bool) -> Answers:
    """Read a log that lm_eval wrote with ``--log_samples``; raise MoteError where it is none, or can't be trusted.

    ``receipts=False`` lets a log pass whose answers carry none.
    """
    samples = _samples(path)
    notes = [_notes(sample) for sample in samples]
    without = sum(not some for some in notes)
    if without and receipts:
        raise MoteError(
            f"{path}: {without} of {len(samples)} answers carry no receipt, so what was done to the model isn't known:"
            " it was not lm_eval's --model mote. --no-receipts takes the log at its word."
        )
    found = {str(note["digest"]) for some in notes for note in some}
    if len(found) > 1:
        raise MoteError(f"{path} mixes answers of {len(found)} profiles; log each to a file of its own.")
    first = next((some[0] for some in notes if some), {})
    ids = [prompt_id(sample["doc"]) for sample in samples]
    keys = _keys(path, ids, samples)
    rows = rows_of(
        [
            {
                "key": key,
                "prompt_id": prompt,
                "doc_hash": str(sample["doc_hash"]),
                "prompt": str(sample.get("prompt_hash", "")),
                "question": _asked(sample["doc"]),
                "raw": _raw(sample, some),
                "label": _label(sample, label),
                "seed": int(some[0]["seed"]) if some and some[0].get("seed") is not None else -1,
                "sampling": sampling_of(_given(sample)),
                "finish_reason": finish_of(some[0].get("finish_reason")) if some else None,
                "opens": bool(some[0].get("prompt_opens")) if some else False,
            }
            for key, prompt, sample, some in zip(keys, ids, samples, notes, strict=True)
        ]
    )
    scores = scores_of(row for key, sample in zip(keys, samples, strict=True) for row in _scores(path, key, sample))
    match = LOG_NAME.fullmatch(path.name)
    return Answers(
        name=path.name,
        source="log",
        task=next((prompt.partition("/")[0] for prompt in ids if prompt), match["task"] if match else ""),
        profile=str(first.get("profile", "")),
        digests=frozenset(found),
        model=str(first.get("model", "")),
        judge="the task's filter, which sees the text alone",
        # A document has a line for each filter; the answer is the same in all of them, a label only in ours.
        rows=rows.sort_values("label", na_position="last", kind="stable").drop_duplicates("key").sort_index(),
        scores=scores,
    )


def _samples(path: Path) -> list[dict[str, Any]]:
    samples = []
    for number, sample in json_lines(path, "a sample log of lm_eval"):
        if not isinstance(sample.get("doc"), dict):
            raise MoteError(f"{path}, line {number} has no 'doc': it is not a sample log of lm_eval.")
        for name in _NEEDED:
            if name not in sample:
                raise MoteError(f"{path}, line {number} has no '{name}'.{nearest(name, sample)}")
        try:
            _Sample.model_validate(sample)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise MoteError(f"{path}, line {number}: '{place[:80]}': {first['msg']}; lm_eval writes it so.") from None
        samples.append(sample)
    return samples


def _keys(path: Path, ids: Sequence[str], samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the key of each line. A document that a data set holds twice is counted: the n-th pairs with the n-th."""
    lines: set[tuple[str, str]] = set()
    seen: dict[tuple[str, str], int] = {}
    keys = []
    for prompt, sample in zip(ids, samples, strict=True):
        name, line = prompt or str(sample["doc_hash"]), (str(sample["doc_id"]), str(sample["filter"]))
        if line in lines or (prompt and (prompt, line[1]) in seen):
            raise MoteError(f"{path} has several answers to '{name}': two runs were logged to one file; take one.")
        lines.add(line)
        number = seen[name, line[1]] = seen.get((name, line[1]), -1) + 1
        keys.append(f"{name}#{number}" if number else name)
    return keys


def _arguments(sample: Mapping[str, Any]) -> list[list[Any]]:
    """The arguments of each request of a sample, in the two forms that lm_eval has had: by name, or as lists."""
    given = sample.get("arguments", {})
    if isinstance(given, Mapping):
        return [list(one.values()) if isinstance(one, Mapping) else [one] for one in given.values()]
    return [list(one) if isinstance(one, Sequence) else [one] for one in given]


def _notes(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The notes of all answers of a sample; empty unless every request has some."""
    notes: list[dict[str, Any]] = []
    for arguments in _arguments(sample):
        last = arguments[-1] if arguments else None
        some = last.get("mote") if isinstance(last, Mapping) else None
        if not some or not all(isinstance(note, Mapping) and "digest" in note for note in some):
            return []
        notes += [dict(note) for note in some]
    return notes


def _given(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """The generation_kwargs of a sample's first request."""
    first = next(iter(_arguments(sample)), [])
    return next((one for one in first if isinstance(one, Mapping) and "mote" not in one), {})


def _raw(sample: Mapping[str, Any], notes: Sequence[Mapping[str, Any]]) -> str:
    if notes and notes[0].get("raw") is not None:
        return str(notes[0]["raw"])
    found: Any = sample["resps"]
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _label(sample: Mapping[str, Any], which: str) -> str | None:
    """The label of our tasks' rules; a language by the metrics that stand for it, a state where there are none."""
    found: Any = sample.get("label")
    if not isinstance(found, str) or which == "label":
        return found if isinstance(found, str) else None
    kind = which.removesuffix("language")
    spoken = [name for name in LANGUAGES if sample.get(f"{kind}{name}") == 1]
    return spoken[0] if spoken else found if found in STATES else None


def _scores(path: Path, key: str, sample: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for metric in sample["metrics"]:
        if metric not in sample:
            raise MoteError(f"{path}: the metric '{metric}' of '{key}' is missing.{nearest(metric, sample)}")
        value = sample[metric]
        # Perplexities and the like are pairs that only a whole task's aggregation turns into a number.
        if isinstance(value, bool | int | float):
            if not math.isfinite(value):
                raise MoteError(f"{path}: the metric '{metric}' of '{key}' is {value}, which is nothing to compare.")
            yield {"key": key, "metric": str(metric), "filter": str(sample["filter"]), "value": float(value)}


def prompt_id(doc: Mapping[str, Any]) -> str:
    """Return the id of a prompt of ours that a document of lm_eval carries, else the empty string."""
    for name in ("prompt_id", "id"):
        found = doc.get(name)
        if isinstance(found, str) and found.partition("/")[0] in TASKS:
            return found
    return ""


def _asked(doc: Mapping[str, Any]) -> str:
    for name in ("question", "text", "prompt", "query", "problem", "sentence"):
        if isinstance(doc.get(name), str):
            return str(doc[name])
    messages = doc.get("messages")
    if isinstance(messages, list):
        return last_question(messages)
    return json.dumps(doc, ensure_ascii=False)
