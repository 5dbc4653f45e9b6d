"""Other weights in a running vLLM: reloaded in place, digests of what is in memory, and the end of an engine.

vLLM 0.32's ``reload_weights`` is not enough on a CPU: after loading, its experts' kernels pack ``w13_weight`` and
``w2_weight`` anew, and the reload leaves them raw, without an error. ``reload_in_place`` packs them as the first load
did. Whoever relies on a reload proves it: parameter digests and greedy texts equal to a fresh engine's.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mote.harness.errors import MoteError
from mote.harness.tensors import read_tensor_file

if TYPE_CHECKING:
    from vllm import LLM


Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""The type and the shape of each tensor of a checkpoint, by name."""


def reload_in_place(llm: LLM, tensors: Tensors, folder: Path) -> None:
    """Put a checkpoint's weights in the place of those that an engine has, and empty its prefix cache.

    vLLM accepts a checkpoint that lacks tensors and keeps the old ones in their place, so the folder has to hold those
    of the checkpoint that the engine was started on. Raises MoteError where it does not, where vLLM refuses, and where
    requests are under way.
    """
    check_same_tensors(tensors, folder)
    if llm.llm_engine.has_unfinished_requests():
        raise MoteError("weights are not reloaded while requests are under way.")
    try:
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        llm.apply_model(_pack_experts)
    except Exception as error:
        raise MoteError(f"vLLM did not take the weights of {folder} in place: {error}") from error
    if not llm.reset_prefix_cache():
        raise MoteError("vLLM kept blocks of other weights in its prefix cache.")


def check_same_tensors(tensors: Tensors, folder: Path) -> None:
    """Raise MoteError unless a checkpoint holds these tensors and no others."""
    found = tensors_of(folder)
    for name, own in tensors.items():
        other = found.get(name)
        if other is None:
            raise MoteError(f"{folder} lacks '{name}', which the engine has: its weights are not reloaded.")
        if other != own:
            raise MoteError(
                f"{folder} has '{name}' as {other[0]} {list(other[1])}, the engine as {own[0]} {list(own[1])}: its"
                " weights are not reloaded."
            )
    if further := sorted(found.keys() - tensors.keys()):
        raise MoteError(f"{folder} has '{further[0]}', which the engine has not: its weights are not reloaded.")


def tensors_of(folder: Path) -> Tensors:
    """Return the tensors of a checkpoint by the headers of its safetensors files. Raises MoteError without any."""
    found = {
        name: (entry.dtype, entry.shape)
        for path in sorted(folder.glob("*.safetensors"))
        for name, entry in read_tensor_file(path).tensors.items()
    }
    if not found:
        raise MoteError(f"{folder} holds no safetensors file to reload weights from.")
    return found


def parameter_digests(llm: LLM) -> dict[str, str]:
    """Return the sha256 of every parameter and buffer of an engine's model, by name; of the first worker."""
    found: dict[str, str] = llm.apply_model(_digests)[0]
    return found


def close(llm: LLM) -> None:
    """End an engine in this process and give its memory back."""
    from vllm.distributed import cleanup_dist_env_and_memory

    llm.llm_engine.engine_core.shutdown()
    gc.collect()
    cleanup_dist_env_and_memory()


def _pack_experts(model: Any) -> None:
    """Pack raw expert weights for a CPU's kernels, where the first load did, into the storage that they have."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm._custom_ops import cpu_prepack_moe_weight
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts

    for layer in model.modules():
        kernel = getattr(getattr(layer, "quant_method", None), "moe_kernel", None)
        experts = getattr(kernel, "fused_experts", None)
        if isinstance(experts, CPUUnquantizedExperts) and not getattr(experts, "_use_zentorch", False):
            for name in ("w13_weight", "w2_weight"):
                weight = getattr(layer, name)
                weight.data.copy_(cpu_prepack_moe_weight(weight.data, experts.isa))


def _digests(model: Any) -> dict[str, str]:
    import torch

    digests = {}
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests
