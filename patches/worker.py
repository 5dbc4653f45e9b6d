"""The worker's side of the patch: which token has which profile, and what is counted of it.

One ``WorkerState`` belongs to one model runner. Before each forward pass ``begin`` maps the batch's tokens to profile
slots; during the pass each router calls ``route`` with its layer; after it ``end`` returns the step's report. Outside
of a step nothing is mapped, so warm-up and dummy runs see no profile.

Who carries a profile, which positions it applies to and which tokens are counted is the same on every device and is
here. How a layer is edited and how counts are gathered differs: ``mote.patches.host`` does it with NumPy on a CPU,
``mote.patches.device`` with a kernel and static buffers on a GPU.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from mote.patches.capture import Capture, Segments
from mote.patches.forcing import Forced, Forcing, Laid
from mote.patches.layout import ModelLayout
from mote.patches.messages import Pending, StepReport, Ticket
from mote.patches.profile import Profile
from mote.patches.routes import Route
from mote.patches.slots import SlotTable, Spec

_SPECS_KEPT = 4096
_FAR = np.iinfo(np.int64).max
_Spans = list[tuple[int, int]]


class _Request:
    """A request that carries a profile, from its first step to its end.

    ``seen`` is the high-water mark: tokens below it have been counted, so those that are computed again after a
    preemption are edited again but not counted again. Edits apply to positions from ``first`` to before ``last``.
    """

    __slots__ = ("capture", "first", "last", "prompt", "route", "seen", "spec")

    def __init__(self, spec: Spec, prompt: int, capture: Capture | None, route: Laid | None) -> None:
        self.spec, self.prompt, self.capture, self.route, self.seen = spec, prompt, capture, route, 0
        self.first = prompt if spec.tokens == "generated" else 0
        self.last = prompt if spec.tokens == "prompt" else _FAR


class TokenMap(NamedTuple):
    """Which rows of a batch are edited, and for whom.

    Attributes:
        slot: int32 [tokens], the profile's slot of each row, 0 where it is not edited.
        owner: int32 [tokens], the index of the row's request in the report, -1 for one without a profile.
        counted: bool [tokens], whether the row is counted; None where all are.
        busy: for each layer of the layout, whether a profile of the batch edits what its router has chosen.
        biased: for each layer, whether a profile of the batch edits its router's scores; None where none edits any.
    """

    slot: NDArray[np.int32]
    owner: NDArray[np.int32]
    counted: NDArray[np.bool_] | None
    busy: list[bool]
    biased: list[bool] | None


class WorkerState(ABC):
    """Profiles and batch mapping of one worker. All methods are called by one thread, in the order of steps.

    Args:
        layout: the model's experts.
        max_requests: most requests in a batch.
        max_tokens: most tokens in a batch.
    """

    def __init__(self, layout: ModelLayout, max_requests: int, max_tokens: int) -> None:
        self.layout = layout
        self.max_requests, self.max_tokens = max_requests, max_tokens
        self.slots = SlotTable(layout, max_requests + 1)
        self.requests: dict[str, _Request] = {}
        self._specs: dict[str, Spec] = {}
        self._step = 0
        self._token_slot: NDArray[np.int32] = np.zeros(max_tokens, np.int32)
        self._token_owner: NDArray[np.int32] = np.zeros(max_tokens, np.int32)

    @abstractmethod
    def like(self, max_requests: int, max_tokens: int) -> WorkerState:
        """Return a new state of the same kind, on the same device, for the same layout."""

    @abstractmethod
    def route(self, layer: int, weights: torch.Tensor, ids: torch.Tensor, logits: torch.Tensor | None = None) -> None:
        """Capture and edit, in place, what the router of the ``layer``-th expert layer chose.

        Args:
            layer: row of the layout, not the model's number.
            weights: [rows, k]; rows beyond the mapped tokens are padding and stay as they are.
            ids: [rows, k], logical experts.
            logits: [rows, experts], what it chose by.
        """

    @abstractmethod
    def end(self) -> Pending | None:
        """Return what happened since ``begin``, if anything carried a profile; it is not at hand on every device."""

    @abstractmethod
    def pause(self) -> None:
        """See no profile until the next ``begin``: what runs now is no request."""

    @abstractmethod
    def _start(
        self,
        report: StepReport,
        specs: list[Spec],
        tokens: int,
        edits: TokenMap | None,
        capture: Segments | None,
        written: list[int],
        forced: Forced | None,
    ) -> None:
        """Make ready for a forward pass over ``tokens`` rows; what an earlier step left behind is void.

        Args:
            report: the step's report, to which counts are added.
            specs: the profile of each of the report's requests.
            tokens: rows in the batch, without padding.
            edits: None if no row is edited.
            capture: None if no row is captured.
            written: slots of ``self.slots`` that have been written since the last step.
            forced: the rows that take a route's experts; None if none does.
        """

    def admit(self, req_id: str, params: Any, prompt_tokens: int) -> None:
        """Take note of a new request; one without a profile costs nothing from here on.

        A request that is known stays what it is: Model Runner V2 adds one anew when it resumes after a preemption, and
        its tokens must not be counted twice.
        """
        ticket = Ticket.from_params(params)
        if ticket is None or req_id in self.requests:
            return
        spec = self._specs.get(ticket.spec)
        if spec is None:
            if len(self._specs) >= _SPECS_KEPT:
                self._specs.clear()
            spec = self._specs[ticket.spec] = Spec.of(Profile.from_request_text(ticket.spec))
        capture = None if ticket.capture is None else Capture.from_list(ticket.capture)
        route = None
        if ticket.route is not None:
            route = Laid(ticket.route, self.layout, prompt_tokens, Route.from_request(json.loads(ticket.route)))
        self.requests[req_id] = _Request(spec, prompt_tokens, capture, route)

    def forget(self, req_id: str) -> None:
        """Forget a request that finished or was aborted. Its profile's slot is free for the next that needs one."""
        self.requests.pop(req_id, None)

    def begin(self, req_ids: Sequence[str], computed: NDArray[np.integer[Any]], scheduled: NDArray[np.int32]) -> None:
        """Map the tokens of the batch that is about to run.

        Args:
            req_ids: the requests in the batch's final order.
            computed: [requests], tokens of each that were computed before this step.
            scheduled: [requests], tokens of each in this step; their rows follow each other in the batch.
        """
        known = self.requests
        mine = [(index, known[req_id]) for index, req_id in enumerate(req_ids) if req_id in known] if known else []
        if not mine:
            self.pause()
            return
        self._step += 1
        specs = [request.spec for _, request in mine]
        written = self.slots.place(specs, self._step)
        slot_of = np.zeros(len(req_ids), np.int32)
        owner_of = np.full(len(req_ids), -1, np.int32)
        edited = np.zeros(len(mine), np.int64)
        starts = computed[: len(req_ids)].tolist()
        counts = scheduled.tolist()
        rows = np.concatenate(([0], np.cumsum(scheduled))).tolist()
        partly: _Spans = []
        again: _Spans = []
        capture, forcing = Segments(), Forcing()
        for owner, (index, request) in enumerate(mine):
            start = starts[index]
            stop = start + counts[index]
            fresh = max(start, request.seen)
            slot_of[index] = request.spec.slot if request.spec.edits else 0
            owner_of[index] = owner
            if request.spec.edits:
                edited[owner] = max(0, min(stop, request.last) - max(fresh, request.first))
                if start < request.first:
                    partly.append((rows[index], rows[index] + min(stop, request.first) - start))
                if stop > request.last:
                    partly.append((rows[index] + max(request.last - start, 0), rows[index + 1]))
            if fresh > start:
                again.append((rows[index], rows[index] + min(fresh, stop) - start))
            if request.capture is not None and fresh < stop:
                capture.want(owner, request.capture, request.prompt, rows[index] - start, fresh, stop)
            if request.route is not None:
                forcing.want(owner, request.route, rows[index] - start, start, stop, fresh)
            request.seen = max(request.seen, stop)
        routes = ["" if request.route is None else request.route.digest for _, request in mine]
        report = StepReport([req_ids[index] for index, _ in mine], [spec.digest for spec in specs], edited, routes)
        edits = self._map_tokens(slot_of, owner_of, scheduled, partly, again)
        forced = forcing.join() if forcing else None
        self._start(report, specs, rows[-1], edits, capture if capture else None, written, forced)

    def _map_tokens(
        self,
        slot_of: NDArray[np.int32],
        owner_of: NDArray[np.int32],
        scheduled: NDArray[np.int32],
        partly: _Spans,
        again: _Spans,
    ) -> TokenMap | None:
        used = np.unique(slot_of)
        if used[-1] == 0:
            return None
        tokens = int(scheduled.sum())
        slot, owner = self._token_slot[:tokens], self._token_owner[:tokens]
        slot[:] = np.repeat(slot_of, scheduled)
        owner[:] = np.repeat(owner_of, scheduled)
        for start, stop in partly:
            slot[start:stop] = 0
        counted = None
        if again:
            counted = np.ones(tokens, np.bool_)
            for start, stop in again:
                counted[start:stop] = False
        busy = cast(list[bool], self.slots.touches[:, used].any(axis=1).tolist())
        biased = cast(list[bool], self.slots.biases[:, used].any(axis=1).tolist())
        return TokenMap(slot, owner, counted, busy, biased if any(biased) else None)
