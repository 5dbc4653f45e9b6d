"""Where the routed experts of a model are: which layers have a router, how many experts, how many are chosen.

A layout comes from a Hugging Face ``config.json`` alone, without loading weights and without vLLM, so that a profile
can be checked before an engine is started. A configuration that is not understood is refused by name, because a wrong
layer list would put edits where no router is (``mote.patches.families``, ``mote.patches.placement``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mote.patches.errors import NoExpertsError as NoExpertsError
from mote.patches.errors import ProfileError as ProfileError
from mote.patches.families import read_placement
from mote.patches.placement import MOST_EXPERTS, MOST_LAYERS
from mote.reading import UnreadableError, read_json

MOST_CONFIG = 8 << 20
"""Bytes of a model's configuration; the largest known ones list a few thousand modules."""


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
        if len(self.layers) > MOST_LAYERS or self.experts > MOST_EXPERTS:
            raise ProfileError(
                f"{self.architecture[:80]}: more than {MOST_LAYERS:,} layers or {MOST_EXPERTS:,} experts are no model's"
            )
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
            NoExpertsError: the model is dense.
            ProfileError: no such file, not JSON, or a family that is refused or not understood.
        """
        config = source if isinstance(source, Mapping) else _read_config(Path(source))
        names = config.get("architectures") or []
        if not isinstance(names, list | tuple) or not names or not isinstance(names[0], str):
            raise ProfileError("the model's config names no architecture (key 'architectures')")
        layers, experts, top_k = read_placement(config)
        return cls(names[0], layers, experts, top_k)

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
    if not file.exists():
        raise ProfileError(f"{file}: no such file; give a model folder with a config.json, or the file itself")
    try:
        config = read_json(file, MOST_CONFIG)
    except UnreadableError as error:
        raise ProfileError(f"{file}: not a readable model config: it {error}") from None
    if not isinstance(config, Mapping):
        raise ProfileError(f"{file}: a model config is a JSON object")
    return config
