"""Tiny random checkpoints of every model family that the tests run, made on the fly with Hugging Face's own classes.

Weights are drawn wide enough that routing is decisive and the greedy continuation varies; shapes keep to what vLLM's
CPU kernels accept (hidden sizes that are multiples of 32). Float32, so that an edit's effect can be compared exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 256
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def _build(model: Any, config: Any) -> Any:
    return model(config)


def _glm4(**over: Any) -> Any:
    from transformers import Glm4MoeConfig, Glm4MoeForCausalLM

    config = {
        "moe_intermediate_size": 32,
        "n_routed_experts": 16,
        "num_experts_per_tok": 4,
        "n_shared_experts": 1,
        "n_group": 4,
        "topk_group": 2,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.5,
        "norm_topk_prob": True,
        "use_qk_norm": True,
    }
    model = _build(Glm4MoeForCausalLM, Glm4MoeConfig(**_COMMON | config | over))
    _draw_biases(model)
    return model


def _qwen3(**over: Any) -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = {"moe_intermediate_size": 32, "num_experts": 16, "num_experts_per_tok": 4, "norm_topk_prob": True}
    return _build(Qwen3MoeForCausalLM, Qwen3MoeConfig(**_COMMON | config | over))


def _olmoe(**over: Any) -> Any:
    from transformers import OlmoeConfig, OlmoeForCausalLM

    config = {"num_experts": 16, "num_experts_per_tok": 4, "norm_topk_prob": False}
    common = {key: value for key, value in _COMMON.items() if key != "head_dim"}
    return _build(OlmoeForCausalLM, OlmoeConfig(**common | config | over))


def _mixtral(**over: Any) -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = {"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None}
    return _build(MixtralForCausalLM, MixtralConfig(**_COMMON | config | over))


def _gpt_oss(**over: Any) -> Any:
    from transformers import GptOssConfig, GptOssForCausalLM

    config = {"num_local_experts": 8, "num_experts_per_tok": 4, "sliding_window": 64}
    return _build(GptOssForCausalLM, GptOssConfig(**_COMMON | config | over))


def _deepseek(name: str, **over: Any) -> Any:
    """DeepSeek through MLA, whose CPU kernel takes a latent of 512 with 64 rotary dimensions and no other."""
    import transformers

    config = {
        "moe_intermediate_size": 32,
        "n_routed_experts": 16,
        "num_experts_per_tok": 4,
        "n_shared_experts": 1,
        "n_group": 4,
        "topk_group": 2,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.5,
        "kv_lora_rank": 512,
        "q_lora_rank": 32,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 64,
        "v_head_dim": 32,
    }
    common = {key: value for key, value in _COMMON.items() if key != "head_dim"}
    model = _build(
        getattr(transformers, f"{name}ForCausalLM"), getattr(transformers, f"{name}Config")(**common | config | over)
    )
    _draw_biases(model)
    return model


def _deepseek_v2(**over: Any) -> Any:
    return _deepseek("DeepseekV2", **{"topk_method": "group_limited_greedy", "norm_topk_prob": False} | over)


def _deepseek_v3(**over: Any) -> Any:
    # Real checkpoints name both; those that transformers saves do not, and vLLM then routes by softmax.
    return _deepseek("DeepseekV3", **{"topk_method": "noaux_tc", "scoring_func": "sigmoid"} | over)


def _other(name: str, needs: dict[str, Any], **over: Any) -> Any:
    """Any family of transformers, by the name of its classes and what its configuration needs beside the common."""
    import transformers

    found: Any = getattr(transformers, f"{name}ForCausalLM")
    model = _build(found, found.config_class(**_COMMON | needs | over))
    _draw_biases(model)
    return model


def _draw_biases(model: Any) -> None:
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.randn_like(buffer) * 0.1)


FAMILIES: dict[str, Callable[..., Any]] = {
    "glm4": _glm4,
    "qwen3": _qwen3,
    "olmoe": _olmoe,
    "mixtral": _mixtral,
    "gpt-oss": _gpt_oss,
    "deepseek-v2": _deepseek_v2,
    "deepseek-v3": _deepseek_v3,
    "kimi-k2": lambda **over: _deepseek_v3(**{"n_group": 1, "topk_group": 1} | over),
}
_SOFTMAX = {"moe_intermediate_size": 32, "num_experts": 16, "num_experts_per_tok": 4}
_GROUPED: dict[str, Any] = {
    "moe_intermediate_size": 32,
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "norm_topk_prob": True,
}
_LATENT = {"kv_lora_rank": 512, "q_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 64, "v_head_dim": 32}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2Moe", _SOFTMAX | {"shared_expert_intermediate_size": 32, "decoder_sparse_step": 2}),
    "qwen3-next": (
        "Qwen3Next",
        _SOFTMAX
        | {"shared_expert_intermediate_size": 32, "layer_types": ["full_attention"] * 4, "partial_rotary_factor": 0.5},
    ),
    "glm4-lite": (
        "Glm4MoeLite",
        _GROUPED
        | _LATENT
        | {"mlp_layer_types": ["dense"] + ["sparse"] * 3, "first_k_dense_replace": 1, "head_dim": 64}
        | {"topk_method": "noaux_tc", "scoring_func": "sigmoid"},  # as real checkpoints have them
    ),
    "granite": ("GraniteMoe", {"num_local_experts": 16, "num_experts_per_tok": 4}),
}
FAMILIES |= {family: partial(_other, name, needs) for family, (name, needs) in OTHERS.items()}
MODEL_TYPES = {"kimi-k2": "kimi_k2"}
"""Families whose class transformers has under another name."""


CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}"


def make_tokenizer(folder: Path) -> None:
    """Write a tokenizer whose words are ``w0`` to ``w255``, one token each, with a chat template of bare contents."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    build: Any = PreTrainedTokenizerFast
    fast = build(tokenizer_object=tokenizer, unk_token="w0", eos_token="w255")  # noqa: S106
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def make_model(family: str, folder: Path, seed: int = 0, **over: Any) -> Path:
    """Write a random checkpoint of ``family`` to ``folder`` and return it; ``over`` replaces configuration values."""
    torch.manual_seed(seed)
    with torch.no_grad():
        model = FAMILIES[family](**over).float().eval()
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 1.0 / parameter.shape[-1] ** 0.5)
            if name.endswith(("gate.weight", "router.weight")):
                parameter.mul_(2.0)
    model.save_pretrained(folder)
    if family in MODEL_TYPES:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": MODEL_TYPES[family]}))
    make_tokenizer(folder)
    return folder
