"""Engines, devices, versions and models for which the patch is not proven: refused at start, or left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mote.patches import Edit, ModelLayout, Profile, ProfileError
from mote.patches.admission import Admission
from mote.patches.guards import (
    DEVICE_EDITS,
    UnprovenConfigurationError,
    check_config,
    check_version,
    edits_limit,
)
from mote.patches.rotary import cure


def config(**over: Any) -> Any:
    parallel = {
        "pipeline_parallel_size": 1,
        "data_parallel_size": 1,
        "prefill_context_parallel_size": 1,
        "decode_context_parallel_size": 1,
        "use_ubatching": False,
        "use_sequence_parallel_moe": False,
        "enable_eplb": False,
    }
    whole: dict[str, Any] = {
        "use_v2_model_runner": False,
        "device_config": SimpleNamespace(device_type="cpu"),
        "parallel_config": SimpleNamespace(**parallel | {k: v for k, v in over.items() if k in parallel}),
        "speculative_config": None,
        "lora_config": None,
        "aux_output_config": SimpleNamespace(enabled=False),
        "model_config": SimpleNamespace(
            enable_sleep_mode=False, enable_cumem_allocator=False, hf_text_config=SimpleNamespace(), architectures=["X"]
        ),
        "compilation_config": SimpleNamespace(custom_ops=["all"]),
        "cache_config": SimpleNamespace(kv_sharing_fast_prefill=False),
        "kv_transfer_config": None,
    }
    return SimpleNamespace(**whole | {k: v for k, v in over.items() if k not in parallel})


LATENT = SimpleNamespace(hf_text_config=SimpleNamespace(qk_rope_head_dim=64), architectures=["DeepseekV3ForCausalLM"])


ON_GPU: dict[str, Any] = {"device_config": SimpleNamespace(device_type="cuda")}


ASLEEP = SimpleNamespace(enable_sleep_mode=True, enable_cumem_allocator=True)


CUMEM = SimpleNamespace(enable_sleep_mode=False, enable_cumem_allocator=True)


@pytest.mark.parametrize(
    ("over", "remedy"),
    [
        ({"use_v2_model_runner": True}, "VLLM_USE_V2_MODEL_RUNNER=0"),
        ({"model_config": LATENT}, "add '-rotary_embedding'"),
        ({"device_config": SimpleNamespace(device_type="xpu")}, "run on one of these"),
        ({"device_config": SimpleNamespace(device_type="tpu"), "use_v2_model_runner": True}, "run on one of these"),
        ({**ON_GPU, "model_config": ASLEEP}, "--enable-sleep-mode"),
        ({**ON_GPU, "model_config": CUMEM}, "--enable-cumem-allocator"),
        ({"cache_config": SimpleNamespace(kv_sharing_fast_prefill=True)}, "--kv-sharing-fast-prefill"),
        ({"kv_transfer_config": object()}, "--kv-transfer-config"),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size 1"),
        ({"data_parallel_size": 2}, "one server for each replica"),
        ({"prefill_context_parallel_size": 2}, "context parallel sizes to 1"),
        ({"decode_context_parallel_size": 2}, "context parallel sizes to 1"),
        ({"use_ubatching": True}, "--enable-dbo"),
        ({"use_sequence_parallel_moe": True}, "--all2all-backend"),
        ({"enable_eplb": True}, "--enable-eplb"),
        ({"lora_config": object()}, "--enable-lora"),
        ({"speculative_config": object()}, "--speculative-config"),
        ({"aux_output_config": SimpleNamespace(enabled=True)}, "ask for capture in the request"),
    ],
)
def test_unproven_configurations(over: dict[str, Any], remedy: str) -> None:
    check_config(config())
    with pytest.raises(UnprovenConfigurationError) as caught:
        check_config(config(**over))
    assert remedy in str(caught.value)
    assert "MOTE_PATCH=0" in str(caught.value)


def test_the_rotary_operator_is_switched_off_where_it_is_wrong_and_only_there() -> None:
    wrong = config(model_config=LATENT, compilation_config=SimpleNamespace(custom_ops=["none"]))
    cure(wrong)
    cure(wrong)
    assert wrong.compilation_config.custom_ops == ["none", "-rotary_embedding"]
    right, device = config(), config(**ON_GPU, model_config=LATENT)
    insisting = config(model_config=LATENT, compilation_config=SimpleNamespace(custom_ops=["+rotary_embedding"]))
    for each in (right, device, insisting):
        before = list(each.compilation_config.custom_ops)
        cure(each)
        assert each.compilation_config.custom_ops == before
    with pytest.raises(UnprovenConfigurationError, match=r"leave '\+rotary_embedding' out"):
        check_config(insisting)


def test_nvidia_gpus_are_allowed_with_both_runners_and_amds_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.platforms import current_platform

    check_config(config(**ON_GPU))
    check_config(config(**ON_GPU, use_v2_model_runner=True))
    monkeypatch.setattr(type(current_platform), "is_rocm", lambda _self: True)
    with pytest.raises(UnprovenConfigurationError, match="an NVIDIA GPU"):
        check_config(config(**ON_GPU))


def test_a_profile_without_room_on_a_gpu_is_refused_at_admission(tmp_path: Path) -> None:
    assert edits_limit(config()) is None
    limit = edits_limit(config(**ON_GPU))
    assert limit == DEVICE_EDITS
    layout = ModelLayout("Glm4MoeForCausalLM", (1, 2, 3), 400, 4)
    pairs = [(layer, expert) for layer in layout.layers for expert in range(400)]
    full = {"profile": {"edits": [[*pair, "suppress"] for pair in pairs[:limit]]}}
    over = {"profile": {"edits": [[*pair, "suppress"] for pair in pairs[: limit + 1]]}}
    Admission(layout, limit=limit).accept(full)
    Admission(layout).accept(over)
    with pytest.raises(ProfileError, match="has 1025 edits; on a GPU there is room for 1024"):
        Admission(layout, limit=limit).accept(over)
    Profile("wide", tuple(Edit(*pair, "suppress") for pair in pairs), layout).write(tmp_path / "wide.json")
    with pytest.raises(ProfileError, match="'wide' has 1200 edits"):
        Admission(layout, tmp_path, limit=limit)


def test_versions() -> None:
    check_version("0.32.0")
    check_version("0.32.1+cpu")
    check_version("0.31.0")
    check_version("0.33.0")
    for version in ("0.30.9", "0.34.0", "1.0"):
        with pytest.raises(UnprovenConfigurationError, match=r"tested with vLLM 0\.31\.x, 0\.32\.x, 0\.33\.x"):
            check_version(version)


def test_an_unproven_engine_does_not_start(checkpoints: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import LLM

    from mote.patches import plugin

    monkeypatch.setattr(plugin, "check_version", lambda _: check_version("0.99"))
    with pytest.raises(UnprovenConfigurationError, match=r"0\.99"):
        LLM(str(checkpoints("glm4")), enforce_eager=True, dtype="float32", max_model_len=64)


def served(monkeypatch: pytest.MonkeyPatch, model_type: str, device: str) -> Any:
    """A stub of the configuration of an engine that is about to start, as vLLM's current one."""
    fields = {"model_type": model_type, "num_hidden_layers": 2, "num_experts": 4, "num_experts_per_tok": 2}
    model = SimpleNamespace(
        hf_config=SimpleNamespace(to_dict=lambda: fields | {"first_k_dense_replace": 1}),
        architectures=["SomeForCausalLM"],
    )
    found = SimpleNamespace(model_config=model, device_config=SimpleNamespace(device_type=device))
    monkeypatch.setattr("vllm.config.vllm._current_vllm_config", found)
    return found


