"""The demo's network for training: GLM4-MoE computed compactly, and exported under its Hugging Face names.

Hugging Face runs the routed experts in a Python loop that is slow to train through on a CPU. Here the tokens are sorted
by expert once a layer and each projection is one pass over contiguous slices, with a hand-written backward. The result
is the same function of the same weights: a test compares the logits of both, and only exported weights are ever
evaluated. The router is DeepSeek-V3's: sigmoid scores, a correction bias that takes part in the choice but not in the
weights, renormalised weights times a scaling factor, one shared expert (no groups: one group).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user reads
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mote.harness.files import write_atomic


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of the network; the defaults are the packaged model's."""

    vocabulary: int = 1536
    layers: int = 6
    hidden: int = 128
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 32
    experts: int = 64
    top_k: int = 4
    expert_width: int = 32
    scaling: float = 2.0
    rotary_share: float = 0.5
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5
    positions: int = 1024

    def to_config(self, *, end_id: int, pad_id: int, dtype: str) -> dict[str, Any]:
        """The Hugging Face `config.json` of this network."""
        return {
            "architectures": ["Glm4MoeForCausalLM"],
            "model_type": "glm4_moe",
            "dtype": dtype,
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.expert_width * self.top_k,  # of dense layers, of which there are none
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "hidden_act": "silu",
            "max_position_embeddings": self.positions,
            "rms_norm_eps": self.norm_epsilon,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": self.rope_theta,
                "partial_rotary_factor": self.rotary_share,
            },
            "attention_bias": False,
            "attention_dropout": 0.0,
            "use_qk_norm": True,
            "moe_intermediate_size": self.expert_width,
            "n_routed_experts": self.experts,
            "num_experts_per_tok": self.top_k,
            "n_shared_experts": 1,
            "routed_scaling_factor": self.scaling,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "first_k_dense_replace": 0,
            "num_nextn_predict_layers": 0,
            "tie_word_embeddings": False,
            "use_cache": True,
            "eos_token_id": end_id,
            "pad_token_id": pad_id,
        }


class ForeignShapeError(ValueError):
    """A checkpoint is not of the network's shape."""


class _Dispatch(torch.autograd.Function):
    """Repeat each token for each of its experts, in expert order. The backward gathers, which beats scattering."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, order: Tensor, inverse: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.top_k = top_k
        return tokens[order // top_k]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors
        return grads[0][inverse].view(-1, ctx.top_k, grads[0].shape[1]).sum(1), None, None, None


class _GroupedLinear(torch.autograd.Function):
    """Row slice i times the transpose of matrix i, for weights [experts, out, in] and rows sorted by expert."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bounds: list[int]) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.bounds = bounds
        out = rows.new_empty(rows.shape[0], weight.shape[1])
        for expert, (start, end) in enumerate(itertools.pairwise(bounds)):
            torch.mm(rows[start:end], weight[expert].t(), out=out[start:end])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_rows, grad_weight = torch.empty_like(rows), torch.empty_like(weight)
        for expert, (start, end) in enumerate(itertools.pairwise(ctx.bounds)):
            torch.mm(grad[start:end], weight[expert], out=grad_rows[start:end])
            torch.mm(grad[start:end].t(), rows[start:end], out=grad_weight[expert])
        return grad_rows, grad_weight, None


# torch leaves `apply` without types.
_dispatch = cast("Callable[..., Tensor]", _Dispatch.apply)
_grouped_linear = cast("Callable[..., Tensor]", _GroupedLinear.apply)


