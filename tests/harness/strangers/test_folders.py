"""Sixty hostile run folders and more: SQL that never ends, bombs, flipped bits, wrong types, orphans, broken JSON.

Each command on each of them ends as a user's mistake does, or as if nothing was wrong where what is wrong is not read;
in seconds, with nothing written and nothing outside of the folder read.
"""

from __future__ import annotations

import json
import lzma
import os
import resource
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mote.harness.store.checking import faults_of
from tests.harness.mt_bench.parts import answered
from tests.harness.report.written_run import WrittenRun, write_run
from tests.harness.strangers.calls import MOST_SHOWN, digests, mote, refused
from tests.harness.strangers.mutations import seeded

MOST_SECONDS = 5.0
ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n) select"

Break = Callable[[Path], None]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("written") / "run", WrittenRun(prompts=24, controls=0, top_k=3))
    assert mote("compare", f"{folder}:baseline", f"{folder}:suppress-3").code == 0  # whatever else takes its time
    return folder


def sql(*statements: str, parameters: tuple[Any, ...] = ()) -> Break:
    def run(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "run.sqlite", isolation_level=None)) as db:
            db.execute("pragma foreign_keys = off")
            db.execute("pragma legacy_alter_table = on")
            for statement in statements:
                db.execute(statement, parameters if "?" in statement else ())

    return run


def instead(name: str, make: Callable[[Path], Any]) -> Break:
    """Put something else where a file was."""

    def run(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return run


def schema(old: str, new: str) -> Break:
    """Rewrite what the file says of its tables, as no statement could."""

    def run(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "run.sqlite", isolation_level=None)) as db:
            db.execute("pragma writable_schema = on")
            db.execute("update sqlite_master set sql = replace(sql, ?, ?)", (old, new))

    return run


def raw(change: Callable[[bytes], bytes]) -> Break:
    def run(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "run.sqlite", isolation_level=None)) as db:
            db.execute("pragma wal_checkpoint(truncate)")
            db.execute("pragma journal_mode = delete")
        (folder / "run.sqlite").write_bytes(change((folder / "run.sqlite").read_bytes()))

    return run


def packed(content: bytes, *, cut: int = 0) -> Break:
    def run(folder: Path) -> None:
        (folder / "run.sqlite").unlink()
        found = lzma.compress(content, preset=0)
        (folder / "run.sqlite.xz").write_bytes(found[: len(found) - cut])

    return run


def text_of(column: str, table: str, content: str) -> Break:
    """Replace one of the texts that a column points at."""
    return sql(f"update texts set text = ? where text_id = (select min({column}) from {table})", parameters=(content,))  # noqa: S608


def flipped(data: bytes) -> bytes:
    """A bit in the midst of an answer's text, which SQLite does not see."""
    at = data.find(b"I am sorry") if b"I am sorry" in data else data.rfind(b"the ")
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def noise(share: float) -> Callable[[bytes], bytes]:
    def run(data: bytes) -> bytes:
        rng, found = seeded(), bytearray(data)
        for _ in range(max(1, int(len(data) * share))):
            found[rng.randrange(100, len(data))] = rng.randrange(256)
        return bytes(found)

    return run


