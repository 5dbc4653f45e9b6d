"""The sides of a comparison, by what a path holds: a run, a bench of MT-Bench, a log of lm_eval or Inspect, a table.

Both sides of a comparison go by one judge. Runs keep the labels that they have, and logs of our tasks those of the
task, as long as these are of one judge; beside answers of another tool all are labelled anew, from their texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from mote.harness.compare.answers import LABELLINGS, Answers
from mote.harness.compare.fastchat import ANSWERS, is_fastchat, read_bench, read_fastchat
from mote.harness.compare.inspect_log import read_inspect
from mote.harness.compare.labelling import COLUMN, by_own_column, relabelled
from mote.harness.compare.lm_eval_log import LOG_NAME, only_log, read_lm_eval
from mote.harness.compare.run_answers import PARTS, is_run, read_run, split_run
from mote.harness.compare.table import SUFFIXES, read_table
from mote.harness.errors import MoteError, nearest
from mote.harness.lines import first_object, suffix
from mote.harness.recipe.label_sets import REFUSAL
from mote.harness.science.controls import BASELINE
from mote.judges import MARKERS, Markers


class Reading(NamedTuple):
    """How sides are read.

    Attributes:
        judge: whose labels of a run; by default the run's own.
        label: one of LABELLINGS.
        task: which log of lm_eval, where a folder holds those of several tasks.
        receipts: False lets a log of lm_eval, or of our provider for Inspect, pass whose answers carry none.
        part: one of PARTS; None takes the measuring part wherever a tuned profile of a run is compared.
        columns: what a table calls its columns, by our name for them.
        blanks: take a table's blank answers for UNSCORED.
        markers: what encloses the reasoning, where a file does not say it.
    """

    judge: str | None = None
    label: str = "label"
    task: str | None = None
    receipts: bool = True
    part: str | None = None
    columns: Mapping[str, str] = MappingProxyType({})
    blanks: bool = False
    markers: Markers = MARKERS["think"]


READING: Final = Reading()


def read_sides(
    before: str, after: str, reading: Reading = READING, labels: str | None = None
) -> tuple[Answers, Answers]:
    """Read both sides of a comparison, as ``read_answers`` does, by one judge and paired by one kind of key.

    ``labels`` names a label set, by whose rules both sides are labelled anew, or is "column": the files' own labels.
    Without it runs and logs of lm_eval keep theirs, and two files that both bring labels as well; everything else
    is labelled by the run's set where there is a run, and by "refusal" where not. Where the judges of two runs differ,
    the labels are those of the text alone: else judges would differ, not answers.

    Raises MoteError for two runs of different label sets, and as ``read_answers``.
    """
    if reading.part is None:
        reading = reading._replace(part="measure" if any(map(_of_profile, (before, after))) else "all")
    left, right = (read_answers(text, reading) for text in (before, after))
    if labels is not None and reading.judge is not None:
        raise MoteError("--judge picks labels that a run has, --labels labels anew: give one of the two.")
    if labels == COLUMN:
        left, right = by_own_column(left, right)
    elif labels is not None:
        left, right = (relabelled(side, labels, reading.label) for side in (left, right))
    elif {left.source, right.source} <= {"run", "log"}:
        left, right = _by_text(before, after, left, right, reading)
    elif not all(side.source == "table" and side.judge for side in (left, right)):
        name = next((side.labels for side in (left, right) if side.labels), REFUSAL)
        left, right = (relabelled(side, name, reading.label) for side in (left, right))
    return _keyed_alike(left, right)


def read_answers(text: str, reading: Reading = READING) -> Answers:
    """Read one side, whatever it is.

    ``RUN``, ``RUN:PROFILE``, a folder of lm_eval with one log in it (or one of ``reading.task``), a bench's folder
    (``BENCH:MODEL``), or a file: a log of lm_eval or Inspect, FastChat's rows, a table (``FILE:MODEL`` takes one
    model's). Raises MoteError where there is nothing of the kind, or it can't be trusted.
    """
    if reading.label not in LABELLINGS:
        raise MoteError(f"--label {reading.label} is unknown.{nearest(reading.label, LABELLINGS)}")
    if reading.part not in (None, *PARTS):
        raise MoteError(f"--part {reading.part} is unknown.{nearest(reading.part, PARTS)}")
    path, name = Path(text), None
    if not path.is_file():
        path, name = split_run(text)
    if path.is_dir() and (path / ANSWERS).is_dir():
        return read_bench(path, name, reading.markers)
    if path.is_dir() and (name is not None or is_run(path)):
        return read_run(path, name or BASELINE, reading.judge, reading.label, reading.part)
    if path.is_dir():
        return read_lm_eval(only_log(path, reading.task), reading.label, reading.receipts)
    if path.is_file():
        return _of_file(path, name, reading)
    raise MoteError(f"{text} is neither a run (RUN or RUN:PROFILE) nor a file or folder of answers.{_near(Path(text))}")


def _of_profile(text: str) -> bool:
    """Whether a side is a profile of a run: experts were chosen, on one part of its prompts."""
    folder, name = split_run(text)
    return name not in (None, BASELINE) and is_run(folder)


def _of_file(path: Path, name: str | None, reading: Reading) -> Answers:
    kind = suffix(path)
    if kind in (".eval", ".json"):
        _unnamed(path, name)
        return read_inspect(path, reading.markers, reading.receipts)
    if kind not in SUFFIXES:
        raise MoteError(f"{path} is no file of answers: it ends in none of .eval, .json, {', '.join(SUFFIXES)}.")
    if kind in (".jsonl", ".ndjson"):
        first = first_object(path)
        if LOG_NAME.fullmatch(path.name) or {"doc", "doc_id", "resps"} & first.keys():
            _unnamed(path, name)
            return read_lm_eval(path, reading.label, reading.receipts)
        if is_fastchat(first):
            return read_fastchat(path, name, reading.markers)
    return read_table(path, name, reading.columns, reading.markers, blanks=reading.blanks)


def _unnamed(path: Path, name: str | None) -> None:
    if name is not None:
        raise MoteError(f"{path} is a log of one model; leave out ':{name}'.")


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f" There is no folder {path.parent}."
    said = nearest(path.name, [item.name for item in path.parent.iterdir() if not item.name.startswith(".")])
    # Where nothing is close, what else lies there is not the answer.
    return said if said.startswith(" Did you mean") else ""


def _by_text(before: str, after: str, left: Answers, right: Answers, reading: Reading) -> tuple[Answers, Answers]:
    if reading.judge is not None or left.judge == right.judge:
        return left, right
    texts = {side.text_judge: side for side in (left, right) if side.text_judge}
    if len(texts) > 1:
        said = ", ".join(f"{side.name} by '{name}'" for name, side in texts.items())
        raise MoteError(f"the labels are of different sets: {said}. Name a --judge that labelled both, or --labels.")
    (by_text,) = texts
    again = reading._replace(judge=by_text)
    return read_answers(before, again), read_answers(after, again)


def _keyed_alike(left: Answers, right: Answers) -> tuple[Answers, Answers]:
    """Pair by the question where one side knows no ids."""
    if left.keyed == right.keyed:
        return left, right
    return _by_question(left), _by_question(right)


def _by_question(side: Answers) -> Answers:
    if side.keyed == "question":
        return side
    keys = [" ".join(str(text).split()) for text in side.rows["question"]]
    for key in keys:
        if not key:
            raise MoteError(
                f"{side.name} does not say what was asked, and the other side has no ids: nothing to pair by."
            )
    twice = next((key for key, count in Counter(keys).items() if count > 1), None)
    if twice is not None:
        raise MoteError(
            f"{side.name} asks '{twice[:80]}' more than once, and the other side has no ids to pair by: give it a"
            " column id."
        )
    scores = side.scores.assign(key=side.scores["key"].map(dict(zip(side.rows["key"], keys, strict=True))))
    return replace(side, rows=side.rows.assign(key=keys), scores=scores, keyed="question")
