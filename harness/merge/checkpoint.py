"""A parent as it lies on the disk: configuration, shards, and every tensor's place, from headers alone.

What cannot be merged is refused here, with its remedy: weights packed in fewer bits than eight, FP8 without DeepSeek's
128 x 128 block scales, checkpoints that are not safetensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from mote.harness.errors import MoteError, nearest
from mote.harness.files import read_json_file
from mote.harness.merge.groups import SCALE
from mote.harness.merge.schema import Parent
from mote.harness.tensors import TensorEntry, TensorFile, read_tensor_file

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
BLOCK: Final = 128
FLOATS: Final = ("BF16", "F16", "F32")
FP8: Final = "F8_E4M3"
_DEQUANTISE: Final = (
    "write it out in bfloat16 first (transformers: from_pretrained with dequantize=True, save_pretrained)"
)
_UNPACKED: Final = (".weight", "_proj")
_PACKED: Final = ("_blocks", "_scales", ".qweight", ".qzeros", ".weight_packed", ".absmax", ".weight_scale_2")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One parent. ``tensors`` are all of its shards', by name; an entry's ``file`` is its number in ``shards``."""

    name: str
    source: str
    revision: str | None
    folder: Path
    config: Mapping[str, Any]
    shards: tuple[TensorFile, ...]
    tensors: Mapping[str, TensorEntry]
    indexed: bool

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The configuration of the language model, which multimodal ones nest."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, Mapping) else self.config

    @property
    def layers(self) -> int:
        """The number of decoder layers, without those that predict further tokens."""
        return int(self.text_config["num_hidden_layers"])

    @property
    def tied(self) -> bool:
        """Whether the head is the embeddings' own tensor."""
        return bool(self.config.get("tie_word_embeddings", self.text_config.get("tie_word_embeddings", False)))

    @cached_property
    def header_digest(self) -> str:
        """The sha256 over every shard's name, size and header: what a plan is made from."""
        digest = hashlib.sha256()
        for shard in self.shards:
            digest.update(f"{shard.path.name}\0{shard.size}\0".encode())
            digest.update(shard.raw)
        return digest.hexdigest()


def open_checkpoint(name: str, parent: Parent, like: Checkpoint | None = None) -> Checkpoint:
    """Open a parent by its headers; those that are the same as of ``like``, a sibling, are not parsed twice.

    Raises MoteError, naming the parent, where it isn't there, is broken, or is of a format that cannot be merged.
    """
    try:
        folder, revision = _find(parent)
        config = _read_json(folder / "config.json")
        if not _is_count(config.get("text_config", config), "num_hidden_layers"):
            raise MoteError(f"{folder / 'config.json'} has no whole number under 'num_hidden_layers'.")
        _check_quantisation(folder, config)
        shards, indexed = _shards(folder, like.shards if like is not None else ())
        tensors: dict[str, TensorEntry] = {}
        for shard in shards:
            tensors.update(shard.tensors)
        _check_types(tensors)
    except MoteError as error:
        raise MoteError(f"parent '{name}': {error}") from None
    return Checkpoint(name, parent.path, revision, folder, config, shards, tensors, indexed)


def _find(parent: Parent) -> tuple[Path, str | None]:
    folder = Path(parent.path).expanduser()
    if folder.is_dir():
        if parent.revision:
            raise MoteError(f"'{folder}' is a folder, and revision: {parent.revision} is for Hugging Face ids.")
        return folder.resolve(), None
    if parent.path.count("/") != 1 or parent.path.startswith((".", "/", "~")):
        beside = [item.name for item in folder.parent.iterdir() if item.is_dir()] if folder.parent.is_dir() else []
        raise MoteError(
            f"'{parent.path}' is neither a folder nor a Hugging Face id (owner/name).{nearest(folder.name, beside)}"
        )
    from huggingface_hub import snapshot_download

    wanted = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
    try:
        got = Path(snapshot_download(parent.path, revision=parent.revision, allow_patterns=wanted))
    # The hub's client raises many kinds (no network, offline, no such repository, gated): all are the user's to mend.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise MoteError(f"'{parent.path}' is no folder here, and Hugging Face did not give it: {reason}") from None
    return got, got.name


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json_file(path)
    if not isinstance(content, dict):
        raise MoteError(f"{path} should hold a JSON object.")
    return content


