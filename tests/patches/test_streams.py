"""Which ways of asking over HTTP are refused because no receipt could come back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mote.patches.streams import unfit


@pytest.mark.parametrize(
    ("asked", "has_receipts", "says"),
    [
        ({"vllm_xargs": {"mote": "{}"}}, False, "the Responses API"),
        ({"vllm_xargs": {"mote": "{}"}, "use_beam_search": True}, True, "use_beam_search"),
        ({"vllm_xargs": {"mote": "{}"}, "use_beam_search": False}, True, None),
        ({"vllm_xargs": {"other": 1}, "use_beam_search": True}, True, None),
        ({"vllm_xargs": None}, False, None),
        ({}, False, None),
    ],
)
def test_unfit(asked: dict[str, object], has_receipts: bool, says: str | None) -> None:
    found = unfit(SimpleNamespace(**asked), has_receipts)
    assert found is None if says is None else found is not None and says in found
