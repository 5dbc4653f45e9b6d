"""A cure for stock vLLM on a CPU: the rotary embedding of models with multi-head latent attention (DeepSeek, Kimi-K2).

vLLM's CPU operator reads a query as [tokens, heads x size]. These models give it [tokens, heads, size]; the operator
then takes every head for a token and reads positions past their end, so the model is wrong, with the patch and without
it. Without that operator (``-rotary_embedding`` of ``custom_ops``) vLLM computes the same in PyTorch, and is right.
Here the option is set by itself where a CPU runs such a model, and vLLM's log says so.
"""

from __future__ import annotations

from typing import Any

OFF_OPTION, ON_OPTION = "-rotary_embedding", "+rotary_embedding"
SAID = (
    "vLLM's CPU operator for rotary embedding misreads the query of %s; the MoTE patch adds '%s' to custom_ops, and "
    "PyTorch computes it instead, rightly"
)


def is_misread(config: Any) -> bool:
    """Return whether a ``VllmConfig`` is one whose rotary embedding vLLM's CPU operator would compute wrongly."""
    if config.device_config.device_type != "cpu" or OFF_OPTION in config.compilation_config.custom_ops:
        return False
    return bool(getattr(config.model_config.hf_text_config, "qk_rope_head_dim", None))


def cure(config: Any) -> None:
    """Switch the operator off in a ``VllmConfig`` where it is wrong; what a user switched on is left to the guards."""
    options = config.compilation_config.custom_ops
    if not is_misread(config) or ON_OPTION in options:
        return
    from vllm.logger import init_logger

    options.append(OFF_OPTION)
    log: Any = init_logger("vllm.mote")
    log.warning_once(SAID, config.model_config.architectures[0], OFF_OPTION, scope="global")