def _is_count(config: Any, key: str) -> bool:
    value = config.get(key) if isinstance(config, Mapping) else None
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_quantisation(folder: Path, config: Mapping[str, Any]) -> None:
    quantisation = config.get("quantization_config")
    if quantisation is None:
        return
    method = quantisation.get("quant_method") if isinstance(quantisation, Mapping) else quantisation
    if method != "fp8":
        raise MoteError(f"{folder} is quantised as '{method}', which cannot be mixed: {_DEQUANTISE}.")
    block = quantisation.get("weight_block_size")
    if block != [BLOCK, BLOCK]:
        raise MoteError(
            f"{folder} is FP8 with weight_block_size {block}; blocks of [128, 128] are known here: {_DEQUANTISE}."
        )


def _shards(folder: Path, like: tuple[TensorFile, ...]) -> tuple[tuple[TensorFile, ...], bool]:
    if (folder / INDEX).is_file():
        listed = _weight_map(folder)
        names = sorted(set(listed.values()))
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise MoteError(f"{folder / INDEX} names '{name}', which is no safetensors file of this folder.")
        siblings = [*like[: len(names)], *[None] * (len(names) - len(like))]
        shards = tuple(read_tensor_file(folder / names[i], i, sibling) for i, sibling in enumerate(siblings))
        _check_index(folder, listed, shards)
        return shards, True
    if (folder / SINGLE).is_file():
        return (read_tensor_file(folder / SINGLE),), False
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".gguf"))
    if others:
        raise MoteError(f"{folder} has its weights in {others[0]}; only safetensors are read: convert it first.")
    raise MoteError(f"{folder} has neither {INDEX} nor {SINGLE}.")


def _weight_map(folder: Path) -> dict[str, str]:
    found = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(value, str) for value in found.values()):
        raise MoteError(f"{folder / INDEX} has no 'weight_map' from tensors to files.")
    return found


def _check_index(folder: Path, listed: Mapping[str, str], shards: tuple[TensorFile, ...]) -> None:
    held: dict[str, str] = {}
    for shard in shards:
        held.update(dict.fromkeys(shard.tensors, shard.path.name))
    if len(held) != sum(len(shard.tensors) for shard in shards):
        raise MoteError(f"{folder}: {_twice(shards)}.")
    if listed == held:
        return
    for name, file in listed.items():
        if name not in held:
            raise MoteError(f"{folder / INDEX} names '{name}', which {file} does not hold.")
        if held[name] != file:
            raise MoteError(f"{folder / INDEX} has '{name}' in {file}; {held[name]} holds it.")
    name = min(held.keys() - listed.keys())
    raise MoteError(f"{folder / INDEX} does not name '{name}', which {held[name]} holds.")


def _twice(shards: tuple[TensorFile, ...]) -> str:
    seen: dict[str, str] = {}
    for shard in shards:
        for name in shard.tensors:
            if name in seen:
                return f"'{name}' lies in {seen[name]} and in {shard.path.name}"
            seen[name] = shard.path.name
    return "a tensor lies in two shards"


def _check_types(tensors: Mapping[str, TensorEntry]) -> None:
    right: set[tuple[tuple[int, ...], tuple[int, ...], str]] = set()
    for name, entry in tensors.items():
        if entry.dtype == FP8:
            scale = tensors.get(name + SCALE)
            if scale is None:
                raise MoteError(f"'{name}' is FP8 and has no block scales '{name}{SCALE}': {_DEQUANTISE}.")
            met = (entry.shape, scale.shape, scale.dtype)
            if met not in right:
                _check_scale(name, entry, scale)
                right.add(met)
        elif entry.dtype not in FLOATS:
            if name.endswith(_PACKED):
                raise MoteError(f"'{name}' is packed in few bits (MXFP4, INT4), which cannot be mixed: {_DEQUANTISE}.")
            if entry.dtype.startswith("F8_") or name.endswith(_UNPACKED):
                raise MoteError(f"'{name}' is of the type {entry.dtype}, which cannot be mixed: {_DEQUANTISE}.")


def _check_scale(name: str, entry: TensorEntry, scale: TensorEntry) -> None:
    if len(entry.shape) != 2 and not (len(entry.shape) == 3 and ".experts." in name):
        raise MoteError(f"'{name}' is FP8 of shape {list(entry.shape)}: block scales need a matrix.")
    blocks = (*entry.shape[:-2], -(-entry.shape[-2] // BLOCK), -(-entry.shape[-1] // BLOCK))
    if scale.shape != blocks or scale.dtype not in ("F32", "BF16"):
        raise MoteError(
            f"'{name}{SCALE}' is {scale.dtype} of shape {list(scale.shape)}; the weight needs F32 of {list(blocks)}."
        )
