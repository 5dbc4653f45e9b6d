"""The GPU's state, on CPU tensors: the same batches as a CPU's state must give the same routing and the same reports.

The kernel is replaced by its twin in Python; ``test_kernel`` holds the kernel to that twin, in Triton's interpreter.
What needs a GPU is left out here: pinned memory, streams, recorded graphs. ``mote verify`` runs those on the user's.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mote.patches import Edit, ModelLayout, Profile
from mote.patches.capture import Capture
from mote.patches.device import DeviceState
from mote.patches.guards import DEVICE_EDITS
from mote.patches.host import HostState
from mote.patches.ledger import Ledger
from mote.patches.messages import KEY, StepReport, Ticket
from mote.patches.observation import Observation, unpack
from mote.patches.selfcheck import check
from mote.patches.worker import WorkerState
from tests.patches import kernel_twin
from tests.patches.asking import random_profile

LAYOUT = ModelLayout("Glm4MoeForCausalLM", (1, 3), 12, 3)
CPU = torch.device("cpu")
CAPTURES = (
    None,
    Capture("prompt"),
    Capture("prompt", True, 3),
    Capture("roles", True, 2, (1,), (2,)),
    Capture("roles", False, 0, (1,), (2,)),
    Capture("rows"),
    Capture("rows", True),
)


def params(profile: Profile | None, capture: Capture | None = None) -> Any:
    canonical = None if capture is None else capture.to_list()
    extra = None if profile is None else {KEY: Ticket(profile.spec, canonical).to_extra()}
    return SimpleNamespace(extra_args=extra, stop=[])


def device_state(requests: int, tokens: int, layout: ModelLayout = LAYOUT) -> DeviceState:
    return DeviceState(layout, requests, tokens, CPU, kernel_twin.launch)


class Run:
    """Requests in batches of random chunks, sometimes preempted, aborted and replaced, the same for every state."""

    def __init__(self, seed: int, requests: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.states: tuple[WorkerState, ...] = (HostState(LAYOUT, requests, 256), device_state(requests, 256))
        self.computed: dict[str, int] = {}
        self.prompt: dict[str, int] = {}
        self.length: dict[str, int] = {}
        self.params: dict[str, Any] = {}
        self.ledgers = tuple(Ledger(LAYOUT, "test") for _ in self.states)
        self.requests, self.made, self.seed = requests, 0, seed
        for _ in range(requests):
            self.add()

    def add(self) -> None:
        name, draw = f"r{self.made}", self.draw
        self.made += 1
        profile = None
        if self.made % 4:
            # More profiles than slots, some shared, some empty.
            profile = random_profile(LAYOUT, self.seed + int(draw.integers(40)), edits=int(draw.integers(0, 20)))
        self.params[name] = params(profile, CAPTURES[int(draw.integers(len(CAPTURES)))] if profile else None)
        self.prompt[name] = int(draw.integers(1, 12))
        self.length[name] = self.prompt[name] + int(draw.integers(0, 8))
        self.computed[name] = 0
        for state in self.states:
            state.admit(name, self.params[name], self.prompt[name])

    def step(self) -> None:
        names = [name for name in self.computed if self.computed[name] < self.length[name]]
        self.draw.shuffle(names)
        names = names[: max(1, len(names) - 1)]
        scheduled = np.array([self._chunk(name) for name in names], np.int32)
        computed = np.array([self.computed[name] for name in names])
        for state in self.states:
            state.begin(names, computed, scheduled)
        for row in range(len(LAYOUT.layers)):
            self._route(row, int(scheduled.sum()))
        reports = [state.end() for state in self.states]
        same_report(*(None if report is None else report.resolve() for report in reports))
        for ledger, report in zip(self.ledgers, reports, strict=True):
            if report is not None:
                ledger.absorb(report.resolve(), self.computed)
        for name, tokens in zip(names, scheduled.tolist(), strict=True):
            self.computed[name] += tokens
            if self.draw.random() < 0.15:
                self.computed[name] = 0  # preempted; Model Runner V2 adds it again
                for state in self.states:
                    state.admit(name, self.params[name], self.prompt[name])
            elif self.computed[name] >= self.length[name] or self.draw.random() < 0.05:
                self.finish(name)
        if self.draw.random() < 0.2:
            for state in self.states:
                state.pause()

    def _chunk(self, name: str) -> int:
        left = self.prompt[name] - self.computed[name]
        return int(self.draw.integers(1, left + 1)) if left > 0 else 1

    def _route(self, row: int, tokens: int) -> None:
        rows = tokens + int(self.draw.integers(0, 4))
        weights = torch.tensor(self.draw.integers(1, 9, (rows, LAYOUT.top_k)) / 7, dtype=torch.float32)
        ids = torch.tensor(np.array([self.draw.permutation(LAYOUT.experts)[: LAYOUT.top_k] for _ in range(rows)]))
        ids[tokens:] = -1  # as vLLM marks the padding of a graph
        results = []
        for state in self.states:
            own_weights, own_ids = weights.clone(), ids.to(torch.int32)
            state.route(row, own_weights, own_ids)
            results.append((own_weights, own_ids))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])
        assert torch.equal(results[1][0][tokens:], weights[tokens:]), "padding is not touched"

    def finish(self, name: str) -> None:
        tokens = list(range(self.length[name] - self.prompt[name]))
        request = SimpleNamespace(
            request_id=name,
            is_finished=lambda: True,
            sampling_params=self.params[name],
            num_prompt_tokens=self.prompt[name],
            output_token_ids=tokens,
        )
        packets = [ledger.take_output(request, None) for ledger in self.ledgers]
        if packets[0] is None or packets[1] is None:
            assert packets[0] is packets[1]
        else:
            same_observation(*(unpack(packet.tobytes()) for packet in packets if packet is not None))
        for ledger in self.ledgers:
            ledger.request_finished(request)
        for state in self.states:
            state.forget(name)
        del self.computed[name]
        if self.made < 2 * self.requests:
            self.add()


def same_report(host: StepReport | None, device: StepReport | None) -> None:
    if host is None or device is None:
        assert host is device
        return
    assert (host.req_ids, host.digests, host.edited.tolist()) == (
        device.req_ids,
        device.digests,
        device.edited.tolist(),
    )
    assert (host.hits is None) == (device.hits is None)
    if host.hits is not None and device.hits is not None:
        for ours, theirs in zip(host.hits[:2], device.hits[:2], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(host.hits.sums[:, :2], device.hits.sums[:, :2])
        np.testing.assert_allclose(host.hits.sums, device.hits.sums, rtol=1e-6)
    assert [(part.owner, part.role) for part in host.rows] == [(part.owner, part.role) for part in device.rows]
    for own, other in zip(host.rows, device.rows, strict=True):
        np.testing.assert_array_equal(own.ids, other.ids)
        assert own.ids.dtype == other.ids.dtype
        np.testing.assert_equal(own.weights, other.weights)
    assert [part[:3] for part in host.maps] == [part[:3] for part in device.maps]
    for mine, yours in zip(host.maps, device.maps, strict=True):
        np.testing.assert_array_equal(mine.counts, yours.counts)
        assert mine.counts.dtype == yours.counts.dtype
        assert (mine.weights is None) == (yours.weights is None)
        if mine.weights is not None and yours.weights is not None:
            np.testing.assert_allclose(mine.weights, yours.weights, rtol=1e-6)


def same_observation(host: Observation, device: Observation) -> None:
    assert host.receipt == device.receipt
    assert [(e.selected, e.entered) for e in host.mechanism] == [(e.selected, e.entered) for e in device.mechanism]
    assert host.maps.keys() == device.maps.keys()
    for role, found in host.maps.items():
        np.testing.assert_array_equal(found.counts, device.maps[role].counts)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_the_same_batches_give_the_same_reports(seed: int, requests: int) -> None:
    run = Run(seed, requests)
    for _ in range(300):
        if not run.computed:
            return
        run.step()
    raise AssertionError("the run did not end")


@pytest.fixture(params=["host", "device"])
def state(request: pytest.FixtureRequest) -> WorkerState:
    return HostState(LAYOUT, 2, 64) if request.param == "host" else device_state(2, 64)


def test_the_check_of_the_user_passes(state: WorkerState) -> None:
    passed, says = check(state, 1)
    assert passed, says
    assert says.startswith("288 tokens, cpu")


@pytest.mark.parametrize("table", ["gain", "number", "wanted", "touches", "sums"])
def test_the_check_of_the_user_notices_a_broken_table(table: str) -> None:
    """Each table in turn is cleared before every launch: an upload that did not happen."""

    def broken(buffers: Any, layer: int, weights: torch.Tensor, ids: torch.Tensor) -> None:
        tensor = getattr(buffers, table)
        tensor.fill_(1 if table == "gain" else -1 if table == "wanted" else 0)
        kernel_twin.launch(buffers, layer, weights, ids)
        if table == "sums":
            tensor.zero_()

    passed, says = check(DeviceState(LAYOUT, 2, 64, CPU, broken), 1)
    assert not passed
    assert says.startswith("batch ")


def test_buffers_never_move_and_an_idle_batch_maps_nothing() -> None:
    """What a CUDA graph holds are addresses: profiles, captures and batches of all sizes must leave them alone."""
    launched: list[int] = []

    def launch(buffers: Any, layer: int, weights: torch.Tensor, ids: torch.Tensor) -> None:
        launched.append(layer)
        kernel_twin.launch(buffers, layer, weights, ids)

    state = DeviceState(LAYOUT, 3, 64, CPU, launch)
    addresses = [tensor.data_ptr() for tensor in state.buffers]
    weights, ids = torch.rand(8, 3), torch.arange(24).reshape(8, 3) % 12
    state.route(0, weights, ids)
    assert launched == [0], "outside of a step it is launched always: warm-ups compile it, graphs record it"
    many = Profile("many", tuple(Edit(layer, e, "stimulate") for layer in (1, 3) for e in range(12)))
    state.admit("a", params(many, CAPTURES[3]), 8)
    state.begin(["a"], np.array([0]), np.array([8], np.int32))
    assert state.buffers.control[:2].tolist() == [8, 2]
    state.route(0, weights, ids)
    assert state.end() is not None
    stale = torch.rand(8, 3)
    before = stale.clone()
    state.begin(["b"], np.array([0]), np.array([8], np.int32))  # a batch without profiles, by a replayed graph
    kernel_twin.launch(state.buffers, 0, stale, ids)
    assert torch.equal(stale, before)
    assert state.buffers.control[0] == 0
    launched.clear()
    state.route(0, stale, ids)
    assert launched == [], "an eager pass of such a batch launches nothing"
    state.pause()
    state.route(0, stale, ids)
    assert launched == [0], "a dummy run does"
    launched.clear()
    only = Profile("only", (Edit(3, 1, "suppress"),))
    state.admit("c", params(only), 8)
    state.begin(["c"], np.array([0]), np.array([8], np.int32))
    state.route(0, weights, ids)
    state.route(1, weights, ids)
    assert launched == [1], "an eager pass skips the layers that nothing touches"
    assert [tensor.data_ptr() for tensor in state.buffers] == addresses


def test_the_widest_profile_has_room() -> None:
    layout = ModelLayout("Glm4MoeForCausalLM", (0, 1, 2, 3), 300, 4)
    pairs = [(layer, expert) for layer in range(4) for expert in range(300)][:DEVICE_EDITS]
    profile = Profile("wide", tuple(Edit(*pair, "scale", 1 + n / 512) for n, pair in enumerate(pairs)))
    states = HostState(layout, 1, 8), device_state(1, 8, layout)
    reports = []
    draw = np.random.default_rng(0)
    ids = torch.tensor(np.array([draw.permutation(300)[:4] for _ in range(8)]))
    for state in states:
        state.admit("a", params(profile), 8)
        state.begin(["a"], np.array([0]), np.array([8], np.int32))
        for row in range(4):
            state.route(row, torch.full((8, 4), 0.25), ids.clone())
        pending = state.end()
        assert pending is not None
        reports.append(pending.resolve())
    same_report(*reports)


def test_a_report_does_not_change_when_the_next_step_has_begun() -> None:
    """Asynchronous scheduling: step N's report is read after step N + 1 has overwritten every buffer."""
    state = device_state(2, 16)
    profile = Profile("p", (Edit(1, 0, "suppress"),))
    state.admit("a", params(profile, Capture("rows")), 4)
    chosen = torch.arange(12).reshape(4, 3)
    state.begin(["a"], np.array([0]), np.array([4], np.int32))
    for row in range(2):
        state.route(row, torch.full((4, 3), 1 / 3), chosen.clone())
    pending = state.end()
    state.begin(["a"], np.array([4]), np.array([1], np.int32))
    for row in range(2):
        state.route(row, torch.full((1, 3), 0.5), torch.tensor([[9, 10, 11]]))
    later = state.end()
    assert pending is not None
    assert later is not None
    report = pending.resolve()
    assert report.rows[0].ids[:, 0].tolist() == chosen.tolist()
    assert report.hits is not None
    assert report.hits.sums.tolist() == [[1, 0, pytest.approx(1 / 3), 0, 0]]
    assert later.resolve().hits is None


def test_large_maps_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mote.patches.device._CHUNK", 4 * len(LAYOUT.layers) * LAYOUT.top_k)
    run: Callable[[], Any] = test_the_same_batches_give_the_same_reports
    run()
