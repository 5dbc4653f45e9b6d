"""The scheduler's side of the patch: what the workers reported, summed per request, and the packet that goes out.

vLLM's scheduler has a place for an object that hands out an auxiliary output with a request's answer
(``aux_output_connector``). The ledger takes that place. It knows when a request ends, which the worker does not, so
that packets are made once, with the last output; only a request with stop strings, whose end is found by the front end
after the scheduler has already sent the output, gets a packet with every output, each saying all that is known by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mote.patches.capture import Capture, count, split
from mote.patches.layout import ModelLayout
from mote.patches.messages import Hits, MapPart, RowPart, StepReport, Ticket
from mote.patches.observation import COUNTS_LOST, ActivationMap, EditEffect, Observation, Receipt, pack
from mote.patches.profile import Edit, Profile


class _Account:
    """What is known about one request so far."""

    __slots__ = ("digest", "edited", "maps", "rows", "sums")

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.edited = 0
        self.sums: NDArray[np.float64] | None = None
        self.maps: dict[str, MapPart] = {}
        self.rows: dict[str, list[RowPart]] = {}


class Ledger:
    """Accounts of the running requests. Used as the scheduler's ``aux_output_connector``.

    Args:
        layout: the model's experts.
        version: of the patch, for the receipt.
    """

    def __init__(self, layout: ModelLayout, version: str) -> None:
        self._layout = layout
        self._version = version
        self._accounts: dict[str, _Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def absorb(self, report: StepReport, running: Any) -> None:
        """Add what a step did to the accounts of the requests that still run (``running`` holds their ids).

        A request that ended while the step was under way has no account any more and gets none.
        """
        owners: list[_Account | None] = []
        for req_id, digest, edited in zip(report.req_ids, report.digests, report.edited.tolist(), strict=True):
            account = self._accounts.get(req_id)
            if account is None and req_id in running:
                account = self._accounts[req_id] = _Account(digest)
            if account is not None:
                if account.digest not in (digest, COUNTS_LOST):
                    account.digest = "mixed"  # never happens; if it did, no client would accept the receipt
                account.edited += edited
            owners.append(account)
        if report.hits is not None:
            _add_hits(owners, report.hits)
        for part in report.maps:
            account = owners[part.owner]
            if account is not None:
                account.maps[part.role] = _sum(account.maps.get(part.role), part)
        for rows in report.rows:
            account = owners[rows.owner]
            if account is not None:
                account.rows.setdefault(rows.role, []).append(rows)

    def lose(self, running: Iterable[Any]) -> None:
        """Void the receipts of those running requests whose tokens in flight the scheduler is about to throw away.

        The worker has counted the steps that made them, and will not count them again when other tokens take their
        places. No client accepts the digest that these receipts say.
        """
        for request in running:
            if request.num_in_flight_tokens and Ticket.from_params(request.sampling_params) is not None:
                self._accounts.setdefault(request.request_id, _Account(COUNTS_LOST)).digest = COUNTS_LOST

    def take_output(self, request: Any, _output: Any) -> NDArray[np.uint8] | None:
        """Return the packet for the output that is about to be sent; None if there is nothing to say yet."""
        account = self._accounts.get(request.request_id)
        if account is None or not (request.is_finished() or request.sampling_params.stop):
            return None
        ticket = Ticket.from_params(request.sampling_params)
        return None if ticket is None else pack(self._observe(account, ticket, request))

    def _observe(self, account: _Account, ticket: Ticket, request: Any) -> Observation:
        maps, rows = {}, {}
        if ticket.capture is not None:
            capture, prompt = Capture.from_list(ticket.capture), request.num_prompt_tokens
            if capture.what != "rows":
                maps["prompt"] = self._map(account, capture, "prompt", prompt)
            if capture.last:
                maps["prompt_last"] = self._map(account, capture, "prompt_last", min(capture.last, prompt))
            if capture.what == "roles":
                maps |= self._generated_maps(account, capture, request.output_token_ids)
            elif capture.what == "rows":
                rows = {role: self._rows(account, role).ids for role in ("prompt", "generated")}
        receipt = Receipt(account.digest, account.edited, self._version)
        return Observation(receipt, self._layout.layers, maps, _effects(account, _edits(ticket.spec)), rows)

    def _map(self, account: _Account, capture: Capture, role: str, total: int) -> ActivationMap:
        part = account.maps.get(role)
        if part is not None:
            return ActivationMap(part.counts, part.counted, total, part.weights)
        empty = np.zeros((len(self._layout.layers), self._layout.experts))
        return ActivationMap(empty.astype(np.int32), 0, total, empty.astype(np.float32) if capture.weights else None)

    def _rows(self, account: _Account, role: str) -> RowPart:
        parts = account.rows.get(role)
        if not parts:
            shape = (0, len(self._layout.layers), self._layout.top_k)
            return RowPart(0, role, np.zeros(shape, np.uint16), np.zeros(shape, np.float32))
        if len(parts) > 1:
            weights = [part.weights for part in parts if part.weights is not None]
            ids = np.concatenate([part.ids for part in parts])
            parts[:] = [RowPart(0, role, ids, np.concatenate(weights) if weights else None)]
        return parts[0]

    def _generated_maps(self, account: _Account, capture: Capture, tokens: Sequence[int]) -> dict[str, ActivationMap]:
        """Divide the generated tokens' rows into reasoning and answer. The last token was not routed: it has no row."""
        rows, cut, maps = self._rows(account, "generated"), split(tokens, capture), {}
        for role, start, stop in (("reasoning", 0, cut), ("answer", cut, len(tokens))):
            ids = rows.ids[start:stop]
            weights = rows.weights[start:stop] if capture.weights and rows.weights is not None else None
            counts, sums = count(ids, self._layout, weights)
            maps[role] = ActivationMap(counts, len(ids), stop - start, sums)
        return maps

    def request_finished(self, request: Any) -> None:
        """Close the account of a request that ended in any way. vLLM calls this at a preemption too; that one stays."""
        if request.is_finished():
            self._accounts.pop(request.request_id, None)

    def build_connector_meta(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing travels to the workers this way: a request carries its own edits."""

    def reset(self) -> None:
        """Nothing is kept beyond a request, so a reset of the prefix cache changes nothing here."""


def _sum(known: MapPart | None, part: MapPart) -> MapPart:
    if known is None:
        return part
    weights = known.weights
    if weights is not None and part.weights is not None:
        weights = weights + part.weights
    return part._replace(counted=known.counted + part.counted, counts=known.counts + part.counts, weights=weights)


@lru_cache(maxsize=1024)
def _edits(spec: str) -> tuple[Edit, ...]:
    return Profile.from_request_text(spec).canonical


def _add_hits(owners: list[_Account | None], hits: Hits) -> None:
    """Add sums to accounts. Pairs come sorted by owner, so each account is touched once."""
    cuts = np.flatnonzero(np.diff(hits.owner)) + 1
    starts = [0, *cuts.tolist()]
    for start, stop in zip(starts, [*starts[1:], len(hits.owner)], strict=True):
        account = owners[int(hits.owner[start])]
        if account is None:
            continue
        number = hits.number[start:stop]
        needed = int(number[-1]) + 1
        if account.sums is None:
            account.sums = np.zeros((max(needed, 16), 4))
        elif len(account.sums) < needed:
            account.sums = np.concatenate((account.sums, np.zeros((needed, 4))))
        account.sums[number] += hits.sums[start:stop]


def _effects(account: _Account, edits: tuple[Edit, ...]) -> tuple[EditEffect, ...]:
    sums = np.zeros((len(edits), 4))
    if account.sums is not None:
        known = min(len(edits), len(account.sums))
        sums[:known] = account.sums[:known]
    return tuple(
        EditEffect(
            edit.layer, edit.expert, edit.action, edit.factor, account.edited, int(row[0]), int(row[1]), row[2], row[3]
        )
        for edit, row in zip(edits, sums.tolist(), strict=True)
    )
