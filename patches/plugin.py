"""The plugin: where the patch hooks into vLLM 0.31 to 0.33 (entry point ``vllm.general_plugins``).

vLLM loads it in every process: front ends, engine core, workers. The hooks, each as small as can be:

- front end, ``InputProcessor``: requests are checked and made canonical, and get their cache salt; unproven
  configurations are refused when the engine starts. A server's streams get their receipts (``mote.patches.streams``).
- front end, ``OutputProcessor``: the news of requests with stop strings are added up (``mote.patches.news``).
- engine core, ``Scheduler``: takes the workers' reports and hands packets out with the answers; a reset of the prefix
  cache that throws away tokens of running requests voids their receipts.
- worker, its model runner (``mote.patches.runners``): routers are attached when the model is loaded; the batch is
  mapped where its order is final; the step is closed when tokens are sampled; dummy runs see no profile.
- ``EngineArgs.create_engine_config``: on a CPU the operator that computes DeepSeek wrongly is switched off
  (``mote.patches.rotary``).
- where kernels are chosen, ``FusedMoEExperts.is_supported_config``: classes that route by themselves are passed over.
- ``VllmConfig.compute_hash``: graphs compiled with and without the patch, or with two versions of it, never mix.

``MOTE_PATCH=0`` in the environment turns all of it off. Where the installed vLLM is not a tested one, engines for
models with routed experts refuse to start; nothing is hooked but that.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable
from typing import Any

import mote
from mote.patches.errors import NoExpertsError, ProfileError
from mote.patches.families import bias_fault, choice_groups, cpu_fault, is_proven
from mote.patches.guards import SWITCH, bias_limit, check_config, check_version, edits_limit
from mote.patches.layout import ModelLayout
from mote.patches.messages import KEY, Ticket
from mote.patches.rotary import cure
from mote.patches.runners import hook_runners
from mote.patches.wrap import wrap

UNPROVEN = (
    "The MoTE patch reads where %s has its experts, but was never proven with this family: run `mote verify MODEL` "
    "before you rely on it"
)
ROUTES_BY_ITSELF = "it routes by itself, and the MoTE patch edits what a router has chosen"
_registered = False


def register() -> None:
    """Hook the patch into vLLM; called by vLLM in each of its processes, and harmless when called again."""
    global _registered
    if _registered or os.environ.get(SWITCH, "1") == "0":
        return
    _registered = True
    _hook_configuration()
    _hook_front_end()
    _hook_engine_core()
    hook_runners(layout_of, _refuse_unproven)
    _hook_kernels()
    _hook_compile_cache()


def layout_of(config: Any) -> ModelLayout | None:
    """Return the expert layout of a ``VllmConfig``'s model, or None if the patch leaves the model alone."""
    try:
        return _read_layout(config)
    except ProfileError:
        return None


def _read_layout(config: Any) -> ModelLayout:
    """Raise ProfileError, with the reason, for a model that the patch leaves alone."""
    model = config.model_config
    if model is None:
        raise NoExpertsError("the engine has no model")
    fields = _fields(model)
    layout = ModelLayout.from_config(fields)
    fault = cpu_fault(fields) if config.device_config.device_type == "cpu" else ""
    if fault:
        raise ProfileError(fault)
    return layout


def _fields(model: Any) -> dict[str, Any]:
    return {**model.hf_config.to_dict(), "architectures": list(model.architectures)}


def _examine(config: Any) -> tuple[ModelLayout | None, str]:
    """Return the layout of an engine's model, or None and why; say in the log what is unproven or left alone.

    Raises:
        UnprovenConfigurationError: the configuration is refused.
    """
    from vllm.logger import init_logger

    log: Any = init_logger("vllm.mote")
    try:
        layout = _read_layout(config)
    except NoExpertsError as error:
        return None, str(error)
    except ProfileError as error:
        log.warning_once("The MoTE patch leaves this model alone; requests with 'mote' are refused. %s", error)
        return None, str(error)
    _refuse_unproven(config)
    if not is_proven(_fields(config.model_config)):
        log.warning_once(UNPROVEN, layout.architecture)
    return layout, ""


def _refuse_unproven(config: Any) -> None:
    import vllm

    check_version(vllm.__version__)
    check_config(config)


