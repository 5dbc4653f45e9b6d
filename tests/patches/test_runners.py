"""The hooks of both model runners without an engine: what they rely on in the installed vLLM, and what they do with it.

``test_device_engine`` drives both runners for real; this says at once which name has gone when vLLM changes.
"""

from __future__ import annotations

import dataclasses
import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput
from vllm.v1.worker.gpu.async_utils import AsyncOutput
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.model_runner import GPUModelRunner as RunnerV2
from vllm.v1.worker.gpu_model_runner import AsyncGPUModelRunnerOutput
from vllm.v1.worker.gpu_model_runner import GPUModelRunner as RunnerV1

from mote.patches import Edit, ModelLayout, Profile, runners
from mote.patches.device import DeviceState
from mote.patches.messages import KEY, StepReport, Ticket
from mote.patches.plugin import register
from tests.patches import kernel_twin

LAYOUT = ModelLayout("Glm4MoeForCausalLM", (1, 3), 12, 3)
TUNED = Profile("p", (Edit(1, 0, "suppress"),))


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (RunnerV1, "load_model", ["self", "load_dummy_weights"]),
        (RunnerV1, "_prepare_inputs", ["self", "scheduler_output", "num_scheduled_tokens"]),
        (RunnerV1, "_on_request_state_removed", ["self", "req_id", "req_state"]),
        (RunnerV1, "_get_prompt_logprobs_dict", ["self", "hidden_states", "num_scheduled_tokens"]),
        (RunnerV1, "sample_tokens", ["self", "grammar_output"]),
        (RunnerV1, "_dummy_run", ["self", "num_tokens"]),
        (RunnerV1, "capture_model", ["self"]),
        (AsyncGPUModelRunnerOutput, "get_output", ["self"]),
        (RunnerV2, "load_model", ["self", "load_dummy_weights"]),
        (RunnerV2, "add_requests", ["self", "scheduler_output"]),
        (RunnerV2, "prepare_inputs", ["self", "scheduler_output", "batch_req_state", "batch_desc", "num_active_loras"]),
        (RunnerV2, "finish_requests", ["self", "scheduler_output"]),
        (RunnerV2, "sample_tokens", ["self", "grammar_output"]),
        (RunnerV2, "_dummy_run", ["self", "num_tokens"]),
        (RunnerV2, "capture_model", ["self"]),
        (AsyncOutput, "get_output", ["self"]),
    ],
)
def test_vllm_has_what_is_hooked(owner: type, name: str, parameters: list[str]) -> None:
    found = list(inspect.signature(getattr(owner, name)).parameters)
    assert found[: len(parameters)] == parameters


def test_vllm_has_what_the_hooks_read() -> None:
    batch = {field.name for field in dataclasses.fields(InputBatch)}
    assert batch >= {"req_ids", "num_computed_tokens_np", "num_scheduled_tokens"}
    assert isinstance(vars(NewRequestData)["prompt_len"], property)
    assert {field.name for field in dataclasses.fields(NewRequestData)} >= {"req_id", "sampling_params"}
    assert {f.name for f in dataclasses.fields(SchedulerOutput)} >= {"finished_req_ids", "scheduled_new_reqs"}
    source = inspect.getsource(RunnerV2.__init__)
    assert all(f"self.{name} = " in source for name in ("device", "max_num_reqs", "max_num_tokens", "vllm_config"))
    order = inspect.getsource(RunnerV2.execute_model)
    calls = [order.index(f"self.{name}(") for name in ("finish_requests", "add_requests", "prepare_inputs")]
    assert calls == sorted(calls), "a request that is aborted and sent again under its name is forgotten, then added"
    assert "self._prepare_inputs(" in inspect.getsource(RunnerV1.execute_model)


class FakeV2:
    """The part of Model Runner V2 that the hooks see."""

    def __init__(self) -> None:
        self.mote_state = DeviceState(LAYOUT, 2, 16, torch.device("cpu"), kernel_twin.launch)
        self.batch: Any = None

    def step(self, finished: set[str], new: list[Any], batch: list[tuple[str, int, int]]) -> StepReport | None:
        """Run one step over (name, computed, scheduled)."""
        scheduled = SimpleNamespace(finished_req_ids=finished, scheduled_new_reqs=new)
        runners.finish_requests_v2(lambda *_: None, self, scheduled)
        runners.add_requests_v2(lambda *_: None, self, scheduled)
        self.batch = SimpleNamespace(
            req_ids=[name for name, _, _ in batch],
            num_computed_tokens_np=np.array([computed for _, computed, _ in batch]),
            num_scheduled_tokens=np.array([count for _, _, count in batch], np.int32),
        )
        assert runners.prepare_inputs_v2(lambda *_: self.batch, self, scheduled, None, None, 0) is self.batch
        tokens = sum(count for _, _, count in batch)
        ids = torch.tensor([[0, 1, 2]] * tokens)
        self.mote_state.route(0, torch.full((tokens, 3), 1 / 3), ids)
        inner = ModelRunnerOutput(req_ids=[], req_id_to_index={})
        output = Later(inner)
        assert runners.sample_tokens(lambda *_: output, self, None) is output
        assert not hasattr(inner, "mote_report"), "nothing waits before the output is handed over"
        assert runners.get_output(Later.get_output, output) is inner
        report: StepReport | None = getattr(inner, "mote_report", None)
        return report


