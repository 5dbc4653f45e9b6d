"""Sheets for people: a stratified sample of a run's answers as CSV, blind to profile and judge, and read back.

A sheet shows question, reasoning and answer, in random order, under codes that say nothing. The table ``samples`` of
the run keeps which answer a code stands for and the stratum that it was drawn from, which the correction of rates
needs. Strata are a judge's label by kind of profile, and get equal shares: rare labels and rare errors are what a sheet
is for.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from mote.harness.errors import MoteError, nearest
from mote.harness.files import write_atomic
from mote.harness.science.controls import BASELINE, RANDOM, RETEST
from mote.harness.store.generations import DECIDED
from mote.harness.store.questions import conversation
from mote.harness.store.run import LabelRow, RunStore
from mote.harness.store.samples import SampleRow, add_samples, sampled_items
from mote.judges import STATES, UNSCORED
from mote.judges.llm.kinds import LABELS, LANGUAGE, REFUSAL, SIDE_BY_SIDE
from mote.reading import UnreadableError, read_text

HUMAN: Final = "human:"
"""What the names of people's labels begin with."""

_RATER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class SheetRead(NamedTuple):
    """The outcome of reading a sheet: labels added, answers labelled before in the same way, and lines left blank."""

    rater: str
    added: int
    known: int
    blank: int


def write_sheet(folder: Path, path: Path, size: int, judge: str, *, kind: str = REFUSAL, seed: int = 0) -> int:
    """Draw a sample of a run's answers, stratified by a judge's labels, and write it as CSV; return its lines.

    Raises MoteError where the judge has labelled nothing, or by other classes than those of the kind, and where the
    file exists: it may hold people's work.
    """
    if size < 1:
        raise MoteError(f"--size {size}: a sheet needs at least one line.")
    if path.exists():
        raise MoteError(f"{path} exists; name a new file with --out.")
    labels = _labels_of(kind)
    with RunStore(folder, existing=True) as store:
        frame = store.generations_frame(judge)
        frame = frame[frame["label"].notna() & (frame["label"] != UNSCORED) & (frame["finish_reason"] != DECIDED)]
        if frame.empty:
            raise MoteError(f"judge '{judge}' has labelled no answer of {folder}.{nearest(judge, store.judges())}")
        others = sorted(set(frame["label"]) - {*labels, *STATES})
        if others:
            raise MoteError(
                f"judge '{judge}' gives labels of another set than '{kind}' ({', '.join(others)}): a sheet is"
                " stratified by what it asks for; name another --by or --kind."
            )
        frame = frame.assign(stratum=frame["label"].astype(str) + " / " + frame["kind"].map(_group))
        sample = _draw(frame, size, seed)
        name = hashlib.sha256(repr((seed, judge, sorted(sample["generation_id"]))).encode()).hexdigest()[:12]
        sample = sample.assign(item=[_item(name, row) for row in zip(*_texts(sample), strict=True)])
        columns = ["item", "generation_id", "stratum", "stratum_size"]
        rows = sample[columns].astype(object).itertuples(index=False)
        add_samples(store, [SampleRow(name, item, number, kind, *rest) for item, number, *rest in rows])
    shown = sample.drop_duplicates("item").sample(frac=1.0, random_state=seed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["item", "question", "reasoning", "answer", f"label: {' | '.join(labels)}", "note"])
    for item, *texts in zip(shown["item"], *_texts(shown), strict=True):
        writer.writerow([item, *map(_harmless, texts), "", ""])
    # The mark tells spreadsheets that this is UTF-8; without it Chinese is shown as noise.
    write_atomic(path, "\ufeff" + text.getvalue())
    return len(shown)


