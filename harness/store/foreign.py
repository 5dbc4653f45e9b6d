"""What a store that may be a stranger's is held to before any of its rows is read: our tables, and views of our own.

SQL that stands in a file runs when the file is used: a view may never end, a trigger fires on a write, a virtual table
loads a module. So none of it is used. Tables have to be those of this version, by kind, columns and keys; views are
made anew in the connection, where they come before the file's; triggers other than ours are refused.
"""

from __future__ import annotations

import sqlite3
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from mote.harness.errors import MoteError
from mote.harness.store.schema import BENCH_TABLES, bring_bench_forward, create_tables
from mote.harness.store.sqlite import run_script

RUN: Final = "run"
BENCH: Final = "bench"
"""The two kinds of stores."""
_STEPS: Final = 100_000
_MOST_CALLS: Final = 400_000
"""Some minutes of SQLite alone: no question of ours to the largest of runs takes that long."""


_opened: dict[Path, str] = {}


def opened_here() -> list[tuple[Path, str]]:
    """Return the stores that this process has opened, and which kind each is, the last one first."""
    return list(reversed(_opened.items()))


def forget_opened() -> None:
    """Forget them: another command begins."""
    _opened.clear()


class _Shape(NamedTuple):
    """A table: (name, declared type, not null, place in the key) of each column, and what is unique in it."""

    columns: tuple[tuple[str, str, int, int], ...]
    unique: frozenset[tuple[str, ...]]


class _Schema(NamedTuple):
    tables: dict[str, _Shape]
    views: dict[str, str]
    triggers: dict[str, str]


def limit_time(db: sqlite3.Connection, calls: int = _MOST_CALLS) -> None:
    """Interrupt what SQLite computes in a connection after so many times 100,000 of its steps in all."""
    left = calls

    def tick() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    db.set_progress_handler(tick, _STEPS)


def refuse_foreign_code(db: sqlite3.Connection, where: Path, schema: str = RUN) -> None:
    """Raise MoteError where a store of any version holds triggers that are none of ours, or virtual tables."""
    _opened[where] = schema
    for kind, name, sql in db.execute("select type, name, coalesce(sql, '') from sqlite_master").fetchall():
        text = _plain(str(sql))
        if kind == "trigger" and _plain(_ours(schema).triggers.get(name, "-")) != text:
            raise MoteError(
                f"{where}: the trigger '{str(name)[:60]}' is none of mote's; a store with others is not read."
            )
        if kind == "table" and not text.startswith("create table"):
            raise MoteError(f"{where}: '{str(name)[:60]}' is a virtual table; a store with such is not read.")


def hold_to_schema(db: sqlite3.Connection, where: object, schema: str = RUN, *, read_only: bool) -> sqlite3.Connection:
    """Put our own views before the file's, and return the connection, which writes nothing where it is ``read_only``.

    Raises MoteError unless the store has the tables of this version.
    """
    ours = _ours(schema)
    kinds = dict(db.execute("select name, type from main.sqlite_master where type in ('table', 'view')").fetchall())
    for name, shape in ours.tables.items():
        if kinds.get(name) != "table":
            raise MoteError(f"{where} has no table '{name}': it is not a {schema}'s store.")
        if _shape(db, name) != shape:
            raise MoteError(f"{where}: the table '{name}' has other columns or keys than a {schema}'s.")
    db.execute("pragma query_only = off")
    for name, sql in ours.views.items():
        db.execute(f"create temp view {name} as {sql}")
    if read_only:
        db.execute("pragma query_only = on")
    return db


def _shape(db: sqlite3.Connection, table: str) -> _Shape:
    rows = db.execute(
        "select name, type, \"notnull\", pk, hidden from pragma_table_xinfo(?, 'main')", (table,)
    ).fetchall()
    columns = tuple(
        (str(name), str(kind).lower() if not hidden else "computed", null, key)
        for name, kind, null, key, hidden in rows
    )
    unique = set()
    for name, is_unique, origin, partial in db.execute(
        "select name, \"unique\", origin, partial from pragma_index_list(?, 'main')", (table,)
    ).fetchall():
        if is_unique and not partial and origin in ("u", "pk"):
            found = db.execute("select name from pragma_index_info(?, 'main') order by seqno", (name,)).fetchall()
            unique.add(tuple(str(column) for (column,) in found))
    return _Shape(columns, frozenset(unique))


@cache
def _ours(schema: str) -> _Schema:
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        if schema == RUN:
            create_tables(db)
        else:
            run_script(db, BENCH_TABLES)
            bring_bench_forward(db)
        found = db.execute("select type, name, sql from sqlite_master where sql is not null order by rowid").fetchall()
        tables = {name: _shape(db, name) for kind, name, _ in found if kind == "table"}
        views = {name: sql.partition(" as ")[2] for kind, name, sql in found if kind == "view"}
        return _Schema(tables, views, {name: sql for kind, name, sql in found if kind == "trigger"})
    finally:
        db.close()


def _plain(sql: str) -> str:
    return " ".join(sql.lower().replace("if not exists ", "").split())
