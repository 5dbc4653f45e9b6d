"""Whether a run's rows are whole: SQLite's own check, each value's type, each text's digest, each JSON's form.

A store may have been a stranger's, or lain on a disk that turns bits. A flipped bit must not be read as an answer, and
a damaged row must not end in a traceback: ``mote check`` asks here before a run is trusted, and the command line asks
where a command broke down, to tell a damaged run from a mistake of ours.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, Final

from mote.harness.errors import MoteError
from mote.harness.store.foreign import RUN, limit_time, opened_here
from mote.harness.store.run import RunStore
from mote.harness.store.sqlite import UNREADABLE, connect
from mote.patches import Profile, ProfileError
from mote.reading import UnreadableError, parse_json

_JsonForm = tuple[str, str, Callable[[Any], bool]]
"""What stands somewhere, the rows (key, text) where it does, and whether a value has its form."""
_KINDS: Final = {"integer": ("integer",), "text": ("text",), "blob": ("blob",), "real": ("real", "integer")}


def faults_of(folder: Path) -> list[str]:
    """Return what is wrong with the rows of a run, a line each, the first of each kind; none where all is whole.

    Raises MoteError where there is no store that can be opened at all.
    """
    with RunStore(folder, read_only=True) as store:
        try:
            return list(_faults(store.db))
        except UNREADABLE as error:
            return [f"{store.path.name} cannot be read to its end: {error}"]


def refuse_damaged(store: RunStore) -> None:
    """Raise MoteError where SQLite finds a store broken, or a text is not what was stored.

    Done before a run is gone on with; ``faults_of`` looks at the rest, too, and takes some twenty times as long.
    """
    try:
        found = next(chain(_broken_pages(store.db), _other_texts(store.db)), None)
    except UNREADABLE as error:
        found = f"it cannot be read to its end: {error}"
    if found is not None:
        raise MoteError(f"{store.path} is damaged: {found}. Nothing is added to it; take a copy that is whole.")


def damage() -> str | None:
    """Return what is wrong with the runs that this process has opened, in a line; None where nothing is found."""
    for path, schema in opened_here():
        try:
            found = faults_of(path.parent) if schema == RUN else _bench_faults(path)
        except MoteError as error:
            return str(error)
        if found:
            return f"{path.parent} is damaged: {found[0]}"
    return None


def _bench_faults(path: Path) -> list[str]:
    with closing(connect(path, read_only=True)) as db:
        limit_time(db)
        try:
            return list(_broken(db, _BENCH_FORMS))
        except UNREADABLE as error:
            return [f"{path.name} cannot be read to its end: {error}"]


def _faults(db: sqlite3.Connection) -> Iterator[str]:
    yield from _broken(db, _FORMS)
    yield from _other_texts(db)
    yield from _blobs(db)


def _other_texts(db: sqlite3.Connection) -> Iterator[str]:
    for number, digest, text in db.execute("select text_id, digest, text from texts"):
        if not isinstance(text, str) or hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] != digest:
            yield f"text {number} is not what was stored: its digest differs"
            break


def _broken_pages(db: sqlite3.Connection) -> Iterator[str]:
    for (said,) in db.execute("pragma quick_check(3)").fetchall():
        if said != "ok":
            yield f"SQLite finds it broken: {str(said)[:120]}"
            return


def _broken(db: sqlite3.Connection, forms: Sequence[_JsonForm]) -> Iterator[str]:
    broken = list(_broken_pages(db))
    yield from broken
    if broken:
        return
    for table in _tables(db):
        yield from _types(db, table)
    for what, query, whole in forms:
        for key, content in db.execute(query):
            if (why := _form(content, whole)) is not None:
                yield f"{what} of {str(key)[:60]} {why}"
                break


def _tables(db: sqlite3.Connection) -> list[str]:
    found = db.execute("select name from main.sqlite_master where type = 'table' and name not like 'sqlite_%'")
    return [str(name) for (name,) in found]


def _types(db: sqlite3.Connection, table: str) -> Iterator[str]:
    for name, kind, null in db.execute('select name, lower(type), "notnull" from pragma_table_info(?)', (table,)):
        allowed = [*_KINDS.get(str(kind), ()), *([] if null else ["null"])]
        if str(kind) not in _KINDS:
            continue
        marks = ", ".join("?" * len(allowed))
        query = f'select typeof("{name}") from "{table}" where typeof("{name}") not in ({marks}) limit 1'  # noqa: S608
        if (wrong := db.execute(query, allowed).fetchone()) is not None:
            yield f"a {wrong[0]} stands in {table}.{name}, which holds {kind}"


def _form(content: Any, whole: Callable[[Any], bool]) -> str | None:
    try:
        value = parse_json(content)
    except (UnreadableError, TypeError) as error:
        return str(error)
    try:
        return None if whole(value) else "has another form than mote writes"
    except (KeyError, TypeError, ValueError, ProfileError):
        return "has another form than mote writes"


def _messages(value: Any) -> bool:
    return bool(value) and all(isinstance(one["role"], str) and isinstance(one["content"], str) for one in value)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _list(value: Any) -> bool:
    return isinstance(value, list)


def _profile(value: Any) -> bool:
    return bool(Profile.from_dict(value).name)


def _receipt(value: Any) -> bool:
    return isinstance(value["digest"], str)


def _evidence(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one["rule"], str) and isinstance(one["span"], str) and type(one["start"]) is type(one["end"]) is int
        for one in value
    )


def _lowest(value: Any) -> bool:
    return isinstance(value, list) and all(len(one) == 3 and isinstance(one[0], int | float) for one in value)


_BENCH_FORMS: Final[Sequence[_JsonForm]] = (
    ("the profile", "select model_id, profile from models", _profile),
    ("the source", "select model_id, source from models", _object),
    ("the receipt", "select answer_id, receipt from answers", _object),
    ("the mechanism check", "select answer_id, mechanism from answers", _list),
)
_TEXTS: Final = "select text_id, text from texts where text_id in (select {column} from {table})"
_FORMS: Final[Sequence[_JsonForm]] = (
    ("the messages", "select prompt_id, messages from prompts", _messages),
    ("the attributes", "select prompt_id, attributes from prompts", _object),
    ("the edits", "select name, spec from profiles", _profile),
    ("the sampling", _TEXTS.format(column="sampling", table="generation_rows"), _object),
    ("the receipt", _TEXTS.format(column="receipt", table="generation_rows"), _receipt),
    ("the edits", _TEXTS.format(column="edits", table="generation_rows"), _objects),
    ("the counts", "select generation_id, counts from generation_rows", _object),
    ("the evidence", _TEXTS.format(column="evidence", table="label_rows"), _evidence),
    ("the surprise", "select raw, lowest from surprise_rows", _lowest),
    ("the settings", "select scan_id, settings from scans", _object),
    ("the scores", "select scan_id, logprobs from scan_score_rows", _list),
    ("the tokens", _TEXTS.format(column="tokens", table="scan_score_rows"), _list),
    ("the experts", _TEXTS.format(column="experts", table="mask_score_rows"), _list),
    ("the edits", _TEXTS.format(column="edits", table="search_pass_rows"), _list),
    ("the settings", "select pruning_id, settings from prunings", _object),
    ("the rounds", "select pruning_id, rounds from prunings", _list),
    ("the messages", "select judgment_id, messages from judgments", _list),
)


def _blobs(db: sqlite3.Connection) -> Iterator[str]:
    query = (
        "select generation_id, role from activation_maps where layers < 1 or experts < 1"
        " or length(activations) <> 4 * layers * experts limit 1"
    )
    if (wrong := db.execute(query).fetchone()) is not None:
        yield f"the activation map of generation {wrong[0]} ({str(wrong[1])[:40]}) has another size than it says"
    shapes = db.execute("select count(*) from (select distinct layers, experts from activation_maps)").fetchone()[0]
    if shapes > 1:
        yield f"its activation maps have {shapes} different shapes"
    query = "select prompt_id from token_rows where length(experts) <> 2 * layers * top_k limit 1"
    if (wrong := db.execute(query).fetchone()) is not None:
        yield f"the experts of a token of {str(wrong[0])[:60]} have another size than they say"
    for what, query in _LOOSE:
        if (wrong := db.execute(query).fetchone()) is not None:
            yield f"{what} ({str(wrong[0])[:60]})"


_LOOSE: Final = (
    (
        "a generation is of no prompt, profile or text that is there",
        "select generation_id from generation_rows g where prompt not in (select position from prompts)"
        " or profile not in (select position from profiles)"
        " or raw not in (select text_id from texts) or sampling not in (select text_id from texts)"
        " or receipt not in (select text_id from texts) or edits not in (select text_id from texts) limit 1",
    ),
    (
        "a label is of no generation or evidence that is there",
        "select generation_id from label_rows where generation_id not in (select generation_id from generation_rows)"
        " or evidence not in (select text_id from texts) limit 1",
    ),
    (
        "an activation map is of no generation that is there",
        "select generation_id from activation_maps"
        " where generation_id not in (select generation_id from generation_rows) limit 1",
    ),
    (
        "a prompt of the split is not there",
        "select prompt_id from splits where prompt_id not in (select prompt_id from prompts) limit 1",
    ),
)
