"""Receipts that must not be believed: tokens were counted that the scheduler threw away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vllm.v1.core.sched.scheduler import Scheduler

from mote.patches import Edit, ModelLayout, Profile, read_observation
from mote.patches.ledger import Ledger
from mote.patches.messages import KEY, StepReport, Ticket
from mote.patches.observation import COUNTS_LOST
from mote.patches.plugin import register

LAYOUT = ModelLayout("Glm4MoeForCausalLM", (1, 3), 12, 3)
TUNED = Profile("p", (Edit(1, 0, "suppress"),))


def request(name: str, in_flight: int, tuned: bool = True) -> Any:
    params = SimpleNamespace(extra_args={KEY: Ticket(TUNED.spec, None).to_extra()} if tuned else None, stop=[])
    return SimpleNamespace(
        request_id=name,
        num_in_flight_tokens=in_flight,
        sampling_params=params,
        is_finished=lambda: True,
        num_prompt_tokens=3,
        output_token_ids=[1, 2],
    )


def report(*names: str) -> StepReport:
    return StepReport(list(names), [TUNED.digest] * len(names), np.ones(len(names), np.int64), [""] * len(names))


def digest(ledger: Ledger, of: Any) -> str:
    packet = ledger.take_output(of, None)
    return read_observation(SimpleNamespace(routed_experts=packet)).receipt.digest


@pytest.mark.parametrize("running_too", [False, True])
def test_a_reset_that_throws_tokens_away_voids_the_receipts(running_too: bool) -> None:
    """By vLLM's own reset, on a scheduler's bare parts: the hook must reach requests before they are preempted."""
    register()
    ledger = Ledger(LAYOUT, "test")
    early, late, idle, untuned = request("early", 1), request("late", 1), request("idle", 0), request("no", 1, False)
    running = {each.request_id: each for each in (early, late, idle, untuned)}
    ledger.absorb(report("early", "idle"), running)
    scheduler: Any = SimpleNamespace(
        running=list(running.values()),
        aux_output_connector=ledger,
        prev_step_scheduled_req_ids=set(),
        kv_cache_manager=SimpleNamespace(reset_prefix_cache=lambda: True),
        _preempt_request=lambda each, _timestamp, drop_stale_output: ledger.request_finished(
            SimpleNamespace(request_id=each.request_id, is_finished=lambda: False)
        ),
    )
    assert Scheduler.reset_prefix_cache(scheduler, reset_running_requests=running_too)
    assert bool(scheduler.running) is not running_too
    ledger.absorb(report("early", "late", "idle"), running)  # of the step that was in flight
    lost = COUNTS_LOST if running_too else TUNED.digest
    assert [digest(ledger, each) for each in (early, late, idle)] == [lost, lost, TUNED.digest]
    assert len(ledger) == 3, "a request without a profile has no account"
    ledger.request_finished(late)
    assert len(ledger) == 2
