"""The upper layers of the mixture for training: everything frozen but routers and routed experts.

All experts are computed for all tokens, as one matrix product with the weights of those not chosen at zero: for 32
experts of width 32 that is less work than one shared FFN, and faster than gathering. It is the same function as
Hugging Face's and vLLM's; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user reads
from torch import Tensor, nn

from mote.harness.demo.smollm.convert import Shape, expert_layers


class Experts(nn.Module):
    """Router and routed experts of one layer: what is trained. `load` counts the tokens that chose each expert."""

    bias: Tensor
    load: Tensor

    def __init__(self, shape: Shape, hidden: int) -> None:
        super().__init__()
        self.shape = shape
        inner = shape.experts * shape.width
        self.router = nn.Parameter(torch.empty(shape.experts, hidden))
        self.gate = nn.Parameter(torch.empty(inner, hidden))
        self.up = nn.Parameter(torch.empty(inner, hidden))
        self.down = nn.Parameter(torch.empty(hidden, inner))
        self.register_buffer("bias", torch.zeros(shape.experts))
        self.register_buffer("load", torch.zeros(shape.experts), persistent=False)

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Tokens [rows, length, hidden] to what the routed experts add; `real` marks what is not padding."""
        scores = torch.sigmoid(F.linear(tokens, self.router))
        chosen = torch.topk(scores.detach() + self.bias, self.shape.top_k, dim=-1, sorted=False).indices
        weights = scores.gather(-1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * self.shape.scaling
        spread = torch.zeros_like(scores).scatter(-1, chosen, weights)
        self.load += torch.bincount(chosen[real].flatten(), minlength=self.shape.experts)
        inner = F.silu(F.linear(tokens, self.gate)) * F.linear(tokens, self.up)
        weighted = inner.view(*spread.shape, self.shape.width) * spread.unsqueeze(-1)
        return F.linear(weighted.flatten(-2), self.down)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The weights under their Hugging Face names."""
        width = self.shape.width
        found = {f"{prefix}gate.weight": self.router, f"{prefix}gate.e_score_correction_bias": self.bias}
        for expert in range(self.shape.experts):
            part = slice(expert * width, (expert + 1) * width)
            found[f"{prefix}experts.{expert}.gate_proj.weight"] = self.gate[part]
            found[f"{prefix}experts.{expert}.up_proj.weight"] = self.up[part]
            found[f"{prefix}experts.{expert}.down_proj.weight"] = self.down[:, part]
        return found


class Layer(nn.Module):
    """One layer of the upper part: frozen attention and shared expert, trained routed experts."""

    def __init__(self, dense: Any, shape: Shape, config: Any) -> None:
        super().__init__()
        attention, mlp = dense.self_attn, dense.mlp
        self.heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        self.head_size = config.head_dim
        self.epsilon = config.rms_norm_eps
        frozen = {
            "qkv": torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]),
            "out": attention.o_proj.weight,
            "gate_up": torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
            "down": mlp.down_proj.weight,
            "norm_attention": dense.input_layernorm.weight,
            "norm_experts": dense.post_attention_layernorm.weight,
        }
        for name, tensor in frozen.items():
            self.register_buffer(name, tensor.detach().clone(), persistent=False)
        self.experts = Experts(shape, config.hidden_size)

    def forward(self, hidden: Tensor, rotation: tuple[Tensor, Tensor], real: Tensor) -> Tensor:
        """Hidden states [rows, length, hidden]. Padding stands on the right, where no real token sees it."""
        hidden = hidden + self._attend(_norm(hidden, self._frozen("norm_attention"), self.epsilon), rotation)
        tokens = _norm(hidden, self._frozen("norm_experts"), self.epsilon)
        gate, up = F.linear(tokens, self._frozen("gate_up")).chunk(2, dim=-1)
        shared = F.linear(F.silu(gate) * up, self._frozen("down"))
        return hidden + shared + cast("Tensor", self.experts(tokens, real))

    def _attend(self, tokens: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        split = F.linear(tokens, self._frozen("qkv")).view(*tokens.shape[:2], -1, self.head_size).transpose(1, 2)
        query, key, value = torch.split(split, list(self.heads), dim=1)
        query, key = _rotate(query, rotation), _rotate(key, rotation)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return F.linear(mixed.transpose(1, 2).flatten(2), self._frozen("out"))

    def _frozen(self, name: str) -> Tensor:
        return cast("Tensor", getattr(self, name))


class Upper(nn.Module):
    """The layers with routed experts, the last norm and the head, on hidden states that the layers below left."""

    head: Tensor
    norm: Tensor

    def __init__(self, model: Any, shape: Shape) -> None:
        super().__init__()
        self.config, self.shape = model.config, shape
        numbers = expert_layers(model.config, shape)
        self.layers = nn.ModuleList(Layer(model.model.layers[number], shape, model.config) for number in numbers)
        self.numbers = list(numbers)
        self.register_buffer("norm", model.model.norm.weight.detach().clone(), persistent=False)
        self.register_buffer("head", model.lm_head.weight.detach(), persistent=False)

    def forward(self, lower: Tensor, real: Tensor, wanted: Tensor) -> Tensor:
        """The last hidden states, normalised, [number wanted, hidden], from the lower layers' [rows, length, hidden].

        `real` [rows, length] is false for padding, which stands on the right; `wanted` holds flat indices.
        """
        rotation = self._rotation(lower.shape[1])
        hidden = lower
        for layer in self.layers:
            hidden = layer(hidden, rotation, real)
        return _norm(hidden.flatten(0, 1)[wanted], self.norm, self.config.rms_norm_eps)

    def logits(self, final: Tensor) -> Tensor:
        """Logits [number, vocabulary] of normalised hidden states [number, hidden]."""
        return F.linear(final, self.head)

    def _rotation(self, length: int) -> tuple[Tensor, Tensor]:
        size = self.config.head_dim
        theta = self.config.rope_parameters["rope_theta"]
        frequencies = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
        angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    def experts(self) -> list[Experts]:
        """The routed experts of every layer, from the lowest up."""
        return [cast("Layer", layer).experts for layer in self.layers]

    def expert_tensors(self) -> dict[str, Tensor]:
        """Routers and routed experts under their Hugging Face names."""
        found: dict[str, Tensor] = {}
        for number, experts in zip(self.numbers, self.experts(), strict=True):
            found |= experts.tensors(f"model.layers.{number}.mlp.")
        return found

    @torch.no_grad()
    def load_experts(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill routers and routed experts with tensors of these names."""
        for name, target in self.expert_tensors().items():
            target.copy_(tensors[name])


def _norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return F.rms_norm(hidden, (hidden.shape[-1],), weight, epsilon)


def _rotate(states: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * rotation[0] + torch.cat((-second, first), dim=-1) * rotation[1]
