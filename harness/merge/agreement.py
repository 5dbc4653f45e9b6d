"""Whether parents can be merged: one architecture, one tokenizer, the same tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mote.harness.errors import MoteError
from mote.harness.merge.checkpoint import Checkpoint
from mote.reading import read_json

_STRUCTURE: Final = (
    *("num_hidden_layers", "n_routed_experts", "num_experts", "num_local_experts", "num_experts_per_tok"),
    *("n_shared_experts", "first_k_dense_replace", "moe_layer_freq", "decoder_sparse_step", "mlp_only_layers"),
    *("hidden_size", "intermediate_size", "moe_intermediate_size", "vocab_size", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim"),
    *("v_head_dim", "n_group", "topk_group", "scoring_func", "topk_method", "norm_topk_prob", "routed_scaling_factor"),
    *("hidden_act", "rms_norm_eps", "use_qk_norm", "interleave_moe_layer_step"),
)
"""Values that decide what a weight means: parents that differ here compute different functions of the same tensors."""
_SILENT: Final = {
    *("_name_or_path", "transformers_version", "torch_dtype", "dtype", "quantization_config", "auto_map", "use_cache"),
    *("text_config", "num_nextn_predict_layers"),
}


def check_agreement(base: Checkpoint, other: Checkpoint) -> list[str]:
    """Return notes on what differs harmlessly; raise MoteError where ``other`` cannot be merged with the base."""
    if base.config.get("architectures") != other.config.get("architectures"):
        raise MoteError(
            f"parent '{other.name}' is of the architecture {_one(other)}, and the base '{base.name}' of {_one(base)}."
        )
    ours, theirs = base.text_config, other.text_config
    for key in _STRUCTURE:
        if key in ours and key in theirs and ours[key] != theirs[key]:
            raise MoteError(
                f"parent '{other.name}' has {key} {theirs[key]!r}, and the base '{base.name}' {ours[key]!r}:"
                " they are not of one architecture."
            )
    notes = [
        f"'{other.name}' has {key} {theirs.get(key)!r}, the base {ours.get(key)!r}; the child has the base's"
        for key in sorted({*ours, *theirs} - {*_STRUCTURE, *_SILENT})
        if ours.get(key) != theirs.get(key)
    ]
    return notes + _tokenizers(base, other)


def check_names(base: Checkpoint, other: Checkpoint, missing: list[str], used: set[str]) -> list[str]:
    """Return notes on tensors that only one of the two has; raise MoteError where they matter.

    ``missing`` are the base's tensors that were not found in ``other``, ``used`` the tensors of ``other`` that were.
    """
    if missing:
        raise MoteError(f"parent '{other.name}' lacks {_some(missing)}, which the base '{base.name}' has.")
    extra = sorted(name for name in other.tensors if name not in used and not name.endswith("inv_freq"))
    further = [name for name in extra if _beyond(name, base.layers)]
    extra = [name for name in extra if name not in set(further)]
    if base.tied and not other.tied and "lm_head.weight" in extra:
        raise MoteError(
            f"parent '{other.name}' has a head of its own, and the base '{base.name}' ties it to the embeddings:"
            f" take '{other.name}' as the base."
        )
    # A tied head may be stored all the same; it says nothing new.
    extra = [name for name in extra if not (other.tied and name == "lm_head.weight")]
    if extra:
        raise MoteError(f"parent '{other.name}' has {_some(extra)}, which the base '{base.name}' lacks.")
    if further:
        return [f"'{other.name}' predicts further tokens ({len(further)} tensors) and the base does not: left out"]
    return []


def _beyond(name: str, layers: int) -> bool:
    parts = name.split(".layers.")
    number = parts[1].partition(".")[0] if len(parts) == 2 else ""
    return name.startswith("mtp.") or (number.isdigit() and int(number) >= layers)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"'{names[0]}'{more}"


def _one(checkpoint: Checkpoint) -> str:
    named = checkpoint.config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "no name"


def _tokenizers(base: Checkpoint, other: Checkpoint) -> list[str]:
    """Compare vocabularies by ``tokenizer.json``: a string must have one id; renamed added tokens are a note."""
    ours, theirs = _tokenizer(base), _tokenizer(other)
    if ours is None or theirs is None or ours == theirs:
        return []
    left, right = (dict(_strings(one)) for one in (ours, theirs))
    for text, number in left.items():
        if right.get(text, number) != number:
            raise MoteError(
                f"parent '{other.name}' has another tokenizer: its token {text!r} is {right[text]}, the base"
                f" '{base.name}' has it as {number}."
            )
    plain = _plain(theirs) ^ _plain(ours)
    if plain:
        raise MoteError(
            f"parent '{other.name}' has another tokenizer: the token {min(plain)!r} is in one vocabulary only"
            f" ({len(plain)} such tokens)."
        )
    renamed = sorted(left.keys() ^ right.keys())
    return [f"added tokens of '{other.name}' and the base differ in {len(renamed)} names"] if renamed else []


def _tokenizer(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    path = checkpoint.folder / "tokenizer.json"
    if not path.is_file():
        return None
    return _parse(path, checkpoint.name)


def _parse(path: Path, name: str) -> Mapping[str, Any]:
    try:
        content = read_json(path)
        list(_strings(content))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError):
        raise MoteError(f"parent '{name}': {path} is no tokenizer's file.") from None
    return dict(content)


def _plain(tokenizer: Mapping[str, Any]) -> set[str]:
    added = {str(one["content"]) for one in tokenizer.get("added_tokens") or []}
    return set(_vocabulary(tokenizer)) - added


def _vocabulary(tokenizer: Mapping[str, Any]) -> Mapping[str, int]:
    listed = tokenizer["model"]["vocab"]
    if isinstance(listed, list):  # Unigram: [text, score] by id
        return {str(one[0]): number for number, one in enumerate(listed)}
    return dict(listed)


def _strings(tokenizer: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    yield from _vocabulary(tokenizer).items()
    for one in tokenizer.get("added_tokens") or []:
        yield str(one["content"]), int(one["id"])
