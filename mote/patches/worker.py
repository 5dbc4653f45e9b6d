"""The worker's side of the patch: which token has which profile, the edit of a layer, and the count of what happened.

One ``WorkerState`` belongs to one model runner. Before each forward pass ``begin`` maps the batch's tokens to profile
slots; during the pass each router calls ``route`` with its layer; after it ``end`` returns the step's report. Outside
of a step nothing is mapped, so warm-up and dummy runs see no profile. Layers that no profile of the batch touches
return at the first line of ``route``.

This is the state for a CPU: NumPy views of the routers' tensors. On a few hundred rows NumPy's operations cost a
fraction of torch's, and the arithmetic is the pure function of ``mote.patches.edit`` itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from mote.patches.capture import Capture, CaptureBuffer
from mote.patches.edit import edit_rows
from mote.patches.layout import ModelLayout
from mote.patches.messages import Hits, StepReport, Ticket
from mote.patches.profile import Profile
from mote.patches.slots import SlotTable, Spec

_SPECS_KEPT = 4096
_FAR = np.iinfo(np.int64).max


class _Request:
    """A request that carries a profile, from its first step to its end.

    ``seen`` is the high-water mark: tokens below it have been counted, so those that are computed again after a
    preemption are edited again but not counted again. Edits apply to positions from ``first`` to before ``last``.
    """

    __slots__ = ("capture", "first", "last", "prompt", "seen", "spec")

    def __init__(self, spec: Spec, prompt: int, capture: Capture | None) -> None:
        self.spec, self.prompt, self.capture, self.seen = spec, prompt, capture, 0
        self.first = prompt if spec.tokens == "generated" else 0
        self.last = prompt if spec.tokens == "prompt" else _FAR


class _Hit(NamedTuple):
    """Where edits met tokens in one layer; ``before`` is None for stimulated experts that took a slot."""

    token: NDArray[Any]
    number: NDArray[Any]
    before: NDArray[np.float32] | None
    after: NDArray[np.float32]


class WorkerState:
    """Profiles, batch mapping and counts of one worker. All methods are called by one thread, in the order of steps.

    Args:
        layout: the model's experts.
        max_requests: most requests in a batch.
        max_tokens: most tokens in a batch.
    """

    def __init__(self, layout: ModelLayout, max_requests: int, max_tokens: int) -> None:
        self.layout = layout
        self.slots = SlotTable(layout, max_requests + 1)
        self.requests: dict[str, _Request] = {}
        self._specs: dict[str, Spec] = {}
        self._step = 0
        layers = len(layout.layers)
        self._idle = [False] * layers
        self._busy: list[bool] = self._idle
        self._tokens = 0
        self._token_slot: NDArray[np.int32] = np.zeros(max_tokens, np.int32)
        self._token_owner: NDArray[np.int32] = np.zeros(max_tokens, np.int32)
        self._counted: NDArray[np.bool_] | None = None
        self._capture = CaptureBuffer(layout, max_tokens)
        self._hits: list[_Hit] = []
        self._report: StepReport | None = None

    def admit(self, req_id: str, params: Any, prompt_tokens: int) -> None:
        """Take note of a new request; one without a profile costs nothing from here on."""
        ticket = Ticket.from_params(params)
        if ticket is None:
            return
        spec = self._specs.get(ticket.spec)
        if spec is None:
            if len(self._specs) >= _SPECS_KEPT:
                self._specs.clear()
            spec = self._specs[ticket.spec] = Spec.of(Profile.from_request_text(ticket.spec))
        capture = None if ticket.capture is None else Capture.from_list(ticket.capture)
        self.requests[req_id] = _Request(spec, prompt_tokens, capture)

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
        self._reset()
        if not self.requests:
            return
        known = self.requests
        mine = [(index, known[req_id]) for index, req_id in enumerate(req_ids) if req_id in known]
        if not mine:
            return
        self._step += 1
        self.slots.place([request.spec for _, request in mine], self._step)
        slot_of = np.zeros(len(req_ids), np.int32)
        owner_of = np.full(len(req_ids), -1, np.int32)
        edited = np.zeros(len(mine), np.int64)
        starts = computed[: len(req_ids)].tolist()
        counts = scheduled.tolist()
        rows = np.concatenate(([0], np.cumsum(scheduled))).tolist()
        partly: list[tuple[int, int]] = []
        again: list[tuple[int, int]] = []
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
                self._capture.want(owner, request.capture, request.prompt, rows[index] - start, fresh, stop)
            request.seen = max(request.seen, stop)
        self._map_tokens(slot_of, owner_of, scheduled, partly, again)
        self._report = StepReport(
            [req_ids[index] for index, _ in mine], [request.spec.digest for _, request in mine], edited
        )

    def _map_tokens(
        self,
        slot_of: NDArray[np.int32],
        owner_of: NDArray[np.int32],
        scheduled: NDArray[np.int32],
        partly: list[tuple[int, int]],
        again: list[tuple[int, int]],
    ) -> None:
        self._tokens = int(scheduled.sum())
        used = np.unique(slot_of)
        if used[-1] == 0:
            return
        self._token_slot[: self._tokens] = np.repeat(slot_of, scheduled)
        self._token_owner[: self._tokens] = np.repeat(owner_of, scheduled)
        for start, stop in partly:
            self._token_slot[start:stop] = 0
        if again:
            self._counted = np.ones(self._tokens, np.bool_)
            for start, stop in again:
                self._counted[start:stop] = False
        self._busy = cast(list[bool], self.slots.touches[:, used].any(axis=1).tolist())

    def route(self, layer: int, weights: torch.Tensor, ids: torch.Tensor) -> None:
        """Capture and edit, in place, what the router of the ``layer``-th expert layer chose.

        Args:
            layer: row of the layout, not the model's number.
            weights: [tokens, k]; rows beyond the mapped tokens are padding.
            ids: [tokens, k], logical experts.
        """
        if self._capture.active:
            self._capture.put(layer, self._tokens, weights, ids)
        if self._busy[layer]:
            self._edit(layer, weights, ids)

    def _edit(self, layer: int, weights: torch.Tensor, ids: torch.Tensor) -> None:
        slot = self._token_slot[: self._tokens]
        token = np.flatnonzero(self.slots.touches[layer][slot])
        slot = slot[token]
        all_ids = ids.numpy()
        chosen = all_ids[token]
        number = self.slots.number[layer][slot[:, None], chosen]
        concerned = number.any(axis=1)
        wanted = self.slots.wanted[layer]
        if wanted.shape[1]:
            concerned |= wanted[slot, 0] >= 0
        if not concerned.any():
            return
        if not concerned.all():
            token, slot, chosen, number = token[concerned], slot[concerned], chosen[concerned], number[concerned]
        native = weights.dtype == torch.float32
        all_weights = weights.numpy() if native else weights.float().numpy()
        before = all_weights[token]
        gain = self.slots.gain[slot[:, None], number]
        want = wanted[slot] if wanted.shape[1] else None
        edited = edit_rows(before, chosen, gain, want)
        all_weights[token] = edited.weights
        if not native:
            weights.copy_(torch.from_numpy(all_weights))
        row, column = np.nonzero(number)
        after = edited.weights[row, column]
        if edited.displaced is not None and edited.entered is not None and want is not None:
            all_ids[token] = edited.ids
            after[edited.displaced[row, column]] = 0.0
            entering, which, taken = edited.entered
            if len(entering):
                entry = self.slots.number[layer][slot[entering], want[entering, which]]
                self._hits.append(_Hit(token[entering], entry, None, edited.weights[entering, taken]))
        self._hits.append(_Hit(token[row], number[row, column], before[row, column], after))

    def end(self) -> StepReport | None:
        """Return what happened since ``begin``, and see no profile until the next ``begin``."""
        report = self._report
        if report is not None:
            if self._hits:
                report.hits = self._sum_hits()
            if self._capture.active:
                report.maps, report.rows = self._capture.collect()
        self._reset()
        return report

    def pause(self) -> None:
        """See no profile until the next ``begin``: what runs now is no request."""
        self._reset()

    def _reset(self) -> None:
        self._busy = self._idle
        self._tokens = 0
        self._counted = None
        self._capture.reset()
        self._hits = []
        self._report = None

    def _sum_hits(self) -> Hits | None:
        token = np.concatenate([hit.token for hit in self._hits])
        number = np.concatenate([hit.number for hit in self._hits])
        before = np.concatenate([np.zeros(len(hit.token)) if hit.before is None else hit.before for hit in self._hits])
        after = np.concatenate([hit.after for hit in self._hits])
        entered = np.concatenate([np.full(len(hit.token), hit.before is None) for hit in self._hits])
        if self._counted is not None:
            keep = self._counted[token]
            token, number, before, after, entered = token[keep], number[keep], before[keep], after[keep], entered[keep]
            if not len(token):
                return None
        width = self.slots.gain.shape[1]
        pairs, place = np.unique(self._token_owner[token].astype(np.int64) * width + number - 1, return_inverse=True)
        sums = np.empty((len(pairs), 4), np.float64)
        for column, values in enumerate((~entered, entered, before, after)):
            sums[:, column] = np.bincount(place, values, len(pairs))
        return Hits(pairs // width, pairs % width, sums)
