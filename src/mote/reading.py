"""The one reader of JSON and YAML that others wrote: regular files, within limits, and nothing passed over in silence.

Recipes, profiles, manifests, logs and configurations come from strangers. What a lenient reader would make of them is
refused here, in one line: a key that stands twice (the last would win), NaN and infinity, numbers of 100 digits,
texts that are no Unicode, nesting that overflows a stack, devices and pipes that never end, files of gigabytes. YAML is
read as the JSON that it writes down: no aliases (they expand without end), no tags, no merges (``<<``), and true and
false are the only truths (``yes`` is a text).

Every room may import this module; it imports none of them.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

import yaml

MOST_BYTES: Final = 64 << 20
"""The largest file of JSON that is read whole; a tokenizer's or a model's index is some ten MB."""
MOST_YAML: Final = 128 << 10
"""The largest YAML: PyYAML reads some 100 KB a second, and a recipe has a few."""
MOST_REPLY: Final = 256 << 20
"""Bytes of one HTTP reply; a prompt's maps of a large model in base64 take some ten MB."""
MOST_DEPTH: Final = 64
_MOST_DIGITS: Final = 40
_LONG: Final = 4 << 20
_SHOWN: Final = 120
_LONGEST_URL: Final = 2000
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_TAGS: Final = "tag:yaml.org,2002:"
_WHOLE: Final = re.compile(r"[-+]?[0-9]+")
_NUMBER: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER: Final = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)
_NO_BRACKETS: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*+"|[^"\[\]{}])++', re.DOTALL)
_STEPS: Final = {"[": 1, "{": 1, "]": -1, "}": -1}
_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class UnreadableError(ValueError):
    """A file or text that is not read; the message is a part of a line that says why, without the file's name."""


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading; raise UnreadableError for a device, a pipe, a folder, and what isn't there.

    Opening does not wait: a pipe without a writer would never come back.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UnreadableError(_why(error)) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UnreadableError("is not a file but a folder, a device or a pipe")
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return a file's bytes; raise UnreadableError as ``open_regular``, and for more than ``most``."""
    with open_regular(path) as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            raise UnreadableError(_why(error)) from None
    if len(content) > most:
        raise UnreadableError(f"is larger than {most:,} bytes")
    return content


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Return a file of UTF-8 text, a byte order mark left out; raise UnreadableError as ``read_bytes``."""
    return _text(read_bytes(path, most))


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """Return what a JSON file holds; raise UnreadableError as ``read_bytes`` and ``parse_json``."""
    return parse_json(read_bytes(path, most), most)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds; raise UnreadableError as ``read_bytes`` and ``parse_yaml``."""
    return parse_yaml(read_bytes(path, MOST_YAML))


def parse_json(text: str | bytes, most: int = MOST_BYTES, *, nan: bool = False) -> Any:
    """Return the value of a JSON text; raise UnreadableError for whatever the module's docstring lists.

    ``nan`` lets NaN and Infinity pass: tools that log numbers write them, and whoever reads a number looks at it.
    """
    if len(text) > most:
        raise UnreadableError(f"is longer than {most:,} bytes")
    text = text if isinstance(text, str) else _text(text)
    if _depth(text) > MOST_DEPTH:
        raise UnreadableError(f"is not JSON that is read here: it is nested deeper than {MOST_DEPTH}")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_once,
            parse_int=_whole,
            parse_float=_number,
            parse_constant=float if nan else _no_constant,
        )
    except UnreadableError:
        raise
    except json.JSONDecodeError as error:
        raise UnreadableError(f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"is not JSON: {str(error)[:_SHOWN]}") from None
    if _SURROGATE.search(text):
        _check_unicode(value)
    return value


def parse_yaml(text: str | bytes) -> Any:
    """Return the JSON value that a YAML text writes down, None for an empty one.

    Raises UnreadableError for whatever the module's docstring lists, and for more than one document.
    """
    if len(text) > MOST_YAML:
        raise UnreadableError(f"is longer than {MOST_YAML:,} bytes")
    text = text if isinstance(text, str) else _text(text)
    builder = _Builder()
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise UnreadableError(f"is not YAML: {str(error.problem or error.context)[:_SHOWN]}{where}") from None
    except yaml.YAMLError as error:
        raise UnreadableError(f"is not YAML: {' '.join(str(error).split())[:_SHOWN]}") from None
    except UnreadableError:
        raise
    except (ValueError, ArithmeticError, LookupError, RecursionError) as error:
        # A code of a character beyond Unicode, for instance, which the library lets through.
        raise UnreadableError(f"is not YAML: {str(error)[:_SHOWN]}") from None
    _check_unicode(builder.value)
    return builder.value


def check_http_url(url: str) -> None:
    """Raise UnreadableError, without what may be a secret in it, unless a text is the base URL of an API.

    It has a scheme of HTTP and a host, and neither credentials, nor a query, nor a fragment.
    """
    if len(url) > _LONGEST_URL or not (url.isascii() and url.isprintable()) or any(mark in url for mark in ' \\"<>`'):
        raise UnreadableError("is none: it is too long, or holds what no URL does")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UnreadableError(f"is none: {str(error)[:_SHOWN]}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UnreadableError("is none; write for instance http://127.0.0.1:8000/v1")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise UnreadableError(
            "carries credentials or a query; put the key into an environment variable and give the variable's name"
        )


