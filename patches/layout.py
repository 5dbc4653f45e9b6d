"""Where the routed experts of a model are: which layers have a router, how many experts, how many are chosen.

A layout comes from a Hugging Face ``config.json`` alone, without loading weights and without vLLM, so that a profile
can be checked before an engine is started. Only families whose configuration this module understands are answered;
anything else is refused by name, because a wrong layer list would put edits where no router is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ProfileError(ValueError):
    """A profile, or the model it is meant for, is wrong. One line: what, where, and the nearest right value."""


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """The expert layout of one model.

    Attributes:
        architecture: the model class of its configuration, e.g. ``Glm4MoeForCausalLM``.
        layers: indices of the decoder layers that have routed experts, ascending, as the model numbers them.
        experts: routed experts in each of these layers (shared experts are not counted).
        top_k: routed experts that a token takes in each layer.
    """

    architecture: str
    layers: tuple[int, ...]
    experts: int
    top_k: int

    def __post_init__(self) -> None:
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise ProfileError(
                f"layers of {self.architecture}: {list(self.layers)} is no ascending list of layer indices"
            )
        if not 1 <= self.top_k <= self.experts:
            raise ProfileError(
                f"top_k of {self.architecture} is {self.top_k}: it must be from 1 to its {self.experts} experts"
            )

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any]) -> ModelLayout:
        """Read the layout from a ``config.json``, the folder that holds one, or the parsed dictionary.

        Raises:
            ProfileError: no such file, not JSON, or a family this module does not know.
        """
        config = source if isinstance(source, Mapping) else _read_config(Path(source))
        names = config.get("architectures") or []
        if not names:
            raise ProfileError("the model's config names no architecture (key 'architectures')")
        text = config.get("text_config")
        fields = text if isinstance(text, Mapping) else config
        model_type = str(fields.get("model_type", ""))
        reader = _READERS.get(model_type)
        if reader is None:
            raise ProfileError(
                f"no expert layout is known for model_type '{model_type}' ({names[0]}); "
                f"known: {', '.join(sorted(_READERS))}"
            )
        layers, experts = reader(fields)
        return cls(str(names[0]), tuple(layers), experts, _integer(fields, "num_experts_per_tok", "experts_per_token"))

    def to_dict(self) -> dict[str, Any]:
        """Return the layout as plain JSON values."""
        return {
            "architecture": self.architecture,
            "layers": list(self.layers),
            "experts": self.experts,
            "top_k": self.top_k,
        }

    @classmethod
    def from_dict(cls, data: Any) -> ModelLayout:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ProfileError: a key is missing, unknown, or of the wrong type.
        """
        if not isinstance(data, Mapping) or set(data) != {"architecture", "layers", "experts", "top_k"}:
            raise ProfileError("'model' must be an object with the keys architecture, layers, experts and top_k")
        layers = data["layers"]
        if not isinstance(data["architecture"], str):
            raise ProfileError("'model.architecture' must be a string, e.g. \"Glm4MoeForCausalLM\"")
        if not isinstance(layers, list | tuple) or not all(_is_int(layer) for layer in layers):
            raise ProfileError("'model.layers' must be a list of layer indices, e.g. [1, 2, 3]")
        if not _is_int(data["experts"]) or not _is_int(data["top_k"]):
            raise ProfileError("'model.experts' and 'model.top_k' must be whole numbers")
        return cls(data["architecture"], tuple(layers), data["experts"], data["top_k"])


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_config(path: Path) -> Mapping[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProfileError(
            f"{file}: no such file; give a model folder with a config.json, or the file itself"
        ) from None
    except (OSError, ValueError) as error:
        raise ProfileError(f"{file}: not a readable model config: {error}") from None
    if not isinstance(config, Mapping):
        raise ProfileError(f"{file}: a model config is a JSON object")
    return config


def _integer(config: Mapping[str, Any], *keys: str) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    raise ProfileError(f"the model's config has no whole number under {' or '.join(repr(key) for key in keys)}")


# Newer releases of transformers write num_local_experts where a family had a name of its own.
Reader = Callable[[Mapping[str, Any]], tuple[list[int], int]]


def _deepseek(config: Mapping[str, Any]) -> tuple[list[int], int]:
    """GLM4-MoE and DeepSeek: the first layers are dense, then every ``moe_layer_freq``-th has experts."""
    first = _integer(config, "first_k_dense_replace")
    every = config.get("moe_layer_freq", 1) or 1
    if not _is_int(every):
        raise ProfileError(f"moe_layer_freq {every!r} of the model's config is no whole number")
    layers = [layer for layer in range(first, _integer(config, "num_hidden_layers")) if layer % every == 0]
    return layers, _integer(config, "n_routed_experts", "num_local_experts")


def _qwen(config: Mapping[str, Any]) -> tuple[list[int], int]:
    """Qwen2-MoE and Qwen3-MoE: every ``decoder_sparse_step``-th layer, counted from one, unless listed as dense."""
    step = config.get("decoder_sparse_step", 1)
    dense = set(config.get("mlp_only_layers") or [])
    layers = [
        layer
        for layer in range(_integer(config, "num_hidden_layers"))
        if layer not in dense and step > 0 and (layer + 1) % step == 0
    ]
    return layers, _integer(config, "num_experts", "num_local_experts")


def _every_layer(*keys: str) -> Reader:
    def read(config: Mapping[str, Any]) -> tuple[list[int], int]:
        return list(range(_integer(config, "num_hidden_layers"))), _integer(config, *keys)

    return read


_READERS: dict[str, Reader] = {
    "glm4_moe": _deepseek,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "kimi_k2": _deepseek,
    "qwen2_moe": _qwen,
    "qwen3_moe": _qwen,
    "olmoe": _every_layer("num_experts", "num_local_experts"),
    "mixtral": _every_layer("num_local_experts"),
    "gpt_oss": _every_layer("num_local_experts"),
}
