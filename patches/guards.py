"""What the patch refuses to run with, each with its reason and its remedy.

A configuration that has not been proven could edit the wrong tokens and say nothing, so it is refused when the engine
starts. The checks read vLLM's configuration only; what a loaded model adds (its kernels, its routers) is checked by
``mote.patches.router`` when it is attached. Models without routed experts are never refused: the patch is idle there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mote.patches.rotary import OFF_OPTION, ON_OPTION, is_misread

SWITCH = "MOTE_PATCH"
"""Environment variable: ``0`` turns the patch off altogether."""
TESTED = ("0.31.", "0.32.", "0.33.")
OFF = f"or set {SWITCH}=0 to run without the MoTE patch"
DEVICE_EDITS = 1024
"""Most edits of one profile on a GPU, whose tables cannot grow once a CUDA graph holds their addresses."""


class UnprovenConfigurationError(RuntimeError):
    """The engine's configuration is one that the patch has not been proven with."""


def check_version(version: str) -> None:
    """Raise :class:`UnprovenConfigurationError` unless ``version`` of vLLM is in the tested range."""
    if not version.startswith(TESTED):
        tested = ", ".join(f"{prefix}x" for prefix in TESTED)
        raise UnprovenConfigurationError(
            f"the MoTE patch is tested with vLLM {tested}, this is {version}: install a tested version, {OFF}"
        )


def check_config(config: Any) -> None:
    """Raise :class:`UnprovenConfigurationError` if a ``VllmConfig`` is one that the patch has not been proven with."""
    for unproven, what, remedy in _RULES:
        if unproven(config):
            raise UnprovenConfigurationError(f"the MoTE patch is not proven with {what}: {remedy}, {OFF}")


def edits_limit(config: Any) -> int | None:
    """Return how many edits a profile may have on the device of a ``VllmConfig``; None where any number has room."""
    return None if config.device_config.device_type == "cpu" else DEVICE_EDITS


def bias_limit(config: Any) -> str:
    """Return why no edit before the router's choice is made on the engine of a ``VllmConfig``; empty if it is."""
    if config.device_config.device_type != "cpu":
        return "edits before the choice are made on CPUs only: the GPU's kernel sees what a router has chosen"
    if config.model_config.using_transformers_backend():
        return "edits before the choice are not proven with vLLM's Transformers backend, whose routers choose elsewhere"
    return ""


def _other_device(config: Any) -> bool:
    """Whether the device is neither a CPU nor an NVIDIA GPU; vLLM calls AMD's GPUs cuda too."""
    device = config.device_config.device_type
    if device != "cuda":
        return bool(device != "cpu")
    from vllm.platforms import current_platform

    return bool(current_platform.is_rocm())


def _on_gpu(config: Any) -> bool:
    return bool(config.device_config.device_type == "cuda")


Rule = tuple[Callable[[Any], bool], str, str]

_RULES: tuple[Rule, ...] = (
    (
        _other_device,
        "a device other than a CPU or an NVIDIA GPU, for which its kernel was not written",
        "run on one of these",
    ),
    (
        is_misread,
        "vLLM's CPU operator for rotary embedding, which misreads this model's query and computes the model wrongly",
        f"leave '{ON_OPTION}' out of custom_ops, or add '{OFF_OPTION}'",
    ),
    (
        lambda c: c.use_v2_model_runner and not _on_gpu(c),
        "Model Runner V2 on a CPU, whose batches it does not know there",
        "set VLLM_USE_V2_MODEL_RUNNER=0",
    ),
    (
        # Sleep mode switches that allocator on; the allocator alone is enough for an engine to be put to sleep.
        lambda c: _on_gpu(c) and (c.model_config.enable_sleep_mode or c.model_config.enable_cumem_allocator),
        "sleep mode or its allocator, which may discard its tables on the GPU",
        "leave --enable-sleep-mode and --enable-cumem-allocator out",
    ),
    (
        lambda c: c.cache_config.kv_sharing_fast_prefill,
        "fast prefill by KV sharing, whose later layers see other token rows",
        "leave --kv-sharing-fast-prefill out",
    ),
    (
        lambda c: c.kv_transfer_config is not None,
        "a KV connector, whose blocks may come from an engine that does not edit",
        "leave --kv-transfer-config and --kv-offloading-size out",
    ),
    (
        lambda c: c.parallel_config.pipeline_parallel_size > 1,
        # Nor could it be tried: stock vLLM 0.32 ends in eager mode on CPUs at the first request (results/reach).
        "pipeline parallelism, whose last stage reports only its own layers",
        "set --pipeline-parallel-size 1 and use tensor parallelism",
    ),
    (
        lambda c: c.parallel_config.data_parallel_size > 1,
        "data parallelism inside one engine, which mixes token rows of several ranks",
        "run one server for each replica and spread the requests",
    ),
    (
        lambda c: (
            c.parallel_config.prefill_context_parallel_size > 1 or c.parallel_config.decode_context_parallel_size > 1
        ),
        "context parallelism, which splits the token rows of a prefill; for decoding alone it has not been tried",
        "set both context parallel sizes to 1",
    ),
    (
        lambda c: c.parallel_config.use_ubatching,
        "dual-batch overlap, which splits the token rows",
        "leave --enable-dbo and --ubatch-size out",
    ),
    (
        lambda c: c.parallel_config.use_sequence_parallel_moe,
        "sequence parallelism, which splits the token rows",
        "choose another --all2all-backend",
    ),
    (
        lambda c: c.parallel_config.enable_eplb,
        "expert load balancing, which adds redundant experts",
        "leave --enable-eplb out",
    ),
    (
        lambda c: c.lora_config is not None,
        "LoRA adapters, which replace the layers it edits",
        "leave --enable-lora out and merge the adapter into the model",
    ),
    (
        lambda c: c.speculative_config is not None,
        "speculative decoding, whose rejected drafts would be counted",
        "leave --speculative-config out",
    ),
    (
        lambda c: c.aux_output_config.enabled,
        "enable_return_routed_experts, whose place in the answer it uses",
        "leave that option out and ask for capture in the request",
    ),
)