def manifest(**values: Any) -> Break:
    def run(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return run


FOLDERS: dict[str, Break] = {
    # SQL of a stranger's.
    **{
        f"{view} never ends": sql(f"drop view {view}", f"create view {view} as {ENDLESS} x as generation_id from n")
        for view in (
            "generations",
            "answers",
            "labels",
            "scan_scores",
            "search_passes",
            "surprises",
            "chances",
            "divergences",
        )
    },
    "a table is a view": sql(
        "alter table splits rename to s", f"create view splits as {ENDLESS} x as prompt_id, x as part from n"
    ),
    "texts are a view": sql("alter table texts rename to t", "create view texts as select * from t"),
    "a trigger that never ends": sql(
        f"create trigger evil after insert on label_rows begin select count(*) from ({ENDLESS} x from n); end"  # noqa: S608
    ),
    "a trigger of our name": sql(
        "drop trigger labels_mended",
        "create trigger labels_mended after insert on label_rows begin delete from texts; end",
    ),
    "a virtual table": sql("create virtual table evil using fts5(x)"),
    "a table that is virtual": sql("drop table splits", "create virtual table splits using fts5(prompt_id, part)"),
    "a computed column": sql(
        "drop table splits",
        "create table splits (prompt_id text primary key, part text as (hex(zeroblob(500000000)))) without rowid",
    ),
    "a column of another type": sql(
        "drop table splits", "create table splits (prompt_id blob primary key, part text not null) without rowid"
    ),
    "a table without its key": sql(
        "create table u as select * from prompts", "drop table prompts", "alter table u rename to prompts"
    ),
    "a column less": sql("alter table judgments drop column seconds"),
    "a column more": sql("alter table texts add column more text"),
    "no table": sql("drop table texts"),
    "no tables": instead("run.sqlite", lambda path: path.write_bytes(b"")),
    "an index that is a bomb": sql("create index evil on texts (hex(substr(text, 1, 1)))"),
    "a broken schema": schema("create", "crate"),
    "a schema of nonsense": schema("text", "text) ("),
    **{f"version {number}": sql(f"pragma user_version = {number}") for number in (-1, 0, 1, 2, 3, 4, 99, 2**31 - 1)},
    # Values of other kinds than the tables say.
    **{
        f"{column} of {table} is {kind}": sql(f"update {table} set {column} = {value}")  # noqa: S608
        for table, column, kind, value in (
            ("prompts", "messages", "a blob", "x'00ff'"),
            ("prompts", "attributes", "a number", "17"),
            ("prompts", "task", "a blob", "x'00'"),
            ("texts", "text", "a blob", "x'ff'"),
            ("generation_rows", "seed", "a text", "'many'"),
            ("generation_rows", "prompt_tokens", "a text", "'x'"),
            ("generation_rows", "counts", "a blob", "x'00'"),
            ("generation_rows", "raw", "of no text", "999999"),
            ("generation_rows", "edits", "of no text", "999999"),
            ("label_rows", "label", "a blob", "x'00'"),
            ("label_rows", "evidence", "of no text", "999999"),
            ("activation_maps", "activations", "short", "x'00'"),
            ("activation_maps", "layers", "huge", "1000000000"),
            ("activation_maps", "experts", "negative", "-4"),
            ("profiles", "spec", "a number", "1"),
            ("profiles", "kind", "of another", "'x'"),
            ("profiles", "name", "an order to a terminal", "name || char(27) || '[2J'"),
        )
    },
    # JSON that is none, or has another form.
    **{
        f"{column} of {table} as {content[:12]}": sql(f"update {table} set {column} = ?", parameters=(content,))  # noqa: S608
        for table, column in (
            ("prompts", "messages"),
            ("prompts", "attributes"),
            ("profiles", "spec"),
            ("generation_rows", "counts"),
        )
        for content in ("{", "[]", '[{"role": 1}]', "[" * 5000, '{"a": NaN}')
    },
    **{
        f"{column} as {content[:12]}": text_of(column, table, content)
        for column, table in (
            ("sampling", "generation_rows"),
            ("receipt", "generation_rows"),
            ("edits", "generation_rows"),
            ("evidence", "label_rows"),
        )
        for content in ("", "{", "[1]", '[{"rule": 1}]')
    },
    # Bytes.
    "a flipped bit": raw(flipped),
    "a page of noise": raw(noise(0.0005)),
    "noise all over": raw(noise(0.02)),
    # It turned up in the noise: no error of SQLite's, but one of Python's.
    "a table's name that is no text": raw(lambda data: data.replace(b"generation_rows", b"generation_row\xa0")),
    "a column's name that is no text": raw(lambda data: data.replace(b"finish_reason", b"finish_reaso\xa0")),
    "half a file": raw(lambda data: data[: len(data) // 2]),
    "a head alone": raw(lambda data: data[:100]),
    "no SQLite": raw(lambda data: b"no database" * 1000),
    "pages of another size": raw(lambda data: data[:16] + b"\x02\x00" + data[18:]),
    # Bombs.
    "a bomb of zeros": packed(b"SQLite format 3\0" + bytes(90 << 20)),
    "packed text": packed(b"x" * 100_000),
    "packed nothing": packed(b""),
    "packed and cut": packed(b"SQLite format 3\0" + os.urandom(1000), cut=20),
    "a huge value": sql("update texts set text = hex(zeroblob(100000000)) where text_id = 1"),
    # Files of other kinds.
    "a folder as store": instead("run.sqlite", Path.mkdir),
    "a pipe as store": instead("run.sqlite", os.mkfifo),
    "a pipe as lock": instead("run.lock", os.mkfifo),
    "a folder as manifest": instead("manifest.json", Path.mkdir),
    "a manifest of an order": manifest(finished="\x1b]0;owned\x07"),
    "a manifest without a recipe": manifest(recipe={}),
    "a manifest of a huge model": manifest(
        model={
            "name": "x",
            "path": "x",
            "files": {},
            "layout": {"architecture": "x", "layers": [0], "experts": 10**12, "top_k": 1},
        }
    ),
    "tables that are a file": instead("tables", lambda path: path.write_text("x")),
}


def test_there_are_at_least_sixty() -> None:
    assert len(FOLDERS) >= 60


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_folder_ends_in_a_line(written: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "run"))
    FOLDERS[name](folder)
    before, memory = digests(tmp_path), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Every second folder is compared, the others exported.
    compared = ("compare", f"{folder}:baseline", f"{folder}:suppress-3")
    used = compared if list(FOLDERS).index(name) % 2 else ("export", folder, "--out", tmp_path / "export")
    for arguments in (("ls", tmp_path), ("check", folder), used):
        # Of this process alone: the machine may be busy with others.
        began = time.process_time()
        called = mote(*arguments)
        assert time.process_time() - began < MOST_SECONDS, arguments
        assert "\x1b" not in called.out
        if called.code == 2:
            refused(called)
        else:
            assert called.code in (0, 1), called
            assert len(called.err) <= MOST_SHOWN
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 500_000
    after = {key: value for key, value in digests(tmp_path).items() if not key.startswith("export")}
    # SQLite takes its log in when a store is closed, and a lock is made; no row and no other file is another.
    ours = ("run/run.sqlite", "run/run.sqlite-wal", "run/run.sqlite-shm", "run/run.lock")
    assert {key: one for key, one in after.items() if key not in ours} == {
        key: one for key, one in before.items() if key not in ours
    }


@pytest.mark.parametrize(
    "name", ["a flipped bit", "raw of generation_rows is of no text", "counts of generation_rows as {"]
)
def test_what_is_wrong_is_found_before_it_is_read_as_an_answer(written: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "run"))
    assert faults_of(folder) == []
    assert mote("check", folder).code == 0
    FOLDERS[name](folder)
    assert faults_of(folder)
    refused(mote("check", folder), "damaged")


def test_a_bomb_is_not_unpacked_by_a_list(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "run"))
    FOLDERS["a bomb of zeros"](folder)
    before = digests(folder)
    called = mote("ls", tmp_path)
    assert (called.code, called.out.split()[-1]) == (0, "packed")
    refused(mote("export", folder), "could not be unpacked")
    assert digests(folder) == before


