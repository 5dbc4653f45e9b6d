"""What a tensor is, by the names of real checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mote.harness.merge.groups import GROUPS, Place, place_of, spellings
from mote.harness.tensors import read_tensor_file
from tests.harness.merge.checkpoints import DeepSeek

L = "model.layers.3"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (f"{L}.mlp.experts.17.gate_proj.weight", Place("routed_experts", 3, 17)),
        (f"{L}.mlp.experts.17.gate_proj.weight_scale_inv", Place("routed_experts", 3, 17)),
        (f"{L}.block_sparse_moe.experts.5.w2.weight", Place("routed_experts", 3, 5)),
        (f"{L}.mlp.experts.gate_up_proj", Place("routed_experts", 3, None, True)),
        (f"{L}.mlp.experts.down_proj_bias", Place("routed_experts", 3, None, True)),
        ("language_model.model.layers.3.feed_forward.experts.down_proj", Place("routed_experts", 3, None, True)),
        (f"{L}.mlp.shared_experts.up_proj.weight", Place("shared_experts", 3)),
        (f"{L}.mlp.shared_expert.up_proj.weight", Place("shared_experts", 3)),
        (f"{L}.mlp.shared_expert_gate.weight", Place("shared_experts", 3)),
        ("language_model.model.layers.3.feed_forward.shared_expert.up_proj.weight", Place("shared_experts", 3)),
        (f"{L}.mlp.gate.weight", Place("router", 3)),
        (f"{L}.mlp.gate.e_score_correction_bias", Place("router", 3)),
        (f"{L}.mlp.router.bias", Place("router", 3)),
        (f"{L}.block_sparse_moe.gate.weight", Place("router", 3)),
        ("language_model.model.layers.3.feed_forward.router.weight", Place("router", 3)),
        (f"{L}.mlp.gate_proj.weight", Place("dense_mlp", 3)),
        ("language_model.model.layers.3.feed_forward.up_proj.weight", Place("dense_mlp", 3)),
        (f"{L}.self_attn.kv_a_proj_with_mqa.weight", Place("attention", 3)),
        (f"{L}.self_attn.sinks", Place("attention", 3)),
        (f"{L}.self_attn.q_proj.bias", Place("attention", 3)),
        (f"{L}.linear_attn.in_proj_qkvz.weight", Place("attention", 3)),
        (f"{L}.self_attn.q_a_layernorm.weight", Place("norms", 3)),
        (f"{L}.self_attn.q_norm.weight", Place("norms", 3)),
        (f"{L}.post_attention_layernorm.weight", Place("norms", 3)),
        ("model.layers.61.mlp.experts.17.gate_proj.weight", Place("mtp", 61, 17)),
        ("model.layers.61.eh_proj.weight", Place("mtp", 61)),
        ("mtp.fc.weight", Place("mtp")),
        ("model.embed_tokens.weight", Place("embeddings")),
        ("lm_head.weight", Place("head")),
        ("model.norm.weight", Place("norms")),
        ("vision_model.model.layers.3.self_attn.q_proj.weight", Place("other")),
        ("multi_modal_projector.linear_1.weight", Place("other")),
        (f"{L}.something_new.weight", Place("other", 3)),
    ],
)
def test_a_name_says_what_a_tensor_is(name: str, place: Place) -> None:
    assert place_of(name, 61) == place


def test_an_r1_has_its_known_numbers_of_tensors() -> None:
    specs = list(DeepSeek().tensors())
    weights = [spec.name for spec in specs if not spec.name.endswith("_scale_inv")]
    assert (len(specs), len(weights), len(specs) - len(weights)) == (91_991, 46_183, 45_808)
    routed = [name for name in weights if ".mlp.experts." in name]
    assert len(routed) == 45_312  # with the layer that predicts a further token
    assert sum(place_of(name, 61).group == "routed_experts" for name in weights) == 58 * 256 * 3
    assert {place_of(name, 61).group for name in weights} == set(GROUPS) - {"other"}


@pytest.mark.parametrize("family", ["glm4", "qwen3", "olmoe", "mixtral", "gpt-oss"])
def test_no_tensor_of_a_real_family_is_unknown(family: str, checkpoints: Callable[..., Path]) -> None:
    names = read_tensor_file(checkpoints(family) / "model.safetensors").tensors
    places = {name: place_of(name, 4) for name in names}
    assert [name for name, place in places.items() if place.group == "other"] == []
    assert {"routed_experts", "router", "attention", "norms", "embeddings", "head"} <= {
        place.group for place in places.values()
    }
    for name, place in places.items():
        if place.group == "routed_experts":
            assert place.fused == (family == "gpt-oss"), name


def test_mixtral_goes_by_two_names() -> None:
    published, renamed = f"{L}.block_sparse_moe.experts.5.w3.weight", f"{L}.mlp.experts.5.up_proj.weight"
    assert spellings(published) == (published, renamed)
    assert published in spellings(renamed)
