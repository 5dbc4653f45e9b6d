"""One answer as rows of a run's store: texts and edits once, counts beside them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mote.harness.files import canonical_json

CHOICES: Final = "choices"
"""The quantity of a map of counts: how many tokens chose each expert, int32."""
WEIGHTS: Final = "weights"
"""The quantity of a map of router weights, summed over tokens, float32."""
_BYTES: Final = {CHOICES: "<i4", WEIGHTS: "<f4"}
_FIXED: Final = ("layer", "expert", "action", "factor")
"""What of a mechanism check belongs to the edit; all else was counted."""


class MapRow(NamedTuple):
    """An activation map [layers, experts] over ``counted`` of ``total`` tokens of one role.

    ``counts`` is int32 where ``quantity`` is CHOICES, float32 where it is WEIGHTS.
    """

    role: str
    counts: NDArray[Any]
    counted: int
    total: int
    quantity: str = CHOICES


DECIDED: Final = "decided"
"""The ``finish_reason`` of an answer that was ended where its opening had decided its class (``study.openings``)."""


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


def text_id(cursor: sqlite3.Cursor, text: str) -> int:
    """Return the id of a text, stored now if it was not."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
    found = cursor.execute("select text_id from texts where digest = ?", (digest,)).fetchone()
    if found is None:
        cursor.execute("insert into texts (digest, text) values (?, ?)", (digest, text))
        return int(cursor.lastrowid or 0)
    return int(found[0])


def fold(mechanism: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return a mechanism check as (edits, counts): the edits in order, and each count as a number or a list of them.

    A count that some edits lack is null there. ``unfold`` and the view give back what was folded.
    """
    edits = [{name: entry[name] for name in _FIXED if name in entry} for entry in mechanism]
    names = dict.fromkeys(name for entry in mechanism for name in entry if name not in _FIXED)
    counts: dict[str, Any] = {}
    for name in names:
        values = [entry.get(name) for entry in mechanism]
        same = all(value == values[0] and type(value) is type(values[0]) for value in values)
        counts[name] = values[0] if same else values
    return canonical_json(edits), canonical_json(counts)


def unfold(edits: str, counts: str) -> list[dict[str, Any]]:
    """Return the mechanism check that ``fold`` was given."""
    found = [dict(edit) for edit in json.loads(edits)]
    for name, values in json.loads(counts).items():
        each = values if isinstance(values, list) else [values] * len(found)
        for entry, value in zip(found, each, strict=True):
            if value is not None:
                entry[name] = value
    return found


def insert_generation(
    cursor: sqlite3.Cursor, row: GenerationRow, profile: int | None, number: int | None = None
) -> int:
    """Store one answer under the profile at a position, with its maps, and return its id (``number`` if it has one)."""
    receipt = dict(row.receipt)
    tokens_edited = receipt.pop("tokens_edited", None)
    edits, counts = fold(row.mechanism)
    texts = (row.raw, row.reasoning, row.answer, canonical_json(receipt), edits)
    raw, reasoning, answer, receipt_id, edits_id = (text_id(cursor, text) for text in texts)
    cursor.execute(
        "insert into generation_rows (generation_id, prompt, profile, seed, sampling, prompt_opens, raw, reasoning,"
        " answer, prompt_tokens, generated_tokens, finish_reason, receipt, tokens_edited, edits, counts)"
        " values (?, (select position from prompts where prompt_id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            row.prompt_id,
            profile,
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
    made = int(cursor.lastrowid or 0)
    insert_maps(cursor, made, row.maps)
    return made


def insert_maps(cursor: sqlite3.Cursor, number: int, maps: Sequence[MapRow]) -> None:
    """Store activation maps of the answer of that id."""
    cursor.executemany(
        "insert into activation_maps (generation_id, role, quantity, layers, experts, counted, total, activations)"
        " values (?, ?, ?, ?, ?, ?, ?, ?)",
        [(number, one.role, one.quantity, *one.counts.shape, one.counted, one.total, _to_blob(one)) for one in maps],
    )


def map_of(blob: bytes, quantity: str = CHOICES) -> NDArray[Any]:
    """Return the numbers of a stored map, [layers * experts]."""
    return np.frombuffer(blob, dtype=_BYTES[quantity])


def _to_blob(one: MapRow) -> bytes:
    return np.ascontiguousarray(one.counts, dtype=_BYTES[one.quantity]).tobytes()