def test_a_broken_run_hides_no_other_and_a_report_of_it_is_a_line(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "good")
    for name in ("generations never ends", "a flipped bit", "a manifest without a recipe", "no tables"):
        folder = Path(shutil.copytree(written, tmp_path / name.replace(" ", "-")))
        FOLDERS[name](folder)
    called = mote("ls", tmp_path)
    assert called.code == 0
    assert len(called.out.strip().splitlines()) == 6
    refused(mote("report", tmp_path / "a-manifest-without-a-recipe"))
    refused(mote("report", tmp_path / "no-tables"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store, _ = answered(tmp_path_factory.mktemp("benches") / "bench")
    store.close()
    return store.folder


@pytest.mark.parametrize(
    "statement",
    [
        "update models set profile = '{'",
        "update models set source = '[1]'",
        "update models set profile = x'00'",
        "update answers set receipt = 'x'",
        "update answers set category = x'ff'",
        "update answers set question_id = question_id || 'x'",
        "create trigger evil after insert on answers begin delete from answers; end",
        "create virtual table evil using fts5(x)",
        "drop table judgments",
        "delete from bench",
        "pragma user_version = 77",
    ],
)
def test_a_hostile_bench_ends_in_a_line(written: Path, bench: Path, tmp_path: Path, statement: str) -> None:
    folder = Path(shutil.copytree(bench, tmp_path / "bench"))
    with closing(sqlite3.connect(folder / "mt_bench.sqlite", isolation_level=None)) as db:
        db.execute(statement)
    # Without ratings there is nothing to show; a damaged bench is told apart, or is none of what is read.
    refused(mote("mt-bench", "show", folder))
    refused(mote("report", written, "--mt-bench", folder))