def swiglu(gate_up: Tensor) -> Tensor:
    """SiLU of the first half of the last dimension times the second half."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


class Experts(nn.Module):
    """Router, routed experts and the shared expert of one layer."""

    bias: Tensor
    load: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.router = nn.Parameter(torch.empty(shape.experts, shape.hidden))
        self.gate_up = nn.Parameter(torch.empty(shape.experts, 2 * shape.expert_width, shape.hidden))
        self.down = nn.Parameter(torch.empty(shape.experts, shape.hidden, shape.expert_width))
        self.shared_gate_up = nn.Parameter(torch.empty(2 * shape.expert_width, shape.hidden))
        self.shared_down = nn.Parameter(torch.empty(shape.hidden, shape.expert_width))
        self.register_buffer("bias", torch.zeros(shape.experts))
        self.register_buffer("load", torch.zeros(shape.experts), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [n, hidden] to [n, hidden]; `load` then holds how many slots each expert took."""
        scores = torch.sigmoid(tokens @ self.router.t())
        chosen = torch.topk(scores.detach() + self.bias, self.shape.top_k, dim=-1, sorted=False).indices
        weights = scores.gather(1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * self.shape.scaling
        order = torch.argsort(chosen.flatten(), stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel())
        counts = torch.bincount(chosen.flatten(), minlength=self.shape.experts)
        self.load = counts.float()
        bounds = [0, *counts.cumsum(0).tolist()]
        rows = _dispatch(tokens, order, inverse, self.shape.top_k)
        rows = _grouped_linear(rows, self.gate_up, bounds)
        rows = _grouped_linear(swiglu(rows), self.down, bounds)
        routed = (rows[inverse].view(-1, self.shape.top_k, self.shape.hidden) * weights.unsqueeze(-1)).sum(1)
        shared = F.linear(swiglu(F.linear(tokens, self.shared_gate_up)), self.shared_down)
        return routed + shared


class Block(nn.Module):
    """One layer: attention with normalised queries and keys, then the experts."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, kv_width = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
        self.norm_attention = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        self.query = nn.Linear(shape.hidden, width, bias=False)
        self.key = nn.Linear(shape.hidden, kv_width, bias=False)
        self.value = nn.Linear(shape.hidden, kv_width, bias=False)
        self.out = nn.Linear(width, shape.hidden, bias=False)
        self.norm_query = nn.RMSNorm(shape.head_size, eps=shape.norm_epsilon)
        self.norm_key = nn.RMSNorm(shape.head_size, eps=shape.norm_epsilon)
        self.norm_experts = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        self.experts = Experts(shape)

    def forward(self, hidden: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor, real: Tensor) -> Tensor:
        """Hidden states [rows, length, hidden]; padding goes through no expert."""
        hidden = hidden + self._attend(self.norm_attention(hidden), rotation, mask)
        tokens = self.norm_experts(hidden).flatten(0, 1)[real]
        mixed = torch.zeros_like(hidden).flatten(0, 1).index_copy(0, real, self.experts(tokens))
        return hidden + mixed.view_as(hidden)

    def _attend(self, hidden: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        split = (-1, self.shape.head_size)
        query = _rotate(self.norm_query(self.query(hidden).unflatten(-1, split)), rotation).transpose(1, 2)
        key = _rotate(self.norm_key(self.key(hidden).unflatten(-1, split)), rotation).transpose(1, 2)
        value = self.value(hidden).unflatten(-1, split).transpose(1, 2)
        groups = self.shape.heads // self.shape.kv_heads
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        attended: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return attended


class Network(nn.Module):
    """The whole language model, for packed rows of documents."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.hidden)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        self.head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Normal weights of 0.04; for what is added to the residual stream, less by the square root of its depth."""
        depth = (2 * self.shape.layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            residual = name.endswith((".out.weight", ".down", ".shared_down"))
            scale = 0.04 / depth if residual else 0.04
            with torch.no_grad():
                parameter.normal_(0.0, scale, generator=generator)

    def forward(self, ids: Tensor, positions: Tensor, documents: Tensor, wanted: Tensor) -> Tensor:
        """Logits [number wanted, vocabulary].

        `ids`, `positions` and `documents` are [rows, length]; a token sees the tokens before it of its own document;
        document -1 is padding. `wanted` holds flat indices of the positions whose logits are needed.
        """
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        same = documents.unsqueeze(2) == documents.unsqueeze(1)
        mask = (same & causal).unsqueeze(1)
        rotation = self._rotation(positions)
        real = torch.nonzero(documents.flatten() >= 0).squeeze(1)
        hidden = self.embedding(ids)
        for block in self.blocks:
            hidden = block(hidden, rotation, mask, real)
        logits: Tensor = self.head(self.norm(hidden.flatten(0, 1)[wanted]))
        return logits

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        rotated = int(self.shape.head_size * self.shape.rotary_share)
        exponents = torch.arange(0, rotated, 2, dtype=torch.float32) / rotated
        angles = positions.unsqueeze(-1).float() / self.shape.rope_theta**exponents
        angles = torch.cat((angles, angles), dim=-1).unsqueeze(2)  # [rows, length, 1, rotated], for all heads
        return angles.cos(), angles.sin()

    def expert_layers(self) -> list[Experts]:
        """The mixture of every layer, in order."""
        return [block.experts for block in self.layers()]

    def layers(self) -> list[Block]:
        """The layers, in order."""
        return [cast("Block", block) for block in self.blocks]


def _rotate(states: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotation
    turned, kept = states[..., : cos.shape[-1]], states[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    return torch.cat((turned * cos + torch.cat((-second, first), dim=-1) * sin, kept), dim=-1)


def to_tensors(network: Network, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights under their Hugging Face names; the correction bias stays float32, as the engines keep it."""
    named = {
        "model.embed_tokens.weight": network.embedding.weight,
        "model.norm.weight": network.norm.weight,
        "lm_head.weight": network.head.weight,
    }
    biases: dict[str, Tensor] = {}
    for index, block in enumerate(network.layers()):
        prefix = f"model.layers.{index}."
        named |= {prefix + name: tensor for name, tensor in _block_tensors(block).items()}
        biases[f"{prefix}mlp.gate.e_score_correction_bias"] = block.experts.bias.detach().float().clone()
    return {name: tensor.detach().to(dtype).contiguous().clone() for name, tensor in named.items()} | biases


def _block_tensors(block: Block) -> dict[str, Tensor]:
    experts, width = block.experts, block.shape.expert_width
    tensors = {
        "input_layernorm.weight": block.norm_attention.weight,
        "post_attention_layernorm.weight": block.norm_experts.weight,
        "self_attn.q_proj.weight": block.query.weight,
        "self_attn.k_proj.weight": block.key.weight,
        "self_attn.v_proj.weight": block.value.weight,
        "self_attn.o_proj.weight": block.out.weight,
        "self_attn.q_norm.weight": block.norm_query.weight,
        "self_attn.k_norm.weight": block.norm_key.weight,
        "mlp.gate.weight": experts.router,
        "mlp.shared_experts.gate_proj.weight": experts.shared_gate_up[:width],
        "mlp.shared_experts.up_proj.weight": experts.shared_gate_up[width:],
        "mlp.shared_experts.down_proj.weight": experts.shared_down,
    }
    for expert in range(block.shape.experts):
        tensors[f"mlp.experts.{expert}.gate_proj.weight"] = experts.gate_up[expert, :width]
        tensors[f"mlp.experts.{expert}.up_proj.weight"] = experts.gate_up[expert, width:]
        tensors[f"mlp.experts.{expert}.down_proj.weight"] = experts.down[expert]
    return tensors


def write_weights(network: Network, folder: Path, *, end_id: int, pad_id: int, dtype: torch.dtype) -> None:
    """Write `config.json`, `generation_config.json` and `model.safetensors`."""
    config = network.shape.to_config(end_id=end_id, pad_id=pad_id, dtype=str(dtype).removeprefix("torch."))
    generation = {"do_sample": False, "eos_token_id": end_id, "pad_token_id": pad_id}
    write_atomic(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_atomic(folder / "generation_config.json", json.dumps(generation, indent=2) + "\n")
    # Last: a folder with weights is a whole checkpoint.
    write_atomic(folder / "model.safetensors", save(to_tensors(network, dtype), metadata={"format": "pt"}))


def read_weights(network: Network, folder: Path) -> None:
    """Fill `network` with the weights that `write_weights` left in `folder`.

    Raises ForeignShapeError for a checkpoint of another shape.
    """
    stored = load_file(str(folder / "model.safetensors"))
    views = _named_views(network)
    for name, target in views.items():
        if name not in stored or stored[name].shape != target.shape:
            raise ForeignShapeError(f"'{name}' is missing or of another shape than the demo's.")
    with torch.no_grad():
        for name, target in views.items():
            target.copy_(stored[name])


def _named_views(network: Network) -> dict[str, Tensor]:
    views = {
        "model.embed_tokens.weight": network.embedding.weight,
        "model.norm.weight": network.norm.weight,
        "lm_head.weight": network.head.weight,
    }
    for index, block in enumerate(network.layers()):
        views |= {f"model.layers.{index}.{name}": tensor for name, tensor in _block_tensors(block).items()}
        views[f"model.layers.{index}.mlp.gate.e_score_correction_bias"] = block.experts.bias
    return views
