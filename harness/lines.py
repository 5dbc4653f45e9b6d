"""Files of rows, read line by line: JSONL, CSV and Parquet, JSONL and CSV also packed with gzip or xz.

A file may be larger than memory; a row that can't be read is named by its line.
"""

from __future__ import annotations

import csv
import gzip
import json
import lzma
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from mote.harness.errors import MoteError

_PACKED: Final[Mapping[str, Callable[..., IO[Any]]]] = {".gz": gzip.open, ".xz": lzma.open}
_ROWS_AT_ONCE: Final = 1024

Row = dict[str, Any]


def suffix(path: Path) -> str:
    """Return the suffix that says what a file holds, that of the packing aside: ``.jsonl`` of ``a.jsonl.xz``."""
    return (Path(path.stem) if path.suffix in _PACKED else path).suffix.casefold()


def json_lines(path: Path, what: str) -> Iterator[tuple[int, Row]]:
    """Yield (line number, object) of a file of JSON lines; ``what`` it should be is named in the errors.

    Raises MoteError at the first line that is no JSON object, and where there is no line at all.
    """
    number, empty = 0, True
    with _text(path) as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _object(path, number, line, what)
                    empty = False
        except UnicodeDecodeError:
            raise MoteError(f"{path}, line {number + 1} is not UTF-8 text: it is not {what}.") from None
        except (OSError, EOFError, lzma.LZMAError) as error:
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
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise MoteError(f"{path}, line {number} is not JSON: it is not {what}.") from None
    if not isinstance(found, dict):
        raise MoteError(f"{path}, line {number} is no JSON object: it is not {what}.")
    return found


def _text(path: Path) -> IO[str]:
    opener = _PACKED.get(path.suffix.casefold())
    if opener is not None:
        return opener(path, "rt", encoding="utf-8", newline="")
    # A file with a byte order mark is Excel's way of writing UTF-8.
    return path.open(encoding="utf-8-sig", newline="")


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    # An answer may be longer than the 128 KiB that the module takes for the end of sane fields.
    csv.field_size_limit(2**31 - 1)
    with _text(path) as lines:
        reader = csv.DictReader(lines, strict=True)
        line = 0
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise MoteError(f"{path}, line {reader.line_num} has other columns than the first line names.")
                line = reader.line_num
                yield line, dict(row)
        except csv.Error as error:
            raise MoteError(f"{path}, line {reader.line_num} is not CSV: {error}") from None
        except UnicodeDecodeError:
            raise MoteError(f"{path}, after line {line}, is not UTF-8 text.") from None
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise MoteError(f"{path} can't be read beyond line {line}: {error}") from None
    if not line:
        raise MoteError(f"{path} is empty.")


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise MoteError(f"{path} is not Parquet: {' '.join(str(error).split())}") from None
    if not number:
        raise MoteError(f"{path} is empty.")
