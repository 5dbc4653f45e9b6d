"""The worker's state on a GPU: static buffers that a kernel reads, and reports that arrive later.

Run on one H100 under Model Runner V2, eagerly and by CUDA graphs (``results/gpu``); V1's hooks and several GPUs are
written and not yet run.

What a CUDA graph sees. When vLLM replays a graph, no Python of the model runs, so ``route`` is not called: the kernel
that was recorded runs again, with the addresses it was recorded with. Everything that differs between steps therefore
lives in ``DeviceBuffers`` (``mote.patches.buffers``), which are allocated once, before the first graph is recorded, and
never grow:

- ``control`` says how many rows the batch has and whether the step captures, then each row's slot and where it is
  counted. It is one upload a step, on the stream of the forward pass and before it. A batch without profiles has 0
  rows here, whatever its size: each program of the kernel ends at its first load. While one such batch follows
  another, nothing is uploaded at all. Padding rows lie beyond the count, stale rows of earlier batches too.
- the profiles' tables have a slot for each request of a full batch and one more. A profile is uploaded when a batch
  first needs it. They have room for ``DEVICE_EDITS`` edits a profile; one with more is refused at admission.
- ``sums`` collects what the edits did, a row for each edit of each request of the batch, one after the other.
- ``kept_ids`` and ``kept_weights`` hold the routers' own choice of the step that captures.

Nothing waits for the device within a step. Uploads come from pinned memory that torch's host allocator keeps until
the copy is done. When a step ends its results are copied aside on the forward pass's stream, before the next step can
overwrite them, then to pinned memory on a stream of their own; whoever hands the output over waits for that copy's
event, which with asynchronous scheduling is another thread, one step later.

Memory. The buffers are allocated when the model is loaded, before vLLM measures what is left for its cache. What a step
that captures takes when it ends comes on top, and vLLM's memory profile does not know of it. Maps take segments x
layers x experts x 4 bytes, 12 with weights; a segment is one role of one request. 1024 prompts of DeepSeek-R1 (58 x 256
experts) that are captured with weights in one step are 182 MB, with ``last`` too 365 MB; leave room for that with a
lower ``gpu_memory_utilization``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.utils.torch_utils import async_tensor_h2d

from mote.patches.buffers import CONTROL_HEADER, DeviceBuffers, Launch
from mote.patches.capture import Segment, Segments, map_parts, tokens_of
from mote.patches.forcing import Forced
from mote.patches.guards import OFF, UnprovenConfigurationError
from mote.patches.layout import ModelLayout
from mote.patches.messages import Hits, Pending, RowPart, StepReport
from mote.patches.slots import SlotTable, Spec
from mote.patches.worker import TokenMap, WorkerState

_CHUNK = 1 << 21
"""Most elements of a temporary while maps are counted: 16 MiB each, a few at a time, beside the maps themselves."""


class DeviceState(WorkerState):
    """The state of a worker whose routers run on a GPU.

    Args:
        layout: the model's experts; fewer than 32768 in a layer.
        max_requests: most requests in a batch.
        max_tokens: most tokens in a batch.
        device: where the routers' tensors are.
        launch: what edits a layer; by default the Triton kernel.
    """

    def __init__(
        self,
        layout: ModelLayout,
        max_requests: int,
        max_tokens: int,
        device: torch.device,
        launch: Launch | None = None,
    ) -> None:
        super().__init__(layout, max_requests, max_tokens)
        if layout.experts > np.iinfo(np.int16).max:
            raise UnprovenConfigurationError(
                f"the GPU's tables have room for {np.iinfo(np.int16).max} experts a layer, {layout.architecture} has "
                f"{layout.experts}: run it on a CPU, {OFF}"
            )
        self._device = device
        self._launch = launch if launch is not None else _triton_launch()
        self.buffers = DeviceBuffers.allocate(layout, max_requests, max_tokens, device)
        self._stream: Any = _cuda().Stream(device) if device.type == "cuda" else None
        self._idle = True  # no row is mapped on the device
        self._untouched = [False] * len(layout.layers)
        self._busy: list[bool] | None = None  # None outside of a step
        self._report: StepReport | None = None
        self._specs_of_step: list[Spec] = []
        self._capture: Segments | None = None

    def like(self, max_requests: int, max_tokens: int) -> DeviceState:
        """Return a new state on the same device, for the same layout."""
        return DeviceState(self.layout, max_requests, max_tokens, self._device, self._launch)

    def begin(self, req_ids: Sequence[str], computed: NDArray[np.integer[Any]], scheduled: NDArray[np.int32]) -> None:
        """Map the tokens of the batch that is about to run; see :meth:`WorkerState.begin`."""
        super().begin(req_ids, computed, scheduled)
        if self._busy is None:
            self._busy = self._untouched

    @torch.inference_mode()
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
        if forced is not None:
            raise RuntimeError("a request has a route on a GPU, which no request may ask for")
        if written:
            self._upload_slots(written)
        self._busy, self._report, self._capture = None, report, capture
        self._specs_of_step = [] if edits is None else specs
        if edits is not None and edits.biased is not None:
            raise RuntimeError("a profile edits scores before the choice on a GPU, which no request may ask for")
        if edits is None and capture is None:
            self._clear()
            return
        self._busy = [True] * len(self.layout.layers) if edits is None or capture is not None else edits.busy
        block = np.zeros((CONTROL_HEADER // 2 + tokens, 2), np.int32)
        block[0] = tokens, 0 if capture is None else 2 if capture.weighed else 1
        rows = block[CONTROL_HEADER // 2 :]
        rows[:, 1] = -1
        if edits is not None:
            bases = np.cumsum([0] + [len(spec.edits) for spec in specs])
            counted = edits.slot > 0 if edits.counted is None else (edits.slot > 0) & edits.counted
            rows[:, 0] = edits.slot
            rows[counted, 1] = bases[edits.owner[counted]]
            self.buffers.sums[: int(bases[-1])].zero_()
        self._upload(block.reshape(-1), self.buffers.control[: block.size])
        self._idle = False

    def _upload(self, array: NDArray[Any], out: torch.Tensor) -> None:
        async_tensor_h2d(array, out=out)

    def _upload_slots(self, written: list[int]) -> None:
        """Copy slots of the host's table to the device: five uploads, however many slots there are."""
        table, k = self.slots, self.layout.top_k
        gain = np.ones((len(written), self.buffers.gain.shape[1]), np.float32)
        width = min(table.gain.shape[1], gain.shape[1])
        gain[:, :width] = table.gain[written, :width]
        contents: tuple[tuple[torch.Tensor, NDArray[Any]], ...] = (
            (self.buffers.number, table.number[:, written].transpose(1, 0, 2).astype(np.int16)),
            (self.buffers.gain, gain),
            (self.buffers.wanted, _lowest_wanted(table, written, k)),
            (self.buffers.touches, table.touches[:, written].T.astype(np.int8)),
        )
        slots = async_tensor_h2d(np.array(written, np.int64), device=self._device)
        for tensor, rows in contents:
            tensor.index_copy_(0, slots, async_tensor_h2d(np.ascontiguousarray(rows), device=self._device))

    def route(self, layer: int, weights: torch.Tensor, ids: torch.Tensor, logits: torch.Tensor | None = None) -> None:
        """Capture and edit a layer's routing in place; see :meth:`WorkerState.route`.

        Python runs here in eager passes, in warm-ups, and while a graph is recorded; never in a replay. A layer that
        the step leaves alone is skipped in an eager pass only: a graph must hold the launch, whatever the batch that
        it is recorded with, and a warm-up must have compiled the kernel before that.
        """
        if self._busy is None or self._busy[layer] or self._recording():
            self._launch(self.buffers, layer, weights, ids)

    def _recording(self) -> bool:
        return self._stream is not None and torch.cuda.is_current_stream_capturing()

    @torch.inference_mode()
    def end(self) -> Pending | None:
        """Send what happened since ``begin`` on its way to the host, and forget the step.

        The device keeps the mapping until the next ``begin`` or ``pause`` replaces it; no forward pass comes between.
        """
        report, capture, specs = self._report, self._capture, self._specs_of_step
        self._forget_step()
        if report is None:
            return None
        edits = [len(spec.edits) for spec in specs]
        sums = self.buffers.sums[: sum(edits)].clone() if edits else None
        maps = None if capture is None or not capture.maps else self._count_maps(capture.maps, capture.weighed)
        rows = None if capture is None or not capture.rows else self._gather_rows(capture.rows)
        if sums is None and maps is None and rows is None:
            return report
        return _Arrival(report, edits, capture or Segments(), _Download((sums, maps, rows), self._stream))

    def _count_maps(self, maps: Sequence[Segment], weighed: bool) -> _Pair:
        """Count the kept choice on the device: [segments, layers, experts], and the weights' sums likewise."""
        layers, experts, k = len(self.layout.layers), self.layout.experts, self.layout.top_k
        token, which = tokens_of(maps)
        place = async_tensor_h2d(np.stack((token, which)), device=self._device)
        size = len(maps) * layers * experts
        counts = torch.zeros(size, dtype=torch.int32, device=self._device)
        sums = torch.zeros(size if weighed else 0, dtype=torch.float64, device=self._device)
        one = torch.ones((), dtype=torch.int32, device=self._device)
        first = torch.arange(layers, device=self._device)[None, :, None] * experts
        step = max(1, _CHUNK // (layers * k))
        for start in range(0, len(token), step):
            rows, part = place[0, start : start + step], place[1, start : start + step]
            chosen = self.buffers.kept_ids.index_select(0, rows).to(torch.int64) & 0xFFFF
            index = (chosen + first + part[:, None, None] * (layers * experts)).reshape(-1)
            counts.scatter_add_(0, index, one.expand(len(index)))
            if weighed:
                weights = self.buffers.kept_weights.index_select(0, rows).to(torch.float64)
                sums.scatter_add_(0, index, weights.reshape(-1))
        shape = (len(maps), layers, experts)
        return _Pair(counts.view(shape), sums.view(shape) if weighed else None)

    def _gather_rows(self, rows: Sequence[Segment]) -> _Pair:
        """Gather the kept choice of the segments' tokens, one after the other: [tokens, layers, k]."""
        token = async_tensor_h2d(tokens_of(rows)[0], device=self._device)
        weighed = any(segment.weights for segment in rows)
        return _Pair(
            self.buffers.kept_ids.index_select(0, token),
            self.buffers.kept_weights.index_select(0, token) if weighed else None,
        )

    @torch.inference_mode()
    def pause(self) -> None:
        """See no profile until the next ``begin``, neither here nor on the device."""
        self._forget_step()
        self._clear()

    def _clear(self) -> None:
        """Map no row on the device."""
        if not self._idle:
            self.buffers.control[:CONTROL_HEADER].zero_()
            self._idle = True

    def _forget_step(self) -> None:
        self._busy, self._report, self._capture, self._specs_of_step = None, None, None, []


def _cuda() -> Any:
    return torch.cuda


def _triton_launch() -> Launch:
    from mote.patches.kernel import launch

    return launch


def _lowest_wanted(table: SlotTable, written: list[int], k: int) -> NDArray[np.int16]:
    lowest = np.full((len(written), len(table.wanted), k), -1, np.int16)
    for layer, wanted in enumerate(table.wanted):
        width = min(k, wanted.shape[1])
        lowest[:, layer, :width] = wanted[written, :width]
    return lowest


class _Pair(NamedTuple):
    """Counts or ids, and weights if they were asked for."""

    ids: torch.Tensor
    weights: torch.Tensor | None


class _Download:
    """Tensors on their way to the host."""

    def __init__(self, what: tuple[torch.Tensor | None, _Pair | None, _Pair | None], stream: Any) -> None:
        sums, maps, rows = what
        tensors = (sums, *(maps or (None, None)), *(rows or (None, None)))
        if stream is None:
            self._event, self._there = None, tensors
        else:
            self._event = _cuda().Event(blocking=True)  # sleeps while it waits, and leaves the driver's lock alone
            forward = torch.cuda.current_stream()
            with torch.cuda.stream(stream):
                stream.wait_stream(forward)
                self._there = tuple(None if each is None else each.to("cpu", non_blocking=True) for each in tensors)
                self._event.record(stream)
        self._here = tensors  # the device's copies live until theirs are done

    def wait(self) -> tuple[NDArray[Any] | None, ...]:
        """Wait for the copies and return them."""
        if self._event is not None:
            self._event.synchronize()
        self._here = ()
        return tuple(None if each is None else each.numpy() for each in self._there)


class _Arrival:
    """A report whose counts are still on their way. It owns all it holds, so any thread may wait for it."""

    def __init__(self, report: StepReport, edits: list[int], capture: Segments, download: _Download) -> None:
        self._report, self._edits, self._capture, self._download = report, edits, capture, download

    def resolve(self) -> StepReport:
        """Wait for the counts and return the report with them, copied out of the pinned memory they came to."""
        sums, counts, map_weights, ids, row_weights = self._download.wait()
        report = self._report
        if sums is not None:
            report.hits = _hits(sums, self._edits)
        if counts is not None:
            report.maps = map_parts(self._capture.maps, counts.copy(), map_weights)
        if ids is not None:
            report.rows = _row_parts(self._capture.rows, ids.view(np.uint16), row_weights)
        return report


def _hits(sums: NDArray[np.float64], edits: list[int]) -> Hits | None:
    happened = np.flatnonzero((sums[:, 0] > 0) | (sums[:, 1] > 0))
    if not len(happened):
        return None
    owner = np.repeat(np.arange(len(edits)), edits)[happened]
    first = np.cumsum([0, *edits])[owner]
    # No profile on a GPU makes a chosen expert leave before the choice.
    return Hits(owner, happened - first, np.pad(sums[happened], ((0, 0), (0, 1))))


def _row_parts(
    segments: Sequence[Segment], ids: NDArray[np.uint16], weights: NDArray[np.float32] | None
) -> list[RowPart]:
    parts, start = [], 0
    for segment in segments:
        stop = start + segment.stop - segment.start
        own = weights[start:stop].copy() if segment.weights and weights is not None else None
        parts.append(RowPart(segment.owner, segment.role, ids[start:stop].copy(), own))
        start = stop
    return parts
