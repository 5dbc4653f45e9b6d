"""The scheduler's side of the patch: what the workers reported, summed per request, and the packet that goes out.

vLLM's scheduler has a place for an object that hands out an auxiliary output with a request's answer
(``aux_output_connector``). The ledger takes that place. It knows when a request ends, which the worker does not, so
that packets are made once, with the last output; only a request with stop strings, whose end is found by the front end
after the scheduler has already sent the output, gets a packet with every output, each saying all that is known by then.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mote.patches.layout import ModelLayout
from mote.patches.messages import Hits, StepReport, Ticket
from mote.patches.observation import ActivationMap, EditEffect, Observation, Receipt, pack
from mote.patches.profile import Edit, Profile


class _Account:
    """What is known about one request so far."""

    __slots__ = ("captured", "counts", "digest", "edited", "sums")

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.edited = 0
        self.sums: NDArray[np.float64] | None = None
        self.counts: NDArray[np.int32] | None = None
        self.captured = 0


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
                if account.digest != digest:
                    account.digest = "mixed"  # never happens; if it did, no client would accept the receipt
                account.edited += edited
            owners.append(account)
        if report.hits is not None:
            _add_hits(owners, report.hits)
        for part in report.maps:
            account = owners[part.owner]
            if account is not None:
                account.counts = part.counts if account.counts is None else account.counts + part.counts
                account.captured += part.counted

    def take_output(self, request: Any, _output: Any) -> NDArray[np.uint8] | None:
        """Return the packet for the output that is about to be sent; None if there is nothing to say yet."""
        account = self._accounts.get(request.request_id)
        if account is None or not (request.is_finished() or request.sampling_params.stop):
            return None
        ticket = Ticket.from_params(request.sampling_params)
        return None if ticket is None else pack(self._observe(account, ticket, request))

    def _observe(self, account: _Account, ticket: Ticket, request: Any) -> Observation:
        maps = {}
        if ticket.capture is not None:
            counts = account.counts
            if counts is None:
                counts = np.zeros((len(self._layout.layers), self._layout.experts), np.int32)
            maps["prompt"] = ActivationMap(counts, account.captured, request.num_prompt_tokens)
        receipt = Receipt(account.digest, account.edited, self._version)
        return Observation(receipt, self._layout.layers, maps, _effects(account, _edits(ticket.spec)))

    def request_finished(self, request: Any) -> None:
        """Close the account of a request that ended in any way. vLLM calls this at a preemption too; that one stays."""
        if request.is_finished():
            self._accounts.pop(request.request_id, None)

    def build_connector_meta(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing travels to the workers this way: a request carries its own edits."""

    def reset(self) -> None:
        """Nothing is kept beyond a request, so a reset of the prefix cache changes nothing here."""


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
