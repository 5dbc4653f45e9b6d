"""Where the patch hooks into vLLM 0.32's model runners: V1 on CPUs and GPUs, Model Runner V2 on GPUs.

Both runners tell the same five things, under other names:

| what | V1 | V2 |
| --- | --- | --- |
| the model is loaded: routers are attached | ``load_model`` | ``load_model`` |
| requests come; the batch's order is final | end of ``_prepare_inputs`` | ``add_requests``; end of ``prepare_inputs`` |
| the forward pass is done | ``sample_tokens`` | ``sample_tokens`` |
| prompt log-probabilities (``mote.patches.pieces``) | ``_get_prompt_logprobs_dict`` | ``load_model`` |
| a request is over | ``_on_request_state_removed`` | ``finish_requests`` |
| what runs now is no request | ``_dummy_run``, ``capture_model`` | ``_dummy_run``, ``capture_model`` |

V2 drops a preempted request and adds it again when it resumes; the state keeps it until it has finished. An output
that is handed over later (asynchronous scheduling in V1, always in V2) takes its report along, and waits for it in
``get_output``, where it waits for its own copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mote.patches.layout import ModelLayout
from mote.patches.messages import Pending
from mote.patches.pieces import prompt_logprobs_v1, shrink_v2
from mote.patches.wrap import wrap

LITTLE_RUN = "the MoTE patch has been run on a single H100 with Model Runner V2 alone: run `mote verify MODEL` first"
LayoutOf = Callable[[Any], ModelLayout | None]
Refuse = Callable[[Any], None]


def hook_runners(layout_of: LayoutOf, refuse_unproven: Refuse) -> None:
    """Hook the model runners that this platform can have, and the workers' check for ``mote verify``.

    Args:
        layout_of: the expert layout of a ``VllmConfig``'s model, None if it has none.
        refuse_unproven: raises if a ``VllmConfig`` is one that the patch refuses.
    """
    from vllm.triton_utils import HAS_TRITON
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.gpu_model_runner import AsyncGPUModelRunnerOutput, GPUModelRunner

    load = _loader(layout_of, refuse_unproven)
    wrap(CPUModelRunner, "load_model", load)
    wrap(GPUModelRunner, "load_model", load)
    wrap(GPUModelRunner, "_prepare_inputs", prepare_inputs_v1)
    wrap(GPUModelRunner, "_on_request_state_removed", removed_v1)
    wrap(GPUModelRunner, "_get_prompt_logprobs_dict", prompt_logprobs_v1)
    _hook_common(GPUModelRunner, AsyncGPUModelRunnerOutput)
    if HAS_TRITON:  # V2 needs it, so where there is none, as in the CPU's distribution, V2 cannot run
        _hook_v2(load)
    _hook_check()


def _hook_v2(load: Callable[..., None]) -> None:
    from vllm.v1.worker.gpu.async_utils import AsyncOutput
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    wrap(GPUModelRunner, "load_model", _shrinking(load))
    wrap(GPUModelRunner, "add_requests", add_requests_v2)
    wrap(GPUModelRunner, "prepare_inputs", prepare_inputs_v2)
    wrap(GPUModelRunner, "finish_requests", finish_requests_v2)
    _hook_common(GPUModelRunner, AsyncOutput)


def _hook_common(runner: Any, async_output: type) -> None:
    runner.mote_state = None  # for a subclass whose own load_model does not call the hooked one
    wrap(runner, "sample_tokens", sample_tokens)
    wrap(runner, "_dummy_run", paused)
    wrap(runner, "capture_model", paused)
    wrap(async_output, "get_output", get_output)


def _loader(layout_of: LayoutOf, refuse_unproven: Refuse) -> Callable[..., None]:
    def load_model(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.mote_state = None
        layout = layout_of(self.vllm_config)
        if layout is None:
            return
        from mote.patches.router import attach

        refuse_unproven(self.vllm_config)
        state = make_state(layout, self.max_num_reqs, self.max_num_tokens, self.device)
        attach(self.get_model(), layout, state)
        self.mote_state = state

    return load_model


def _shrinking(load: Callable[..., None]) -> Callable[..., None]:
    def load_model(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
        load(original, self, *args, **kwargs)
        if self.mote_state is not None:
            shrink_v2(self.model_config.get_vocab_size())

    return load_model


def make_state(layout: ModelLayout, max_requests: int, max_tokens: int, device: Any) -> Any:
    """Return the state for a worker's device."""
    if device.type == "cpu":
        from mote.patches.host import HostState

        return HostState(layout, max_requests, max_tokens)
    from vllm.logger import init_logger

    from mote.patches.device import DeviceState

    state = DeviceState(layout, max_requests, max_tokens, device)
    log: Any = init_logger("vllm.mote")
    log.warning_once("%s (its tables take %d MiB)", LITTLE_RUN, state.buffers.nbytes >> 20, scope="global")
    return state