def check_reply_head(status: int, headers: Mapping[str, str]) -> None:
    """Raise UnreadableError for a reply that is packed, or that names another server: neither is taken."""
    packed = headers.get("content-encoding", "identity").strip().casefold()
    if packed not in ("", "identity"):
        raise UnreadableError(f"the reply is packed ({packed[:40]}), which was not asked for")
    if 300 <= status < 400:
        to = headers.get("location", "").partition("?")[0]
        raise UnreadableError(f"the server redirects to {to[:120]}: redirects are not followed; give that URL")


def check_reply_size(read: int) -> None:
    """Raise UnreadableError for a reply that is longer than any that is taken."""
    if read > MOST_REPLY:
        raise UnreadableError(f"the reply is longer than {MOST_REPLY:,} bytes")


class _Builder:
    """Makes the value from YAML's events: without recursion, and without what only YAML has."""

    def __init__(self) -> None:
        self.value: Any = None
        self._open: list[Any] = []
        self._keys: list[Any] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._refusal("holds more than one document", event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise self._refusal("has an anchor or alias (& or *); write the value out where it stands", event)
        if isinstance(event, yaml.ScalarEvent):
            self._put(self._scalar(event), event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._open.pop()
            self._keys.pop()

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        made: dict[str, Any] | list[Any]
        kind, made = ("map", {}) if isinstance(event, yaml.MappingStartEvent) else ("seq", [])
        if event.tag not in (None, "!", f"{_TAGS}{kind}"):
            raise self._refusal(f"has a tag ({str(event.tag)[:_SHOWN]})", event)
        if len(self._open) >= MOST_DEPTH:
            raise self._refusal(f"is nested deeper than {MOST_DEPTH}", event)
        self._put(made, event)
        self._open.append(made)
        self._keys.append(None)

    def _put(self, value: Any, event: yaml.Event) -> None:
        if not self._open:
            self.value = value
            return
        into = self._open[-1]
        if isinstance(into, list):
            into.append(value)
            return
        if self._keys[-1] is None:
            if not isinstance(value, str):
                raise self._refusal(f"has a key that is no text: {str(value)[:_SHOWN]}", event)
            if value == "<<" and getattr(event, "style", "'") is None:
                raise self._refusal("has a merge (<<); write the values out where they stand", event)
            if value in into:
                raise self._refusal(f"is ambiguous: the key '{value[:_SHOWN]}' stands there twice", event)
            self._keys[-1] = (value,)
            return
        into[self._keys[-1][0]] = value
        self._keys[-1] = None

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        # JSON writes what lies beyond 16 bits as two halves, which YAML does not put together.
        text: str = event.value if event.value.isascii() else _joined(event.value)
        if event.tag == f"{_TAGS}str" or ((event.tag == "!" or event.tag is None) and not event.implicit[0]):
            return text
        if event.tag is not None:
            raise self._refusal(f"has a tag ({event.tag[:_SHOWN]})", event)
        # A key is what is written: `on: x` and `1: x` name themselves.
        if self._open and isinstance(self._open[-1], dict) and self._keys[-1] is None:
            return text
        if text in _WORDS:
            return _WORDS[text]
        try:
            if _WHOLE.fullmatch(text):
                return _whole(text)
            if _NUMBER.fullmatch(text):
                return _number(text)
        except UnreadableError as error:
            raise self._refusal(str(error), event) from None
        if _NO_NUMBER.fullmatch(text):
            raise self._refusal(f"has {text}, which is no number", event)
        return text

    @staticmethod
    def _refusal(why: str, event: yaml.Event) -> UnreadableError:
        mark = getattr(event, "start_mark", None)
        return UnreadableError(f"{why}{f' (line {mark.line + 1})' if mark else ''}")


def _joined(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"is not UTF-8 text (byte {error.start:,})") from None


def _depth(text: str) -> int:
    """Return how deep brackets nest: never less than the value's own depth."""
    # Of long texts the parser's own limit of some 1,000 is enough: nobody walks them by recursion.
    if len(text) > _LONG or text.count("[") + text.count("{") <= MOST_DEPTH:
        return 0
    marks = _NO_BRACKETS.sub("", text)
    return max(accumulate((_STEPS.get(mark, 0) for mark in marks), initial=0))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UnreadableError(f"is ambiguous: the key '{twice[:_SHOWN]}' stands there twice")
    return found


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise UnreadableError(f"has a number of {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise UnreadableError(f"has the number {text[:_SHOWN]}, which is none that can be counted with")
    return value


def _no_constant(name: str) -> float:
    raise UnreadableError(f"has {name}, which is no JSON")


def _check_unicode(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise UnreadableError("has half a character (a lone surrogate) in a text") from None


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is not there"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"
