"""The edits of a worker's own kind of state, on the worker's own device, against the slow rule.

``mote verify`` runs it inside every worker. It makes a state like the worker's, sends random routings through it as a
model's layer would, and compares weights, ids and counts with ``mote.patches.slow_rule``, token by token. On a GPU the
same batches run a second time by a CUDA graph that was recorded before any of them was mapped, so what a replayed
graph computes is compared too. On a CPU the model's own routers choose again from random scores, under edits before the
choice.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mote.patches.errors import ProfileError
from mote.patches.host import HostState
from mote.patches.layout import ModelLayout
from mote.patches.messages import KEY, StepReport, Ticket
from mote.patches.profile import EMPTY_PROFILE, Action, Edit, Profile
from mote.patches.routes import Route as RequestRoute
from mote.patches.slow_rule import Rule, slow_choice, slow_rule, slow_weights
from mote.patches.worker import WorkerState

_TOKENS, _PADDING, _BATCHES = 48, 5, 6
_LIMIT = 1e-5
Route = Callable[[torch.Tensor, torch.Tensor], None]


class _Batch(NamedTuple):
    """Routings of one layer, two requests: [tokens + padding, k], and the profile of each."""

    weights: NDArray[np.float32]
    ids: NDArray[np.int32]
    profiles: tuple[Profile, Profile]

    def edits(self, row: int, layer: int) -> dict[int, tuple[str, float]]:
        profile = self.profiles[row >= _TOKENS // 2]
        return {e.expert: (e.action, e.factor) for e in profile.canonical if e.layer == layer} if row < _TOKENS else {}


def check(state: WorkerState, seed: int) -> tuple[bool, str]:
    """Return whether everything agreed, and the figures or what did not."""
    layout, draw = state.layout, np.random.default_rng(seed)
    twin = state.like(2, _TOKENS + _PADDING)
    batches = [_draw(layout, draw) for _ in range(_BATCHES)]
    ways: dict[str, Callable[[_Batch, int], tuple[NDArray[np.float32], NDArray[np.int32], StepReport]]] = {
        "": lambda batch, row: _eager(twin, batch, row)
    }
    device = _device_of(twin)
    if device.type == "cuda":
        replay = _Replay(twin, device)
        ways[" by a replayed CUDA graph"] = replay.run
    worst = 0.0
    for way, run in ways.items():
        for number, batch in enumerate(batches):
            row = 0 if way else number % len(layout.layers)
            wrong, difference = _compare(batch, layout, row, *run(batch, row))
            if wrong:
                return False, f"batch {number}{way}: {wrong}"
            worst = max(worst, difference)
    how = " and ".join(f"{device.type}{way}" for way in ways)
    choice = ""
    if isinstance(state, HostState) and state.choosers:
        right, choice = check_choice(state, seed)
        if not right:
            return False, choice
        right, routed = check_routes(state, seed)
        if not right:
            return False, routed
        choice = f"; {choice}; {routed}"
    return worst < _LIMIT, f"{len(ways) * _BATCHES * _TOKENS} tokens, {how}, largest difference {worst:.1e}{choice}"


def check_choice(state: HostState, seed: int) -> tuple[bool, str]:
    """Return whether the model's routers choose by edited scores as the slow rule does, and figures or what is wrong.

    The first half of the tokens is edited; the others must keep every bit.
    """
    layout, draw = state.layout, np.random.default_rng(seed)
    twin, worst, edited = state.like(2, _TOKENS), 0.0, 0
    for number in range(_BATCHES):
        row = number % len(layout.layers)
        chooser = state.choosers[row]
        if isinstance(chooser, str):
            return True, f"no edit before the choice here: {chooser}"
        rule = chooser.rule()
        profile = _score_profile(layout, draw, rule)
        logits = torch.from_numpy(draw.normal(0, 2, (_TOKENS, layout.experts)).astype(np.float32))
        weights, ids = chooser.choose(logits)
        own = weights.clone(), ids.clone()
        _begin(twin, _Batch(weights.numpy(), ids.numpy(), (profile, EMPTY_PROFILE)))
        twin.route(row, weights, ids, logits)
        _end(twin)
        edits = {e.expert: (e.action, e.factor) for e in profile.canonical if e.layer == layout.layers[row]}
        half = _TOKENS // 2
        for kept, now in zip(own, (weights, ids), strict=True):
            if not torch.equal(kept[half:], now[half:]):
                return False, f"batch {number}: tokens that nothing edits were changed"
        for token in range(half if edits else 0):
            expected = slow_choice(logits[token].tolist(), rule, edits)
            found = dict(zip(ids[token].tolist(), weights[token].tolist(), strict=True))
            if found.keys() != expected.keys():
                return False, f"batch {number}: token {token} has experts {sorted(found)}, not {sorted(expected)}"
            worst = max(worst, max(abs(found[expert] - expected[expert]) for expert in expected))
            edited += 1
    return worst < _LIMIT, f"{edited} tokens chosen again by edited scores, largest difference {worst:.1e}"


def check_routes(state: HostState, seed: int) -> tuple[bool, str]:
    """Return whether the first half of the tokens takes a route's experts, by the slow rule's weights or the route's.

    The other half must keep every bit.
    """
    layout, draw = state.layout, np.random.default_rng(seed)
    twin, worst, half = state.like(2, _TOKENS), 0.0, _TOKENS // 2
    for number in range(_BATCHES):
        row = number % len(layout.layers)
        chooser = state.choosers[row]
        if isinstance(chooser, str):
            return True, f"no route here: {chooser}"
        drawn = [draw.permutation(layout.experts)[: layout.top_k] for _ in range(half * len(layout.layers))]
        ids = np.array(drawn, np.uint16).reshape(half, len(layout.layers), layout.top_k)
        kept = draw.random(ids.shape).astype(np.float32) if number % 2 else None
        route = RequestRoute(layout.layers, ids, half, "end", kept)
        logits = torch.from_numpy(draw.normal(0, 2, (_TOKENS, layout.experts)).astype(np.float32))
        weights, chosen = chooser.choose(logits)
        own = weights.clone(), chosen.clone()
        batch = _Batch(weights.numpy(), chosen.numpy(), (EMPTY_PROFILE, EMPTY_PROFILE))
        _begin(twin, batch, route, half)
        twin.route(row, weights, chosen, logits)
        report = _end(twin)
        if not (torch.equal(own[0][half:], weights[half:]) and torch.equal(own[1][half:], chosen[half:])):
            return False, f"route {number}: tokens that nothing routes were changed"
        if report.forced is None or report.forced[:, 0].tolist() != [half, 0]:
            return False, f"route {number}: {report.forced} tokens were counted, not {half}"
        for token in range(half):
            want = ids[token, row].tolist()
            expected = slow_weights(logits[token].tolist(), chooser.rule(), want)
            if kept is not None:
                expected = dict(zip(want, kept[token, row].tolist(), strict=True))
            found = dict(zip(chosen[token].tolist(), weights[token].tolist(), strict=True))
            if found.keys() != expected.keys():
                return False, f"route {number}: token {token} has experts {sorted(found)}, not {sorted(expected)}"
            worst = max(worst, max(abs(found[expert] - expected[expert]) for expert in expected))
    return worst < _LIMIT, f"{_BATCHES * half} tokens of routes, largest difference {worst:.1e}"


def _score_profile(layout: ModelLayout, draw: np.random.Generator, rule: Rule) -> Profile:
    edits: list[Edit] = []
    for layer in layout.layers:
        experts = draw.permutation(layout.experts).tolist()
        actions: list[tuple[Action, float]] = [("activate", 0.0), ("bias", 0.7), ("nudge", -0.5), ("nudge", 1.0)]
        for expert, action in zip(experts, actions, strict=False):
            edits.append(Edit(layer, expert, *action))
        try:
            Profile("check", (*edits, Edit(layer, experts[4], "deactivate"))).check_groups(
                layout, rule.groups, rule.kept
            )
        except (ProfileError, IndexError):
            continue
        edits.append(Edit(layer, experts[4], "deactivate"))
    return Profile("check", tuple(edits))


def _device_of(state: WorkerState) -> torch.device:
    buffers = getattr(state, "buffers", None)
    return torch.device("cpu") if buffers is None else buffers.control.device


def _draw(layout: ModelLayout, draw: np.random.Generator) -> _Batch:
    rows, k, experts = _TOKENS + _PADDING, layout.top_k, layout.experts
    # Few different weights, so that ties occur.
    weights = draw.integers(1, 9, (rows, k)).astype(np.float32) / np.float32(7)
    ids = np.array([draw.permutation(experts)[:k] for _ in range(rows)], np.int32)
    profiles = (_profile(layout, draw), _profile(layout, draw))
    return _Batch(weights, ids, profiles)


def _profile(layout: ModelLayout, draw: np.random.Generator) -> Profile:
    actions: list[tuple[Action, float]] = [("suppress", 0.0), ("stimulate", 0.0), ("scale", 3.0), ("scale", 0.25)]
    edits = []
    for layer in layout.layers:
        count = int(draw.integers(0, min(layout.experts, 2 * layout.top_k) + 1))
        for expert in draw.permutation(layout.experts)[: min(count, 8)].tolist():
            edits.append(Edit(layer, expert, *actions[int(draw.integers(4))]))
    return Profile("check", tuple(edits))


def _begin(state: WorkerState, batch: _Batch, route: RequestRoute | None = None, prompt: int = _TOKENS) -> None:
    """Map two requests of so many prompt tokens; the first one takes the route."""
    names = ["first", "second"]
    for name, profile in zip(names, batch.profiles, strict=True):
        ticket = Ticket(profile.spec, None, route.spec if route is not None and name == "first" else None)
        state.admit(name, SimpleNamespace(extra_args={KEY: ticket.to_extra()}), prompt)
    half = _TOKENS // 2
    state.begin(names, np.zeros(2, np.int64), np.array([half, _TOKENS - half], np.int32))


def _end(state: WorkerState) -> StepReport:
    pending = state.end()
    for name in ("first", "second"):
        state.forget(name)
    if pending is None:
        raise RuntimeError("a step with profiles gave no report")
    return pending.resolve()


def _eager(state: WorkerState, batch: _Batch, row: int) -> tuple[NDArray[np.float32], NDArray[np.int32], StepReport]:
    device = _device_of(state)
    weights = torch.from_numpy(batch.weights.copy()).to(device)
    ids = torch.from_numpy(batch.ids.copy()).to(device)
    _begin(state, batch)
    state.route(row, weights, ids)
    report = _end(state)
    return weights.cpu().numpy(), ids.cpu().numpy(), report


class _Replay:
    """A CUDA graph of the first layer's edit, recorded while no row was mapped."""

    def __init__(self, state: WorkerState, device: torch.device) -> None:
        rows, k = _TOKENS + _PADDING, state.layout.top_k
        self._state = state
        self._weights = torch.zeros((rows, k), dtype=torch.float32, device=device)
        self._ids = torch.zeros((rows, k), dtype=torch.int32, device=device)
        state.pause()
        state.route(0, self._weights, self._ids)  # compiles the kernel, which a recording must not
        torch.cuda.synchronize(device)
        self._graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            state.route(0, self._weights, self._ids)

    def run(self, batch: _Batch, _row: int) -> tuple[NDArray[np.float32], NDArray[np.int32], StepReport]:
        self._weights.copy_(torch.from_numpy(batch.weights))
        self._ids.copy_(torch.from_numpy(batch.ids))
        _begin(self._state, batch)
        self._graph.replay()
        report = _end(self._state)
        return self._weights.cpu().numpy(), self._ids.cpu().numpy(), report


