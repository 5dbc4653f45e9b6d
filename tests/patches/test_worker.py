"""The worker's side without an engine: random batches of random requests, each token against the slow rule."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mote.patches import Edit, ModelLayout, Profile
from mote.patches.host import HostState
from mote.patches.messages import KEY, StepReport, Ticket
from mote.patches.slots import SlotTable, Spec
from mote.patches.slow_rule import Action, slow_rule
from tests.patches.asking import random_profile
from tests.patches.reference import applies

LAYOUT = ModelLayout("Glm4MoeForCausalLM", (1, 3), 12, 3)


def params(profile: Profile | None) -> Any:
    extra = None if profile is None else {KEY: Ticket(profile.spec, None).to_extra()}
    return SimpleNamespace(extra_args=extra)


class Simulation:
    """Requests that run in batches of random chunks, sometimes preempted, and what the patch should have counted."""

    def __init__(self, seed: int, requests: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.state = HostState(LAYOUT, requests, 256)
        self.profiles: dict[str, Profile | None] = {}
        self.prompt, self.length, self.computed = {}, {}, {}
        self.sums: dict[str, dict[tuple[int, int], list[float]]] = {}
        self.counted: dict[str, set[int]] = {}
        for number in range(requests):
            name = f"r{number}"
            profile = None if number % 4 == 0 else random_profile(LAYOUT, seed + number % 3, edits=8)
            self.profiles[name] = profile
            self.prompt[name] = int(self.draw.integers(1, 12))
            self.length[name] = self.prompt[name] + int(self.draw.integers(0, 8))
            self.computed[name] = 0
            self.counted[name] = set()
            self.sums[name] = {} if profile is None else {(e.layer, e.expert): [0.0] * 5 for e in profile.canonical}
            self.state.admit(name, params(profile), self.prompt[name])

    def step(self) -> None:
        names = [name for name in self.computed if self.computed[name] < self.length[name]]
        self.draw.shuffle(names)
        names = names[: max(1, len(names) - 1)]
        scheduled = []
        for name in names:
            left = (
                self.prompt[name] if self.computed[name] < self.prompt[name] else self.length[name]
            ) - self.computed[name]
            decode = self.computed[name] >= self.prompt[name]
            scheduled.append(1 if decode else int(self.draw.integers(1, left + 1)))
        computed = np.array([self.computed[name] for name in names])
        self.state.begin(names, computed, np.array(scheduled, np.int32))
        for row, layer in enumerate(LAYOUT.layers):
            self._route(row, layer, names, scheduled)
        report = self.state.end()
        self._check(report, names)
        for name, tokens in zip(names, scheduled, strict=True):
            self.computed[name] += tokens
            self.counted[name] |= set(range(self.computed[name] - tokens, self.computed[name]))
            if self.draw.random() < 0.15:
                self.computed[name] = 0  # preempted: all of it is computed again

    def _route(self, row: int, layer: int, names: list[str], scheduled: list[int]) -> None:
        tokens, padding = sum(scheduled), int(self.draw.integers(0, 4))
        weights = torch.tensor(self.draw.random((tokens + padding, LAYOUT.top_k)), dtype=torch.float32)
        ids = torch.tensor(
            np.array([self.draw.permutation(LAYOUT.experts)[: LAYOUT.top_k] for _ in range(tokens + padding)])
        )
        before, chosen = weights.clone(), ids.clone()
        self.state.route(row, weights, ids)
        assert torch.equal(weights[tokens:], before[tokens:]), "padding is not touched"
        place = 0
        for name, count in zip(names, scheduled, strict=True):
            for position in range(self.computed[name], self.computed[name] + count):
                profile = self.profiles[name]
                edits: dict[int, Action] = {}
                if profile is not None and applies(profile.tokens, position, self.prompt[name]):
                    edits = {e.expert: (e.action, e.factor) for e in profile.canonical if e.layer == layer}
                own, given = before[place].tolist(), chosen[place].tolist()
                expected = slow_rule(own, given, edits)
                got = dict(zip(ids[place].tolist(), weights[place].tolist(), strict=True))
                assert got == pytest.approx(expected, rel=1e-5)
                if not edits:
                    assert torch.equal(weights[place], before[place]), "not one bit"
                if position not in self.counted[name]:
                    original = dict(zip(given, own, strict=True))
                    for expert in edits:
                        sums = self.sums[name][layer, expert]
                        sums[0] += expert in original
                        sums[1] += expert in expected and expert not in original
                        sums[2] += original.get(expert, 0.0)
                        sums[3] += expected.get(expert, 0.0)
                place += 1

    def _check(self, report: StepReport | None, names: list[str]) -> None:
        if all(self.profiles[name] is None for name in names):
            assert report is None
            return
        assert report is not None
        assert report.req_ids == [name for name in names if self.profiles[name] is not None]
        if report.hits is not None:
            for owner, number, sums in zip(*report.hits, strict=True):
                profile = self.profiles[report.req_ids[owner]]
                assert profile is not None
                edit = profile.canonical[number]
                expected = self.sums[report.req_ids[owner]][edit.layer, edit.expert]
                for column in range(4):
                    expected[column] -= sums[column]


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_every_token_of_every_batch(seed: int, requests: int) -> None:
    simulation = Simulation(seed, requests)
    for _ in range(200):
        if all(simulation.computed[name] >= simulation.length[name] for name in simulation.computed):
            break
        simulation.step()
    left = [value for sums in simulation.sums.values() for each in sums.values() for value in each]
    assert left == pytest.approx([0.0] * len(left), abs=1e-4), "counted once, and all of it"


def test_a_paused_worker_sees_no_profile() -> None:
    state = HostState(LAYOUT, 2, 16)
    state.admit("a", params(Profile("p", tuple(Edit(1, e, "suppress") for e in range(12)))), 4)
    state.begin(["a"], np.array([0]), np.array([4], np.int32))
    state.pause()
    weights, ids = torch.rand(4, 3), torch.arange(12).reshape(4, 3)
    before = weights.clone()
    state.route(0, weights, ids)
    assert torch.equal(weights, before)
    assert state.end() is None


def test_bfloat16_weights_are_edited_too() -> None:
    state = HostState(LAYOUT, 1, 4)
    state.admit("a", params(Profile("p", (Edit(1, 0, "suppress"),))), 1)
    state.begin(["a"], np.array([0]), np.array([1], np.int32))
    weights, ids = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.bfloat16), torch.tensor([[0, 1, 2]])
    state.route(0, weights, ids)
    assert weights.tolist() == [[0.0, 0.5, 0.5]]


def spec(number: int) -> Spec:
    return Spec.of(Profile(str(number), (Edit(1, number, "suppress"),)))


def test_the_least_recently_used_slot_is_taken() -> None:
    table = SlotTable(LAYOUT, 3)
    specs = [spec(number) for number in range(4)]
    for step in (1, 2, 3):
        table.place([specs[step - 1]], step)
    table.place([specs[0]], 4)
    table.place([specs[3]], 5)
    assert [table.holds(each) for each in specs] == [True, False, True, True]
    slot = specs[3].slot
    assert table.number[0, slot].tolist() == [0, 0, 0, 1] + [0] * 8
    with pytest.raises(RuntimeError, match="more than 3 different profiles"):
        table.place([spec(number) for number in range(4)], 6)


def test_the_empty_profile_needs_no_slot() -> None:
    table = SlotTable(LAYOUT, 1)
    empty = Spec.of(Profile("empty", ()))
    table.place([empty] * 5, 1)
    assert (empty.slot, table.held) == (0, 0)
