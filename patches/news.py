"""Requests with stop strings: the scheduler sends what is new, and the front end keeps the account.

Whether a stop string has come is known to the front end alone, after the scheduler has sent the output. So any output
may be the last. Sending all that is known with each would make megabytes of an answer, and vLLM would keep them all.
Instead each output carries the news of its steps; here they are added up as they come, and the packet that a client
reads is made once, when the front end ends the request.

News is a frame (``mote.patches.frames``). Most steps only add to edits' counts, though, for each request of a batch;
their news is short: a fixed head and two arrays, with no JSON to write and read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mote.patches.accounts import Account, observe
from mote.patches.frames import frame, is_frame, unframe
from mote.patches.layout import ModelLayout
from mote.patches.messages import MapPart, RowPart, Ticket
from mote.patches.observation import pack

MAGIC = b"MOTN\x01"
SHORT = b"MOTH\x01"
_HEAD = struct.Struct("<5s3xqqqq")  # magic, edited, forced, changed, edits that met tokens


def opening(layout: ModelLayout, version: str, ticket: Ticket) -> dict[str, Any]:
    """Return what the first news of a request says once: all that the front end needs to make the packet."""
    return {"layout": layout.to_dict(), "version": version, "ticket": ticket._replace(route=None).to_extra()}


def pack_news(account: Account, first: dict[str, Any] | None) -> NDArray[np.uint8]:
    """Write the account of some steps as uint8 [bytes]; ``first`` is the :func:`opening` of a request's first news."""
    numbers, sums = account.hits
    arrays: dict[str, NDArray[Any]] = {"numbers": numbers.astype("<i4"), "sums": sums}
    for role, part in account.maps.items():
        arrays[f"counts/{role}"] = part.counts
        if part.weights is not None:
            arrays[f"weights/{role}"] = part.weights
    for role, parts in account.rows.items():
        rows = RowPart.joined(parts)
        arrays[f"ids/{role}"] = rows.ids
        if rows.weights is not None:
            arrays[f"row weights/{role}"] = rows.weights
        if rows.logits is not None:
            arrays[f"row logits/{role}"] = rows.logits
    counted = {role: part.counted for role, part in account.maps.items()}
    route = [account.route, account.forced, account.changed]
    header: dict[str, Any] = {"digest": account.digest, "edited": account.edited, "counted": counted, "route": route}
    return frame(MAGIC, header if first is None else {**header, "opening": first}, arrays)


def pack_short(account: Account) -> NDArray[np.uint8] | None:
    """Write the account of some steps in brief; None where it says more than counts.

    Its digests are left out: those of the news before it hold.
    """
    if account.maps or account.rows:
        return None
    numbers, sums = account.hits
    head = _HEAD.pack(SHORT, account.edited, account.forced, account.changed, len(numbers))
    return np.frombuffer(head + sums.astype("<f8").tobytes() + numbers.astype("<i4").tobytes(), np.uint8)


def _add_short(account: Account, news: NDArray[np.uint8]) -> None:
    _, edited, forced, changed, count = _HEAD.unpack_from(news.data)
    account.edited += edited
    account.forced += forced
    account.changed += changed
    sums = np.frombuffer(news, "<f8", count * 5, _HEAD.size).reshape(count, 5)
    account.add_hits(np.frombuffer(news, "<i4", count, _HEAD.size + sums.nbytes), sums)


def is_news(data: NDArray[Any]) -> bool:
    """Return whether an array is news, whole or short."""
    return is_frame(SHORT, data) or is_frame(MAGIC, data)


class Collected:
    """The account of one request, in the front end.

    Args:
        first: the request's first news.

    Raises:
        KeyError, FrameError: the news is not the first.
    """

    def __init__(self, first: NDArray[np.uint8]) -> None:
        header, arrays = unframe(MAGIC, first.tobytes())
        known = header["opening"]
        self._layout = ModelLayout.from_dict(known["layout"])
        self._version: str = known["version"]
        # Of the route the account says all that a packet does.
        self._ticket = Ticket(known["ticket"]["spec"], known["ticket"]["capture"])
        self._account = _read(header, arrays)

    def add(self, news: NDArray[np.uint8]) -> None:
        """Add the news of later steps."""
        if is_frame(SHORT, news):
            _add_short(self._account, news)
        else:
            self._account.add(_read(*unframe(MAGIC, news.tobytes())))

    def packet(self, prompt: int, tokens: list[int]) -> NDArray[np.uint8]:
        """Return the packet that a client reads, for an answer of these tokens to ``prompt`` prompt tokens."""
        return pack(observe(self._account, self._layout, self._version, self._ticket, prompt, tokens))


def _read(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Account:
    account = Account(header["digest"])
    account.edited = header["edited"]
    account.route, account.forced, account.changed = header["route"]
    account.add_hits(arrays["numbers"], arrays["sums"])
    for role, counted in header["counted"].items():
        account.add_map(MapPart(0, role, counted, arrays[f"counts/{role}"], arrays.get(f"weights/{role}")))
    for name, ids in arrays.items():
        kind, _, role = name.partition("/")
        if kind == "ids":
            of_rows = (arrays.get(f"row {what}/{role}") for what in ("weights", "logits"))
            account.add_rows(RowPart(0, role, ids, *of_rows))
    return account


def process_outputs(original: Callable[..., Any], self: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
    """Take the news out of the scheduler's outputs, before vLLM's output processor would collect them."""
    for output in outputs:
        news = output.routed_experts
        if news is None or not is_news(news):
            continue
        output.routed_experts = None
        state = self.request_states.get(output.request_id)
        if state is None:  # it was aborted
            continue
        collected = getattr(state, "mote_collected", None)
        if collected is None:
            state.mote_collected = Collected(news)
        else:
            collected.add(news)
    return original(self, outputs, *args, **kwargs)


def new_completion_output(
    original: Callable[..., Any], self: Any, token_ids: Any, finish_reason: Any, *args: Any, **kwargs: Any
) -> Any:
    """Put the packet where vLLM looks for it when an answer is complete."""
    collected = getattr(self, "mote_collected", None)
    if collected is not None and finish_reason is not None:
        self.routed_experts_chunks = [collected.packet(self.prompt_len, list(self.detokenizer.output_token_ids))]
    return original(self, token_ids, finish_reason, *args, **kwargs)
