"""The worker's state on a CPU: NumPy views of the routers' tensors.

On a few hundred rows NumPy's operations cost a fraction of torch's, and the arithmetic is the pure function of
``mote.patches.edit`` itself. Layers that no profile of the batch touches return at the first lines of ``route``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mote.patches.capture import CaptureBuffer, Segments
from mote.patches.choice import Chooser, ScoreEdits
from mote.patches.edit import edit_rows
from mote.patches.forcing import Forced
from mote.patches.layout import ModelLayout
from mote.patches.messages import Hits, StepReport
from mote.patches.slots import Spec
from mote.patches.worker import TokenMap, WorkerState


class _Hit(NamedTuple):
    """Where edits met tokens in one layer; ``before`` is None for experts that came in.

    ``left`` says which were chosen no more; None where none can be.
    """

    token: NDArray[Any]
    number: NDArray[Any]
    before: NDArray[np.floating[Any]] | None
    after: NDArray[np.float32]
    left: NDArray[np.bool_] | None = None


class _Rows(NamedTuple):
    """Edited rows of one layer as they are, [rows, k]; ``place`` is where the table of numbers has their experts."""

    token: NDArray[np.intp]
    place: NDArray[np.intp]
    before: NDArray[np.float64]
    after: NDArray[np.float32]

    def hit(self, numbers: NDArray[np.int32]) -> _Hit:
        """Return where edits met tokens in them."""
        number = numbers.take(self.place)
        row, column = number.nonzero()
        return _Hit(self.token[row], number[row, column], self.before[row, column], self.after[row, column])


class _Lines(NamedTuple):
    """The rows of a batch that one layer edits: the same for every layer that the same profiles of the batch edit.

    Attributes:
        token: int [rows], which they are.
        slot: int [rows], the slots of their profiles.
        experts: int [rows, 1], where each slot's line of experts begins in a layer's table.
        whole: whether they are the batch's first rows, none left out.
    """

    token: NDArray[np.intp]
    slot: NDArray[np.intp]
    experts: NDArray[np.intp]
    whole: bool


_MANY = 64
"""Rows from which on it costs less to leave those out that no edit met than to edit all alike."""


class HostState(WorkerState):
    """The state of a worker whose routers run on the CPU; its reports are at hand when the step ends.

    Attributes:
        choosers: for each layer of the layout, how its router chooses by edited scores, or why it cannot. Empty
            where no model is attached.
    """

    def __init__(self, layout: ModelLayout, max_requests: int, max_tokens: int) -> None:
        super().__init__(layout, max_requests, max_tokens)
        self._idle = [False] * len(layout.layers)
        self._busy: list[bool] = self._idle
        self._biased: list[bool] | None = None
        self.choosers: list[Chooser | str] = []
        self._edits: TokenMap | None = None
        # The gain of every expert, as the edit asks for it; a layer's pattern of slots says which lines it shares.
        self._gain = np.ones(self.slots.number.shape, np.float32)
        self._pattern = [b""] * len(layout.layers)
        self._lines: dict[bytes, _Lines] = {}
        self._forced: Forced | None = None
        self._forced_rows = np.zeros((0, 2), np.int64)
        self._capture = CaptureBuffer(layout, max_tokens)
        self._hits: list[_Hit] = []
        self._rows: list[_Rows] = []
        self._report: StepReport | None = None

    def like(self, max_requests: int, max_tokens: int) -> HostState:
        """Return a new state for the same layout."""
        other = HostState(self.layout, max_requests, max_tokens)
        other.choosers = self.choosers
        return other

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
        self.pause()
        self._report, self._edits, self._forced = report, edits, forced
        if forced is not None:
            self._forced_rows = np.zeros((len(forced.token), 2), np.int64)
        for slot in written:
            self._gain[:, slot] = self.slots.gain[slot].take(self.slots.number[:, slot])
        if written:
            self._pattern = [touches.tobytes() for touches in self.slots.touches]
        if edits is not None:
            self._busy, self._biased = edits.busy, edits.biased
        if capture is not None:
            self._capture.begin(capture, tokens)

    def route(self, layer: int, weights: torch.Tensor, ids: torch.Tensor, logits: torch.Tensor | None = None) -> None:
        """Capture and edit a layer's routing in place; see :meth:`WorkerState.route`."""
        if self._capture.active:
            self._capture.put(layer, weights, ids, logits)
        if self._forced is not None:
            self._force(layer, self._forced, weights, ids, logits)
        if self._busy[layer] and self._edits is not None:
            self._edit(layer, self._edits.slot, weights, ids)
        if self._biased is not None and self._biased[layer] and self._edits is not None:
            self._choose(layer, self._edits.slot, weights, ids, logits)
        if self._capture.active:
            self._capture.put_applied(layer, weights, ids)

    def _chooser(self, layer: int, logits: torch.Tensor | None) -> tuple[Chooser, torch.Tensor]:
        chooser = self.choosers[layer] if self.choosers else "no model is attached"
        if isinstance(chooser, str) or logits is None:
            raise RuntimeError(f"the scores of expert layer {layer} cannot be edited: {chooser}")
        return chooser, logits

    def _force(
        self, layer: int, forced: Forced, weights: torch.Tensor, ids: torch.Tensor, logits: torch.Tensor | None
    ) -> None:
        """Give the forced rows the experts of their routes, and no other row anything.

        A row whose router chose the same experts keeps its bits where weights are recomputed: they are what that gives.
        """
        chooser, logits = self._chooser(layer, logits)
        active = forced.active[layer]
        own = np.sort(ids.numpy()[forced.token], axis=1)
        other = active & (own != np.sort(forced.ids[layer], axis=1)).any(axis=1)
        self._forced_rows += np.stack((active, other), axis=1)
        rows = np.flatnonzero(active & (other | forced.kept))
        if not len(rows):
            return
        token, want = torch.from_numpy(forced.token[rows]), torch.from_numpy(forced.ids[layer][rows])
        if forced.kept[rows].all():
            given = torch.from_numpy(forced.weights[layer][rows])
        else:
            # Over the whole batch, so that a row's bits do not depend on which other rows are forced.
            everywhere = ids.to(torch.int64, copy=True)
            everywhere[token] = want
            given = chooser.weigh(logits, everywhere)[token]
            kept = np.flatnonzero(forced.kept[rows])
            given[torch.from_numpy(kept)] = torch.from_numpy(forced.weights[layer][rows[kept]])
        weights[token], ids[token] = given.to(weights.dtype), want.to(ids.dtype)

    def _lines_of(self, layer: int, slots: NDArray[np.int32]) -> _Lines:
        """Return the rows that a layer edits; a step asks for few different ones, most often for one."""
        found = self._lines.get(self._pattern[layer])
        if found is None:
            # ``take`` by flat numbers costs a third of indexing by two arrays.
            token = self.slots.touches[layer].take(slots).nonzero()[0]
            slot = slots.take(token).astype(np.intp)
            found = _Lines(token, slot, slot[:, None] * self.layout.experts, len(token) == len(slots))
            self._lines[self._pattern[layer]] = found
        return found

    def _edit(self, layer: int, slots: NDArray[np.int32], weights: torch.Tensor, ids: torch.Tensor) -> None:
        # Every layer of every step comes here with a few rows: what costs is how many operations there are.
        lines = self._lines_of(layer, slots)
        token, slot, experts, whole = lines
        all_ids, count = ids.numpy(), len(token)
        chosen = all_ids[:count] if whole else all_ids.take(token, axis=0)
        place = experts + chosen
        gain = self._gain[layer].take(place)
        wanted = self.slots.wanted[layer]
        if count > _MANY:
            concerned = (gain != 1).any(axis=1)
            if wanted.shape[1]:
                concerned |= wanted[slot, 0] >= 0
            if not concerned.all():
                token, slot, chosen, place, gain = (each[concerned] for each in (token, slot, chosen, place, gain))
                whole = False
                if not len(token):
                    return
        native = weights.dtype == torch.float32
        all_weights = weights.numpy() if native else weights.float().numpy()
        before = (all_weights[:count] if whole else all_weights.take(token, axis=0)).astype(np.float64)
        want = wanted[slot] if wanted.shape[1] else None
        edited = edit_rows(before, chosen, gain, want)
        all_weights[slice(count) if whole else token] = edited.weights
        if not native:
            weights.copy_(torch.from_numpy(all_weights))
        after = edited.weights
        if edited.displaced is not None and edited.entered is not None and want is not None:
            all_ids[token] = edited.ids
            after = np.where(edited.displaced, np.float32(0), after)
            entering, which, taken = edited.entered
            if len(entering):
                entry = self.slots.number[layer][slot[entering], want[entering, which]]
                self._hits.append(_Hit(token[entering], entry, None, edited.weights[entering, taken]))
        self._rows.append(_Rows(token, place + layer * self._gain[0].size, before, after))

    def _choose(
        self,
        layer: int,
        slots: NDArray[np.int32],
        weights: torch.Tensor,
        ids: torch.Tensor,
        logits: torch.Tensor | None,
    ) -> None:
        """Let the router choose again, by edited scores, for the rows whose profile edits them, and for no other."""
        chooser, logits = self._chooser(layer, logits)
        token = np.flatnonzero(self.slots.biases[layer][slots])
        slot, rows = slots[token], torch.from_numpy(token)
        number = self.slots.number[layer][slot]
        code, amount = self.slots.code[slot[:, None], number], self.slots.gain[slot[:, None], number]
        edits = ScoreEdits(rows, torch.from_numpy(code), torch.from_numpy(amount))
        own_weights, own_ids = weights[rows].float().numpy(), ids[rows].numpy()
        chosen_weights, chosen_ids = (each[rows] for each in chooser.choose(logits, edits))
        weights[rows], ids[rows] = chosen_weights.to(weights.dtype), chosen_ids.to(ids.dtype)

        line = np.arange(len(token))[:, None]
        before, after = np.zeros(number.shape, np.float32), np.zeros(number.shape, np.float32)
        was, is_now = np.zeros(number.shape, np.bool_), np.zeros(number.shape, np.bool_)
        before[line, own_ids], was[line, own_ids] = own_weights, True
        new_ids = chosen_ids.numpy()
        after[line, new_ids], is_now[line, new_ids] = chosen_weights.numpy(), True
        row, expert = np.nonzero(was & (number > 0))
        self._hits.append(
            _Hit(token[row], number[row, expert], before[row, expert], after[row, expert], ~is_now[row, expert])
        )
        row, expert = np.nonzero(is_now & ~was & (number > 0))
        self._hits.append(_Hit(token[row], number[row, expert], None, after[row, expert]))

    def end(self) -> StepReport | None:
        """Return what happened since ``begin``, and see no profile until the next ``begin``."""
        report = self._report
        if report is not None:
            if self._rows:
                # Of all layers at once: each layer of each step would pay for it singly.
                self._hits.append(
                    _Rows(*(np.concatenate(each) for each in zip(*self._rows, strict=True))).hit(self.slots.number)
                )
            if self._hits and self._edits is not None:
                report.hits = self._sum_hits(self._edits)
            if self._forced is not None:
                report.forced = np.zeros((len(report.req_ids), 2), np.int64)
                counted = self._forced.counted
                np.add.at(report.forced, self._forced.owner[counted], self._forced_rows[counted])
            if self._capture.active:
                report.maps, report.rows = self._capture.collect()
        self.pause()
        return report

    def pause(self) -> None:
        """See no profile until the next ``begin``."""
        self._busy = self._idle
        self._biased = None
        self._edits = None
        self._lines = {}
        self._forced = None
        self._capture.reset()
        self._hits, self._rows = [], []
        self._report = None

    def _sum_hits(self, edits: TokenMap) -> Hits | None:
        token = np.concatenate([hit.token for hit in self._hits])
        number = np.concatenate([hit.number for hit in self._hits])
        before = np.concatenate([np.zeros(len(hit.token)) if hit.before is None else hit.before for hit in self._hits])
        after = np.concatenate([hit.after for hit in self._hits])
        entered = np.concatenate([np.full(len(hit.token), hit.before is None) for hit in self._hits])
        left = np.concatenate([np.zeros(len(hit.token)) if hit.left is None else hit.left for hit in self._hits])
        if edits.counted is not None:
            keep = edits.counted[token]
            token, number, before, after, entered = token[keep], number[keep], before[keep], after[keep], entered[keep]
            left = left[keep]
        if not len(token):
            return None
        width = self.slots.gain.shape[1]
        pairs, place = np.unique(edits.owner[token].astype(np.int64) * width + number - 1, return_inverse=True)
        sums = np.empty((len(pairs), 5), np.float64)
        for column, values in enumerate((~entered, entered, before, after, left)):
            sums[:, column] = np.bincount(place, values, len(pairs))
        return Hits(pairs // width, pairs % width, sums)
