"""Receipts of streamed answers over HTTP, and the ways of asking that could carry none.

vLLM's whole responses carry ``routed_experts``; its streams leave the field out. Here the chunk that ends a choice gets
it, under the same name and in the same encoding, so that a client reads both alike. Streams of requests without
``mote`` are passed through untouched.

The Responses API, the Messages API and the batch route of chat have no field for a receipt, and a beam search drops
the request's ``vllm_xargs``: asked for there, ``mote`` is refused with 400, or an answer would come that nothing
vouches for.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import wraps
from typing import Any

from vllm.utils.serial_utils import numpy2base64

from mote.patches.front import admission_of, hook_front, take_profile
from mote.patches.messages import KEY

_PREFIX = "data: "
_HOOKED = "mote_streams"
RESPONSES = "the Responses API has no place for the receipt of 'mote'; use /v1/chat/completions or /v1/completions"
MESSAGES = "the Messages API has no place for the receipt of 'mote'; use /v1/chat/completions"
TOP = (
    "'mote' stands at the top of the request, where nothing reads it; it belongs into \"vllm_xargs\", with the openai"
    ' client extra_body={"vllm_xargs": {"mote": ...}}'
)
BATCH = "a batch of chats has no place for the receipts of 'mote'; send each to /v1/chat/completions, at the same time"


async def with_receipts(
    original: Callable[..., AsyncGenerator[str, None]],
    serving: Any,
    request: Any,
    results: AsyncIterator[Any],
    choices_of: Callable[[Any], list[tuple[int, Any]]],
    arguments: Callable[[AsyncIterator[Any]], tuple[tuple[Any, ...], dict[str, Any]]],
) -> AsyncGenerator[str, None]:
    """Run a stream generator of vLLM and put each choice's packet into the chunk that ends it.

    Args:
        original: the generator.
        serving: its ``self``.
        request: the HTTP request.
        results: what the engine yields.
        choices_of: names the choice number of each output in one result.
        arguments: makes the generator's arguments around a replacement of ``results``.
    """
    packets: dict[int, str] = {}

    async def watched() -> AsyncIterator[Any]:
        async for result in results:
            for number, output in choices_of(result):
                if output.routed_experts is not None:
                    packets[number] = numpy2base64(output.routed_experts)
            yield result

    args, kwargs = arguments(watched())
    async for line in original(serving, *args, **kwargs):
        yield _complete(line, packets) if packets and KEY in (request.vllm_xargs or {}) else line


def _complete(line: str, packets: dict[int, str]) -> str:
    body = line.removeprefix(_PREFIX).strip()
    if not line.startswith(_PREFIX) or not body.startswith("{"):
        return line
    chunk = json.loads(body)
    ended = [choice for choice in chunk.get("choices", ()) if choice.get("finish_reason")]
    for choice in ended:
        packet = packets.pop(choice["index"], None)
        if packet is not None:
            choice["routed_experts"] = packet
    return f"{_PREFIX}{json.dumps(chunk, ensure_ascii=False)}\n\n" if ended else line


def unfit(request: Any, no_place: str | None) -> str | None:
    """Return why a request that asks for ``mote`` cannot be answered with a receipt; None if it can, or doesn't ask.

    vLLM passes over what it does not know: ``mote`` beside ``model``, or in capitals, would be answered untuned.

    Args:
        request: the HTTP request.
        no_place: why nothing that is asked of this route can be; None if the route carries receipts.
    """
    if any(_is_key(name) for name in getattr(request, "model_extra", None) or {}):
        return TOP
    given = getattr(request, "vllm_xargs", None) or {}
    if wrong := next((name for name in given if name != KEY and _is_key(name)), None):
        return f"'{wrong}' is not read; the key is '{KEY}', in small letters"
    if KEY not in given:
        return None
    if no_place is not None:
        return no_place
    if getattr(request, "use_beam_search", False):
        return "a beam search does not carry 'mote'; set use_beam_search to false"
    return None


def _is_key(name: object) -> bool:
    return str(name).strip().casefold() == KEY


def _refuse(owner: type, name: str, no_place: str | None = None) -> None:
    original = getattr(owner, name)

    @wraps(original)
    async def guarded(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        reason = take_profile(request, self.models, admission_of(self)) or unfit(request, no_place)
        if reason is not None:
            return self.create_error_response(reason, param=KEY)
        return await original(self, request, *args, **kwargs)

    setattr(owner, name, guarded)


def hook() -> None:
    """Hook the OpenAI server's stream generators and entries; harmless when called again."""
    from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
    from vllm.entrypoints.openai.chat_completion.batch_serving import OpenAIServingChatBatch
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    if hasattr(OpenAIServingChat, _HOOKED):
        return
    hook_front()
    chat = OpenAIServingChat.chat_completion_stream_generator
    completion = OpenAIServingCompletion.completion_stream_generator

    def chat_stream(self: Any, request: Any, result_generator: Any, *args: Any, **kwargs: Any) -> Any:
        def choices(result: Any) -> list[tuple[int, Any]]:
            return [(output.index, output) for output in result.outputs]

        def arguments(results: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return (request, results, *args), kwargs

        return with_receipts(chat, self, request, result_generator, choices, arguments)

    def completion_stream(
        self: Any, request: Any, inputs: Any, result_generator: Any, *args: Any, **kwargs: Any
    ) -> Any:
        def choices(result: Any) -> list[tuple[int, Any]]:
            prompt, found = result
            return [(output.index + prompt * (request.n or 1), output) for output in found.outputs]

        def arguments(results: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return (request, inputs, results, *args), kwargs

        return with_receipts(completion, self, request, result_generator, choices, arguments)

    setattr(OpenAIServingChat, chat.__name__, chat_stream)
    setattr(OpenAIServingCompletion, completion.__name__, completion_stream)
    _refuse(OpenAIServingChat, "create_chat_completion")
    _refuse(OpenAIServingCompletion, "create_completion")
    _refuse(OpenAIServingResponses, "create_responses", RESPONSES)
    _refuse(AnthropicServingMessages, "create_messages", MESSAGES)
    _refuse(OpenAIServingChatBatch, "create_batch_chat_completion", BATCH)
    setattr(OpenAIServingChat, _HOOKED, True)