def test_where_kernels_are_chosen_those_that_route_by_themselves_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """vLLM's own question to a kernel's class, which its choosers ask of one class after the other."""
    from vllm.model_executor.layers.fused_moe.modular_kernel import FusedMoEExpertsModular, FusedMoEExpertsMonolithic

    from mote.patches.plugin import ROUTES_BY_ITSELF, register

    register()
    tried: Any = SimpleNamespace()
    for base, model_type, passed_over in (
        (FusedMoEExpertsMonolithic, "glm4_moe", True),
        (FusedMoEExpertsModular, "glm4_moe", False),
        (FusedMoEExpertsMonolithic, "longcat_flash", False),  # left alone: vLLM chooses as without the patch
    ):
        served(monkeypatch, model_type, "cuda")
        kernel: Any = type("Kernel", (base,), {"_supports_current_device": staticmethod(lambda: False)})
        supported, reason = kernel.is_supported_config(kernel, tried, None, None, tried)
        assert not supported
        assert (reason == ROUTES_BY_ITSELF) is passed_over


@pytest.mark.parametrize(
    ("model_type", "device", "says"),
    [
        ("ernie4_5_moe", "cpu", "drops the correction bias"),
        ("ernie4_5_moe", "cuda", ""),
        ("longcat_flash", "cuda", "does not name one expert"),
        ("glm4_moe", "cpu", ""),
    ],
)
def test_models_that_are_left_alone(model_type: str, device: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine starts without the patch's part in it, and a request with 'mote' is told why it is refused."""
    from mote.patches import plugin

    monkeypatch.setattr(plugin, "_refuse_unproven", lambda _: None)
    engine_config = served(monkeypatch, model_type, device)
    layout, why_not = plugin._examine(engine_config)
    assert (layout is None) == bool(says)
    assert plugin.layout_of(engine_config) == layout
    if says:
        with pytest.raises(ProfileError, match=rf"{says}.*send the request without 'mote'"):
            Admission(layout, why_not=why_not).accept({"profile": {"edits": []}})


def test_routers_that_are_refused_by_their_class() -> None:
    from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter
    from vllm.model_executor.layers.fused_moe.router.routing_simulator_router import RoutingSimulatorRouter
    from vllm.model_executor.layers.fused_moe.router.zero_expert_router import ZeroExpertRouter

    from mote.patches.router import router_fault

    bias = torch.zeros(8)
    assert not router_fault(CPURouter(2, 8))
    assert not router_fault(CPURouter(2, 8, True, 2, 1, scoring_func="sigmoid", e_score_correction_bias=bias))
    assert "drops its correction bias" in router_fault(CPURouter(2, 8, e_score_correction_bias=bias))
    assert "does not name one expert" in router_fault(ZeroExpertRouter.__new__(ZeroExpertRouter))
    assert "VLLM_MOE_ROUTING_SIMULATION_STRATEGY" in router_fault(
        RoutingSimulatorRouter.__new__(RoutingSimulatorRouter)
    )


def test_a_router_that_adds_shared_experts_or_is_never_called_is_refused() -> None:
    from vllm.model_executor.layers.fused_moe.router.fused_topk_bias_router import FusedTopKBiasRouter

    from mote.patches.router import _check

    router = FusedTopKBiasRouter.__new__(FusedTopKBiasRouter)
    router.top_k, router.global_num_experts, router.num_fused_shared_experts = 3, 12, 0
    method = SimpleNamespace(is_monolithic=False)
    runner: Any = SimpleNamespace(router=router, routed_experts=SimpleNamespace(quant_method=method))
    layout = ModelLayout("Glm4MoeForCausalLM", (1, 3), 12, 3)
    _check(runner, 1, layout)
    router.num_fused_shared_experts = 1
    with pytest.raises(UnprovenConfigurationError, match="adds 1 fused shared experts to the 3 it chooses"):
        _check(runner, 1, layout)
    router.num_fused_shared_experts, method.is_monolithic = 0, True
    with pytest.raises(UnprovenConfigurationError, match=r"--moe-backend triton .* --moe-backend marlin \(MXFP4"):
        _check(runner, 1, layout)