def _hook_configuration() -> None:
    from vllm.engine.arg_utils import EngineArgs

    def create_engine_config(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        config = original(self, *args, **kwargs)
        if layout_of(config) is not None:
            cure(config)
        return config

    wrap(EngineArgs, "create_engine_config", create_engine_config)


def _hook_front_end() -> None:
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.engine.output_processor import OutputProcessor, RequestState

    from mote.patches.admission import Admission, Choice, check_alignment, refuse_forged_salt, salt
    from mote.patches.news import new_completion_output, process_outputs

    def init(original: Callable[..., None], self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        layout, why_not = _examine(vllm_config)
        original(self, vllm_config, *args, **kwargs)

        def encode(text: str) -> list[int]:
            return list(self.get_tokenizer().encode(text, add_special_tokens=False))

        choice = Choice()
        if layout is not None:
            fields = _fields(vllm_config.model_config)
            choice = Choice(bias_limit(vllm_config) or bias_fault(fields), *choice_groups(fields))
        self.mote_admission = Admission.from_environment(
            layout, encode if self.tokenizer is not None else None, edits_limit(vllm_config), why_not, choice
        )

    def refusal(reason: str) -> VLLMValidationError:
        return VLLMValidationError(reason, parameter=KEY)

    def checked(processor: Any, params: Any) -> Ticket | None:
        if not isinstance(params, SamplingParams) or not params.extra_args:
            return None
        for name in params.extra_args:
            if name != KEY and str(name).strip().casefold() == KEY:
                raise refusal(f"'{str(name)[:20]}' is not read; the key is '{KEY}', in small letters")
        if KEY not in params.extra_args:
            return None
        try:
            ticket: Ticket = processor.mote_admission.accept(params.extra_args[KEY])
        except ProfileError as error:
            raise refusal(str(error)) from None
        return ticket

    def generate(
        original: Callable[..., Any], self: Any, prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any
    ) -> Any:
        # vLLM checks when the first output is awaited; a stream would have begun by then, with status 200.
        ticket = checked(self.input_processor, sampling_params)
        if ticket is not None and isinstance(prompt, dict) and prompt.get("prompt_token_ids"):
            try:
                check_alignment(ticket, len(prompt["prompt_token_ids"]))
            except ProfileError as error:
                raise refusal(str(error)) from None
        return original(self, prompt, sampling_params, *args, **kwargs)

    def process_inputs(
        original: Callable[..., Any], self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Any:
        ticket = checked(self, params)
        if ticket is not None:
            if kwargs.get("resumable"):
                raise refusal("a session that is resumed with further input cannot carry 'mote'")
            # Before vLLM copies it deeply: a profile of a thousand edits as an object takes 15 ms.
            params = copy.copy(params)
            params.extra_args = {**(params.extra_args or {}), KEY: ticket.to_extra()}
            params = params.clone()
            if ticket.capture is not None:
                # A prompt token that comes from the cache is not routed, so it could not be counted.
                params.skip_reading_prefix_cache = True
        request = original(self, request_id, prompt, params, *args, **kwargs)
        try:
            refuse_forged_salt(request.cache_salt)
            if ticket is not None:
                check_alignment(ticket, len(request.prompt_token_ids or ()))
        except ProfileError as error:
            raise refusal(str(error)) from None
        if ticket is not None:
            request.cache_salt = salt(ticket.spec, request.cache_salt, ticket.route)
        return request

    def async_init(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
        # Only servers have one, so only they load the serving modules.
        from mote.patches.streams import hook

        hook()
        original(self, *args, **kwargs)

    wrap(OutputProcessor, "process_outputs", process_outputs)
    wrap(RequestState, "_new_completion_output", new_completion_output)
    wrap(AsyncLLM, "__init__", async_init)
    wrap(AsyncLLM, "generate", generate)
    wrap(InputProcessor, "__init__", init)
    wrap(InputProcessor, "process_inputs", process_inputs)


def _hook_engine_core() -> None:
    from vllm.v1.core.sched.scheduler import Scheduler

    from mote.patches.ledger import Ledger

    def init(original: Callable[..., None], self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        original(self, vllm_config, *args, **kwargs)
        layout = layout_of(vllm_config)
        if layout is not None:
            self.aux_output_connector = Ledger(layout, mote.__version__)

    def update_from_output(original: Callable[..., Any], self: Any, scheduled: Any, output: Any) -> Any:
        report = getattr(output, "mote_report", None)
        if report is not None:
            self.aux_output_connector.absorb(report, self.requests)
        return original(self, scheduled, output)

    def reset_prefix_cache(
        original: Callable[..., bool], self: Any, reset_running_requests: bool = False, *args: Any, **kwargs: Any
    ) -> bool:
        ledger = self.aux_output_connector
        if not reset_running_requests or not isinstance(ledger, Ledger):
            return original(self, reset_running_requests, *args, **kwargs)
        ledger.lose(self.running)
        self.aux_output_connector = None  # vLLM 0.31 refuses such a reset while anything is in this place
        try:
            return original(self, reset_running_requests, *args, **kwargs)
        finally:
            self.aux_output_connector = ledger

    wrap(Scheduler, "__init__", init)
    wrap(Scheduler, "reset_prefix_cache", reset_prefix_cache)
    wrap(Scheduler, "update_from_output", update_from_output)


def _hook_kernels() -> None:
    from vllm.config import get_current_vllm_config_or_none
    from vllm.model_executor.layers.fused_moe.modular_kernel import FusedMoEExperts

    def is_supported_config(original: Callable[..., Any], cls: Any, *args: Any, **kwargs: Any) -> Any:
        if cls.is_monolithic():
            config = get_current_vllm_config_or_none()
            if config is not None and layout_of(config) is not None:
                return False, ROUTES_BY_ITSELF
        return original(cls, *args, **kwargs)

    wrap(FusedMoEExperts, "is_supported_config", is_supported_config)


def _hook_compile_cache() -> None:
    from vllm.config import VllmConfig

    def compute_hash(original: Callable[..., str], self: Any) -> str:
        text = f"{original(self)} mote {mote.__version__}"
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    wrap(VllmConfig, "compute_hash", compute_hash)