def prepare_inputs_v1(original: Callable[..., Any], self: Any, scheduler_output: Any, scheduled: Any) -> Any:
    """Take note of new requests, and map the batch: after vLLM has updated its state, its order is final."""
    result = original(self, scheduler_output, scheduled)
    state = self.mote_state
    if state is not None:
        for new in scheduler_output.scheduled_new_reqs:
            state.admit(new.req_id, new.sampling_params, self.requests[new.req_id].num_prompt_tokens)
        batch = self.input_batch
        state.begin(batch.req_ids, batch.num_computed_tokens_cpu, scheduled)
    return result


def removed_v1(original: Callable[..., Any], self: Any, req_id: str, *args: Any, **kwargs: Any) -> Any:
    """Forget a request that is over. vLLM does not call this at a preemption."""
    if self.mote_state is not None:
        self.mote_state.forget(req_id)
    return original(self, req_id, *args, **kwargs)


def add_requests_v2(original: Callable[..., Any], self: Any, scheduler_output: Any) -> Any:
    """Take note of new requests; those that resume after a preemption come again, and stay what they are."""
    result = original(self, scheduler_output)
    if self.mote_state is not None:
        for new in scheduler_output.scheduled_new_reqs:
            self.mote_state.admit(new.req_id, new.sampling_params, new.prompt_len)
    return result


def prepare_inputs_v2(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Map the batch that vLLM has put in its final order. Dummy runs do not come here."""
    batch = original(self, *args, **kwargs)
    if self.mote_state is not None:
        self.mote_state.begin(batch.req_ids, batch.num_computed_tokens_np, batch.num_scheduled_tokens)
    return batch


def finish_requests_v2(original: Callable[..., Any], self: Any, scheduler_output: Any) -> Any:
    """Forget the requests that are over, not the preempted ones that vLLM removes with them."""
    if self.mote_state is not None:
        for req_id in scheduler_output.finished_req_ids:
            self.mote_state.forget(req_id)
    return original(self, scheduler_output)


def sample_tokens(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Close the step: the forward pass has been launched, and nothing routes while tokens are sampled."""
    pending = self.mote_state.end() if self.mote_state is not None else None
    output = original(self, *args, **kwargs)
    if pending is not None and output is not None:
        _hand_over(output, pending)
    return output


def _hand_over(output: Any, pending: Pending) -> None:
    from vllm.v1.outputs import AsyncModelRunnerOutput

    if isinstance(output, AsyncModelRunnerOutput):
        output.mote_pending = pending  # type: ignore[attr-defined]
    else:
        output.mote_report = pending.resolve()


def get_output(original: Callable[..., Any], self: Any) -> Any:
    """Hand the report over with the output it belongs to."""
    output = original(self)
    pending = getattr(self, "mote_pending", None)
    if pending is not None:
        output.mote_report = pending.resolve()
    return output


def paused(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Run what is no request: it sees no profile, also where a graph of it is replayed later."""
    if getattr(self, "mote_state", None) is not None:
        self.mote_state.pause()
    return original(self, *args, **kwargs)


def _hook_check() -> None:
    """Give every worker the check that ``mote verify`` calls in it."""
    from vllm.v1.worker import worker_base

    owner: Any = worker_base.WorkerBase

    def mote_check(self: Any, seed: int) -> tuple[bool, str]:
        from mote.patches.selfcheck import check

        state = getattr(self.model_runner, "mote_state", None)
        return check(state, seed) if state is not None else (False, "this worker runs without the patch")

    owner.mote_check = mote_check
