"""The second judge of a run: its rules, and the surprise of the untouched model at each answer (``mote.judges``).

Every answer that the text alone puts into a class is put before the untouched model once more, in the run's own engine
under the empty profile: one prefill for each distinct answer to a prompt. What came of it is in the table ``surprises``
of the run's store, written once; the labels are those of a judge of their own, ``rules+surprise``, beside those of the
rules. The threshold is set by the run's own baseline, whose answers are all measured before any other is judged.

A run that was killed measures what is missing and ends with the same rows; log-probabilities of a batch that was cut
elsewhere may differ in the last of their seven digits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console

from mote.harness.engine.vllm import Engine, Scoring
from mote.harness.progress import step
from mote.harness.store.run import LabelRow, RunStore
from mote.harness.store.sqlite import Transaction, connect
from mote.harness.study.plan import BASELINE
from mote.judges import STATES, Evidence, Improbable, Label, Measured, label_by_surprise, with_surprise
from mote.judges.surprise import measure, threshold
from mote.patches import EMPTY_PROFILE

_TABLE: Final = """
create table if not exists surprises (
    prompt_id text not null references prompts,
    text_sha256 text not null,         -- of the raw text: equal answers to a prompt are measured once
    generation_id integer not null,    -- the first with this text
    tokens integer not null,           -- of the text, tokenised apart from its prompt
    surprise real,                     -- nats, of the k-th least likely token; null where the text did not fit
    lowest text not null,              -- JSON: [[nats, start, end], ...], those k tokens and their places in raw
    primary key (prompt_id, text_sha256)
) without rowid;
"""

Key = tuple[str, str]


class _Classed(NamedTuple):
    """A generation with the label of its text, to be judged by surprise."""

    generation_id: int
    prompt_id: str
    raw: str
    label: Label

    @property
    def key(self) -> Key:
        """What its measurement is stored and found by."""
        return _key(self.prompt_id, self.raw)


def label_run_by_surprise(
    store: RunStore, judge: str, engine: Callable[[], Engine], console: Console, at_once: int
) -> None:
    """Measure and label what the judge of the texts has labelled, and this one has not; ``at_once`` rows at a time.

    The baseline has to be there whole, labelled by ``judge``. Raises MoteError for whatever the engine refuses.
    """
    missing = list(_missing(store.path, judge))
    if not missing:
        return
    known = _measured(store.path)
    wanted = {one.key: one for one in reversed(missing) if one.label.label not in STATES and one.key not in known}
    if wanted:
        _measure(store, list(reversed(wanted.values())), engine(), console)
        known = _measured(store.path)
    below = threshold(list(untouched_surprises(store.path, judge)))
    # Equal answers have equal labels, whose evidence is then made once.
    made: dict[tuple[Key, str, tuple[Evidence, ...]], Label] = {}
    with step(console, "Labels by surprise", len(missing)) as advance:
        for start in range(0, len(missing), at_once):
            rows = []
            for one in missing[start : start + at_once]:
                same = (one.key, one.label.label, one.label.evidence)
                if same not in made:
                    made[same] = label_by_surprise(one.label, one.raw, known.get(one.key), below)
                label = made[same]
                rows.append(
                    LabelRow(one.generation_id, label.judge, label.label, [asdict(entry) for entry in label.evidence])
                )
            store.add_labels(rows)
            advance(len(rows))


def _measure(store: RunStore, wanted: list[_Classed], engine: Engine, console: Console) -> None:
    messages = {row.prompt_id: row.messages for row in store.prompts()}
    requests = [Scoring(one.prompt_id, messages[one.prompt_id], EMPTY_PROFILE, one.raw) for one in wanted]
    with closing(connect(store.path, read_only=False)) as db:
        db.execute(_TABLE)
        for some in measure_texts(requests, engine, console):
            with Transaction(db):
                db.executemany(
                    "insert into surprises (prompt_id, text_sha256, generation_id, tokens, surprise, lowest)"
                    " values (?, ?, ?, ?, ?, ?)",
                    [(*wanted[at].key, wanted[at].generation_id, *to_columns(found)) for at, found in some],
                )


def measure_texts(
    requests: Sequence[Scoring], engine: Engine, console: Console
) -> Iterator[list[tuple[int, Measured | None]]]:
    """Yield (index of the request, surprise of its text) as they are done; first, and None, those that do not fit.

    Raises MoteError for whatever the engine refuses.
    """
    fitting = [at for at, request in enumerate(requests) if engine.fits(request)]
    yield [(at, None) for at in sorted(set(range(len(requests))) - set(fitting))]
    with step(console, "Surprise of answers", len(fitting)) as advance:
        for some in engine.score([requests[at] for at in fitting]):
            yield [
                (fitting[index], measure(scored.request.continuation, scored.tokens, scored.logprobs))
                for index, scored in some
            ]
            advance(len(some))


def to_columns(found: Measured | None) -> tuple[int, float | None, str]:
    """Return a measurement as a store has it: tokens, surprise, and the least likely tokens as JSON."""
    if found is None:
        return 0, None, "[]"
    lowest = [[round(one.logprob, 4), one.start, one.end] for one in found.lowest]
    return found.tokens, found.surprise, json.dumps(lowest)


def from_columns(tokens: int, surprise: float | None, lowest: str) -> Measured | None:
    """Read what :func:`to_columns` wrote."""
    if surprise is None:
        return None
    return Measured(tokens, surprise, tuple(Improbable(*entry) for entry in json.loads(lowest)))


def _missing(store: Path, judge: str) -> Iterator[_Classed]:
    """Yield what the texts' judge labelled and this one did not, in the order in which it was generated."""
    with closing(connect(store, read_only=True)) as db:
        rows = db.execute(
            "select g.generation_id, g.prompt_id, g.raw, l.label, l.evidence from generations g"
            " join labels l on l.generation_id = g.generation_id and l.judge = ?"
            " where g.generation_id not in (select generation_id from labels where judge = ?) order by g.generation_id",
            (judge, with_surprise(judge)),
        )
        for number, prompt_id, raw, label, evidence in rows:
            entries = tuple(Evidence(**entry) for entry in json.loads(evidence))
            yield _Classed(number, prompt_id, raw, Label(label, judge, entries))


def _measured(store: Path) -> dict[Key, Measured | None]:
    with closing(connect(store, read_only=True)) as db:
        if not db.execute("select 1 from sqlite_master where name = 'surprises'").fetchone():
            return {}
        rows = db.execute("select prompt_id, text_sha256, tokens, surprise, lowest from surprises").fetchall()
    return {(prompt_id, digest): from_columns(*columns) for prompt_id, digest, *columns in rows}


def untouched_surprises(store: Path, judge: str) -> Iterator[float]:
    """Yield the surprise of each of the baseline's answers that its text puts into a class."""
    known = _measured(store)
    with closing(connect(store, read_only=True)) as db:
        rows = db.execute(
            "select g.prompt_id, g.raw, l.label from generations g"
            " join labels l on l.generation_id = g.generation_id and l.judge = ? where g.profile = ?",
            (judge, BASELINE),
        )
        for prompt_id, raw, label in rows:
            found = known[_key(prompt_id, raw)] if label not in STATES else None
            if found is not None:
                yield found.surprise


def _key(prompt_id: str, raw: str) -> Key:
    return prompt_id, hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()
