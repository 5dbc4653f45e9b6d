"""Where experts are, read from configurations: against hand-made ones of every kind, and against real model classes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.patches import ModelLayout, ProfileError
from mote.patches.errors import NoExpertsError
from mote.patches.families import FAMILIES, cpu_fault, is_proven, to_markdown
from mote.patches.placement import RULES

SIX = {"num_hidden_layers": 6, "num_experts": 16, "num_experts_per_tok": 4}
KINDS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "types": ({"mlp_layer_types": ["dense", "sparse", "dense", "sparse", "sparse", "dense", "sparse"]}, [1, 3, 4]),
    "all by hash or router": ({"mlp_layer_types": ["hash_moe"] * 2 + ["moe"] * 4}, [0, 1, 2, 3, 4, 5]),
    "listed": ({"moe_layers": [5, 1, 3]}, [1, 3, 5]),
    "listed by commas": ({"moe_layers_enum": "2,4,5,6"}, [2, 4, 5]),
    "blocks": ({"layers_block_type": ["mamba", "moe", "attention", "moe", "mlp", "moe"]}, [1, 3, 5]),
    "pattern": ({"hybrid_override_pattern": "ME*EM-"}, [1, 3]),
    "blocks that say nothing of experts": ({"layers_block_type": ["mamba"] * 6, "num_dense_layers": 4}, [4, 5]),
    "flags": ({"moe_layer_freq": [0, 1, 1, 0, 0, 1]}, [1, 2, 5]),
    "after the dense": ({"first_k_dense_replace": 2}, [2, 3, 4, 5]),
    "after the dense, every second": ({"first_k_dense_replace": 1, "moe_layer_freq": 2}, [2, 4]),
    "dense layers": ({"num_dense_layers": 3}, [3, 4, 5]),
    "skipped": ({"moe_layer_num_skipped": 1}, [1, 2, 3, 4, 5]),
    "sparse step": ({"decoder_sparse_step": 2, "mlp_only_layers": [3]}, [1, 5]),
    "only the dense are listed": ({"mlp_only_layers": [0, 5]}, [1, 2, 3, 4]),
    "interleaved": ({"interleave_moe_layer_step": 3}, [2, 5]),
    "period": ({"expert_layer_period": 2, "expert_layer_offset": 1}, [1, 3, 5]),
    "from, to, interval": ({"moe_layer_start_index": 1, "moe_layer_end_index": 4, "moe_layer_interval": 2}, [1, 3]),
    "from, open end": ({"moe_layer_start_index": 2, "moe_layer_end_index": -1}, [2, 3, 4, 5]),
    "said twice": ({"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 4, "first_k_dense_replace": 2}, [2, 3, 4, 5]),
}


def read(fields: dict[str, Any], model_type: str = "some_new_family") -> ModelLayout:
    return ModelLayout.from_config({"architectures": ["SomeForCausalLM"], "model_type": model_type, **fields})


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_saying_where_experts_are(kind: str) -> None:
    """Also of a family that is not listed: the keys have one meaning."""
    fields, layers = KINDS[kind]
    assert read(SIX | fields) == ModelLayout("SomeForCausalLM", tuple(layers), 16, 4)
    assert not is_proven({"model_type": "some_new_family"})


@pytest.mark.parametrize("where", ["text_config", "language_config", "llm_config", "thinker_config"])
def test_what_is_nested(where: str) -> None:
    inner = SIX | {"first_k_dense_replace": 2, "model_type": "deepseek_v3"}
    config = {"architectures": ["SeeingForConditionalGeneration"], "model_type": "seeing", where: inner}
    assert ModelLayout.from_config(config).layers == (2, 3, 4, 5)
    deeper = {**config, where: {"text_config": inner, "audio_config": {}}}
    assert ModelLayout.from_config(deeper).layers == (2, 3, 4, 5)
    assert is_proven(inner)
    assert not is_proven(config), "the language model was proven on its own"


@pytest.mark.parametrize(
    ("counts", "experts", "top_k"),
    [
        ({"n_routed_experts": 8, "num_experts_per_tok": 2}, 8, 2),
        ({"num_experts": 8, "num_experts_per_token": 3}, 8, 3),
        ({"num_local_experts": 8, "experts_per_token": 4}, 8, 4),
        ({"moe_num_experts": 8, "moe_k": 2}, 8, 2),
        ({"num_experts": 8, "moe_topk": [2, 2]}, 8, 2),
        ({"ffn_config": {"moe_num_experts": 8, "moe_top_k": 4}}, 8, 4),
        ({"num_experts": 8, "top_k_experts": 2, "enable_moe_block": True}, 8, 2),
    ],
)
def test_how_many(counts: dict[str, Any], experts: int, top_k: int) -> None:
    layout = read({"num_hidden_layers": 3, "first_k_dense_replace": 1, **counts})
    assert (layout.experts, layout.top_k) == (experts, top_k)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 2},
        {"num_hidden_layers": 2, "num_experts": 0},
        {"num_hidden_layers": 2, "num_experts": 1, "moe_topk": 1, "model_type": "hunyuan_v1_moe"},
        {"num_hidden_layers": 2, "num_local_experts": 0, "num_experts_per_tok": 0, "model_type": "granitemoehybrid"},
        {"num_hidden_layers": 2, "num_experts": None, "enable_moe_block": False, "model_type": "gemma4_text"},
        {"num_hidden_layers": 2, "num_experts": 8, "num_experts_per_tok": 2, "mlp_layer_types": ["dense"] * 2},
        {"num_hidden_layers": 2, "num_experts": 8, "num_experts_per_tok": 2, "first_k_dense_replace": 2},
    ],
)
def test_a_dense_model_is_refused_as_dense(fields: dict[str, Any]) -> None:
    with pytest.raises(NoExpertsError, match="the model is dense"):
        ModelLayout.from_config({"architectures": ["SomeForCausalLM"], "model_type": "qwen2", **fields})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "does not say which layers have experts"),
        ({"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 4, "first_k_dense_replace": 1}, "says twice which layers"),
        ({"mlp_layer_types": ["sparse"] * 5}, "expected 6 of sparse or dense"),
        ({"mlp_layer_types": ["sparse"] * 5 + ["odd"]}, "expected 6 of sparse or dense"),
        ({"moe_layer_freq": [0, 1]}, "expected 6 of 0 or 1"),
        ({"moe_layer_freq": 0, "first_k_dense_replace": 1}, "must be at least 1"),
        ({"first_k_dense_replace": "two"}, "is no whole number"),
        ({"moe_layers_enum": "one"}, "is no list of layers"),
        ({"moe_layer_start_index": [1, 2]}, "differs by modality"),
        ({"first_k_dense_replace": 1, "zero_expert_num": 4}, "does not name one expert"),
        ({"first_k_dense_replace": 1, "num_experts_per_tok": [2, 4]}, "differs by layer"),
        ({"first_k_dense_replace": 1, "num_experts_per_tok": None}, "says nowhere how many experts a token takes"),
        ({"first_k_dense_replace": 1, "num_experts": None, "experts_in_all": 16}, "under no known key: experts_in_all"),
        ({"first_k_dense_replace": 1, "num_hidden_layers": None}, "'num_hidden_layers'"),
        ({"layers_block_type": [{"block_type": "moe"}]}, "is not understood"),
    ],
)
def test_what_is_not_understood_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(says)) as caught:
        read(SIX | fields)
    assert "\n" not in str(caught.value)
    assert "SomeForCausalLM" in str(caught.value)


def test_families_that_are_refused_or_left_alone_say_why() -> None:
    for model_type, family in FAMILIES.items():
        fields = SIX | {"first_k_dense_replace": 1, "model_type": model_type}
        if family.status == "refused":
            assert family.note
            with pytest.raises(ProfileError, match=re.escape(family.note)):
                read(fields, model_type)
        else:
            read(fields, model_type)
        assert bool(cpu_fault(fields)) == bool(family.cpu)
    assert "drops the correction bias" in cpu_fault({"model_type": "ernie4_5_moe"})
    assert "run this model on a GPU" in cpu_fault({"text_config": {"model_type": "minimax_m2"}})


def test_the_published_table_is_this_one() -> None:
    table = Path(__file__).parents[2] / "results/reach/families.md"
    assert table.read_text() == to_markdown(), "run `make families`"


@given(st.dictionaries(st.sampled_from([key for rule in RULES for key in rule.keys]), st.integers(0, 7), max_size=3))
def test_a_configuration_of_any_numbers_gives_layers_or_one_line(fields: dict[str, Any]) -> None:
    try:
        layout = read(SIX | fields)
    except ProfileError:  # anything else is a traceback, and fails here
        return
    assert set(layout.layers) <= set(range(6))


# Each has a layer list that is not its class's default, where the family has such a key.
CLASSES: dict[str, dict[str, Any]] = {
    "afmoe": {"num_dense_layers": 2},
    "axk1": {"first_k_dense_replace": 2},
    "cohere2_moe": {"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 4},
    "deepseek_v2": {"first_k_dense_replace": 2, "num_experts_per_tok": 4},
    "deepseek_v3": {"first_k_dense_replace": 2},
    "deepseek_v32": {"first_k_dense_replace": 2},
    "ernie4_5_moe": {"moe_layer_start_index": 1, "moe_layer_end_index": 4},
    "exaone_moe": {"first_k_dense_replace": 2},
    "glm4_moe": {"first_k_dense_replace": 2},
    "glm4_moe_lite": {"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 4},
    "glm_moe_dsa": {"first_k_dense_replace": 2},
    "gpt_oss": {},
    "granitemoe": {},
    "hy_v3": {},
    "jamba": {"expert_layer_period": 3, "expert_layer_offset": 2},
    "laguna": {"mlp_layer_types": ["dense", "sparse"] * 3},
    "llama4_text": {"interleave_moe_layer_step": 2},
    "mellum": {"mlp_layer_types": ["dense", "sparse"] * 3},
    "mimo_v2_flash": {},
    "minimax_m2": {},
    "mixtral": {},
    "nemotron_h": {"layers_block_type": ["linear_attention", "moe", "full_attention", "mlp", "moe", "moe"]},
    "olmoe": {},
    "phimoe": {},
    "qwen2_moe": {"decoder_sparse_step": 2, "mlp_only_layers": [3]},
    "qwen3_5_moe_text": {},
    "qwen3_moe": {"decoder_sparse_step": 2, "mlp_only_layers": [3]},
    "qwen3_next": {"decoder_sparse_step": 2},
    "solar_open": {},
}


@pytest.mark.parametrize("model_type", CLASSES)
def test_the_layers_are_those_where_the_real_model_has_experts(model_type: str) -> None:
    """Transformers' own class, built without memory; what it wrote to a config.json is read back."""
    import torch
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    make: Any = CONFIG_MAPPING[model_type]
    config = make(num_hidden_layers=6, **CLASSES[model_type])
    build: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        model = build._from_config(config)
    found = {
        int(place.group(1))
        for name, module in model.named_modules()
        if type(module).__name__.endswith("Experts") and (place := re.search(r"\blayers\.(\d+)\.", name))
    }
    written = json.loads(config.to_json_string(use_diff=False)) | {"architectures": [build.__name__]}
    assert list(ModelLayout.from_config(written).layers) == sorted(found)
