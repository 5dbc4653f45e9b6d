"""Logs of Inspect (inspect_ai), read by their documented format, without inspect_ai.

An ``.eval`` file is a zip archive: ``header.json`` and a JSON file a sample and epoch under ``samples/``. A ``.json``
log is one object with all samples in it (https://inspect.aisi.org.uk/eval-logs.html). Since 2026 Inspect packs the
archive's members with Zstandard, which Python's zipfile reads from 3.14 on; pyarrow unpacks them here. Written against
log version 2 of inspect_ai 0.3.285. Our provider leaves a receipt in each output's metadata (``inspect_receipts``).
"""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mote.harness.compare.answers import Answers, finish_of, raw_of, rows_of, scores_of
from mote.harness.compare.inspect_receipts import Receipts, receipt_notes
from mote.harness.errors import MoteError
from mote.harness.store.questions import last_question
from mote.judges import Markers
from mote.reading import UnreadableError, open_regular, parse_json, read_bytes

_ZSTANDARD: Final = 93
_LOCAL_HEADER: Final = 30
_LARGEST: Final = 64 << 20
_LARGEST_LOG: Final = 512 << 20
_MOST_MEMBERS: Final = 1_000_000
_VALUES: Final = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""What Inspect's ``value_to_float`` makes of correct, partial, incorrect and no answer."""
_ERROR: Final = "error"
_BROKEN: Final = (
    *(ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, NotImplementedError, struct.error),
    *(zlib.error, lzma.LZMAError),
)
"""What reading a damaged archive raises; zipfile's RuntimeError is of a member that is encrypted, its
NotImplementedError of a way of compression that it does not know."""


def read_inspect(path: Path, markers: Markers, receipts: bool = True) -> Answers:
    """Read a log of Inspect: the first choice of each sample and epoch, and its scores.

    A sample that ended in an error, or whose limit stopped it, has no answer: it can't be scored, and is counted in the
    notes. Raises MoteError where the file is no log, or holds no samples, where receipts are of several profiles, and
    where a log of our provider has answers without one, unless ``receipts`` is False.
    """
    header, samples = _zipped(path) if path.suffix == ".eval" else _whole(path)
    proved = Receipts(path, str(header["eval"].get("model", "")))
    rows, scores = [], []
    errors, seen = 0, set()
    config = header["eval"].get("config")
    epochs = config.get("epochs") if isinstance(config, Mapping) else None
    several = isinstance(epochs, int) and epochs > 1
    for where, sample in samples:
        row = _row(path, where, sample, markers, several)
        if row["key"] in seen:
            raise MoteError(f"{path}: {where} is the sample '{row['key']}' once more.")
        seen.add(row["key"])
        failed = row["finish_reason"] == _ERROR
        errors += failed
        row |= proved.seen(row["key"], receipt_notes(path, where, sample, proved.model), failed)
        rows.append(row)
        scores += list(_scores(row["key"], sample))
    if not rows:
        raise MoteError(f"{path} holds no samples: it was written without them, or the evaluation never began.")
    proved.check(receipts)
    notes = [f"{errors} of {len(rows)} samples of {path.name} ended without an answer; they are UNSCORED."]
    unfinished = header.get("status") not in ("success", None)
    return Answers(
        name=path.name,
        source="inspect",
        task=str(header["eval"].get("task", "")),
        profile=proved.profile,
        digests=proved.digests,
        model=proved.files,
        sham_of=proved.sham_of,
        rows=rows_of(rows),
        scores=scores_of(scores),
        markers=markers,
        notes=tuple(
            (notes if errors else [])
            + ([f"{path.name} has the status '{header['status']}': the evaluation did not end."] if unfinished else [])
        ),
    )


def _zipped(path: Path) -> tuple[dict[str, Any], Iterator[tuple[str, dict[str, Any]]]]:
    _check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.namelist()) > _MOST_MEMBERS:
                raise ValueError(f"it holds {len(archive.namelist()):,} files")
            names = sorted(name for name in archive.namelist() if name.startswith("samples/"))
            # An evaluation that was killed has its journal, and no header yet.
            first = next((name for name in ("header.json", "_journal/start.json") if name in archive.namelist()), None)
            header = _member(path, archive, first) if first else {}
    except _BROKEN as error:
        raise MoteError(f"{path} is no log of Inspect: {error}") from None
    if not isinstance(header.get("eval"), dict):
        raise MoteError(f"{path} is no log of Inspect: it has no header.json with an 'eval'.")
    if first != "header.json":
        header["status"] = "started"

    def samples() -> Iterator[tuple[str, dict[str, Any]]]:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                yield name, _member(path, archive, name)

    return header, samples()


