"""The routers of a loaded model, each made to call the patch after it has chosen.

An edit before the choice is made here too: the rows that it concerns are chosen again, by edited scores
(``mote.patches.choice``), so that nothing changes for the others, not even in the last bit.

Every router instance gets a subclass of its own class that overrides ``_compute_routing``: that is before vLLM's
capture hook and before the mapping to physical experts, so the patch sees logical experts. A subclass by single
inheritance keeps the object's layout, so the instance can change its class in place.

Under torch.compile the call is one custom operator that mutates its arguments, so the graph stays whole. Which layer
calls is told by a tensor, not by a number in the code: the graphs of all layers stay equal and are compiled once.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter
from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner
from vllm.model_executor.models.utils import extract_layer_index
from vllm.utils.torch_utils import direct_register_custom_op

from mote.patches.choice import Chooser, choice_fault
from mote.patches.guards import OFF, UnprovenConfigurationError
from mote.patches.host import HostState
from mote.patches.layout import ModelLayout
from mote.patches.worker import WorkerState

_sites: list[tuple[weakref.ref[WorkerState], int]] = []
"""Where the operator may be called from: the state and its layer, by number. Weak, so that an engine can be freed."""


def _route(weights: torch.Tensor, ids: torch.Tensor, logits: torch.Tensor, site: torch.Tensor) -> None:
    reference, layer = _sites[int(site)]
    state = reference()
    if state is not None:
        state.route(layer, weights, ids, logits)


def _route_fake(weights: torch.Tensor, ids: torch.Tensor, logits: torch.Tensor, site: torch.Tensor) -> None:
    return None


direct_register_custom_op("mote_route", _route, mutates_args=["weights", "ids"], fake_impl=_route_fake)
_tuned_classes: dict[type, type] = {}
_MODULAR = (
    "triton (weights as they are, or fp8) or --moe-backend marlin (MXFP4, NVFP4, MXFP8, INT4); flashinfer_cutlass, "
    "deep_gemm and, for MXFP4, triton_unfused are modular too"
)
"""vLLM 0.32 prefers a monolithic class for MXFP4 under ``triton`` too, so that gpt-oss needs ``marlin``."""


def _tuned(base: type) -> type:
    """Return the subclass of a router class that calls the patch."""
    found = _tuned_classes.get(base)
    if found is None:

        def _compute_routing(
            self: Any, hidden_states: torch.Tensor, router_logits: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            weights, ids = base._compute_routing(self, hidden_states, router_logits, *args, **kwargs)  # type: ignore[attr-defined]
            if getattr(self, "custom_routing_function", None) is not None:
                # It may hand on the input of an operator that says it changes none, as the Transformers backend's does.
                weights, ids = weights.clone(), ids.clone()
            if torch.compiler.is_compiling():
                torch.ops.vllm.mote_route(weights, ids, router_logits, self.mote_site)
            else:
                self.mote_state.route(self.mote_layer, weights, ids, router_logits)
            return weights, ids

        found = type(f"Tuned{base.__name__}", (base,), {"_compute_routing": _compute_routing})
        _tuned_classes[base] = found
    return found


def attach(model: nn.Module, layout: ModelLayout, state: WorkerState) -> None:
    """Make every router of a loaded model call ``state``.

    Raises:
        UnprovenConfigurationError: the model's routers are not where ``layout`` says, or they are not called at all
            because a kernel routes by itself.
    """
    runners = {extract_layer_index(m.layer_name): m for m in model.modules() if isinstance(m, MoERunner)}
    if tuple(sorted(runners)) != layout.layers:
        raise UnprovenConfigurationError(
            f"{layout.architecture} has routers in layers {sorted(runners)}, its config says {list(layout.layers)}; "
            f"load the model with its own config, {OFF}"
        )
    for index in layout.layers:
        _check(runners[index], index, layout)
    choosers: list[Chooser | str] = []
    for row, index in enumerate(layout.layers):
        router: Any = runners[index].router
        base = next(cls for cls in type(router).__mro__ if cls not in _tuned_classes.values())
        choosers.append(choice_fault(router) or Chooser(router, base))
        router.mote_state, router.mote_layer = state, row
        router.mote_site = torch.tensor(len(_sites), dtype=torch.int32)
        _sites.append((weakref.ref(state), row))
        if type(router) not in _tuned_classes.values():
            router.__class__ = _tuned(type(router))
    if isinstance(state, HostState):
        state.choosers = choosers


def router_fault(router: Any) -> str:
    """Return why a router of vLLM cannot be edited rightly, with the remedy; empty if it can.

    By the class, for what no configuration says: an id that does not name one expert, and stock vLLM's own faults.
    """
    classes = {cls.__name__ for cls in type(router).__mro__}
    if "ZeroExpertRouter" in classes:
        return "it maps zero experts to one place, so that an id does not name one expert: use another model"
    if "RoutingSimulatorRouter" in classes:
        return "it draws experts at random: unset VLLM_MOE_ROUTING_SIMULATION_STRATEGY"
    plain = "CPURouter" in classes and not router.use_grouped_topk and router.custom_routing_function is None
    if plain and router.scoring_func == "softmax" and router.e_score_correction_bias is not None:
        return (
            "vLLM's CPU router drops its correction bias and chooses other experts than the model's own, with the "
            "patch and without it: run this model on a GPU"
        )
    return ""


def _check(runner: MoERunner, index: int, layout: ModelLayout) -> None:
    router: Any = runner.router
    if runner.routed_experts.quant_method.is_monolithic:
        raise UnprovenConfigurationError(
            f"the kernel of layer {index} ({type(runner.routed_experts.quant_method).__name__}) routes by itself, so "
            f"no expert can be edited: choose a modular one with --moe-backend {_MODULAR}, {OFF}"
        )
    if not isinstance(router, BaseRouter):
        raise UnprovenConfigurationError(
            f"the router of layer {index} is a {type(router).__name__}, which the MoTE patch does not know: use "
            f"a model of a known family, {OFF}"
        )
    fault = router_fault(router)
    if fault:
        raise UnprovenConfigurationError(f"the router of layer {index} is refused: {fault}, {OFF}")
    if router.top_k != layout.top_k or router.global_num_experts != layout.experts:
        raise UnprovenConfigurationError(
            f"the router of layer {index} takes {router.top_k} of {router.global_num_experts} experts, the config says "
            f"{layout.top_k} of {layout.experts}: leave redundant and fused shared experts out, {OFF}"
        )
    shared = getattr(router, "num_fused_shared_experts", 0)
    if shared:
        raise UnprovenConfigurationError(
            f"the router of layer {index} adds {shared} fused shared experts to the {layout.top_k} it chooses: leave "
            f"their fusion out, {OFF}"
        )
