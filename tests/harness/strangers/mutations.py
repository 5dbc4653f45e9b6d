"""Malformed inputs by a generator of fixed seed: what can be wrong in a JSON or YAML text, and in its value."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

SEED = 1806
Case = tuple[str, bytes]
"""What was done to a text, and the text."""
_DEEP = 3000
_WRONG: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 3.5, 10**30, -(10**12), "", "x", "\x1b]0;owned\x07", "a\nb", "y" * 5000, "☃" * 90),
    *([], {}, [1], ["x"], [[]], {"x": 1}, {"": None}, [{"a": [None]}], "../../etc/passwd", "1e5", "=cmd()", "%s{}"),
)


def broken_texts(value: Any) -> Iterator[Case]:
    """Yield texts that no reader may take for ``value`` or anything else: each is to be refused."""
    text = json.dumps(value)
    data = text.encode()
    for share in (0.1, 0.5, 0.9):
        yield f"cut at {share:.0%}", data[: max(1, int(len(data) * share))]
    yield "one more bracket", data + b"}"
    yield "no Unicode", data[:-1] + b"\xff\xfe" + data[-1:]
    yield "a NUL", b"\x00" + data
    yield "UTF-16", text.encode("utf-16")
    yield "deep lists", b"[" * _DEEP + b"]" * _DEEP
    yield "deep mappings", b'{"a":' * _DEEP + b"1" + b"}" * _DEEP
    yield "deep within", data[:-1] + b', "deep": ' + b"[" * _DEEP + b"]" * _DEEP + b"}"
    yield "half a character", data[:-1] + b', "half": "\\ud800"}'
    yield "a long number", data[:-1] + b', "long": ' + b"7" * 400 + b"}"
    yield "a longer number", data[:-1] + b', "longer": ' + b"7" * 5000 + b"}"
    yield "too large a number", data[:-1] + b', "large": 1e999}'
    yield "a key twice", data[:-1] + b", " + data[1:]
    for top in ("null", "[]", '"text"', "17", "true", "[{}]"):
        yield f"only {top}", top.encode()


def not_json(value: Any) -> Iterator[Case]:
    """Yield texts that are no JSON, and some that only lenient readers take."""
    text = json.dumps(value)
    yield "nothing", b""
    yield "blanks", b" \n\t\n"
    yield "a trailing comma", text[:-1].encode() + b",}"
    yield "single quotes", text.replace('"', "'").encode()
    yield "a comment", b"// hello\n" + text.encode()
    for constant in ("NaN", "Infinity", "-Infinity"):
        yield constant, text[:-1].encode() + f', "n": {constant}}}'.encode()


def yaml_traps(value: Any) -> Iterator[Case]:
    """Yield YAML that a lenient reader expands, runs, merges or passes over."""
    text = json.dumps(value)[:-1]
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + at)}: &{chr(98 + at)} [{', '.join([f'*{chr(97 + at)}'] * 9)}]\n" for at in range(8)
    )
    yield "aliases that expand", bomb.encode()
    yield "an alias within", f"{text}, options: &o {{a: *o}}}}".encode()
    yield "an anchor", f"&anchor {text}}}".encode()
    yield "a merge", f"{text}, <<: {{name: other}}}}".encode()
    for tag in (
        "!!python/object/apply:os.system [id]",
        "!!python/name:os.system",
        "!!binary aGk=",
        "!!set {a}",
        "!evil x",
    ):
        yield f"the tag {tag.split()[0]}", f"{text}, tagged: {tag}}}".encode()
    for number in (".nan", ".inf", "-.inf", ".NaN"):
        yield number, f"{text}, number: {number}}}".encode()
    yield "two documents", f"{text}}}\n---\n{text}}}\n".encode()
    yield "a key that is a list", f"{text}, ? [a, b] : c}}".encode()
    yield "a directive", b"%YAML 9.9\n---\n" + text.encode() + b"}"
    yield "a code beyond Unicode", f'{text}, code: "\\UFFFFFFFF"}}'.encode()
    yield "a tab", b"a:\n\t- b\n"
    yield "a control character", f"{text}, c: \x07}}".encode()
    yield "deep blocks", "".join(f"{' ' * depth}a:\n" for depth in range(300)).encode()
    yield "many keys", b"".join(b"k%d: 1\n" % number for number in range(40_000))


def seeded() -> random.Random:
    """Return the generator, from its beginning."""
    return random.Random(SEED)  # noqa: S311 - to break texts, not to hide anything


def wrong_values(value: Any, count: int) -> Iterator[Case]:
    """Yield texts of ``value`` with one place of it changed: another kind, a key less, a key more, renamed."""
    rng = seeded()
    places = list(_places(value))
    for _ in range(count):
        place = rng.choice(places)
        changed = copy.deepcopy(value)
        parent, last = _parent(changed, place), place[-1]
        what = rng.randrange(10)
        name = ".".join(map(str, place))
        if what == 0 and isinstance(parent, dict):
            del parent[last]
            yield f"{name} left out", json.dumps(changed).encode()
        elif what == 1 and isinstance(parent, dict):
            parent[f"{last}{rng.choice(['s', '_', ' ', '​', chr(0)])}"] = parent.pop(last)
            yield f"{name} renamed", json.dumps(changed).encode()
        else:
            wrong = rng.choice(_WRONG)
            parent[last] = wrong
            yield f"{name} as {json.dumps(wrong)[:30]}", json.dumps(changed).encode()


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*at, key)
        yield from _places(one, (*at, key))


def _parent(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        value = value[key]
    return value