def _check_regular(path: Path) -> None:
    try:
        open_regular(path).close()
    except UnreadableError as error:
        raise MoteError(f"{path} {error}.") from None


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    try:
        found = parse_json(_unpacked(archive, archive.getinfo(name)), _LARGEST, nan=True)
    except UnreadableError as error:
        raise MoteError(f"{path}: {name[:80]} can't be read: it {error}.") from None
    except _BROKEN as error:
        raise MoteError(f"{path}: {name} can't be read: {error}") from None
    if not isinstance(found, dict):
        raise MoteError(f"{path}: {name} is not a JSON object.")
    return found


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > _LARGEST:
        raise ValueError(f"it holds {member.file_size:,} bytes, more than {_LARGEST:,}")
    if member.flag_bits & 1:
        raise ValueError("it is encrypted")
    if member.compress_type != _ZSTANDARD:
        return archive.read(member)
    import pyarrow as pa  # type: ignore[import-untyped]

    file = archive.fp
    if file is None:
        raise ValueError("the archive is closed")
    file.seek(member.header_offset)
    # The local header has its own lengths of name and extra field, which may differ from the directory's.
    name, extra = struct.unpack("<HH", file.read(_LOCAL_HEADER)[26:30])
    file.seek(member.header_offset + _LOCAL_HEADER + name + extra)
    packed = file.read(member.compress_size)
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        content = bytes(stream.read(member.file_size + 1))
    if zlib.crc32(content) != member.CRC:
        raise ValueError("its checksum is wrong")
    return content


def _whole(path: Path) -> tuple[dict[str, Any], Iterable[tuple[str, dict[str, Any]]]]:
    try:
        found = parse_json(read_bytes(path, _LARGEST_LOG), _LARGEST_LOG, nan=True)
    except UnreadableError as error:
        raise MoteError(f"{path} {error}: it is no log of Inspect; a table of answers ends in .jsonl.") from None
    if not isinstance(found, dict) or not isinstance(found.get("eval"), dict):
        raise MoteError(f"{path} has no 'eval': it is no log of Inspect; a table of answers ends in .jsonl.")
    samples = found.get("samples") or []
    if not isinstance(samples, list):
        raise MoteError(f"{path}: its 'samples' are no list: it is no log of Inspect.")
    return found, [(f"samples[{number}]", sample) for number, sample in enumerate(samples)]


def _row(path: Path, where: str, sample: Mapping[str, Any], markers: Markers, several: bool) -> dict[str, Any]:
    if not isinstance(sample, Mapping) or "id" not in sample or not isinstance(sample.get("output"), Mapping):
        raise MoteError(f"{path}: {where} has no id or no output: it is no sample of Inspect.")
    choices = sample["output"].get("choices") or [{}]
    first = choices[0] if isinstance(choices, list) else None
    message = (first.get("message") or {}) if isinstance(first, Mapping) else None
    if not isinstance(first, Mapping) or not isinstance(message, Mapping):
        raise MoteError(f"{path}: {where} has no choices with a message: it is no sample of Inspect.")
    answer, reasoning = _contents(message.get("content", ""))
    failed = sample.get("error") or sample.get("limit") or not message
    name = str(sample["id"])
    given = sample.get("input", "")
    return {
        "key": f"{name}#{sample.get('epoch', 1)}" if several else name,
        "unit": name if several else "",
        "question": given if isinstance(given, str) else _texts(given),
        "raw": raw_of(answer, reasoning, markers),
        "finish_reason": _ERROR if failed else finish_of(first.get("stop_reason")),
    }


def _contents(content: Any) -> tuple[str, str]:
    """Answer and reasoning of a message, whose content is a text or a list of typed parts."""
    if isinstance(content, str):
        return content, ""
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    texts = [str(part.get("text", "")) for part in parts if part.get("type") == "text"]
    reasoned = [str(part.get("reasoning", "")) for part in parts if part.get("type") == "reasoning"]
    return "\n".join(texts), "\n".join(filter(None, reasoned))


def _texts(messages: Any) -> str:
    listed = [one for one in messages if isinstance(one, Mapping)] if isinstance(messages, list) else []
    return last_question([{**one, "content": _contents(one.get("content", ""))[0]} for one in listed])


def _scores(key: str, sample: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    scores = sample.get("scores")
    for scorer, score in scores.items() if isinstance(scores, Mapping) else ():
        value = score.get("value") if isinstance(score, Mapping) else None
        named = value if isinstance(value, Mapping) else {"": value}
        for part, one in named.items():
            number = _VALUES.get(one) if isinstance(one, str) else one
            if isinstance(number, bool | int | float) and math.isfinite(number):
                metric = f"{scorer}/{part}" if part else str(scorer)
                yield {"key": key, "metric": metric, "filter": "inspect", "value": float(number)}
