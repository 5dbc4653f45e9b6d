"""From Inspect's ``GenerateConfig`` to the parameters of a request: by name, nothing dropped, nothing guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mote.harness.errors import MoteError

_PASSED: Final[Mapping[str, str]] = {
    **{
        name: name
        for name in (
            *("max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "logit_bias"),
            *("logprobs", "top_logprobs", "reasoning_effort"),
        )
    },
    "stop_seqs": "stop",
}
"""What a request is given, by Inspect's name and by that of the API."""

_OF_INSPECT: Final = frozenset(
    {
        *("max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections"),
        *("adaptive_connections", "system_message", "max_tool_output", "cache", "cache_prompt", "internal_tools"),
        *("reasoning_history", "fail_on_refusal", "seed", "response_schema", "extra_body", "parallel_tool_calls"),
    }
)
"""What Inspect itself acts on, or stands elsewhere in the request."""

_INSTEAD: Final[Mapping[str, str]] = {
    "num_choices": "a receipt is one answer's; ask several times with --epochs",
    "best_of": "vLLM has it no more",
    "batch": "the engine batches by itself",
    "extra_headers": "a server with the patch reads none",
}


def params_of(config: Mapping[str, Any], tools: Sequence[Mapping[str, Any]], choice: Any) -> dict[str, Any]:
    """Return a request's parameters from the fields of a ``GenerateConfig`` that are set, but for its seed.

    ``tools`` are JSON specifications of functions, ``choice`` Inspect's tool_choice. Raises MoteError for a field that
    would change the answer and has no place in the request.
    """
    given = {name: value for name, value in config.items() if value is not None}
    if given.get("num_choices") == 1:
        del given["num_choices"]
    for name in given:
        if name not in _PASSED and name not in _OF_INSPECT:
            said = _INSTEAD.get(name, "a request to vLLM has no place for it")
            raise MoteError(f"the model 'mote' does not take {name}: {said}.")
    params = {_PASSED[name]: value for name, value in given.items() if name in _PASSED}
    if schema := given.get("response_schema"):
        named = {"name": schema["name"], "schema": schema["json_schema"], "strict": schema.get("strict")}
        params["response_format"] = {"type": "json_schema", "json_schema": named}
    if tools:
        params["tools"] = [{"type": "function", "function": dict(tool)} for tool in tools]
        params["tool_choice"] = _choice(choice)
        if "parallel_tool_calls" in given:
            params["parallel_tool_calls"] = given["parallel_tool_calls"]
    # The markers of reasoning are special tokens in some models, and raw text is to be raw.
    return {"skip_special_tokens": False, **params, **(given.get("extra_body") or {})}


def _choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return "required" if choice == "any" else choice
    return {"type": "function", "function": {"name": choice.name}}
