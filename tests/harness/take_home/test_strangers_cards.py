"""Malformed and hostile cards: one line each, exit code 2, nothing run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mote.harness.take_home.card import read_card
from mote.harness.take_home.evidence import card_of_run
from tests.harness.strangers.calls import mote, refused
from tests.harness.strangers.corpus import each, writer
from tests.harness.strangers.mutations import broken_texts, not_json, wrong_values

Changed = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def card(scripted: Path) -> dict[str, Any]:
    found: dict[str, Any] = card_of_run(scripted, "suppress-3", 4).model_dump(mode="json")
    assert len(found["sample"]["rows"]) == 4
    return found


def test_malformed_cards_are_refused_in_a_line(card: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    read = writer(path, lambda: read_card(path).edits)
    for cases in (broken_texts(card), not_json(card)):
        each("card", cases, read, must=True)
    each("card", wrong_values(card, 200), read, must=False)
    path.write_bytes(b" " * (5 << 20))
    refused(mote("reproduce", path, "--model", "demo"), "is larger than")
    refused(mote("reproduce", "/dev/zero", "--model", "demo"), "is not a file")
    refused(mote("reproduce", tmp_path / "none.json", "--model", "demo"), "is not there")


def rows(card: dict[str, Any], change: Changed, times: int = 1) -> dict[str, Any]:
    return {"sample": {**card["sample"], "rows": [change(card["sample"]["rows"][0])] * times}}


HOSTILE: dict[str, tuple[Changed, str]] = {
    "a prompt twice": (lambda card: rows(card, dict, 2), "two rows are of one prompt"),
    "too many rows": (lambda card: rows(card, dict, 201), "sample.rows"),
    "no prompt id": (lambda card: rows(card, lambda row: {**row, "prompt_id": ""}), "prompt_id"),
    "a role that no one has": (
        lambda card: rows(card, lambda row: {**row, "messages": [{"role": "tool", "content": "x"}]}),
        "role",
    ),
    "a prompt without end": (
        lambda card: rows(card, lambda row: {**row, "messages": [{"role": "user", "content": "x" * 100_001}]}),
        "content",
    ),
    "another profile": (lambda card: {"profile": {**card["profile"], "edits": []}}, "profile_digest is not"),
    "no profile": (lambda card: {"profile": {"edits": 3}}, "key 'format' is missing"),
    "classes of a stranger": (lambda card: {"asking": {**card["asking"], "label": "classes"}}, "asking.label"),
    "code": (lambda card: {"asking": {**card["asking"], "function": "evil.py:run"}}, "is not a part"),
    "a later format": (lambda card: {"format": "mote-card/2"}, "this mote reads 'mote-card/1'"),
    "an engine's code": (
        lambda card: {"asking": {**card["asking"], "options": {"worker_cls": "evil.Worker"}}},
        "--engine worker_cls=...",
    ),
    "the harness's own arguments": (
        lambda card: {"asking": {**card["asking"], "template": {"tokenize": True}}},
        "template.tokenize is the harness's",
    ),
    "another model": (
        lambda card: {"model": {**card["model"], "files": {"config.json": "sha256:0"}}},
        "other files of 'demo'",
    ),
    "no sample": (lambda card: {"sample": {"rule": "", "rows": []}}, "has no sample"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_card_may_not_say_is_refused(name: str, card: dict[str, Any], tmp_path: Path) -> None:
    change, said = HOSTILE[name]
    path = tmp_path / "card.json"
    path.write_text(json.dumps({**card, **change(card)}))
    refused(mote("reproduce", path, "--model", "demo"), said)
