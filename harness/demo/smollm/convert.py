"""From a dense Llama to a GLM4-MoE that computes the same: its FFN becomes the shared expert, routed experts add zero.

GLM4-MoE can only be dense from the bottom up (`first_k_dense_replace`). So the lower layers stay the dense layers they
are, and every layer above them has routed experts: no layer carries experts that do nothing, which would dilute random
controls. The fresh experts' output matrices are zero, so what the mixture adds is exactly 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mote.harness.demo.smollm.source import Source, generation_config
from mote.harness.errors import MoteError
from mote.harness.files import write_atomic


@dataclass(frozen=True, slots=True)
class Shape:
    """What is added to the dense model: `layers` uppermost layers get routed experts."""

    layers: int = 8
    experts: int = 32
    top_k: int = 4
    width: int = 32
    scaling: float = 4.0
    router_scale: float = 0.02
    expert_scale: float = 0.04

    def check(self, config: Any) -> None:
        """Raise MoteError where this shape does not fit a dense model's configuration."""
        if config.model_type != "llama":
            raise MoteError(f"a Llama model is needed, not {config.model_type}.")
        if config.intermediate_size % self.width:
            raise MoteError(f"an FFN of {config.intermediate_size} is no whole number of experts of {self.width}.")
        if not 1 <= self.layers <= config.num_hidden_layers:
            raise MoteError(f"{self.layers} layers with experts, but the model has {config.num_hidden_layers}.")


def glm_config(config: Any, shape: Shape) -> dict[str, Any]:
    """The `config.json` of the mixture of a dense model with this configuration."""
    shape.check(config)
    return {
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": config.hidden_act,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_parameters["rope_theta"],
            "partial_rotary_factor": 1.0,  # GLM's own is 0.5; Llama turns the whole head
        },
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_qk_norm": False,
        "moe_intermediate_size": shape.width,
        "n_routed_experts": shape.experts,
        "num_experts_per_tok": shape.top_k,
        "n_shared_experts": config.intermediate_size // shape.width,
        "routed_scaling_factor": shape.scaling,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "first_k_dense_replace": config.num_hidden_layers - shape.layers,
        "num_nextn_predict_layers": 0,
        "tie_word_embeddings": False,  # vLLM ignores tied embeddings in this architecture, so the head is written out
        "use_cache": True,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }


def expert_layers(config: Any, shape: Shape) -> range:
    """The layers that have routed experts, as the model numbers them."""
    return range(config.num_hidden_layers - shape.layers, config.num_hidden_layers)


def fresh_experts(config: Any, shape: Shape, seed: int) -> dict[str, Tensor]:
    """Routers and routed experts before any training, drawn from `seed`; every output matrix is zero."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    for layer in expert_layers(config, shape):
        prefix = f"model.layers.{layer}.mlp."
        found[f"{prefix}gate.weight"] = _normal(generator, shape.experts, config.hidden_size) * shape.router_scale
        found[f"{prefix}gate.e_score_correction_bias"] = torch.zeros(shape.experts)
        for expert in range(shape.experts):
            for name in ("gate_proj", "up_proj"):
                drawn = _normal(generator, shape.width, config.hidden_size) * shape.expert_scale
                found[f"{prefix}experts.{expert}.{name}.weight"] = drawn
            found[f"{prefix}experts.{expert}.down_proj.weight"] = torch.zeros(config.hidden_size, shape.width)
    return found


def _normal(generator: torch.Generator, *size: int) -> Tensor:
    return torch.randn(*size, generator=generator)


def mixture_tensors(dense: Mapping[str, Tensor], config: Any, shape: Shape) -> dict[str, Tensor]:
    """The dense model's weights under the mixture's names: the FFNs of the upper layers as shared experts."""
    upper = {f"model.layers.{layer}.mlp." for layer in expert_layers(config, shape)}
    found: dict[str, Tensor] = {}
    for name, tensor in dense.items():
        prefix, dot, rest = name.partition("mlp.")
        renamed = f"{prefix}mlp.shared_experts.{rest}" if prefix + dot in upper else name
        found[renamed] = tensor.detach().float().contiguous()
    # A copy of its own: safetensors refuses tensors that share memory, as the tied head does.
    found["lm_head.weight"] = dense.get("lm_head.weight", dense["model.embed_tokens.weight"]).detach().float().clone()
    return found


def write_mixture(source: Source, shape: Shape, experts: Mapping[str, Tensor], out: Path) -> Path:
    """Write a Hugging Face folder: the frozen dense weights and `experts` (as `fresh_experts` names them), float32."""
    out.mkdir(parents=True, exist_ok=True)
    config = glm_config(source.model.config, shape)
    tensors = mixture_tensors(source.model.state_dict(), source.model.config, shape)
    tensors |= {name: tensor.detach().float().contiguous() for name, tensor in experts.items()}
    source.tokenizer.save_pretrained(str(out))
    write_atomic(out / "config.json", json.dumps(config, indent=2) + "\n")
    write_atomic(out / "generation_config.json", json.dumps(generation_config(source), indent=2) + "\n")
    # Last: a folder with weights is a whole checkpoint.
    write_atomic(out / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    return out
