"""The run store: one SQLite file in WAL mode, the only place where a run keeps what was generated and judged.

Every row is written once, in a transaction, and never changed: a run that was killed goes on from what is there.
Everything else in a run's folder (report, figures, tables) is derived and can be made again. To read a run without
this module::

    pandas.read_sql("select * from generations", sqlite3.connect("run.sqlite"))

``generations`` and ``labels`` are views there (``schema`` says what of). A store that an older mote made is brought
forward where it is opened for writing; a reader gets a copy that was, and leaves the file as it is.

Two processes must not work on one run: the store takes a lock on ``run.lock`` for as long as it is open for writing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.errors import MoteError
from mote.harness.files import Closing, canonical_json, refuse_links
from mote.harness.store.foreign import hold_to_schema, limit_time, refuse_foreign_code
from mote.harness.store.generations import (
    CHOICES,
    GenerationRow,
    MapRow,
    insert_generation,
    insert_maps,
    map_of,
    text_id,
    unfold,
)
from mote.harness.store.packed import PACKED_NAME, STORE_NAME, unpack
from mote.harness.store.schema import SCHEMA_VERSION, bring_forward, create_tables
from mote.harness.store.sqlite import UNREADABLE, Transaction, connect, copy_of, lock

__all__ = [
    "PACKED_NAME",
    "STORE_NAME",
    "GenerationRow",
    "LabelRow",
    "MapRow",
    "ProfileRow",
    "PromptRow",
    "Purpose",
    "RunStore",
    "Unlabelled",
]

Purpose = Literal["study", "ranking", "pruning", "search"]
"""Who asked for a profile: the study's plan, a comparison of rankings, a pruning, or a search."""


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


class Unlabelled(NamedTuple):
    """A generation as a judge is given it."""

    generation_id: int
    raw: str
    prompt_opens: bool
    finish_reason: str | None
    prompt_id: str = ""


class LabelRow(NamedTuple):
    """The class that one judge gave one generation, and why."""

    generation_id: int
    judge: str
    label: str
    evidence: Sequence[Mapping[str, Any]]


