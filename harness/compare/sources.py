"""The sides of a comparison: a profile of a run, a run's baseline, or a sample log of lm_eval, read into one shape.

A log is read as lm_eval 0.4.13 writes it (``--log_samples``: one JSON object a line, one line a document and filter).
Nothing is taken from text without its receipt: a log whose answers carry none, or several, is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from mote.harness.errors import MoteError, nearest
from mote.harness.files import digest_of
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.manifest import read_manifest
from mote.harness.science.controls import BASELINE
from mote.harness.store.questions import last_question
from mote.harness.store.run import PACKED_NAME, STORE_NAME, RunStore
from mote.judges import CLASSES, LANGUAGES, STATES, TRUNCATED, language
from mote.patches import Profile
from mote.tasks import TASKS

LABELLINGS = ("label", "reasoning_language", "answer_language")
"""What an answer can be labelled by: the class of the rules, or the language of its reasoning or of its answer."""

_LOG_NAME = re.compile(r"samples_(?P<task>.+?)_\d{4}-\d\d-\d\dT[\d.-]+\.jsonl")
_NEEDED = ("doc_id", "doc", "doc_hash", "filter", "metrics", "resps")


@dataclass(frozen=True)
class Answers:
    """One side of a comparison.

    ``rows`` has one row a prompt or document, with the columns key (prompt id, else document hash), prompt_id ("" where
    there is none), doc_hash ("" in a run), prompt (a hash of what was rendered, "" in a run), question, raw, label
    (None where nothing labels), seed (-1 where none is known) and sampling (canonical JSON). ``scores`` has one row a
    document, metric and filter: key, metric, filter, value. ``digests`` are the profile's by the receipts, empty
    without; ``model`` is the digest of the model's files. ``own_judge`` is the judge that a run goes by, ``text_judge``
    that of its label set which reads the text alone; both "" for a log.
    """

    name: str
    source: str
    task: str
    profile: str
    digests: frozenset[str]
    model: str
    judge: str
    rows: pd.DataFrame
    scores: pd.DataFrame
    own_judge: str = ""
    text_judge: str = ""


def split_run(text: str) -> tuple[Path, str | None]:
    """Return the folder and the profile's name of ``RUN`` or ``RUN:PROFILE``; what exists as a folder has no name."""
    folder, separator, name = text.rpartition(":")
    if not separator or Path(text).is_dir():
        return Path(text), None
    return Path(folder), name


def profile_of_run(folder: Path, name: str) -> Profile:
    """Return a profile of a run by its name; raise MoteError, with the nearest name, where it has none such."""
    with RunStore(folder, read_only=True) as store:
        specs = {row.name: row.spec for row in store.profiles()}
    if name not in specs:
        raise MoteError(f"{folder} has no profile '{name}'.{nearest(name, specs)}")
    return Profile.from_dict(specs[name])


def read_sides(
    before: str,
    after: str,
    judge: str | None = None,
    label: str = "label",
    *,
    task: str | None = None,
    receipts: bool = True,
) -> tuple[Answers, Answers]:
    """Read both sides of a comparison, as ``read_answers`` does, by one judge.

    Where no judge is given and the sides' own differ, the runs' labels are those of the text alone, as a log's are:
    else judges would differ, not answers. Raises MoteError for two runs of different label sets.
    """
    read = partial(read_answers, label=label, task=task, receipts=receipts)
    left, right = read(before, judge), read(after, judge)
    if judge is not None or left.judge == right.judge:
        return left, right
    texts = {side.text_judge: side for side in (left, right) if side.text_judge}
    if len(texts) > 1:
        said = ", ".join(f"{side.name} by '{name}'" for name, side in texts.items())
        raise MoteError(f"the labels are of different sets: {said}. Name a --judge that labelled both.")
    (by_text,) = texts
    return read(before, by_text), read(after, by_text)


def read_answers(
    text: str, judge: str | None = None, label: str = "label", *, task: str | None = None, receipts: bool = True
) -> Answers:
    """Read one side: ``RUN``, ``RUN:PROFILE``, a log, or a folder of lm_eval with one log in it, or one of ``task``.

    ``judge`` picks the labels of a run, by default the run's own; ``label`` is one of LABELLINGS. ``receipts=False``
    lets a log pass whose answers carry none. Raises MoteError where there is nothing of the kind, or it can't be
    trusted.
    """
    if label not in LABELLINGS:
        raise MoteError(f"--label {label} is unknown.{nearest(label, LABELLINGS)}")
    folder, name = split_run(text)
    if folder.is_dir() and (name is not None or any((folder / file).is_file() for file in (STORE_NAME, PACKED_NAME))):
        return _of_run(folder, name or BASELINE, judge, label)
    if folder.is_dir():
        return _of_log(_only_log(folder, task), label, receipts)
    if Path(text).is_file():
        return _of_log(Path(text), label, receipts)
    raise MoteError(f"{text} is neither a run (RUN or RUN:PROFILE) nor a sample log of lm_eval.{_near(Path(text))}")


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f" There is no folder {path.parent}."
    return nearest(path.name, [item.name for item in path.parent.iterdir() if not item.name.startswith(".")])


