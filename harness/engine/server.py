"""One vLLM server with the patch: asked over HTTP, and every reply held to what was asked before it is used.

What a server may do wrong is told apart by what follows from it: it can't be asked at present (``AwayError``), this
reply is none (``BrokenReplyError``), this server doesn't take the request (``RefusedError``), or it isn't a server for
this study at all (``UnfitError``).
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, FiniteFloat, StrictInt, StrictStr, ValidationError

from mote.harness.engine.stepping import Call, Reply, checked_observation
from mote.harness.errors import MoteError
from mote.harness.recipe.schema import ServersPart
from mote.patches import EMPTY_PROFILE, ModelLayout, Observation, request_args

_BUSY: Final = frozenset({408, 409, 425, 429})
_LISTED: Final = 30.0
_FIRST: Final = 300.0
"""Seconds for the list of models, and for the one token that a check asks for."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")
_MOST_TOKENS: Final = 2**31
_UNFILLED: Final = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What vLLM's server would else fill in from the model's generation_config.json, and vLLM in this process does not."""


class AwayError(Exception):
    """A server is busy, broken or silent: the request may be asked again.

    ``wait`` are the seconds that it asked for, 0 if none; ``busy`` where it is there and says so.
    """

    def __init__(self, message: str, wait: float = 0.0, *, busy: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.busy = busy


class BrokenReplyError(Exception):
    """A server answered with what is no answer to the request. ``doubt`` where it may be another server by now."""

    def __init__(self, message: str, *, doubt: bool = False) -> None:
        super().__init__(message)
        self.doubt = doubt


class RefusedError(Exception):
    """A server does not take a request, whoever sends it and however often."""


class UnfitError(MoteError):
    """A server is none for this study: it has no patch, another model, or limits of its own."""


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


class _LogProb(Lenient):
    logprob: FiniteFloat


class _Choice(Lenient):
    text: StrictStr
    finish_reason: StrictStr | None = None
    routed_experts: StrictStr | None = None
    prompt_logprobs: list[dict[str, _LogProb] | None] | None = None


class Usage(Lenient):
    """Tokens of a prompt and of its answer."""

    prompt_tokens: StrictInt
    completion_tokens: StrictInt


class _Completion(Lenient):
    choices: list[_Choice]
    usage: Usage


class Server:
    """One server: where it is, what it calls its model, and how many requests it has under way."""

    def __init__(self, url: str, part: ServersPart, layout: ModelLayout) -> None:
        import openai

        from mote.judges.llm.http import http_client

        self.url = url
        self.model = ""
        self.context = 0
        self.running = 0
        self._layout = layout
        self._timeout = part.timeout
        self._limits: set[asyncio.Timeout] = set()
        key = os.environ.get(part.key_env, "").strip() if part.key_env else "none"
        if not key:
            raise MoteError(f"the environment variable {part.key_env} is not set; it should hold the servers' key.")
        # Retries are ours: they go to another server first.
        self._client = openai.AsyncOpenAI(
            base_url=url, api_key=key, max_retries=0, timeout=part.timeout, http_client=http_client()
        )

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
        """Send one request and check its reply and receipt. Raises what the module's docstring lists."""
        import openai

        params = {**_UNFILLED, **call.params}
        # What the OpenAI API does not know goes into the body beside it; a text is always made, so it is not asked for.
        params.pop("detokenize", None)
        known = {name: params.pop(name) for name in ("temperature", "top_p", "max_tokens", "seed") if name in params}
        params["vllm_xargs"] = {"mote": json.dumps(request_args(call.profile, capture=call.capture)["mote"])}
        create: Any = self._client.completions.with_raw_response.create
        try:
            # The library's own time-out starts anew with each piece of the reply; a dripping server would never end.
            async with asyncio.timeout(timeout or self._timeout) as limit:
                self._limits.add(limit)
                try:
                    sent = await create(model=self.model, prompt=call.tokens, extra_body=params, **known)
                finally:
                    self._limits.discard(limit)
        except (openai.OpenAIError, TimeoutError) as error:
            raise told_apart(error) from None
        return self._read(number, call, sent.content)

    def let_go(self) -> None:
        """End what is under way here as if its time were up."""
        for limit in list(self._limits):
            limit.reschedule(asyncio.get_running_loop().time())

    async def _listed(self) -> Models:
        import openai

        listing: Any = self._client.models.with_raw_response.list
        try:
            async with asyncio.timeout(_LISTED):
                sent = await listing()
        except (TimeoutError, openai.OpenAIError) as error:
            raise AwayError(f"server {self.url}: nothing answers there ({_said(error)}).") from None
        try:
            return Models.model_validate_json(sent.content)
        except ValidationError as error:
            raise AwayError(f"server {self.url} does not list its models: {first_error(error)}.") from None

    def _read(self, number: int, call: Call, content: bytes) -> Reply:
        try:
            found = _Completion.model_validate_json(content)
        except ValidationError as error:
            raise BrokenReplyError(f"{self.url} did not send an answer: {first_error(error)}.") from None
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
        rows = [
            {token: {"logprob": one.logprob} for token, one in row.items()} if row else None
            for row in choice.prompt_logprobs or ()
        ]
        try:
            logprobs = _own_logprobs(call, rows)
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
            rows=rows,
        )

    def _observation(self, call: Call, choice: _Choice) -> Observation:
        """Return what the patch observed. Nothing made without the edit is taken for an answer under it."""
        try:
            found = checked_observation(call, choice.model_dump())
        except (MoteError, MemoryError, OverflowError) as error:
            raise BrokenReplyError(str(error), doubt=True) from None
        own = self._layout
        if call.capture == "prompt" and "prompt" not in found.maps:
            raise BrokenReplyError(f"{self.url} sent no activation map of the prompt.", doubt=True)
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
    whole = (effect.layer, effect.expert, effect.tokens, effect.selected, effect.entered)
    real = (effect.factor, effect.weight_before, effect.weight_after)
    return (
        isinstance(effect.action, str)
        and all(type(one) is int for one in whole)
        and all(type(one) in (int, float) and math.isfinite(one) for one in real)
    )