def read_sheet(folder: Path, path: Path, rater: str) -> SheetRead:
    """Read people's labels from a sheet and store them as judge ``human:RATER``.

    Raises MoteError, naming the line, for a code that is not of this run, a label that is none, and a label that
    differs from one that the same person gave before.
    """
    if not _RATER.fullmatch(rater):
        raise MoteError(f"--rater '{rater}': a short name of letters, digits, '.', '_' and '-' is needed.")
    judge = f"{HUMAN}{rater}"
    lines = _lines(path)
    with RunStore(folder, existing=True) as store:
        items, kinds = sampled_items(store)
        before = store.labels_of(judge).to_dict()
        rows: list[LabelRow] = []
        blank = known = 0
        for number, item, given in lines:
            if item not in items:
                raise MoteError(
                    f"{path}, line {number}: '{item}' is no item of a sheet of this run.{nearest(item, items)}"
                )
            if not given:
                blank += 1
                continue
            label = _label(given, kinds[item], f"{path}, line {number}")
            for generation in items[item]:
                if before.setdefault(generation, label) != label:
                    raise MoteError(
                        f"{path}, line {number}: {judge} labelled '{item}' {before[generation]} before, now {label};"
                        " labels are never replaced: read the sheet under another --rater."
                    )
                rows.append(
                    LabelRow(
                        generation, judge, label, [{"rule": f"sheet-item {item}", "span": "", "start": 0, "end": 0}]
                    )
                )
        stored = set(store.labels_of(judge).index)
        new = {row.generation_id: row for row in rows if row.generation_id not in stored}
        known = len({row.generation_id for row in rows}) - len(new)
        store.add_labels(new.values())
    return SheetRead(judge, len(new), known, blank)


def _labels_of(kind: str) -> tuple[str, ...]:
    if kind not in LABELS or kind == SIDE_BY_SIDE:
        raise MoteError(f"there are no sheets of kind '{kind}'.{nearest(kind, [REFUSAL, LANGUAGE])}")
    return LABELS[kind]


def _group(kind: str) -> str:
    """Return what a profile is: the untouched model, a tuned one, or a control."""
    if kind == BASELINE:
        return kind
    return "control" if kind == RETEST or kind.startswith(RANDOM) else "tuned"


def _draw(frame: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """Draw up to ``size`` rows, as evenly over the strata as their sizes allow; adds ``stratum_size``."""
    rng = np.random.default_rng(seed)
    groups = {str(name): rng.permutation(rows.index.to_numpy()) for name, rows in frame.groupby("stratum", sort=True)}
    taken = dict.fromkeys(groups, 0)
    left = min(size, len(frame))
    while left:
        for name in groups:
            if left and taken[name] < len(groups[name]):
                taken[name] += 1
                left -= 1
    picked = frame.loc[[index for name, count in taken.items() for index in groups[name][:count]]]
    return picked.assign(stratum_size=picked["stratum"].map({name: len(rows) for name, rows in groups.items()}))


def _texts(frame: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    questions = [conversation(json.loads(messages)) for messages in frame["messages"]]
    return questions, [str(text) for text in frame["reasoning"]], [str(text) for text in frame["answer"]]


def _item(sample: str, texts: tuple[str, ...]) -> str:
    # The sample's name is part of it: who has seen another sheet can't tell which answers come back.
    return hashlib.sha256(repr((sample, texts)).encode()).hexdigest()[:10]


def _harmless(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: model text is not ours to run."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _lines(path: Path) -> list[tuple[int, str, str]]:
    """Return (line number, item, label as written) of each line of a sheet."""
    if not path.exists():
        raise MoteError(f"{path}: there is no such sheet.")
    try:
        text = read_text(path)
    except UnreadableError as error:
        advice = "; save the sheet as 'CSV UTF-8'" if "UTF-8" in str(error) else ""
        raise MoteError(f"{path} {error}{advice}.") from None
    head = text.partition("\n")[0]
    # Spreadsheets write semicolons where the comma is the decimal sign.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if head.count(";") > head.count(",") else ",")
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise MoteError(f"{path}, line {reader.line_num} is not CSV: {error}.") from None
    names = [name.strip().lower() for name in rows[0][1]] if rows else []
    label = next((index for index, name in enumerate(names) if name.startswith("label")), None)
    if "item" not in names or label is None:
        raise MoteError(f"{path} is not a sheet: its first line should name the columns item, ..., label.")
    item = names.index("item")
    return [
        (number, row[item].strip(), row[label].strip())
        for number, row in rows[1:]
        if len(row) > max(item, label) and row[item].strip()
    ]


def _label(given: str, kind: str, where: str) -> str:
    """Return the label that a person wrote, in whatever case and with or without its number."""
    known = {}
    for label in LABELS[kind]:
        known[label.lower()] = known[label.partition("-")[2].lower() or label.lower()] = label
    if given.lower() not in known:
        raise MoteError(f"{where}: '{given[:80]}' is no label.{nearest(given, LABELS[kind])}")
    return known[given.lower()]
