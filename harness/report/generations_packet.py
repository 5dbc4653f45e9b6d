"""All generations as one packet for the page's table: every text once, compressed, so that 25,000 rows fit in a file.

The packet is gzip in base64: it holds no character that could end a script element. The page unpacks it with what
browsers bring along. Texts are cut so that all of them stay within a budget; the run's store has them whole.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Hashable, Mapping
from typing import Any, Final, NamedTuple

import pandas as pd

from mote.harness.report.model_text import clip

BUDGET: Final = 24_000_000
"""Characters of text that the page holds."""

LONGEST: Final = 6000
SHORTEST: Final = 300


class Packet(NamedTuple):
    """The rows as base64, their number, the length that texts were cut to, and how many were."""

    data: str
    rows: int
    length: int
    cut: int


class _Table:
    """Values by their number: each is kept once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, value: str) -> int:
        return self.numbers.setdefault(value, len(self.numbers))

    @property
    def values(self) -> list[str]:
        return list(self.numbers)


def pack_rows(frame: pd.DataFrame, units: Mapping[str, Hashable] | None = None) -> Packet:
    """Pack the rows of ``generations_frame``; a row is [prompt, profile, label, text, rules], each a number.

    A prompt is [id, question], and the number of its unit where ``units`` has one for each prompt id.
    """
    texts, prompts, profiles, labels, rules, places = (_Table() for _ in range(6))
    rows = []
    for row in frame.to_dict("records"):
        label = row["label"] if isinstance(row["label"], str) else "not labelled"
        rows.append(
            (
                prompts.number(_prompt(row)),
                profiles.number(str(row["profile"])),
                labels.number(label),
                texts.number(str(row["raw"])),
                rules.number(_rules(row["evidence"])),
            )
        )
    length = max(SHORTEST, min(LONGEST, BUDGET // max(1, len(texts.numbers))))
    content = {
        "prompts": [_with_unit(json.loads(value), units or {}, places) for value in prompts.values],
        "units": places.values,
        "profiles": profiles.values,
        "labels": labels.values,
        "texts": [clip(value, length) for value in texts.values],
        "rules": rules.values,
        "rows": rows,
    }
    packed = gzip.compress(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), 6, mtime=0)
    cut = sum(len(value) > length for value in texts.numbers)
    return Packet(base64.b64encode(packed).decode(), len(rows), length, cut)


def _prompt(row: Mapping[Any, Any]) -> str:
    asked = [message["content"] for message in json.loads(row["messages"]) if message["role"] == "user"]
    return json.dumps([row["prompt_id"], clip(" / ".join(asked), 2000)], ensure_ascii=False)


def _with_unit(prompt: list[str], units: Mapping[str, Hashable], places: _Table) -> list[Any]:
    return [*prompt, places.number(clip(str(units[prompt[0]]), 80))] if prompt[0] in units else prompt


def _rules(evidence: Any) -> str:
    if not isinstance(evidence, str):
        return ""
    return ", ".join(dict.fromkeys(clip(str(entry["rule"]), 80) for entry in json.loads(evidence)))
