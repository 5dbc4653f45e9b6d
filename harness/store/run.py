"""The run store: one SQLite file in WAL mode, the only place where a run keeps what was generated and judged.

Every row is written once, in a transaction, and never changed: a run that was killed goes on from what is there.
Everything else in a run's folder (report, figures, tables) is derived and can be made again. To read a run without
this module::

    pandas.read_sql("select * from generations", sqlite3.connect("run.sqlite"))

``generations`` and ``labels`` are views there (``schema`` says what of).

Two processes must not work on one run: the store takes a lock on ``run.lock`` for as long as it is open for writing.
"""

from __future__ import annotations

import json
import lzma
import shutil
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.errors import MoteError
from mote.harness.files import canonical_json
from mote.harness.store.schema import READABLE, SCHEMA, SCHEMA_VERSION, fold, text_id, unfold
from mote.harness.store.sqlite import Transaction, connect, lock

STORE_NAME = "run.sqlite"
PACKED_NAME = f"{STORE_NAME}.xz"
"""The rows of a result that is kept for others to read: `xz run.sqlite`."""


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


def _unpack(folder: Path) -> bool:
    """Unpack the rows of a result that is kept packed; return whether there are any. Raises MoteError if it can't."""
    packed = folder / PACKED_NAME
    if not packed.is_file():
        return False
    part = folder / f"{STORE_NAME}.part"
    try:
        with lzma.open(packed) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
        part.replace(folder / STORE_NAME)
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise MoteError(f"{packed} could not be unpacked beside itself: {error}") from None
    return True