class RunStore(Closing):
    """A run's SQLite file, open for writing or (``read_only``) for reports. Use it as a context manager.

    Only a study makes one that isn't there; ``existing`` is for whatever adds to a run. ``db`` is the connection, for
    the modules of this room; whoever reads it from elsewhere reads what is committed. Raises MoteError where there is
    no run, where the run was made by a later version of the store, and where another process is working on it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, existing: bool = False) -> None:
        refuse_links(folder)
        self.folder = folder
        self.path = folder / STORE_NAME
        self._lock: IO[bytes] | None = None
        if (read_only or existing) and not self.path.is_file() and not unpack(folder):
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
            self.db = self._opened(read_only)
        except UNREADABLE as error:
            self._unlock()
            raise MoteError(f"{self.path} cannot be read as a run's store: {error}.") from None
        except BaseException:
            self._unlock()
            raise

    def _opened(self, read_only: bool) -> sqlite3.Connection:
        """Return a connection to the tables of this version."""
        db = connect(self.path, read_only=read_only)
        try:
            if read_only:
                limit_time(db)
            version = int(db.execute("pragma user_version").fetchone()[0])
            if version == 0 and not read_only:
                create_tables(db)
                return hold_to_schema(db, self.path, read_only=read_only)
            refuse_foreign_code(db, self.path)
            if version == SCHEMA_VERSION:
                return hold_to_schema(db, self.path, read_only=read_only)
            if not 0 < version < SCHEMA_VERSION:
                raise MoteError(
                    f"{self.path} has store version {version}; this mote reads versions 1 to {SCHEMA_VERSION}."
                )
            if not read_only:
                bring_forward(db, version)
                # Else the file keeps the room of the tables that are gone.
                db.execute("vacuum")
                return hold_to_schema(db, self.path, read_only=read_only)
            copy = copy_of(db)
            db.close()
            db = copy
            limit_time(db)
            bring_forward(db, version)
            return hold_to_schema(db, self.path, read_only=read_only)
        except BaseException:
            db.close()
            raise

    def close(self) -> None:
        """Close the file and give back the lock."""
        self.db.close()
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
        first = int(self.db.execute("select coalesce(max(position) + 1, 0) from profiles").fetchone()[0])
        rows = [
            (first + at, row.name, row.digest, row.kind, row.part, row.seed, canonical_json(dict(row.spec)))
            for at, row in enumerate(profiles)
        ]
        with closing(self.db.cursor()) as cursor, self.transaction():
            cursor.executemany("insert into splits (prompt_id, part) values (?, ?)", list((split or {}).items()))
            cursor.executemany(
                "insert into profiles (position, purpose, name, digest, kind, part, seed, spec)"
                " values (?, 'study', ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def add_generations(self, rows: Iterable[GenerationRow]) -> None:
        """Store answers of the study with their activation maps."""
        planned = {name: (position, digest) for name, position, digest in self.db.execute(_PLANNED)}
        with closing(self.db.cursor()) as cursor, self.transaction():
            for row in rows:
                position, digest = planned.get(row.profile, (None, row.profile_digest))
                if digest != row.profile_digest:
                    raise ValueError(f"a generation of '{row.prompt_id}' is not of the plan's profile '{row.profile}'")
                insert_generation(cursor, row, position)

    def add_maps(self, profile: str, maps: Mapping[str, Sequence[MapRow]]) -> None:
        """Store further maps of a profile's answers, by prompt id."""
        numbers = dict(
            self.db.execute("select prompt_id, generation_id from generations where profile = ?", (profile,))
        )
        with closing(self.db.cursor()) as cursor, self.transaction():
            for prompt, rows in maps.items():
                insert_maps(cursor, numbers[prompt], rows)

    def add_labels(self, rows: Iterable[LabelRow]) -> None:
        """Store labels; a judge labels a generation once."""
        statement = "insert into label_rows (generation_id, judge, label, evidence) values (?, ?, ?, ?)"
        with closing(self.db.cursor()) as cursor, self.transaction():
            for row in rows:
                evidence = text_id(cursor, canonical_json([dict(entry) for entry in row.evidence]))
                cursor.execute(statement, (row.generation_id, row.judge, row.label, evidence))

    # Reading.

    def prompts(self) -> list[PromptRow]:
        """Return the prompts in the order they were stored."""
        cursor = self.db.execute("select prompt_id, task, messages, attributes from prompts order by position")
        return [
            PromptRow(key, task, json.loads(messages), json.loads(attributes))
            for key, task, messages, attributes in cursor
        ]

    def profiles(self, purpose: Purpose = "study") -> list[ProfileRow]:
        """Return the profiles of one purpose in the order they were stored."""
        cursor = self.db.execute(
            "select name, digest, kind, part, seed, spec from profiles where purpose = ? order by position", (purpose,)
        )
        return [
            ProfileRow(name, digest, kind, part, seed, json.loads(spec))
            for name, digest, kind, part, seed, spec in cursor
        ]

    def split(self) -> dict[str, str]:
        """Return prompt id -> 'select' or 'measure'; empty before experts were chosen."""
        return dict(self.db.execute("select prompt_id, part from splits"))

    def stored(self) -> set[tuple[str, str]]:
        """Return (prompt id, profile) of every generation that is there."""
        return set(self.db.execute("select prompt_id, profile from generations"))

    def unlabelled(self, judge: str) -> list[Unlabelled]:
        """Return what a judge has not labelled yet, in the order in which it was generated."""
        cursor = self.db.execute(
            "select generation_id, raw, prompt_opens, finish_reason, prompt_id from generations"
            " where generation_id not in (select generation_id from labels where judge = ?) order by generation_id",
            (judge,),
        )
        return [Unlabelled(key, raw, bool(opens), reason, prompt) for key, raw, opens, reason, prompt in cursor]

    def generations_frame(self, judge: str) -> pd.DataFrame:
        """Return one row a generation, with its label by a judge (NaN where unlabelled), prompt, and profile.

        The mechanism check is left out, being longer than all else; ``mechanisms`` has it.
        """
        query = (
            f"select {_SHOWN}, l.label, l.evidence, p.position, p.task, p.messages, p.attributes, f.kind, s.part"  # noqa: S608
            " from generations g join prompts p using (prompt_id)"
            " join profiles f on f.name = g.profile and f.purpose = 'study'"
            " left join splits s using (prompt_id)"
            " left join labels l on l.generation_id = g.generation_id and l.judge = ?"
            " order by f.position, p.position"
        )
        return pd.read_sql(query, self.db, params=(judge,))

    def labels_frame(self, judge: str) -> pd.DataFrame:
        """Return profile, prompt_id and label of each answer that a judge labelled."""
        query = (
            "select f.name as profile, p.prompt_id, l.label from label_rows l"
            " join generation_rows g using (generation_id) join prompts p on p.position = g.prompt"
            " join profiles f on f.position = g.profile and f.purpose = 'study' where l.judge = ?"
            " order by f.position, p.position"
        )
        return pd.read_sql(query, self.db, params=(judge,))

    def chances_frame(self) -> pd.DataFrame:
        """Return prompt_id, profile, chance: of each profile's target class by its openings (``chances``)."""
        return pd.read_sql("select prompt_id, profile, chance from chances order by profile, prompt_id", self.db)

    def divergences_frame(self) -> pd.DataFrame:
        """Return prompt_id, profile, tokens, logp_untouched, logp_tuned of the baseline's own answers (nats)."""
        return pd.read_sql("select * from divergences order by profile, prompt_id", self.db)

    def judges(self) -> list[str]:
        """Return the names of the judges that have labelled a generation."""
        return [str(name) for (name,) in self.db.execute("select distinct judge from labels order by judge")]

    def labels_of(self, judge: str) -> pd.Series[str]:
        """Return a judge's labels by generation id."""
        rows = self.db.execute("select generation_id, label from labels where judge = ?", (judge,)).fetchall()
        return pd.Series({int(number): str(label) for number, label in rows}, dtype=object)

    def mechanisms(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield (profile, mechanism check) of each generation under a profile with edits, in the profiles' order."""
        query = (
            "select f.name, t.text, g.counts from generation_rows g join profiles f on f.position = g.profile"
            " join texts t on t.text_id = g.edits where t.text != '[]' and f.purpose = 'study'"
            " order by f.position, g.generation_id"
        )
        yield from ((profile, unfold(edits, counts)) for profile, edits, counts in self.db.execute(query))

    def maps(
        self,
        profile: str,
        role: str,
        prompts: Collection[str] | None = None,
        *,
        quantity: str = CHOICES,
        empty: bool = False,
    ) -> tuple[list[str], NDArray[Any], list[tuple[int, int]]]:
        """Return prompt ids, their maps [prompts, layers, experts], and (tokens counted, tokens in all) of each.

        Maps are int32, of the quantity WEIGHTS float32. ``prompts`` names those to read; without it all are. Left out
        are maps that count no token, as of the reasoning of an answer without one, unless ``empty``. The array
        is all the memory that is needed: 4 bytes a prompt and expert (0.6 GB for 10,000 prompts of 58 x 256).
        """
        source = (
            " from activation_maps m join generations g using (generation_id) join prompts p using (prompt_id)"
            f" where g.profile = ? and m.role = ? and m.quantity = ?{'' if empty else ' and m.counted > 0'}"
            " order by p.position"
        )
        which = (profile, role, quantity)
        shapes = self.db.execute(f"select g.prompt_id, m.layers, m.experts{source}", which)
        wanted = {str(row[0]): (row[1], row[2]) for row in shapes if prompts is None or row[0] in prompts}
        if not wanted:
            return [], np.zeros((0, 0, 0), dtype=np.int32), []
        stack = np.empty((len(wanted), *next(iter(wanted.values()))), dtype=map_of(b"", quantity).dtype)
        counted: list[tuple[int, int]] = []
        rows = self.db.execute(f"select g.prompt_id, m.activations, m.counted, m.total{source}", which)
        for prompt, blob, seen, total in rows:
            if prompt in wanted:
                stack[len(counted)] = map_of(blob, quantity).reshape(wanted[prompt])
                counted.append((seen, total))
        return list(wanted), stack, counted

    def mapped(self, profile: str, role: str, quantity: str = CHOICES) -> set[str]:
        """Return the prompts that ``maps`` would find maps of."""
        query = (
            "select g.prompt_id from activation_maps m join generations g using (generation_id)"
            " where g.profile = ? and m.role = ? and m.quantity = ?"
        )
        return {str(key) for (key,) in self.db.execute(query, (profile, role, quantity))}

    def mean_map(self, profile: str, role: str) -> NDArray[np.float64] | None:
        """Return the mean of a profile's maps, [layers, experts], without holding more than one; None without any."""
        rows = self.db.execute(
            "select m.layers, m.experts, m.activations from activation_maps m join generations g using (generation_id)"
            " where g.profile = ? and m.role = ? and m.quantity = ?",
            (profile, role, CHOICES),
        )
        total: NDArray[np.int64] | None = None
        count = 0
        for layers, experts, blob in rows:
            one = map_of(blob).reshape(layers, experts)
            total = one.astype(np.int64) if total is None else total + one
            count += 1
        return None if total is None else np.asarray(total / count, dtype=np.float64)

    def transaction(self) -> Transaction:
        """Return what makes writes within it be there whole or not at all; transactions do not nest."""
        return Transaction(self.db)

    def _insert(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self.transaction():
            self.db.executemany(statement, rows)


_PLANNED = "select name, position, digest from profiles where purpose = 'study'"
_SHOWN = ", ".join(
    f"g.{name}"
    for name in (
        *("generation_id", "prompt_id", "profile", "profile_digest", "seed", "sampling", "prompt_opens", "raw"),
        *("reasoning", "answer", "prompt_tokens", "generated_tokens", "finish_reason", "receipt"),
    )
)
