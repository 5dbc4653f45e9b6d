"""The provider ``mote``: a server with the router patch under one profile, and a receipt with every output.

Requests are chats over HTTP, to a server that runs or to one of this process's own. The receipt of each answer is
checked before Inspect sees the answer, and goes to the log in the output's metadata (key ``mote``). Every profile has
a model of its own in Inspect, so scorers, solvers and logs are Inspect's, whatever they are.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from threading import Lock
from typing import Any, Final

import anyio
from anyio.to_thread import run_sync
from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    messages_to_openai,
    model_output_from_openai,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from mote.harness.engine.client import Client, Completion
from mote.harness.engine.vllm import request_seed
from mote.harness.errors import MoteError, a_few
from mote.harness.inspect_ai import NAME
from mote.harness.inspect_ai.arguments import check_arguments
from mote.harness.inspect_ai.own_server import own_server
from mote.harness.inspect_ai.sampling import params_of
from mote.judges import split_reasoning

CONNECTIONS: Final = 256
"""Requests under way at once: the engine batches them, whichever profile they are of."""
_KEY: Final = "VLLM_API_KEY"


class Numbers:
    """How often the same was asked before: the n-th time has its own seed, also where a failed request is repeated."""

    def __init__(self) -> None:
        self._next: dict[str, int] = defaultdict(int)
        self._free: dict[str, list[int]] = defaultdict(list)
        self._lock = Lock()

    @contextmanager
    def taken(self, key: str) -> Iterator[int]:
        """Give the smallest number that is free; what fails within the block gives it back."""
        with self._lock:
            free = self._free[key]
            number = heapq.heappop(free) if free else self._next[key]
            self._next[key] = max(self._next[key], number + 1)
        try:
            yield number
        except BaseException:
            with self._lock:
                heapq.heappush(self._free[key], number)
            raise


class MoteAPI(ModelAPI):  # type: ignore[misc]
    """Inspect's view of a tuned model.

    ``model_name`` is demo, a folder, a Hugging Face id or, with a ``base_url``, the server's name for its model. Takes
    ``profile`` (a file, ``RUN:PROFILE``, or baseline), ``sham`` (0: the profile itself, n: its n-th sham),
    ``sham_kind``, ``sham_seed``, ``seed``, ``markers``, ``prompt_opens`` and ``template``; without a ``base_url``
    vLLM's engine options, too. Raises MoteError for anything else, and where no such server answers.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - as Inspect's own providers
        **given: Any,
    ) -> None:
        self.arguments = check_arguments(model_name, base_url, given)
        super().__init__(self.arguments.label, base_url, api_key, [_KEY], config)
        self._named = model_name
        self._numbers = Numbers()
        self._connected: Client | None = None
        self._connecting = Lock()
        if base_url is not None:
            self.connect()

    def connect(self) -> Client:
        """Return the client of the server, which is started where it is to be our own.

        Not when the model is made: Inspect makes further ones, without arguments, to look models up by a log's names.
        Raises MoteError where no server comes up or it has another model, and where this is such a further one.
        """
        with self._connecting:
            if self._connected is None:
                ours = self.arguments
                if self._named not in (ours.name, ours.label):
                    raise MoteError(
                        f"'{self._named}' is a log's name of '{ours.name}': give its profile, -M profile=..."
                    )
                url, key = own_server(ours.name, ours.server) if self.base_url is None else (self.base_url, self._key())
                client = Client(url, key)
                _check_served(client, ours.name)
                self._connected = client
            return self._connected

    def _key(self) -> str | None:
        return self.api_key or os.environ.get(_KEY)

    def max_connections(self) -> int:
        """Return how many requests may be under way at once."""
        return CONNECTIONS

    def connection_key(self) -> str:
        """Return the pool of connections that this model counts in: one for each profile, none waits for another."""
        return self.arguments.label

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Return one answer under the profile, its receipt in the metadata.

        Raises MoteError where the server refuses or does not answer, and where the answer's receipt is not that of the
        profile: nothing else becomes an output.
        """
        ours = self.arguments
        specified = [tool.model_dump(exclude_none=True, exclude={"options"}) for tool in tools]
        params = params_of(config.model_dump(exclude_none=True), specified, tool_choice)
        if ours.template:
            params["chat_template_kwargs"] = ours.template
        messages: Any = await messages_to_openai(input)
        asked = json.dumps([messages, specified], sort_keys=True, default=str)
        key = hashlib.sha256(asked.encode()).hexdigest()
        client: Client = await run_sync(self.connect) if self._connected is None else self._connected
        with self._numbers.taken(key) as number:
            base = ours.seed if config.seed is None else config.seed
            seed = request_seed(base, f"{key}#{number}" if number else key)
            ask = partial(client.complete, messages, ours.profile, model=ours.name, **{**params, "seed": seed})
            # A thread a request; how many there are is Inspect's to say (max_connections).
            found = await run_sync(ask, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
        return await self._output(found, seed)

    async def _output(self, found: Completion, seed: int) -> ModelOutput:
        ours, (choice,) = self.arguments, found.reply["choices"]
        message = dict(choice["message"])
        if not found.reasoning and found.text:
            split = split_reasoning(found.text, ours.markers, prompt_opens=ours.prompt_opens)
            if split.reasoning:
                message |= {"content": split.answer, "reasoning_content": split.reasoning}
        reply = {"object": "chat.completion", "created": 0, "model": ours.name, **found.reply}
        # The packet of the receipt is read by now, and would only swell the log.
        shown = {name: value for name, value in choice.items() if name != "routed_experts"}
        output = await model_output_from_openai({**reply, "choices": [{**shown, "message": message}]})
        observation = found.observation
        output.metadata = {
            NAME: {
                "profile": ours.profile.name,
                "digest": observation.receipt.digest,
                "tokens_edited": observation.receipt.tokens_edited,
                "patch_version": observation.receipt.patch_version,
                "model": ours.model,
                "seed": seed,
                "finish_reason": found.finish_reason,
                "prompt_opens": ours.prompt_opens,
                "prompt_tokens": found.prompt_tokens,
                "generated_tokens": found.generated_tokens,
                "sham": ours.sham._asdict() if ours.sham else None,
                "mechanism": [asdict(effect) for effect in observation.mechanism],
            }
        }
        return output


def _check_served(client: Client, name: str) -> None:
    """Raise MoteError unless the server has a model of that name."""
    models = client.models()
    if name not in models:
        raise MoteError(f"server {client.url} has no model '{name}': name it as the server does, {a_few(models)}.")
