"""Which rows of a batch take which experts: the routes of its requests, laid onto the positions that a step computes.

A row's place in its route follows from its position in its own request alone (``mote.patches.routes``), never from the
batch: a prompt in chunks, a token computed again after a preemption and a batchmate change nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mote.patches.layout import ModelLayout
from mote.patches.routes import Route, route_digest


class Laid:
    """A route as a worker holds it, for one request.

    Attributes:
        digest: what the receipt says.
        at: int64 [tokens], where each of its tokens lies in the request, ascending.
        active: bool [layers], the layout's layers for which it holds.
        ids: int64 [layers, tokens, k], of all the layout's layers, 0 where it does not hold.
        weights: float32 likewise; None where they are recomputed.

    Raises:
        RuntimeError: the route does not align with the prompt, which the front end lets no request do.
    """

    __slots__ = ("active", "at", "digest", "ids", "weights")

    def __init__(self, text: str, layout: ModelLayout, prompt: int, route: Route) -> None:
        self.digest = route_digest(text)
        if route.align == "role" and route.length != prompt:
            raise RuntimeError("a route was laid onto a prompt of another length, which no request may ask for")
        if route.prompt > prompt:
            raise RuntimeError("a route is longer than the prompt of its request, which no request may ask for")
        self.at = np.arange(prompt - route.prompt, prompt - route.prompt + route.tokens)
        if route.align == "role":
            self.at[: route.prompt] = route.at
        rows = [layout.layers.index(layer) for layer in route.layers]
        self.active = np.zeros(len(layout.layers), np.bool_)
        self.active[rows] = True
        self.ids = np.zeros((len(layout.layers), route.tokens, layout.top_k), np.int64)
        self.ids[rows] = route.ids.transpose(1, 0, 2)
        self.weights: NDArray[np.float32] | None = None
        if route.weights is not None:
            self.weights = np.zeros(self.ids.shape, np.float32)
            self.weights[rows] = route.weights.transpose(1, 0, 2)

    def within(self, start: int, stop: int) -> slice:
        """Return which of its tokens lie from ``start`` to before ``stop``."""
        low, high = np.searchsorted(self.at, (start, stop)).tolist()
        return slice(low, high)


class Forced(NamedTuple):
    """The rows of a batch that take the experts of a route.

    Attributes:
        token: int64 [rows], which of the batch's tokens; the other arrays have a row for each.
        owner: int64 [rows], the index of the request in the report.
        counted: bool [rows], whether the row is counted: it is computed for the first time.
        active: bool [layers, rows], in which of the layout's layers.
        ids: int64 [layers, rows, k].
        weights: float32 [layers, rows, k]; where ``kept`` is False they mean nothing.
        kept: bool [rows], whether the weights are the route's own.
    """

    token: NDArray[np.int64]
    owner: NDArray[np.int64]
    counted: NDArray[np.bool_]
    active: NDArray[np.bool_]
    ids: NDArray[np.int64]
    weights: NDArray[np.float32]
    kept: NDArray[np.bool_]


class Forcing:
    """Collects the forced rows of one step. False while there are none."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[tuple[Laid, slice, int, int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._parts)

    def want(self, owner: int, laid: Laid, offset: int, start: int, stop: int, fresh: int) -> None:
        """Force what a route says of positions ``start`` to before ``stop``; position p is the row ``offset + p``.

        Positions from ``fresh`` on are counted.
        """
        place = laid.within(start, stop)
        if place.start < place.stop:
            self._parts.append((laid, place, owner, offset, fresh))

    def join(self) -> Forced:
        """Return all rows together."""
        parts = [_forced(*part) for part in self._parts]
        return Forced(
            np.concatenate([part.token for part in parts]),
            np.concatenate([part.owner for part in parts]),
            np.concatenate([part.counted for part in parts]),
            np.concatenate([part.active for part in parts], axis=1),
            np.concatenate([part.ids for part in parts], axis=1),
            np.concatenate([part.weights for part in parts], axis=1),
            np.concatenate([part.kept for part in parts]),
        )


def _forced(laid: Laid, place: slice, owner: int, offset: int, fresh: int) -> Forced:
    position, ids = laid.at[place], laid.ids[:, place]
    rows = len(position)
    return Forced(
        offset + position,
        np.full(rows, owner),
        position >= fresh,
        np.repeat(laid.active[:, None], rows, axis=1),
        ids,
        np.zeros(ids.shape, np.float32) if laid.weights is None else laid.weights[:, place],
        np.full(rows, laid.weights is not None),
    )
