"""The account of one request: what the workers' reports said of it so far, and the observation that they add up to.

Accounts add: the news of some steps, added to the account of the steps before, is the account of them all. So the
scheduler can keep an account until a request ends, or hand its news on step by step to whoever knows the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mote.patches.capture import Capture, count, split
from mote.patches.layout import ModelLayout
from mote.patches.messages import MapPart, RowPart, Ticket
from mote.patches.observation import ActivationMap, EditEffect, Observation, Receipt
from mote.patches.profile import Edit, Profile

_WAITING = 2048
"""Hits (48 bytes each) that an account keeps unsummed: a step has some, and summing them costs more than keeping."""


class Account:
    """What is known about one request.

    Attributes:
        digest: of the profile that the worker held.
        edited: tokens that were routed under a profile with edits.
        route: digest of the route that the worker held, "" for none.
        forced: tokens times layers that took the route's experts.
        changed: those of them whose router had chosen other experts.
        maps: by role, the parts of activation maps, summed.
        rows: by role, the experts chosen for each token, in parts.
    """

    __slots__ = (
        "_hits",
        "_sums",
        "_touched",
        "_waiting",
        "changed",
        "digest",
        "edited",
        "forced",
        "maps",
        "route",
        "rows",
    )

    def __init__(self, digest: str, route: str = "") -> None:
        self.digest, self.route = digest, route
        self.edited = self.forced = self.changed = 0
        self._hits: list[tuple[NDArray[np.integer[Any]], NDArray[np.float64]]] = []
        self._waiting = 0
        self._sums: NDArray[np.float64] = np.zeros((0, 5))
        self._touched: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.maps: dict[str, MapPart] = {}
        self.rows: dict[str, list[RowPart]] = {}

    @property
    def hits(self) -> tuple[NDArray[np.integer[Any]], NDArray[np.float64]]:
        """What edits did: integers [touched], canonical edits that met tokens, ascending; and their sums, [touched, 5].

        The sums are: selected, entered, weight before, weight after, left.
        """
        if len(self._hits) == 1 and not len(self._sums):
            return self._hits[0]
        self._sum_up()
        numbers = np.flatnonzero(self._touched)
        return numbers, self._sums[numbers]

    def add_hits(self, numbers: NDArray[np.integer[Any]], sums: NDArray[np.float64]) -> None:
        """Add what edits did; each number stands once, ascending. The arrays are kept for a while."""
        if not len(numbers):
            return
        self._hits.append((numbers, sums))
        self._waiting += len(numbers)
        if self._waiting > _WAITING:
            self._sum_up()

    def _sum_up(self) -> None:
        if not self._hits:
            return
        numbers = np.concatenate([each for each, _ in self._hits])
        missing = int(numbers.max()) + 1 - len(self._sums)
        if missing > 0:
            room = max(missing, len(self._sums), 16)  # doubling, so that many steps cost few copies
            self._sums = np.concatenate((self._sums, np.zeros((room, 5))))
            self._touched = np.concatenate((self._touched, np.zeros(room, bool)))
        # One after the other, in the order in which they came: how often this is done changes no bit.
        added = np.concatenate([each for _, each in self._hits])
        np.add.at(self._sums.ravel(), (numbers[:, None] * 5 + np.arange(5)).ravel(), added.ravel())
        self._touched[numbers] = True
        self._hits, self._waiting = [], 0

    def add_map(self, part: MapPart) -> None:
        """Add a part of a map to the map of its role."""
        known = self.maps.get(part.role)
        if known is not None:
            weights = known.weights
            if weights is not None and part.weights is not None:
                weights = weights + part.weights
            counted = known.counted + part.counted
            part = part._replace(counted=counted, counts=known.counts + part.counts, weights=weights)
        self.maps[part.role] = part

    def add_rows(self, part: RowPart) -> None:
        """Add tokens behind those of their role."""
        self.rows.setdefault(part.role, []).append(part)

    def drain(self) -> Account:
        """Return all that was added, and keep nothing of it but the digests."""
        news = Account(self.digest, self.route)
        for name in self.__slots__:
            old = getattr(self, name)
            setattr(self, name, getattr(news, name))
            setattr(news, name, old)
        return news

    def add(self, news: Account) -> None:
        """Add another account of the same request, of later steps; its digest is the newer one."""
        self.digest, self.route = news.digest, news.route
        self.edited += news.edited
        self.forced += news.forced
        self.changed += news.changed
        self.add_hits(*news.hits)
        for part in news.maps.values():
            self.add_map(part)
        for parts in news.rows.values():
            for rows in parts:
                self.add_rows(rows)

    def rows_of(self, role: str, layout: ModelLayout) -> RowPart:
        """Return the tokens of a role as one part; no token is a part too."""
        parts = self.rows.get(role)
        if not parts:
            shape = (0, len(layout.layers), layout.top_k)
            logits = np.zeros((*shape[:2], layout.experts), np.float32)
            return RowPart(0, role, np.zeros(shape, np.uint16), np.zeros(shape, np.float32), logits)
        if len(parts) > 1:
            parts[:] = [RowPart.joined(parts)]
        return parts[0]


def observe(
    account: Account, layout: ModelLayout, version: str, ticket: Ticket, prompt: int, tokens: Sequence[int]
) -> Observation:
    """Return what an account says about a whole answer.

    Args:
        account: of all the request's steps.
        layout: the model's experts.
        version: of the patch, for the receipt.
        ticket: what the request asked for.
        prompt: number of prompt tokens.
        tokens: the generated token ids.
    """
    maps, rows, weights, logits = {}, {}, {}, {}
    if ticket.capture is not None:
        capture = Capture.from_list(ticket.capture)
        if capture.what != "rows":
            maps["prompt"] = _map(account, layout, capture, "prompt", prompt)
        if capture.last:
            maps["prompt_last"] = _map(account, layout, capture, "prompt_last", min(capture.last, prompt))
        if capture.what == "roles":
            maps |= _generated_maps(account, layout, capture, tokens)
        elif capture.what == "rows":
            for role in ("prompt", "generated"):
                part = account.rows_of(role, layout)
                rows[role] = part.ids
                if capture.weights and part.weights is not None:
                    weights[role] = part.weights
                if capture.logits and part.logits is not None:
                    logits[role] = part.logits
    receipt = Receipt(account.digest, account.edited, version, account.route, account.forced, account.changed)
    mechanism = _effects(account, _edits(ticket.spec))
    return Observation(receipt, layout.layers, maps, mechanism, rows, weights, logits)


def _map(account: Account, layout: ModelLayout, capture: Capture, role: str, total: int) -> ActivationMap:
    part = account.maps.get(role)
    if part is not None:
        return ActivationMap(part.counts, part.counted, total, part.weights)
    empty = np.zeros((len(layout.layers), layout.experts))
    return ActivationMap(empty.astype(np.int32), 0, total, empty.astype(np.float32) if capture.weights else None)


def _generated_maps(
    account: Account, layout: ModelLayout, capture: Capture, tokens: Sequence[int]
) -> dict[str, ActivationMap]:
    """Divide the generated tokens' rows into reasoning and answer. The last token was not routed: it has no row."""
    rows, cut, maps = account.rows_of("generated", layout), split(tokens, capture), {}
    for role, start, stop in (("reasoning", 0, cut), ("answer", cut, len(tokens))):
        ids = rows.ids[start:stop]
        weights = rows.weights[start:stop] if capture.weights and rows.weights is not None else None
        counts, sums = count(ids, layout, weights)
        maps[role] = ActivationMap(counts, len(ids), stop - start, sums)
    return maps


@lru_cache(maxsize=1024)
def _edits(spec: str) -> tuple[Edit, ...]:
    return Profile.from_request_text(spec).canonical


def _effects(account: Account, edits: tuple[Edit, ...]) -> tuple[EditEffect, ...]:
    sums = np.zeros((len(edits), 5))
    numbers, found = account.hits
    sums[numbers] = found
    return tuple(
        EditEffect(
            edit.layer,
            edit.expert,
            edit.action,
            edit.factor,
            account.edited,
            int(row[0]),
            int(row[1]),
            row[2],
            row[3],
            int(row[4]),
        )
        for edit, row in zip(edits, sums.tolist(), strict=True)
    )
