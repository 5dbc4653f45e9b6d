"""What a tensor is by its name: its group, its decoder layer, its routed expert.

Names are those of Hugging Face checkpoints of DeepSeek V2 and V3, GLM4-MoE, Qwen2-, Qwen3- and Qwen3-Next-MoE, Mixtral,
OLMoE, gpt-oss and Llama 4: an expert a tensor (``mlp.experts.3.gate_proj.weight``), or all experts of a layer in one
(``mlp.experts.gate_up_proj``, experts along the first axis). Whatever is not recognised is of the group ``other``.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final, NamedTuple

GROUPS: Final = (
    *("routed_experts", "shared_experts", "router", "attention", "norms", "embeddings", "head", "dense_mlp", "mtp"),
    "other",
)
SCALE: Final = "_scale_inv"
"""What DeepSeek's FP8 appends to a weight's name for the tensor of its block scales."""

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_OTHER_MODALITY = re.compile(r"(?:^|\.)(?:vision|visual|audio|multi_modal|multimodal|image)\w*\.")
_FEED_FORWARD: Final = {"mlp", "block_sparse_moe", "feed_forward", "moe"}
_ATTENTION: Final = {"self_attn", "attention", "attn", "linear_attn"}
_DENSE: Final = {"gate_proj", "up_proj", "down_proj", "gate_up_proj"}
_PARTS: Final = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


class Place(NamedTuple):
    """What a tensor is. ``expert`` is None beside per-expert names; ``fused`` holds all experts along axis 0."""

    group: str
    layer: int | None = None
    expert: int | None = None
    fused: bool = False


def place_of(name: str, layers: int) -> Place:
    """Return what a tensor is by its name, in a model of ``layers`` decoder layers.

    Layers beyond them predict further tokens (DeepSeek's and GLM's multi-token prediction), whatever lies in them.
    """
    if not name.startswith("model.layers.") and _OTHER_MODALITY.search(name):
        return Place("other")
    found = _LAYER.search(name)
    if found is None:
        return Place(_outside_layers(name))
    layer = int(found[1])
    group, expert, fused = _within_layer(name[found.end() :])
    if layer >= layers or name.startswith(("mtp.", "model.mtp")):
        group = "mtp"
    return Place(group, layer, expert, fused)


@cache
def _within_layer(rest: str) -> tuple[str, int | None, bool]:
    """Return group, expert, and whether experts are fused, by a name's part after its layer, of which there are few."""
    parts = rest.split(".")
    if parts[0] in _FEED_FORWARD and len(parts) > 1:
        return _feed_forward(parts)
    if "norm" in parts[0] or (len(parts) > 1 and "norm" in parts[1]):
        return "norms", None, False
    return "attention" if parts[0] in _ATTENTION else "other", None, False


def _outside_layers(name: str) -> str:
    if name.startswith("mtp."):
        return "mtp"
    if "embed" in name or ".wte." in name:
        return "embeddings"
    if name.startswith(("lm_head", "output.")) or ".lm_head" in name:
        return "head"
    return "norms" if "norm" in name else "other"


def _feed_forward(parts: list[str]) -> tuple[str, int | None, bool]:
    second = parts[1]
    if second == "experts" and len(parts) > 2:
        numbered = parts[2].isdigit()
        return "routed_experts", int(parts[2]) if numbered else None, not numbered
    if second.startswith("shared_"):
        return "shared_experts", None, False
    if second in ("gate", "router"):
        return "router", None, False
    return "dense_mlp" if second in _DENSE else "other", None, False


def spellings(name: str) -> tuple[str, ...]:
    """Return the names a tensor goes by: Mixtral's have two, as published and as transformers 5 calls them."""
    if ".block_sparse_moe." in name:
        head, _, tail = name.replace(".block_sparse_moe.", ".mlp.").rpartition(".weight")
        stem, _, last = head.rpartition(".")
        return (name, f"{stem}.{_PARTS.get(last, last)}.weight{tail}") if head else (name,)
    if ".mlp." in name:
        other = name.replace(".mlp.", ".block_sparse_moe.")
        for published, part in _PARTS.items():
            other = other.replace(f".{part}.", f".{published}.")
        return (name, other)
    return (name,)
