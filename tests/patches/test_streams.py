"""Which ways of asking over HTTP are refused because no receipt could come back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mote.patches.streams import BATCH, MESSAGES, RESPONSES, unfit


@pytest.mark.parametrize(
    ("asked", "no_place", "says"),
    [
        ({"vllm_xargs": {"mote": "{}"}}, RESPONSES, "the Responses API"),
        ({"vllm_xargs": {"mote": "{}"}}, MESSAGES, "the Messages API"),
        ({"vllm_xargs": {"mote": "{}"}}, BATCH, "send each to /v1/chat/completions"),
        ({"vllm_xargs": {"mote": "{}"}, "use_beam_search": True}, None, "use_beam_search"),
        ({"vllm_xargs": {"mote": "{}"}, "use_beam_search": False}, None, None),
        ({"vllm_xargs": {"other": 1}, "use_beam_search": True}, None, None),
        ({"vllm_xargs": None}, BATCH, None),
        ({}, RESPONSES, None),
    ],
)
def test_unfit(asked: dict[str, object], no_place: str | None, says: str | None) -> None:
    found = unfit(SimpleNamespace(**asked), no_place)
    assert found is None if says is None else found is not None and says in found