def _compare(
    batch: _Batch,
    layout: ModelLayout,
    row_of_layer: int,
    weights: NDArray[np.float32],
    ids: NDArray[np.int32],
    report: StepReport,
) -> tuple[str, float]:
    """Return what is wrong ("" if nothing is) and the largest difference of two weights."""
    layer, worst = layout.layers[row_of_layer], 0.0
    selected: dict[tuple[int, int], int] = {}
    entered: dict[tuple[int, int], int] = {}
    for row in range(_TOKENS + _PADDING):
        edits = batch.edits(row, layer)
        given = batch.ids[row].tolist()
        expected = slow_rule(batch.weights[row].tolist(), given, edits)
        found = dict(zip(ids[row].tolist(), weights[row].tolist(), strict=True))
        if found.keys() != expected.keys():
            return f"token {row} has experts {sorted(found)}, not {sorted(expected)}", worst
        if not edits and (weights[row] != batch.weights[row]).any():
            return f"token {row}, which nothing edits, was changed", worst
        worst = max(worst, max(abs(found[expert] - expected[expert]) for expert in expected))
        owner = int(row >= _TOKENS // 2)
        for expert in edits:
            place = (owner, expert)
            selected[place] = selected.get(place, 0) + (expert in given)
            entered[place] = entered.get(place, 0) + (expert in expected and expert not in given)
    counts = {place: (selected[place], entered[place]) for place in selected if selected[place] or entered[place]}
    if _counted(batch, report) != counts:
        return f"counts are {_counted(batch, report)}, not {counts}", worst
    return "", worst


def _counted(batch: _Batch, report: StepReport) -> dict[tuple[int, int], tuple[int, int]]:
    """Return {(request, expert): (selected, entered)} of a report in which one layer was routed."""
    if report.hits is None:
        return {}
    owners, numbers, sums = (array.tolist() for array in report.hits)
    return {
        (owner, batch.profiles[owner].canonical[number].expert): (round(row[0]), round(row[1]))
        for owner, number, row in zip(owners, numbers, sums, strict=True)
    }