class Later(AsyncModelRunnerOutput):
    def __init__(self, inner: ModelRunnerOutput) -> None:
        self.inner = inner

    def get_output(self) -> ModelRunnerOutput:
        return self.inner

    def get_kv_connector_output(self) -> None:  # vLLM 0.33 asks for it
        return None


def new(name: str, prompt: int) -> Any:
    extra = {KEY: Ticket(TUNED.spec, None).to_extra()}
    return SimpleNamespace(req_id=name, prompt_len=prompt, sampling_params=SimpleNamespace(extra_args=extra))


def test_v2_counts_a_preempted_request_once() -> None:
    runner = FakeV2()
    first = runner.step(set(), [new("a", 4)], [("a", 0, 4)])
    # Preempted: V2's finish_requests removes it, and the scheduler sends it again as a new one, to be computed again.
    again = runner.step(set(), [new("a", 4)], [("a", 0, 5)])
    assert first is not None
    assert again is not None
    assert (first.edited.tolist(), again.edited.tolist()) == ([4], [1])
    assert first.hits is not None
    assert again.hits is not None
    assert [first.hits.sums[0, 0], again.hits.sums[0, 0]] == [4, 1]


def test_v2_takes_the_same_name_anew_when_it_was_aborted() -> None:
    runner = FakeV2()
    runner.step(set(), [new("a", 4)], [("a", 0, 4)])
    report = runner.step({"a"}, [new("a", 2)], [("a", 0, 2)])
    assert report is not None
    assert report.edited.tolist() == [2]
    assert runner.step({"a"}, [], [("b", 0, 3)]) is None
    assert not runner.mote_state.requests


def test_a_runner_that_loads_in_its_own_way_runs_without_the_patch() -> None:
    class Own(RunnerV1):
        def __init__(self) -> None:
            self.device = torch.device("cpu")

    register()
    done = SimpleNamespace()
    assert runners.sample_tokens(lambda *_: done, Own(), None) is done
    assert not vars(done)


def test_an_output_without_delay_has_its_report_at_once() -> None:
    runner = FakeV2()
    runner.mote_state.admit("a", new("a", 2).sampling_params, 2)
    runner.mote_state.begin(["a"], np.array([0]), np.array([2], np.int32))
    output = ModelRunnerOutput(req_ids=["a"], req_id_to_index={"a": 0})
    runners.sample_tokens(lambda *_: output, runner, None)
    assert output.mote_report.req_ids == ["a"]  # type: ignore[attr-defined]


def test_a_dummy_run_sees_no_profile() -> None:
    runner = FakeV2()
    runner.mote_state.admit("a", new("a", 2).sampling_params, 2)
    runner.mote_state.begin(["a"], np.array([0]), np.array([2], np.int32))
    weights, ids = torch.full((2, 3), 1 / 3), torch.tensor([[0, 1, 2]] * 2)
    before = weights.clone()
    runners.paused(lambda *_: runner.mote_state.route(0, weights, ids), runner, 2)
    assert torch.equal(weights, before)


def test_the_device_says_how_little_it_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, the state is the GPU's, and one line says what it is worth; on a CPU there is nothing to say."""
    import vllm.logger

    from mote.patches import device, host

    said: list[str] = []
    log = SimpleNamespace(warning_once=lambda text, *args, **_: said.append(text % args))
    monkeypatch.setattr(vllm.logger, "init_logger", lambda _name: log)
    assert isinstance(runners.make_state(LAYOUT, 2, 16, torch.device("cpu")), host.HostState)
    assert said == []

    def on_cpu(layout: ModelLayout, requests: int, tokens: int, _device: Any) -> DeviceState:
        return DeviceState(layout, requests, tokens, torch.device("cpu"), kernel_twin.launch)

    real = device.DeviceState
    monkeypatch.setattr(device, "DeviceState", on_cpu)
    assert isinstance(runners.make_state(LAYOUT, 2, 16, torch.device("cuda")), real)
    assert len(said) == 1
    assert "run on a single H100 with Model Runner V2 alone: run `mote verify MODEL` first" in said[0]
