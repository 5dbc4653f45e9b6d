"""One vLLM server with the patch: asked over HTTP, and every reply held to what was asked before it is used.

What a server may do wrong is told apart in ``failures``; ``wire`` has the HTTP.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr, ValidationError
from pydantic_core import to_json

from mote.harness.engine.failures import AwayError, BrokenReplyError, RefusedError, UnfitError, first_error
from mote.harness.engine.scores import own_logprobs, read_scores
from mote.harness.engine.stepping import Call, Reply, checked_observation
from mote.harness.engine.wire import Wire, key_of
from mote.harness.errors import MoteError
from mote.harness.recipe.roles import roles_of
from mote.harness.recipe.schema import ServersPart
from mote.patches import EMPTY_PROFILE, ModelLayout, Observation, request_args
from mote.reading import UnreadableError

_LISTED: Final = 30.0
_FIRST: Final = 300.0
"""Seconds for the list of models, and for the one token that a check asks for."""
_MOST_TOKENS: Final = 2**31
_MOST_ENTRIES: Final = 256
_UNFILLED: Final = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What vLLM's server would else fill in from the model's generation_config.json, and vLLM in this process does not."""


class Lenient(BaseModel):
    """A part of a reply: what is read of it has its type, what else is there does not count."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Model(Lenient):
    id: StrictStr
    parent: StrictStr | None = None
    max_model_len: StrictInt | None = None


class Models(Lenient):
    """What a server lists at ``/models``."""

    data: list[_Model]

    def own(self) -> list[_Model]:
        """Return the models alone: profiles are listed as models of the one that they edit, and so are adapters."""
        ids = {one.id for one in self.data}
        return [one for one in self.data if one.parent not in ids]


class _Choice(Lenient):
    text: StrictStr
    finish_reason: StrictStr | None = None
    routed_experts: StrictStr | None = None


class Usage(Lenient):
    """Tokens of a prompt and of its answer."""

    prompt_tokens: StrictInt
    completion_tokens: StrictInt


class _Completion(Lenient):
    choices: list[_Choice]
    usage: Usage


class Server:
    """One server: where it is, what it calls its model, and how many requests it has under way."""

    def __init__(self, url: str, part: ServersPart, layout: ModelLayout, wire: Wire) -> None:
        self.url = url
        self.model = ""
        self.context = 0
        self.running = 0
        self._layout = layout
        self._wire = wire
        self._timeout = part.timeout
        self._limits: set[asyncio.Timeout] = set()
        self._entries: dict[tuple[str, str, ModelLayout | None, str], str] = {}
        self._key = key_of(part.key_env)

    async def check(self, least: int = 0) -> None:
        """Learn the model's name and context, and see that the patch is there, by a request of one token.

        ``least`` is the context that a study already counts on. Raises AwayError where nothing answers as a server of
        models does, UnfitError for one that the study can't use, and RefusedError where the request is refused.
        """
        models = (await self._listed()).own()
        if len(models) != 1:
            raise UnfitError(f"server {self.url} lists {len(models)} models; a study needs a server of one model.")
        self.model, context = models[0].id, models[0].max_model_len or 0
        if context <= 0:
            raise UnfitError(f"server {self.url} does not say its max_model_len: it is not vLLM's.")
        if context < least:
            raise UnfitError(f"server {self.url} has room for {context} tokens by now; this study needs {least}.")
        self.context = context
        first = Call("a first request", [0], EMPTY_PROFILE, {"max_tokens": 1, "temperature": 0.0}, "prompt")
        try:
            await self.ask(0, first, min(self._timeout, _FIRST))
        except BrokenReplyError as error:
            if error.doubt:
                raise UnfitError(f"server {self.url}: {error} Start it with `mote serve`.") from None
            raise AwayError(f"server {self.url}: {error}") from None
        except AwayError as error:
            raise AwayError(f"server {self.url}: nothing answers a first request there ({error}).") from None

    async def answers(self) -> bool:
        """Return whether the server lists its models in time: whether a silence is work or the end of it."""
        try:
            await self._listed()
        except (AwayError, UnfitError):
            return False
        return True

    async def ask(self, number: int, call: Call, timeout: float | None = None) -> Reply:
        """Send one request and check its reply and receipt. Raises the errors of ``failures``."""
        params = {**_UNFILLED, **call.params}
        # A text is always made, so it is not asked for.
        params.pop("detokenize", None)
        xargs = {"mote": self._entry(call)}
        body = to_json({"model": self.model, "prompt": call.tokens, **params, "vllm_xargs": xargs})
        try:
            async with asyncio.timeout(timeout or self._timeout) as limit:
                self._limits.add(limit)
                try:
                    content = await self._wire.post(f"{self.url}/completions", self._key, body)
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            raise AwayError("no reply in time") from None
        return self._read(number, call, content)

    def let_go(self) -> None:
        """End what is under way here as if its time were up."""
        for limit in list(self._limits):
            limit.reschedule(asyncio.get_running_loop().time())

    async def _listed(self) -> Models:
        try:
            async with asyncio.timeout(_LISTED):
                content = await self._wire.get(f"{self.url}/models", self._key)
        except TimeoutError:
            raise AwayError(f"server {self.url}: nothing answers there (no reply in time).") from None
        except (AwayError, RefusedError, BrokenReplyError) as error:
            raise AwayError(f"server {self.url}: nothing answers there ({error}).") from None
        try:
            return Models.model_validate_json(content)
        except ValidationError as error:
            raise AwayError(f"server {self.url} does not list its models: {first_error(error)}.") from None

    def _entry(self, call: Call) -> str:
        """Return what a request tells the patch, as JSON: a study sends the same few with each of its prompts."""
        if call.route is not None:  # which belongs to one prompt
            return json.dumps(request_args(call.profile, call.capture, call.route)["mote"])
        key = (call.profile.name, call.profile.digest, call.profile.model, json.dumps(call.capture))
        if key not in self._entries:
            if len(self._entries) >= _MOST_ENTRIES:
                self._entries.clear()
            self._entries[key] = json.dumps(request_args(call.profile, capture=call.capture)["mote"])
        return self._entries[key]

    def _read(self, number: int, call: Call, content: bytes) -> Reply:
        found = self._parsed(call, content)
        usage, room = found.usage, min(int(call.params["max_tokens"]), self.context - len(call.tokens))
        if len(found.choices) != 1:
            raise BrokenReplyError(f"{self.url} sent {len(found.choices)} answers to one request.")
        if not 0 <= usage.completion_tokens < _MOST_TOKENS:
            raise BrokenReplyError(f"{self.url} sent an answer of {usage.completion_tokens} tokens.")
        choice = found.choices[0]
        observation = self._observation(call, choice)
        if usage.prompt_tokens != len(call.tokens):
            raise BrokenReplyError(f"{self.url} read {usage.prompt_tokens} of {len(call.tokens)} tokens.")
        if choice.finish_reason == "length" and usage.completion_tokens < room:
            raise UnfitError(
                f"{call.what}: {self.url} stopped after {usage.completion_tokens} of {room} tokens; start it with"
                " --generation-config vllm, so that the model's own limit does not count."
            )
        rows = getattr(choice, "prompt_logprobs", None) or []
        try:
            logprobs = own_logprobs(call.tokens, rows)
        except (KeyError, ValueError):
            raise BrokenReplyError(f"{self.url} sent log-probabilities of other tokens.") from None
        return Reply(
            number=number,
            call=call,
            text=choice.text,
            finish_reason=choice.finish_reason,
            generated_tokens=usage.completion_tokens,
            logprobs=logprobs,
            observation=observation,
            # The tokens' own are read; thousands of dictionaries are not kept for nothing.
            rows=rows if call.params.get("prompt_logprobs") else (),
        )

    def _parsed(self, call: Call, content: bytes) -> Any:
        """Return a reply's parts, each of its type: a ``_Completion``, or what ``read_scores`` makes of one."""
        try:
            if call.params.get("prompt_logprobs") is not None:
                return read_scores(content)
            return _Completion.model_validate_json(content)
        except ValidationError as error:
            said = first_error(error)
        except UnreadableError as error:
            said = str(error)
        raise BrokenReplyError(f"{self.url} did not send an answer: {said}.")

    def _observation(self, call: Call, choice: Any) -> Observation:
        """Return what the patch observed. Nothing made without the edit is taken for an answer under it."""
        try:
            found = checked_observation(call, {"routed_experts": choice.routed_experts})
        except (MoteError, MemoryError, OverflowError) as error:
            raise BrokenReplyError(str(error), doubt=True) from None
        own = self._layout
        for role in roles_of(call.capture):
            if role not in found.maps:
                raise BrokenReplyError(f"{self.url} sent no activation map of the {role}.", doubt=True)
        if call.capture == "rows" and "prompt" not in found.rows:
            raise BrokenReplyError(f"{self.url} sent no experts of the prompt's tokens.", doubt=True)
        if found.maps:
            shapes = {one.counts.shape for one in found.maps.values()}
            if (tuple(found.layers), shapes) != (own.layers, {(len(own.layers), own.experts)}):
                has = next(iter(shapes))[-1]
                raise UnfitError(
                    f"server {self.url} serves '{self.model}' with {has} experts in layers {_span(found.layers)};"
                    f" the recipe's model.path has {own.experts} in {_span(own.layers)}: it is another model."
                )
        if not all(_is_counted(effect) for effect in found.mechanism):
            raise BrokenReplyError(f"{self.url} sent a mechanism check that holds no numbers.")
        return found


def _is_counted(effect: Any) -> bool:
    whole = (effect.layer, effect.expert, effect.tokens, effect.selected, effect.entered, effect.left)
    real = (effect.factor, effect.weight_before, effect.weight_after)
    return (
        isinstance(effect.action, str)
        and all(type(one) is int for one in whole)
        and all(type(one) in (int, float) and math.isfinite(one) for one in real)
    )


def _span(layers: Iterable[int]) -> str:
    found = list(layers)
    return f"{found[0]} to {found[-1]} ({len(found)})" if found else "none"