class RunStore:
    """A run's SQLite file, open for writing or (``read_only``) for reports. Use it as a context manager.

    Only a study makes one that isn't there; ``existing`` is for whatever adds to a run. Raises MoteError where there is
    no run, where the run was made by another version of the store, and where another
    process is working on it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, existing: bool = False) -> None:
        self.folder = folder
        self.path = folder / STORE_NAME
        self._lock: IO[str] | None = None
        if (read_only or existing) and not self.path.is_file() and not _unpack(folder):
            left_out = (folder / "manifest.json").is_file()
            raise MoteError(
                f"{folder} holds no {STORE_NAME}: "
                + (
                    "the rows of this run are not here; `mote run` with its recipe and --out makes them again."
                    if left_out
                    else "it is not the folder of a run."
                )
            )
        if not read_only:
            self._lock = lock(folder / "run.lock")
        try:
            self._db = connect(self.path, read_only=read_only)
            self._prepare(read_only)
        except sqlite3.DatabaseError as error:
            self._unlock()
            raise MoteError(f"{self.path} cannot be read as a run's store: {error}.") from None
        except BaseException:
            self._unlock()
            raise

    def _prepare(self, read_only: bool) -> None:
        version = int(self._db.execute("pragma user_version").fetchone()[0])
        if version == 0 and not read_only:
            self._db.executescript(f"begin;{SCHEMA}pragma user_version = {SCHEMA_VERSION};commit;")
        elif version not in READABLE:
            self._db.close()
            read = " and ".join(map(str, READABLE))
            raise MoteError(f"{self.path} has store version {version}; this mote reads versions {read}.")
        self._version = version or SCHEMA_VERSION

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
        """Store generations with their activation maps. Raises MoteError for a run that an older mote began."""
        if self._version != SCHEMA_VERSION:
            raise MoteError(
                f"{self.path} was begun by an older mote (store version {self._version}): it can be reported on and"
                " judged, but not gone on with; start it anew in another folder with --out."
            )
        with closing(self._db.cursor()) as cursor, self._transaction():
            for row in rows:
                number = _add_generation(cursor, row)
                cursor.executemany(
                    "insert into activation_maps (generation_id, role, layers, experts, counted, total, counts)"
                    " values (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (number, item.role, *item.counts.shape, item.counted, item.total, _to_blob(item.counts))
                        for item in row.maps
                    ],
                )

    def add_labels(self, rows: Iterable[LabelRow]) -> None:
        """Store labels; a judge labels a generation once."""
        table = "labels" if self._version == 1 else "label_rows"
        statement = f"insert into {table} (generation_id, judge, label, evidence) values (?, ?, ?, ?)"  # noqa: S608 - ours
        with closing(self._db.cursor()) as cursor, self._transaction():
            for row in rows:
                evidence: str | int = canonical_json([dict(entry) for entry in row.evidence])
                if self._version != 1:
                    evidence = text_id(cursor, str(evidence))
                cursor.execute(statement, (row.generation_id, row.judge, row.label, evidence))

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
        """Return one row a generation, with its label by a judge (NaN where unlabelled), prompt, and profile.

        The mechanism check is left out, being longer than all else; ``mechanisms`` has it.
        """
        query = (
            f"select {_SHOWN}, l.label, l.evidence, p.position, p.task, p.messages, p.attributes, f.kind, s.part"  # noqa: S608
            " from generations g join prompts p using (prompt_id) join profiles f on f.name = g.profile"
            " left join splits s using (prompt_id)"
            " left join labels l on l.generation_id = g.generation_id and l.judge = ?"
            " order by f.position, p.position"
        )
        return pd.read_sql(query, self._db, params=(judge,))

    def judges(self) -> list[str]:
        """Return the names of the judges that have labelled a generation."""
        return [str(name) for (name,) in self._db.execute("select distinct judge from labels order by judge")]

    def labels_of(self, judge: str) -> pd.Series[str]:
        """Return a judge's labels by generation id."""
        rows = self._db.execute("select generation_id, label from labels where judge = ?", (judge,)).fetchall()
        return pd.Series({int(number): str(label) for number, label in rows}, dtype=object)

    def mechanisms(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield (profile, mechanism check) of each generation under a profile with edits, in the profiles' order."""
        if self._version == 1:
            query = (
                "select g.profile, g.mechanism from generations g join profiles f on f.name = g.profile"
                " where g.mechanism != '[]' order by f.position, g.generation_id"
            )
            yield from ((profile, json.loads(text)) for profile, text in self._db.execute(query))
            return
        query = (
            "select f.name, t.text, g.counts from generation_rows g join profiles f on f.position = g.profile"
            " join texts t on t.text_id = g.edits where t.text != '[]' order by f.position, g.generation_id"
        )
        yield from ((profile, unfold(edits, counts)) for profile, edits, counts in self._db.execute(query))

    def maps(
        self, profile: str, role: str, prompts: Collection[str] | None = None
    ) -> tuple[list[str], NDArray[np.int32], list[tuple[int, int]]]:
        """Return prompt ids, their maps [prompts, layers, experts], and (tokens counted, tokens in all) of each.

        ``prompts`` names those to read; without it all are. The array is all the memory that is needed: 4 bytes a
        prompt and expert (0.6 GB for 10,000 prompts of 58 x 256).
        """
        source = (
            " from activation_maps m join generations g using (generation_id) join prompts p using (prompt_id)"
            " where g.profile = ? and m.role = ?"
        )
        shapes = self._db.execute(
            f"select g.prompt_id, m.layers, m.experts{source} order by p.position",
            (profile, role),
        )
        wanted = {str(row[0]): (row[1], row[2]) for row in shapes if prompts is None or row[0] in prompts}
        if not wanted:
            return [], np.zeros((0, 0, 0), dtype=np.int32), []
        layers, experts = next(iter(wanted.values()))
        stack = np.empty((len(wanted), layers, experts), dtype=np.int32)
        counted: list[tuple[int, int]] = []
        rows = self._db.execute(
            f"select g.prompt_id, m.counts, m.counted, m.total{source} order by p.position",
            (profile, role),
        )
        for prompt, counts, seen, total in rows:
            if prompt in wanted:
                stack[len(counted)] = np.frombuffer(counts, dtype="<i4").reshape(wanted[prompt])
                counted.append((seen, total))
        return list(wanted), stack, counted

    def mean_map(self, profile: str, role: str) -> NDArray[np.float64] | None:
        """Return the mean of a profile's maps, [layers, experts], without holding more than one; None without any."""
        rows = self._db.execute(
            "select m.layers, m.experts, m.counts from activation_maps m join generations g using (generation_id)"
            " where g.profile = ? and m.role = ?",
            (profile, role),
        )
        total: NDArray[np.int64] | None = None
        count = 0
        for layers, experts, counts in rows:
            one = np.frombuffer(counts, dtype="<i4").reshape(layers, experts)
            total = one.astype(np.int64) if total is None else total + one
            count += 1
        return None if total is None else np.asarray(total / count, dtype=np.float64)

    def _insert(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self._transaction():
            self._db.executemany(statement, rows)

    def _transaction(self) -> Transaction:
        return Transaction(self._db)


_SHOWN = ", ".join(
    f"g.{name}"
    for name in (
        *("generation_id", "prompt_id", "profile", "profile_digest", "seed", "sampling", "prompt_opens", "raw"),
        *("reasoning", "answer", "prompt_tokens", "generated_tokens", "finish_reason", "receipt"),
    )
)


def _add_generation(cursor: sqlite3.Cursor, row: GenerationRow) -> int:
    """Store one generation and return its id."""
    planned = cursor.execute("select position, digest from profiles where name = ?", (row.profile,)).fetchone()
    if planned is not None and planned[1] != row.profile_digest:
        raise ValueError(f"a generation of '{row.prompt_id}' is not of the plan's profile '{row.profile}'")
    receipt = dict(row.receipt)
    tokens_edited = receipt.pop("tokens_edited", None)
    edits, counts = fold(row.mechanism)
    texts = (row.raw, row.reasoning, row.answer, canonical_json(receipt), edits)
    raw, reasoning, answer, receipt_id, edits_id = (text_id(cursor, text) for text in texts)
    cursor.execute(
        "insert into generation_rows (prompt, profile, seed, sampling, prompt_opens, raw, reasoning, answer,"
        " prompt_tokens, generated_tokens, finish_reason, receipt, tokens_edited, edits, counts)"
        " values ((select position from prompts where prompt_id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.prompt_id,
            planned and planned[0],
            row.seed,
            text_id(cursor, canonical_json(dict(row.sampling))),
            int(row.prompt_opens),
            *(raw, reasoning, answer),
            row.prompt_tokens,
            row.generated_tokens,
            row.finish_reason,
            *(receipt_id, tokens_edited, edits_id, counts),
        ),
    )
    return int(cursor.lastrowid or 0)


def _to_blob(counts: NDArray[np.int32]) -> bytes:
    return np.ascontiguousarray(counts, dtype="<i4").tobytes()
