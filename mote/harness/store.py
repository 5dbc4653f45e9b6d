"""The run store: one SQLite file in WAL mode, the only place where a run keeps what was generated and judged.

Every row is written once, in a transaction, and never changed: a run that was killed goes on from what is there.
Everything else in a run's folder (report, figures, tables) is derived and can be made again. To read a run without
this module::

    pandas.read_sql("select * from generations", sqlite3.connect("run.sqlite"))

Two processes must not work on one run: the store takes a lock on ``run.lock`` for as long as it is open for writing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.errors import MoteError
from mote.harness.files import canonical_json
from mote.harness.sqlite import Transaction, connect, lock

SCHEMA_VERSION = 1
STORE_NAME = "run.sqlite"

_SCHEMA = """
create table prompts (
    prompt_id text primary key,
    position integer not null unique,
    task text not null,
    messages text not null,            -- JSON: [{"role": ..., "content": ...}]
    attributes text not null           -- JSON object
) without rowid;
create table splits (
    prompt_id text primary key references prompts,
    part text not null check (part in ('select', 'measure'))
) without rowid;
create table profiles (
    name text primary key,
    position integer not null unique,
    digest text not null,
    kind text not null,                -- baseline, retest, suppress, stimulate, random-uniform, ...
    part text not null check (part in ('all', 'measure')),
    seed integer not null,
    spec text not null                 -- JSON: the profile
) without rowid;
create table generations (
    generation_id integer primary key,
    prompt_id text not null references prompts,
    profile text not null references profiles,
    profile_digest text not null,
    seed integer not null,             -- of this request: drawn from the profile's seed and the prompt
    sampling text not null,            -- JSON
    prompt_opens integer not null,     -- 1 where the chat template had opened the reasoning before the text
    raw text not null,
    reasoning text not null,
    answer text not null,
    prompt_tokens integer not null,
    generated_tokens integer not null,
    finish_reason text,
    receipt text not null,             -- JSON: digest applied, tokens edited, version of the patch
    mechanism text not null,           -- JSON: per edited expert, how often selected and its weight after
    unique (prompt_id, profile)
);
create table labels (
    generation_id integer not null references generations,
    judge text not null,
    label text not null,
    evidence text not null,            -- JSON: [{"rule": ..., "span": ..., "start": ..., "end": ...}]
    primary key (generation_id, judge)
) without rowid;
create table activation_maps (
    generation_id integer not null references generations,
    role text not null,                -- prompt, reasoning, answer
    layers integer not null,
    experts integer not null,
    counted integer not null,          -- tokens in the map
    total integer not null,            -- tokens of that role in all
    counts blob not null,              -- int32, little-endian, [layers, experts]
    primary key (generation_id, role)
) without rowid;
"""


class PromptRow(NamedTuple):
    """One prompt as it was asked."""

    prompt_id: str
    task: str
    messages: Sequence[Mapping[str, str]]
    attributes: Mapping[str, Any]


class ProfileRow(NamedTuple):
    """A profile of the run: what it tunes, why it is there, and which prompts it is generated on."""

    name: str
    digest: str
    kind: str
    part: str
    seed: int
    spec: Mapping[str, Any]


class MapRow(NamedTuple):
    """An activation map: counts int32 [layers, experts] over ``counted`` of ``total`` tokens of one role."""

    role: str
    counts: NDArray[np.int32]
    counted: int
    total: int


class GenerationRow(NamedTuple):
    """One answer, with the receipt of the profile that was truly applied."""

    prompt_id: str
    profile: str
    profile_digest: str
    seed: int
    sampling: Mapping[str, Any]
    prompt_opens: bool
    raw: str
    reasoning: str
    answer: str
    prompt_tokens: int
    generated_tokens: int
    finish_reason: str | None
    receipt: Mapping[str, Any]
    mechanism: Sequence[Mapping[str, Any]]
    maps: Sequence[MapRow] = ()


class Unlabelled(NamedTuple):
    """A generation as a judge is given it."""

    generation_id: int
    raw: str
    prompt_opens: bool
    finish_reason: str | None


class LabelRow(NamedTuple):
    """The class that one judge gave one generation, and why."""

    generation_id: int
    judge: str
    label: str
    evidence: Sequence[Mapping[str, Any]]


class RunStore:
    """A run's SQLite file, open for writing or (``read_only``) for reports. Use it as a context manager.

    Raises MoteError where there is no run, where the run was made by another version of the store, and where another
    process is working on it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self.path = folder / STORE_NAME
        self._lock: IO[str] | None = None
        if read_only:
            if not self.path.is_file():
                raise MoteError(f"{folder} holds no {STORE_NAME}: it is not the folder of a run.")
        else:
            self._lock = lock(folder / "run.lock")
        try:
            self._db = connect(self.path, read_only=read_only)
            self._prepare(read_only)
        except BaseException:
            self._unlock()
            raise

    def _prepare(self, read_only: bool) -> None:
        version = int(self._db.execute("pragma user_version").fetchone()[0])
        if version == 0 and not read_only:
            self._db.executescript(f"begin;{_SCHEMA}pragma user_version = {SCHEMA_VERSION};commit;")
        elif version != SCHEMA_VERSION:
            self._db.close()
            raise MoteError(f"{self.path} has store version {version}; this mote reads version {SCHEMA_VERSION}.")

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file and give back the lock."""
        self.close()

    def close(self) -> None:
        """Close the file and give back the lock."""
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # Writing: one transaction a call.

    def add_prompts(self, rows: Iterable[PromptRow]) -> None:
        """Store the prompts in the order given."""
        self._insert(
            "insert into prompts (prompt_id, position, task, messages, attributes) values (?, ?, ?, ?, ?)",
            [
                (
                    row.prompt_id,
                    position,
                    row.task,
                    canonical_json(list(row.messages)),
                    canonical_json(dict(row.attributes)),
                )
                for position, row in enumerate(rows)
            ],
        )

    def add_plan(self, profiles: Iterable[ProfileRow], split: Mapping[str, str] | None = None) -> None:
        """Store profiles and the split they were chosen on in one transaction: a plan is there whole or not at all."""
        first = int(self._db.execute("select count(*) from profiles").fetchone()[0])
        rows = [
            (row.name, first + index, row.digest, row.kind, row.part, row.seed, canonical_json(dict(row.spec)))
            for index, row in enumerate(profiles)
        ]
        with closing(self._db.cursor()) as cursor, self._transaction():
            cursor.executemany("insert into splits (prompt_id, part) values (?, ?)", list((split or {}).items()))
            cursor.executemany(
                "insert into profiles (name, position, digest, kind, part, seed, spec) values (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def add_generations(self, rows: Iterable[GenerationRow]) -> None:
        """Store generations with their activation maps."""
        with closing(self._db.cursor()) as cursor, self._transaction():
            for row in rows:
                cursor.execute(
                    "insert into generations (prompt_id, profile, profile_digest, seed, sampling, prompt_opens, raw,"
                    " reasoning, answer, prompt_tokens, generated_tokens, finish_reason, receipt, mechanism)"
                    " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        row.prompt_id,
                        row.profile,
                        row.profile_digest,
                        row.seed,
                        canonical_json(dict(row.sampling)),
                        int(row.prompt_opens),
                        row.raw,
                        row.reasoning,
                        row.answer,
                        row.prompt_tokens,
                        row.generated_tokens,
                        row.finish_reason,
                        canonical_json(dict(row.receipt)),
                        canonical_json([dict(entry) for entry in row.mechanism]),
                    ),
                )
                cursor.executemany(
                    "insert into activation_maps (generation_id, role, layers, experts, counted, total, counts)"
                    " values (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (
                            cursor.lastrowid,
                            item.role,
                            *item.counts.shape,
                            item.counted,
                            item.total,
                            _to_blob(item.counts),
                        )
                        for item in row.maps
                    ],
                )

    def add_labels(self, rows: Iterable[LabelRow]) -> None:
        """Store labels; a judge labels a generation once."""
        self._insert(
            "insert into labels (generation_id, judge, label, evidence) values (?, ?, ?, ?)",
            [
                (row.generation_id, row.judge, row.label, canonical_json([dict(entry) for entry in row.evidence]))
                for row in rows
            ],
        )

    # Reading.

    def prompts(self) -> list[PromptRow]:
        """Return the prompts in the order they were stored."""
        cursor = self._db.execute("select prompt_id, task, messages, attributes from prompts order by position")
        return [
            PromptRow(key, task, json.loads(messages), json.loads(attributes))
            for key, task, messages, attributes in cursor
        ]

    def profiles(self) -> list[ProfileRow]:
        """Return the profiles in the order they were stored."""
        cursor = self._db.execute("select name, digest, kind, part, seed, spec from profiles order by position")
        return [
            ProfileRow(name, digest, kind, part, seed, json.loads(spec))
            for name, digest, kind, part, seed, spec in cursor
        ]

    def split(self) -> dict[str, str]:
        """Return prompt id -> 'select' or 'measure'; empty before experts were chosen."""
        return dict(self._db.execute("select prompt_id, part from splits"))

    def stored(self) -> set[tuple[str, str]]:
        """Return (prompt id, profile) of every generation that is there."""
        return set(self._db.execute("select prompt_id, profile from generations"))

    def unlabelled(self, judge: str) -> list[Unlabelled]:
        """Return what a judge has not labelled yet, in the order in which it was generated."""
        cursor = self._db.execute(
            "select generation_id, raw, prompt_opens, finish_reason from generations"
            " where generation_id not in (select generation_id from labels where judge = ?) order by generation_id",
            (judge,),
        )
        return [Unlabelled(key, raw, bool(opens), reason) for key, raw, opens, reason in cursor]

    def generations_frame(self, judge: str) -> pd.DataFrame:
        """Return one row a generation, with its label by a judge (NaN where unlabelled), prompt, and profile."""
        query = (
            "select g.*, l.label, l.evidence, p.position, p.task, p.messages, p.attributes, f.kind, s.part"
            " from generations g join prompts p using (prompt_id) join profiles f on f.name = g.profile"
            " left join splits s using (prompt_id)"
            " left join labels l on l.generation_id = g.generation_id and l.judge = ?"
            " order by f.position, p.position"
        )
        return pd.read_sql(query, self._db, params=(judge,))

    def maps(self, profile: str, role: str) -> tuple[list[str], NDArray[np.int32], list[tuple[int, int]]]:
        """Return prompt ids, their maps [prompts, layers, experts], and (tokens counted, tokens in all) of each."""
        cursor = self._db.execute(
            "select g.prompt_id, m.layers, m.experts, m.counts, m.counted, m.total from activation_maps m"
            " join generations g using (generation_id) join prompts p using (prompt_id)"
            " where g.profile = ? and m.role = ? order by p.position",
            (profile, role),
        )
        rows = cursor.fetchall()
        if not rows:
            return [], np.zeros((0, 0, 0), dtype=np.int32), []
        stack = np.stack([np.frombuffer(row[3], dtype="<i4").reshape(row[1], row[2]) for row in rows])
        return [row[0] for row in rows], stack.astype(np.int32), [(row[4], row[5]) for row in rows]

    def _insert(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self._transaction():
            self._db.executemany(statement, rows)

    def _transaction(self) -> Transaction:
        return Transaction(self._db)


def _to_blob(counts: NDArray[np.int32]) -> bytes:
    return np.ascontiguousarray(counts, dtype="<i4").tobytes()
