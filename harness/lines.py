"""Files of rows, read line by line: JSONL, CSV and Parquet, JSONL and CSV also packed with gzip or xz.

A file may be larger than memory; a row that can't be read is named by its line.
"""

from __future__ import annotations

import csv
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from mote.harness.errors import MoteError
from mote.reading import UnreadableError, open_regular, parse_json

_PACKED: Final[Mapping[str, Callable[[IO[bytes]], Any]]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".xz": lzma.LZMAFile,
}
_ROWS_AT_ONCE: Final = 1024
_LONGEST: Final = 32 << 20
"""Bytes of a row: an answer of a million tokens has some 5 MB."""
_RATIO: Final = 200
_ALWAYS: Final = 64 << 20
_BROKEN: Final = (OSError, EOFError, lzma.LZMAError, zlib.error)

Row = dict[str, Any]


def suffix(path: Path) -> str:
    """Return the suffix that says what a file holds, that of the packing aside: ``.jsonl`` of ``a.jsonl.xz``."""
    return (Path(path.stem) if path.suffix in _PACKED else path).suffix.casefold()


def json_lines(path: Path, what: str) -> Iterator[tuple[int, Row]]:
    """Yield (line number, object) of a file of JSON lines; ``what`` it should be is named in the errors.

    Raises MoteError at the first line that is no JSON object, and where there is no line at all.
    """
    number, empty = 0, True
    with _lines(path) as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _object(path, number, line, what)
                    empty = False
        except UnicodeDecodeError:
            raise MoteError(f"{path}, line {number + 1} is not UTF-8 text: it is not {what}.") from None
        except UnreadableError as error:
            raise MoteError(f"{path}, line {number + 1} {error}.") from None
        except _BROKEN as error:
            raise MoteError(f"{path} can't be read beyond line {number}: {error}") from None
    if empty:
        raise MoteError(f"{path} is empty.")


def first_object(path: Path) -> Row:
    """Return the first object of a file of JSON lines; raises MoteError as ``json_lines``."""
    return next(json_lines(path, "a file of answers, one JSON object a line"))[1]


def table_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line or row number, row) of a table: .jsonl, .csv or .parquet. Raises MoteError as ``json_lines``."""
    kind = suffix(path)
    if kind == ".parquet":
        yield from _parquet(path)
    elif kind == ".csv":
        yield from _csv(path)
    else:
        yield from json_lines(path, "a file of answers, one JSON object a line")


def _object(path: Path, number: int, line: str, what: str) -> Row:
    try:
        found = parse_json(line, _LONGEST, nan=True)
    except UnreadableError as error:
        why = "" if str(error).startswith("is not JSON") else f" ({error})"
        raise MoteError(f"{path}, line {number} is not JSON: it is not {what}{why}.") from None
    if not isinstance(found, dict):
        raise MoteError(f"{path}, line {number} is no JSON object: it is not {what}.")
    return found


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """Yield the lines of a file, unpacked: none longer than 32 MiB, and not more of them than a packed file can hold.

    Raises MoteError where there is no such file, and UnreadableError, as the lines are taken, beyond those bounds.
    """
    try:
        file = open_regular(path)
    except UnreadableError as error:
        raise MoteError(f"{path} {error}.") from None
    opener = _PACKED.get(path.suffix.casefold())
    with file, file if opener is None else opener(file) as unpacked:
        most = max(_ALWAYS, _RATIO * path.stat().st_size) if opener is not None else None
        yield _bounded(unpacked, most)


def _bounded(file: IO[bytes], most: int | None) -> Iterator[str]:
    read, first = 0, True
    while line := file.readline(_LONGEST + 1):
        read += len(line)
        if len(line) > _LONGEST:
            raise UnreadableError(f"is longer than {_LONGEST:,} bytes")
        if most is not None and read > most:
            raise UnreadableError(f"is beyond the {most:,} bytes that a packed file of this size may hold")
        # A file with a byte order mark is Excel's way of writing UTF-8.
        yield line.decode("utf-8-sig" if first else "utf-8")
        first = False


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    # An answer may be longer than the 128 KiB that the module takes for the end of sane fields.
    csv.field_size_limit(2**31 - 1)
    with _lines(path) as lines:
        reader = csv.DictReader(lines, strict=True)
        line = 0
        try:
            for row in reader:
                names = reader.fieldnames or ()
                if not line and len(set(names)) != len(names):
                    raise MoteError(f"{path} names a column twice in its first line.")
                if None in row or None in row.values():
                    raise MoteError(f"{path}, line {reader.line_num} has other columns than the first line names.")
                line = reader.line_num
                yield line, dict(row)
        except csv.Error as error:
            raise MoteError(f"{path}, line {reader.line_num} is not CSV: {error}") from None
        except UnicodeDecodeError:
            raise MoteError(f"{path}, after line {line}, is not UTF-8 text.") from None
        except UnreadableError as error:
            raise MoteError(f"{path}, after line {line}: a line {error}.") from None
        except _BROKEN as error:
            raise MoteError(f"{path} can't be read beyond line {line}: {error}") from None
    if not line:
        raise MoteError(f"{path} is empty.")


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        with open_regular(path) as opened, parquet.ParquetFile(opened) as file:
            number = 0
            _check_parquet(path, file.metadata)
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except UnreadableError as error:
        raise MoteError(f"{path} {error}.") from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise MoteError(f"{path} is not Parquet: {' '.join(str(error).split())}") from None
    if not number:
        raise MoteError(f"{path} is empty.")


def _check_parquet(path: Path, metadata: Any) -> None:
    """Refuse what becomes far larger in memory than the file is: rows that cost nothing, columns that unpack on."""
    size = path.stat().st_size
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    unpacked = sum(group.total_byte_size for group in groups)
    if metadata.num_rows > max(1_000_000, size) or unpacked > max(_ALWAYS, _RATIO * size):
        raise MoteError(f"{path} holds {metadata.num_rows:,} rows of {unpacked:,} bytes, far more than its size bears.")
