"""Checkpoints for the tests of merges: any tensors in any shards, and DeepSeek-V3's own names, types and shapes.

The safetensors library orders a file by type, widest first, then by name; headers here are in that order. Files of
full size are sparse: their bytes are holes unless asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from mote.harness.merge.arithmetic import quantise

SIZES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}


class Spec(NamedTuple):
    """A tensor's name, type and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * SIZES[self.dtype]


@dataclass(frozen=True)
class DeepSeek:
    """Sizes of a DeepSeek-V3; the defaults are R1's own, 91,991 tensors in all."""

    layers: int = 61
    dense: int = 3
    experts: int = 256
    hidden: int = 7168
    width: int = 2048
    dense_width: int = 18432
    vocabulary: int = 129280
    heads: int = 128
    q_rank: int = 1536
    kv_rank: int = 512
    nope: int = 128
    rope: int = 64
    value: int = 128
    further: int = 1

    def config(self) -> dict[str, Any]:
        return {
            "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3",
            "num_hidden_layers": self.layers,
            "first_k_dense_replace": self.dense,
            "n_routed_experts": self.experts,
            "num_experts_per_tok": min(8, self.experts),
            "n_shared_experts": 1,
            "hidden_size": self.hidden,
            "moe_intermediate_size": self.width,
            "intermediate_size": self.dense_width,
            "vocab_size": self.vocabulary,
            "num_attention_heads": self.heads,
            "tie_word_embeddings": False,
            "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
        }

    def tensors(self) -> Iterator[Spec]:
        """Yield every tensor, layer by layer."""
        yield Spec("model.embed_tokens.weight", "BF16", (self.vocabulary, self.hidden))
        for layer in range(self.layers + self.further):
            yield from self._layer(layer)
        yield Spec("model.norm.weight", "BF16", (self.hidden,))
        yield Spec("lm_head.weight", "BF16", (self.vocabulary, self.hidden))

    def _layer(self, layer: int) -> Iterator[Spec]:
        stem = f"model.layers.{layer}"
        attention = f"{stem}.self_attn"
        query = self.heads * (self.nope + self.rope)
        yield Spec(f"{stem}.input_layernorm.weight", "BF16", (self.hidden,))
        yield Spec(f"{stem}.post_attention_layernorm.weight", "BF16", (self.hidden,))
        yield Spec(f"{attention}.q_a_layernorm.weight", "BF16", (self.q_rank,))
        yield Spec(f"{attention}.kv_a_layernorm.weight", "BF16", (self.kv_rank,))
        yield from _fp8(f"{attention}.q_a_proj", self.q_rank, self.hidden)
        yield from _fp8(f"{attention}.q_b_proj", query, self.q_rank)
        yield from _fp8(f"{attention}.kv_a_proj_with_mqa", self.kv_rank + self.rope, self.hidden)
        yield from _fp8(f"{attention}.kv_b_proj", self.heads * (self.nope + self.value), self.kv_rank)
        yield from _fp8(f"{attention}.o_proj", self.hidden, self.heads * self.value)
        if layer < self.dense:
            yield from _projections(f"{stem}.mlp", self.dense_width, self.hidden)
            return
        yield Spec(f"{stem}.mlp.gate.weight", "BF16", (self.experts, self.hidden))
        yield Spec(f"{stem}.mlp.gate.e_score_correction_bias", "F32", (self.experts,))
        yield from _projections(f"{stem}.mlp.shared_experts", self.width, self.hidden)
        for expert in range(self.experts):
            yield from _projections(f"{stem}.mlp.experts.{expert}", self.width, self.hidden)
        if layer >= self.layers:
            for norm in ("enorm", "hnorm", "shared_head.norm"):
                yield Spec(f"{stem}.{norm}.weight", "BF16", (self.hidden,))
            yield Spec(f"{stem}.eh_proj.weight", "BF16", (self.hidden, 2 * self.hidden))
            yield Spec(f"{stem}.embed_tokens.weight", "BF16", (self.vocabulary, self.hidden))
            yield Spec(f"{stem}.shared_head.head.weight", "BF16", (self.vocabulary, self.hidden))


SMALL = DeepSeek(
    layers=2, dense=1, experts=4, hidden=256, width=128, dense_width=256, vocabulary=64, heads=2, q_rank=128, kv_rank=64
)


def write_checkpoint(
    folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], shards: int = 1
) -> Path:
    """Write tensors as the safetensors library does, in one file or several with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = list(tensors)
    step = -(-len(names) // shards)
    where: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        held = {name: tensors[name] for name in names[number * step : (number + 1) * step]}
        save_file(held, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(held, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def random_deepseek(size: DeepSeek, seed: int) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors, FP8 as DeepSeek has it."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    for spec in size.tensors():
        if spec.name.endswith("_scale_inv"):
            continue
        values = torch.randn(spec.shape, generator=generator) * 0.05
        if spec.dtype == "F8_E4M3":
            found[spec.name], found[spec.name + "_scale_inv"] = quantise(values)
        else:
            found[spec.name] = values.to(torch.float32 if spec.dtype == "F32" else torch.bfloat16)
    return found


def write_sparse(folder: Path, size: DeepSeek, shard_bytes: int = 4_300_000_000) -> list[Path]:
    """Write a checkpoint whose weights are holes, with an index; return the shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(size.config()))
    bundles: list[list[Spec]] = [[]]
    held = 0
    for spec in size.tensors():
        if held > shard_bytes and not spec.name.endswith("_scale_inv"):
            bundles.append([])
            held = 0
        bundles[-1].append(spec)
        held += spec.nbytes
    where: dict[str, str] = {}
    paths = []
    for number, bundle in enumerate(bundles, start=1):
        path = folder / f"model-{number:05}-of-{len(bundles):06}.safetensors"
        write_holes(path, bundle)
        where |= dict.fromkeys((spec.name for spec in bundle), path.name)
        paths.append(path)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return paths


def write_holes(path: Path, specs: list[Spec]) -> None:
    """Write a file of tensors whose bytes are holes, in the order of the safetensors library."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for spec in sorted(specs, key=lambda spec: (-SIZES[spec.dtype], spec.name)):
        offsets = [at, at + spec.nbytes]
        header[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": offsets}
        at += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        os.truncate(file.fileno(), 8 + len(text) + at)


def _fp8(stem: str, rows: int, columns: int) -> Iterator[Spec]:
    yield Spec(f"{stem}.weight", "F8_E4M3", (rows, columns))
    yield Spec(f"{stem}.weight_scale_inv", "F32", (-(-rows // 128), -(-columns // 128)))


def _projections(stem: str, width: int, hidden: int) -> Iterator[Spec]:
    yield from _fp8(f"{stem}.gate_proj", width, hidden)
    yield from _fp8(f"{stem}.up_proj", width, hidden)
    yield from _fp8(f"{stem}.down_proj", hidden, width)