def told_apart(error: Exception) -> Exception:
    """Return the error of this module that says what the client library's means."""
    import openai

    from mote.judges.llm.http import UntrustedReplyError

    if isinstance(error, openai.APIStatusError):
        if error.status_code in _BUSY or error.status_code >= 500:
            asked = error.response.headers.get("retry-after", "")
            wait = float(asked) if _SECONDS.fullmatch(asked) else 0.0
            return AwayError(_said(error), wait, busy=error.status_code in _BUSY)
        return RefusedError(_said(error))
    if isinstance(error.__cause__, UntrustedReplyError):
        return BrokenReplyError(f"{error.__cause__}.")
    if isinstance(error, openai.APIResponseValidationError):
        return BrokenReplyError(_said(error))
    return AwayError("no reply in time" if isinstance(error, TimeoutError) else _said(error))


def _said(error: BaseException) -> str:
    """Return what went wrong in one line: the server's own words where it has any."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    text = inner.get("message") if isinstance(inner, Mapping) else None
    return " ".join(str(text or error.__cause__ or error or type(error).__name__).split())[:300]


def first_error(error: ValidationError) -> str:
    """Return in a line what is wrong first in a reply, and where."""
    found = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in found["loc"])[:80]
    return f"{where}: {found['msg'][:120]}" if where else str(found["msg"])[:120]


def _own_logprobs(call: Call, rows: list[dict[str, Any] | None]) -> list[float]:
    """The log-probability of each of the prompt's own tokens; nan where there is none, as for the first."""
    if not rows:
        return []
    return [
        float(row[str(token)]["logprob"]) if row else math.nan for token, row in zip(call.tokens, rows, strict=True)
    ]


def _span(layers: Iterable[int]) -> str:
    found = list(layers)
    return f"{found[0]} to {found[-1]} ({len(found)})" if found else "none"