def _of_run(folder: Path, name: str, judge: str | None, label: str) -> Answers:
    manifest = read_manifest(folder)
    labelled = label_set(manifest["recipe"])
    judge = judge or labelled.judge
    with RunStore(folder, read_only=True) as store:
        profiles = [row.name for row in store.profiles()]
        if name not in profiles:
            raise MoteError(f"{folder} has no profile '{name}'.{nearest(name, profiles)}")
        frame = store.generations_frame(judge)
    frame = frame[frame["profile"] == name]
    if frame.empty:
        raise MoteError(f"{folder} has no answer under '{name}' yet; go on with its `mote run`.")
    if frame["label"].isna().all():
        raise MoteError(f"{folder} has no labels of the judge '{judge}' under '{name}'.")
    for row in frame.to_dict("records"):
        if json.loads(row["receipt"])["digest"] != row["profile_digest"]:
            raise MoteError(f"{folder}: the receipt of {row['prompt_id']} is not that of profile '{name}'.")
    frame = frame.dropna(subset=["label"])
    rows = pd.DataFrame(
        {
            "key": frame["prompt_id"],
            "prompt_id": frame["prompt_id"],
            "doc_hash": "",
            "prompt": "",
            "question": [last_question(json.loads(text)) for text in frame["messages"]],
            "raw": frame["raw"],
            "label": frame["label"] if label == "label" else [_spoken(row, label) for row in frame.to_dict("records")],
            "seed": frame["seed"],
            "sampling": [_sampling(json.loads(text)) for text in frame["sampling"]],
        }
    ).reset_index(drop=True)
    return Answers(
        name=f"{folder.name}:{name}",
        source="run",
        task=str(manifest["prompts"]["task"]),
        profile=name,
        digests=frozenset(frame["profile_digest"]),
        model=digest_of(manifest["model"]["files"]),
        judge=judge,
        rows=rows,
        scores=_no_scores(),
        own_judge=labelled.judge,
        text_judge=labelled.text_judge,
    )


def _only_log(folder: Path, task: str | None) -> Path:
    logs = sorted(folder.rglob("samples_*.jsonl"))
    if task is not None:
        tasks = [(match["task"] if (match := _LOG_NAME.fullmatch(log.name)) else "") for log in logs]
        if logs and task not in tasks:
            raise MoteError(f"{folder} holds no log of the task '{task}'.{nearest(task, set(tasks) - {''})}")
        logs = [log for log, name in zip(logs, tasks, strict=True) if name == task]
    if len(logs) == 1:
        return logs[0]
    if not logs:
        raise MoteError(f"{folder} holds neither a run ({STORE_NAME}) nor a sample log of lm_eval (samples_*.jsonl).")
    shown = ", ".join(str(log.relative_to(folder)) for log in logs[:4]) + (", ..." if len(logs) > 4 else "")
    raise MoteError(f"{folder} holds {len(logs)} sample logs; name one, or its --task: {shown}")


def _of_log(path: Path, label: str, receipts: bool) -> Answers:
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
    rows = pd.DataFrame(
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
                "sampling": _sampling(_given(sample)),
            }
            for key, prompt, sample, some in zip(keys, ids, samples, notes, strict=True)
        ]
    )
    scores = pd.DataFrame(
        [row for key, sample in zip(keys, samples, strict=True) for row in _scores(path, key, sample)],
        columns=["key", "metric", "filter", "value"],
    )
    match = _LOG_NAME.fullmatch(path.name)
    return Answers(
        name=path.name,
        source="log",
        task=next((prompt.partition("/")[0] for prompt in ids if prompt), match["task"] if match else ""),
        profile=str(first.get("profile", "")),
        digests=frozenset(found),
        model=str(first.get("model", "")),
        judge="the task's filter",
        # A document has a line for each filter; the answer is the same in all of them, a label only in ours.
        rows=rows.sort_values("label", na_position="last", kind="stable").drop_duplicates("key").sort_index(),
        scores=scores,
    )


def _samples(path: Path) -> list[dict[str, Any]]:
    samples = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                sample = json.loads(line)
            except ValueError:
                raise MoteError(f"{path}, line {number} is not JSON: it is not a sample log of lm_eval.") from None
            if not isinstance(sample, dict) or not isinstance(sample.get("doc"), dict):
                raise MoteError(f"{path}, line {number} has no 'doc': it is not a sample log of lm_eval.")
            for name in _NEEDED:
                if name not in sample:
                    raise MoteError(f"{path}, line {number} has no '{name}'.{nearest(name, sample)}")
            samples.append(sample)
    if not samples:
        raise MoteError(f"{path} is empty.")
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


def _spoken(row: Mapping[Any, Any], which: str) -> str:
    """The language of a run's answer, as the task's filter for lm_eval has it."""
    classed = (*CLASSES, TRUNCATED) if which == "reasoning_language" else CLASSES
    if row["label"] not in classed:
        return str(row["label"])
    return language(row[which.removesuffix("_language")]).name


def _scores(path: Path, key: str, sample: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for metric in sample["metrics"]:
        if metric not in sample:
            raise MoteError(f"{path}: the metric '{metric}' of '{key}' is missing.{nearest(metric, sample)}")
        value = sample[metric]
        # Perplexities and the like are pairs that only a whole task's aggregation turns into a number.
        if isinstance(value, bool | int | float):
            yield {"key": key, "metric": str(metric), "filter": str(sample["filter"]), "value": float(value)}


def _no_scores() -> pd.DataFrame:
    return pd.DataFrame({"key": [], "metric": [], "filter": [], "value": []})


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


def _sampling(given: Mapping[str, Any]) -> str:
    """The parts of sampling that both a run and a task have, in one spelling."""
    temperature = float(given.get("temperature", 0.0) or 0.0)
    if given.get("do_sample") is False:
        temperature = 0.0
    budget = next((given[name] for name in ("max_gen_toks", "max_new_tokens", "max_tokens") if given.get(name)), None)
    found = {"temperature": temperature, "top_p": float(given.get("top_p", 1.0) or 1.0), "max_tokens": budget}
    return json.dumps(found, sort_keys=True)
