"""In which layers a model has routed experts, how many, and how many a token takes, by the keys of its ``config.json``.

Families write the same thing in a dozen ways: a list of layer types, a list of layers, a first dense part, a period.
Each way is one rule here, with the meaning that vLLM's model classes give to it. Where a configuration says it twice,
both must agree: of two layer lists one would put edits where no router is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard

from mote.patches.errors import NoExpertsError, ProfileError

Fields = Mapping[str, Any]
EXPERTS = (
    "n_routed_experts",
    "num_experts",
    "num_local_experts",
    "moe_num_experts",
    "num_routed_experts",
)
TAKEN = (
    "num_experts_per_tok",
    "experts_per_token",
    "num_experts_per_token",
    "moe_k",
    "moe_topk",
    "moe_top_k",
    "top_k_experts",
)
MOST_LAYERS, MOST_EXPERTS = 10_000, 100_000
"""Ten times what any model has: a configuration with more is a mistake, or made to take all memory."""
NESTED = ("text_config", "language_config", "llm_config", "thinker_config")
_SPARSE, _DENSE = ("sparse", "moe", "hash_moe"), ("dense", "mlp")
_BLOCKS = {"E": "moe"}


class Placement(NamedTuple):
    """Layers with experts, ascending; experts in each; experts that a token takes."""

    layers: tuple[int, ...]
    experts: int
    top_k: int


def text_fields(config: Fields) -> Fields:
    """Return the part of a configuration that describes the language model: itself, or what is nested in it."""
    # One level a key is what models have; a configuration may come from anybody and be nested without end.
    for _ in NESTED:
        inner = next((config[key] for key in NESTED if isinstance(config.get(key), Mapping) and config[key]), None)
        if inner is None:
            break
        config = inner
    return config


def place(fields: Fields, every: bool) -> Placement:
    """Read a language model's configuration.

    Args:
        fields: of the language model itself.
        every: whether a configuration that says nothing of layers means all of them; so it is known of some families.

    Raises:
        NoExpertsError: the model is dense.
        ProfileError: a value is missing or makes no sense, or two ways of saying the same disagree.
    """
    experts = _count(fields, EXPERTS)
    if experts is None or experts < 2 or fields.get("enable_moe_block") is False:
        if experts is None and _expert_keys(fields):
            raise ProfileError(f"the model's config counts its experts under no known key: {_expert_keys(fields)}")
        raise NoExpertsError("the model is dense: its config names no routed experts, so there is nothing to edit")
    top_k = _count(fields, TAKEN)
    if top_k is None:
        raise ProfileError(f"the model's config says nowhere how many experts a token takes; known: {', '.join(TAKEN)}")
    return Placement(_layers(fields, every), experts, top_k)


def _layers(fields: Fields, every: bool) -> tuple[int, ...]:
    said = {}
    for rule in RULES:
        if any(fields.get(key) is not None for key in rule.keys):
            found = rule.read(fields)
            if found is not None:
                said[rule.keys[0]] = tuple(found)
    if len(set(said.values())) > 1:
        lists = "; ".join(f"{key} gives {list(layers)}" for key, layers in said.items())
        raise ProfileError(f"the model's config says twice which layers have experts, and not the same: {lists}")
    for layers in said.values():
        if not layers:
            raise NoExpertsError("the model is dense: its config leaves every layer without routed experts")
        return layers
    if not every:
        keys = ", ".join(rule.keys[0] for rule in RULES)
        raise ProfileError(f"the model's config does not say which layers have experts (known keys: {keys})")
    return tuple(range(_depth(fields)))


def _depth(fields: Fields) -> int:
    for key in ("num_hidden_layers", "n_layers", "n_layer"):
        value = fields.get(key)
        if _is_count(value):
            if not 0 <= value <= MOST_LAYERS:
                raise ProfileError(f"'{key}' of the model's config is {_short(value)}: no model has so many layers")
            return value
    raise ProfileError("the model's config has no whole number under 'num_hidden_layers'")


def _count(fields: Fields, keys: tuple[str, ...]) -> int | None:
    """Return the number under the first of ``keys`` that is there; a list counts if all its entries are the same."""
    inner = fields.get("ffn_config")  # DBRX
    for source in (fields, inner if isinstance(inner, Mapping) else {}):
        for key in keys:
            value = source.get(key)
            if isinstance(value, list | tuple) and value:
                if any(one != value[0] for one in value):
                    raise ProfileError(
                        f"'{key}' of the model's config differs by layer: {_short(value)}; not supported"
                    )
                value = value[0]
            if _is_count(value):
                if not 0 <= value <= MOST_EXPERTS:
                    raise ProfileError(f"'{key}' of the model's config is {_short(value)}: no model has so many")
                return value
    return None


def _short(value: Any) -> str:
    text = repr(value) if not _is_count(value) or abs(value) < 10**40 else "a number of more than 40 digits"
    return text if len(text) <= 120 else f"{text[:119]}…"


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _expert_keys(fields: Fields) -> str:
    found = [
        key
        for key, value in fields.items()
        if "expert" in key and "shared" not in key and _is_count(value) and value > 1
    ]
    return ", ".join(sorted(found))


class Rule(NamedTuple):
    """One way of saying where experts are: the keys that tell it is used, the first of them for messages."""

    keys: tuple[str, ...]
    read: Callable[[Fields], list[int] | None]


def _number(fields: Fields, key: str, default: int | None = None) -> int:
    value = fields.get(key)
    if value is None and default is not None:
        return default
    if not _is_count(value):
        raise ProfileError(f"'{key}' of the model's config is {_short(value)}, which is no whole number")
    if not -MOST_LAYERS <= value <= MOST_LAYERS:
        raise ProfileError(f"'{key}' of the model's config is {_short(value)}: no model has so many layers")
    return value


def _by_type(fields: Fields) -> list[int]:
    """One word a layer; a list that is longer also names the layers of multi-token prediction."""
    types = fields["mlp_layer_types"]
    depth = _depth(fields)
    unknown = [kind for kind in types if kind not in _SPARSE + _DENSE] if isinstance(types, list | tuple) else [types]
    if unknown or len(types) < depth:
        raise ProfileError(
            f"'mlp_layer_types' of the model's config is {_short(types)}: expected {depth} of sparse or dense"
        )
    return [layer for layer in range(depth) if types[layer] in _SPARSE]


def _listed(key: str) -> Callable[[Fields], list[int]]:
    """Read layer numbers, as a list or separated by commas."""

    def read(fields: Fields) -> list[int]:
        value, depth = fields[key], _depth(fields)
        try:
            numbers = [int(part) for part in (value.split(",") if isinstance(value, str) else value)]
        except (TypeError, ValueError, OverflowError):
            raise ProfileError(f"'{key}' of the model's config is no list of layers: {_short(value)}") from None
        return sorted({number for number in numbers if 0 <= number < depth})

    return read


def _block_types(key: str) -> Callable[[Fields], list[int] | None]:
    """Hybrid models: one word or letter a layer, of which one means experts."""

    def read(fields: Fields) -> list[int] | None:
        if not isinstance(fields[key], list | tuple | str):
            raise ProfileError(f"'{key}' of the model's config is no list of blocks: {_short(fields[key])}")
        if len(fields[key]) > MOST_LAYERS:
            raise ProfileError(f"'{key}' of the model's config has {len(fields[key]):,} blocks: no model has so many")
        blocks = [_BLOCKS.get(block, block) for block in fields[key]]
        return [layer for layer, block in enumerate(blocks) if block == "moe"] if "moe" in blocks else None

    return read


def _after_dense(fields: Fields) -> list[int] | None:
    """The first layers are dense, then every ``moe_layer_freq``-th has experts; or that key has a flag a layer."""
    every, depth = fields.get("moe_layer_freq"), _depth(fields)
    if isinstance(every, list | tuple):
        if len(every) < depth or any(flag not in (0, 1) for flag in every):
            raise ProfileError(f"'moe_layer_freq' of the model's config is {_short(every)}: expected {depth} of 0 or 1")
        return [layer for layer in range(depth) if every[layer]]
    if fields.get("first_k_dense_replace") is None:
        return None
    first, step = _number(fields, "first_k_dense_replace"), _number(fields, "moe_layer_freq", 1)
    if step < 1:
        raise ProfileError(f"'moe_layer_freq' of the model's config is {step}: it must be at least 1")
    return [layer for layer in range(first, depth) if layer % step == 0]


def _dense_first(key: str) -> Callable[[Fields], list[int]]:
    def read(fields: Fields) -> list[int]:
        return list(range(_number(fields, key), _depth(fields)))

    return read


def _by_sparse_step(fields: Fields) -> list[int]:
    """Every ``decoder_sparse_step``-th layer, counted from one, unless it is listed as dense."""
    step, dense = _number(fields, "decoder_sparse_step", 1), fields.get("mlp_only_layers") or []
    if not isinstance(dense, list | tuple):
        raise ProfileError(f"'mlp_only_layers' of the model's config is no list of layers: {_short(dense)}")
    plain = {one for one in dense if _is_count(one)}
    return [x for x in range(_depth(fields)) if x not in plain and step > 0 and (x + 1) % step == 0]


def _interleaved(fields: Fields) -> list[int]:
    step = _number(fields, "interleave_moe_layer_step")
    return [layer for layer in range(_depth(fields)) if step > 0 and (layer + 1) % step == 0]


def _by_period(fields: Fields) -> list[int]:
    period, offset = _number(fields, "expert_layer_period"), _number(fields, "expert_layer_offset", 0)
    if period < 1:
        raise ProfileError(f"'expert_layer_period' of the model's config is {period}: it must be at least 1")
    return [layer for layer in range(_depth(fields)) if layer % period == offset]


def _from_to(fields: Fields) -> list[int]:
    """ERNIE: from the start to the end, which -1 leaves open, every ``moe_layer_interval``-th, counted from one."""
    depth, step = _depth(fields), _number(fields, "moe_layer_interval", 1)
    ends = []
    for key, otherwise in (("moe_layer_start_index", 0), ("moe_layer_end_index", -1)):
        value = fields.get(key)
        if isinstance(value, list | tuple):
            raise ProfileError(f"'{key}' of the model's config differs by modality: {_short(value)}; not supported")
        ends.append(_number(fields, key, otherwise))
    first, last = ends[0], ends[1] if ends[1] >= 0 else depth - 1
    return [x for x in range(depth) if first <= x <= last and step > 0 and (x + 1) % step == 0]


RULES = (
    Rule(("mlp_layer_types",), _by_type),
    Rule(("moe_layers",), _listed("moe_layers")),
    Rule(("moe_layers_enum",), _listed("moe_layers_enum")),
    Rule(("layers_block_type",), _block_types("layers_block_type")),
    Rule(("hybrid_override_pattern",), _block_types("hybrid_override_pattern")),
    Rule(("first_k_dense_replace", "moe_layer_freq"), _after_dense),
    Rule(("num_dense_layers",), _dense_first("num_dense_layers")),
    Rule(("moe_layer_num_skipped",), _dense_first("moe_layer_num_skipped")),
    Rule(("decoder_sparse_step", "mlp_only_layers"), _by_sparse_step),
    Rule(("interleave_moe_layer_step",), _interleaved),
    Rule(("expert_layer_period", "expert_layer_offset"), _by_period),
    Rule(("moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"), _from_to),
)
