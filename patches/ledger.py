"""The scheduler's side of the patch: what the workers reported, summed per request, and the packet that goes out.

vLLM's scheduler has a place for an object that hands out an auxiliary output with a request's answer
(``aux_output_connector``). The ledger takes that place. It knows when a request ends, which the worker does not, so
that packets are made once, with the last output. Only a request with stop strings is ended by the front end, after the
scheduler has already sent the output: its account is kept there, and the ledger sends what is new with every output
(``mote.patches.news``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mote.patches.accounts import Account, observe
from mote.patches.layout import ModelLayout
from mote.patches.messages import Hits, StepReport, Ticket
from mote.patches.news import opening, pack_news, pack_short
from mote.patches.observation import COUNTS_LOST, pack


class Ledger:
    """Accounts of the running requests. Used as the scheduler's ``aux_output_connector``.

    Args:
        layout: the model's experts.
        version: of the patch, for the receipt.
    """

    def __init__(self, layout: ModelLayout, version: str) -> None:
        self._layout = layout
        self._version = version
        self._accounts: dict[str, Account] = {}
        self._told: dict[str, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def absorb(self, report: StepReport, running: Any) -> None:
        """Add what a step did to the accounts of the requests that still run (``running`` holds their ids).

        A request that ended while the step was under way has no account any more and gets none.
        """
        owners: list[Account | None] = []
        told = zip(report.req_ids, report.digests, report.routes, report.edited.tolist(), strict=True)
        for req_id, digest, route, edited in told:
            account = self._accounts.get(req_id)
            if account is None and req_id in running:
                account = self._accounts[req_id] = Account(digest, route)
            if account is not None:
                if account.digest != COUNTS_LOST and (account.digest, account.route) != (digest, route):
                    account.digest = "mixed"  # never happens; if it did, no client would accept the receipt
                account.edited += edited
            owners.append(account)
        if report.forced is not None:
            for account, (forced, changed) in zip(owners, report.forced.tolist(), strict=True):
                if account is not None:
                    account.forced += forced
                    account.changed += changed
        if report.hits is not None:
            _add_hits(owners, report.hits)
        for part in report.maps:
            account = owners[part.owner]
            if account is not None:
                account.add_map(part)
        for rows in report.rows:
            account = owners[rows.owner]
            if account is not None:
                account.add_rows(rows)

    def lose(self, running: Iterable[Any]) -> None:
        """Void the receipts of those running requests whose tokens in flight the scheduler is about to throw away.

        The worker has counted the steps that made them, and will not count them again when other tokens take their
        places. No client accepts the digest that these receipts say.
        """
        for request in running:
            if request.num_in_flight_tokens and Ticket.from_params(request.sampling_params) is not None:
                self._accounts.setdefault(request.request_id, Account(COUNTS_LOST)).digest = COUNTS_LOST

    def take_output(self, request: Any, _output: Any) -> NDArray[np.uint8] | None:
        """Return the packet for the output that is about to be sent; None if there is nothing to say yet."""
        account = self._accounts.get(request.request_id)
        ticket = Ticket.from_params(request.sampling_params)
        if account is None or ticket is None:
            return None
        if request.sampling_params.stop:
            return self._news(account, ticket, request)
        if not request.is_finished():
            return None
        prompt, tokens = request.num_prompt_tokens, request.output_token_ids
        return pack(observe(account, self._layout, self._version, ticket, prompt, tokens))

    def _news(self, account: Account, ticket: Ticket, request: Any) -> NDArray[np.uint8]:
        """Return what is new of a request, in brief where the digests are those that its last news told."""
        told, digests = self._told.get(request.request_id), (account.digest, account.route)
        news = account.drain()
        if told == digests and (short := pack_short(news)) is not None:
            return short
        self._told[request.request_id] = digests
        return pack_news(news, None if told else opening(self._layout, self._version, ticket))

    def request_finished(self, request: Any) -> None:
        """Close the account of a request that ended in any way. vLLM calls this at a preemption too; that one stays."""
        if request.is_finished():
            self._accounts.pop(request.request_id, None)
            self._told.pop(request.request_id, None)

    def max_cache_hit(self, _request: Any) -> None:
        """Cap no hit of the prefix cache (vLLM 0.33): a capturing request reads none, the others count none."""

    def cap_external_hit(self, _request: Any, _local: int, external: int) -> int:
        """Cap no hit of a KV connector (vLLM 0.33); engines with one are refused."""
        return external

    def request_loading(self, _request: Any, _tokens: int) -> None:
        """Nothing is kept for tokens that a KV connector loads (vLLM 0.33); engines with one are refused."""

    def build_connector_meta(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing travels to the workers this way: a request carries its own edits."""

    def reset(self) -> None:
        """Nothing is kept beyond a request, so a reset of the prefix cache changes nothing here."""


def _add_hits(owners: list[Account | None], hits: Hits) -> None:
    """Add sums to accounts. Pairs come sorted by owner, so each account is touched once.

    An account keeps its own part of the step's arrays, lest one with few hits keep many steps' whole.
    """
    cuts = np.flatnonzero(np.diff(hits.owner)) + 1
    starts = [0, *cuts.tolist()]
    for start, stop in zip(starts, [*starts[1:], len(hits.owner)], strict=True):
        account = owners[int(hits.owner[start])]
        if account is not None:
            account.add_hits(hits.number[start:stop].copy(), hits.sums[start:stop].copy())
