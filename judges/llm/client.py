"""One request to a judge: sent at temperature 0, repeated while the server is busy, broken or silent.

What cannot be mended by waiting is told apart: a key that is refused or a model that is not there ends the whole run
(``JudgeError``); a request that this server rejects, or does not answer in all attempts, ends this one judgment
(``UnreachedError``), which can be asked for again later. Neither is ever a verdict.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import openai
from openai.types.chat import ChatCompletion
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from mote.judges.llm.endpoint import Endpoint, JudgeError
from mote.judges.llm.http import UntrustedReplyError, http_client

_LONGEST_WAIT = 60.0
_BUSY = frozenset({408, 409, 425, 429})
_SCHEMA_REFUSED = frozenset({400, 404, 405, 415, 422, 501})
_SHOWN = 300
_NAME = 200
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")
_BROKEN = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""What comes of a body that the client library reads without a look at it: no JSON, other types, missing parts."""


class UnreachedError(Exception):
    """A judgment that got no reply; ``rejected`` where the server refused the request as such."""

    def __init__(self, message: str, requests: int, *, rejected: bool = False) -> None:
        super().__init__(message)
        self.requests = requests
        self.rejected = rejected


class Reply(NamedTuple):
    """What a judge wrote. ``reasoning`` is what its server delivered apart; ``requests`` counts the attempts."""

    text: str
    reasoning: str
    finish_reason: str | None
    model: str
    as_json: bool
    requests: int
    prompt_tokens: int
    completion_tokens: int


class _EmptyReplyError(Exception):
    """The server answered 200 with something that is no chat completion."""


class JudgeClient:
    """A client of one endpoint, to be used as an async context manager.

    Raises JudgeError where the key's environment variable is not set.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._key = endpoint.key()
        # Retries are ours: the library's own would not count, and would not stop at our total time.
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=self._key,
            max_retries=0,
            timeout=endpoint.timeout,
            http_client=http_client(),
        )
        # What the library finds in the environment beside a key is for its makers' server, not for any other.
        self._client.admin_api_key = None
        if endpoint.key_env != "OPENAI_API_KEY":
            self._client.organization = self._client.project = None
        self._as_json = endpoint.structured != "text"

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._client.close()

    async def check(self) -> None:
        """Raise JudgeError where nothing listens at the URL, so that no one waits for retries of a slip in it."""
        try:
            async with asyncio.timeout(min(10.0, self.endpoint.timeout)):
                await self._client.models.list()
        except (TimeoutError, openai.APITimeoutError):
            return
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, UntrustedReplyError):
                raise JudgeError(f"judge {self.endpoint.model} at {self.endpoint.url}: {error.__cause__}.") from None
            cause = self._redact(str(error.__cause__ or error))
            raise JudgeError(
                f"judge {self.endpoint.model}: nothing answers at {self.endpoint.url} ({cause})."
            ) from None
        except (openai.OpenAIError, *_BROKEN):
            # Whatever it says, it is there; not every server lists its models.
            return

    @property
    def as_json(self) -> bool:
        """Whether structured output is asked for: as set, until the server has refused it."""
        return self._as_json

    async def complete(
        self, messages: Sequence[Mapping[str, str]], schema: tuple[str, Mapping[str, Any]] | None = None
    ) -> Reply:
        """Return the judge's reply; ``schema`` is (name, JSON schema) for structured output.

        Raises UnreachedError and JudgeError as the module says.
        """
        requests = 0
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(self.endpoint.attempts),
                retry=retry_if_exception(_passes_by),
                wait=self._wait,
                reraise=True,
            ):
                with attempt:
                    requests += 1
                    return self._read(await self._send(messages, schema), schema is not None, requests)
        except (openai.OpenAIError, TimeoutError, _EmptyReplyError, *_BROKEN) as error:
            raise self._explained(error, requests, schema is not None) from None
        raise AssertionError("tenacity always returns or raises")

    def refuse_json(self) -> bool:
        """Note that the server takes no schema; return whether text may be asked for instead."""
        if self.endpoint.structured != "auto":
            return False
        self._as_json = False
        return True

    async def _send(
        self, messages: Sequence[Mapping[str, str]], schema: tuple[str, Mapping[str, Any]] | None
    ) -> object:
        options: dict[str, Any] = {}
        if schema is not None:
            name, content = schema
            options["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": name.replace("-", "_"), "schema": dict(content), "strict": True},
            }
        create: Any = self._client.chat.completions.create
        # The library's own time-out starts anew with each piece of the reply; a dripping server would never end.
        async with asyncio.timeout(self.endpoint.timeout):
            reply: object = await create(
                model=self.endpoint.model,
                messages=[dict(message) for message in messages],
                temperature=0,
                max_tokens=self.endpoint.max_tokens,
                extra_body=dict(self.endpoint.body) or None,
                **options,
            )
            return reply

    def _read(self, reply: object, as_json: bool, requests: int) -> Reply:
        if not isinstance(reply, ChatCompletion) or not reply.choices:
            raise _EmptyReplyError("the reply is no chat completion")
        # The library takes what a server sends for what it should be, without a look at it.
        choice: Any = reply.choices[0]
        message: Any = getattr(choice, "message", None)
        extra = getattr(message, "model_extra", None) or {}
        said = getattr(message, "content", None) or getattr(message, "refusal", None) or ""
        if not isinstance(said, str):
            raise _EmptyReplyError("the reply's content is no text")
        return Reply(
            text=self._taken(said),
            reasoning=self._taken(extra.get("reasoning_content") or extra.get("reasoning")),
            finish_reason=self._taken(getattr(choice, "finish_reason", None))[:_NAME] or None,
            model=self._taken(reply.model)[:_NAME] or self.endpoint.model,
            as_json=as_json,
            requests=requests,
            prompt_tokens=_counted(reply.usage, "prompt_tokens"),
            completion_tokens=_counted(reply.usage, "completion_tokens"),
        )

    def _taken(self, value: object) -> str:
        """Return a server's text without the key, and without halves of characters, which no store takes."""
        return self._redact(value.encode("utf-8", "replace").decode("utf-8")) if isinstance(value, str) else ""

    def _wait(self, state: RetryCallState) -> float:
        wait: float = min(_LONGEST_WAIT, self.endpoint.backoff * 2 ** (state.attempt_number - 1))
        # Requests that failed together must not come back together.
        wait *= random.uniform(0.5, 1.0)  # noqa: S311
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, openai.APIStatusError):
            asked = error.response.headers.get("retry-after", "")
            if _SECONDS.fullmatch(asked):
                wait = max(wait, min(float(asked), 2 * _LONGEST_WAIT))
        return wait

    def _explained(self, error: Exception, requests: int, with_schema: bool) -> Exception:
        where = f"judge {self.endpoint.model} at {self.endpoint.url}"
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            said = self._said(error)
            if status in (401, 403):
                # Some servers repeat the key in their message: it isn't shown at all.
                needs = f"the key in {self.endpoint.key_env}" if self.endpoint.key_env else "a request without a key"
                return JudgeError(f"{where} refuses {needs} (HTTP {status}).")
            if status == 404 and not with_schema:
                return JudgeError(f"{where} is not there (HTTP 404: {said}); GET {self.endpoint.url}/models lists it.")
            if _spent(error):
                return JudgeError(f"{where} says that its quota is spent (HTTP {status}).")
            rejected = status in _SCHEMA_REFUSED
            return UnreachedError(f"HTTP {status} after {requests} requests: {said}", requests, rejected=rejected)
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return UnreachedError(f"no reply in {self.endpoint.timeout:g} s, {requests} times", requests)
        if isinstance(error.__cause__, UntrustedReplyError):
            error = error.__cause__
        elif isinstance(error, _BROKEN):
            return UnreachedError(f"the reply is no chat completion ({requests} requests)", requests)
        return UnreachedError(f"{self._redact(str(error)) or type(error).__name__} ({requests} requests)", requests)

    def _said(self, error: openai.APIStatusError) -> str:
        body = error.body
        content = body.get("message", body) if isinstance(body, dict) else body
        words = " ".join(self._redact(str(content or error.message)).split())
        return words if len(words) <= _SHOWN else words[: _SHOWN - 1] + "…"

    def _redact(self, text: str) -> str:
        return text.replace(self._key, "***") if self.endpoint.key_env else text


def _counted(usage: object, name: str) -> int:
    found = getattr(usage, name, 0)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**53 else 0


def _passes_by(error: BaseException) -> bool:
    if isinstance(error, openai.APIStatusError):
        return (error.status_code in _BUSY or error.status_code >= 500) and not _spent(error)
    # A connection error includes the library's time-out; a response that can't be read may be a proxy's page.
    if isinstance(error.__cause__, UntrustedReplyError):
        return False
    return isinstance(
        error,
        (TimeoutError, openai.APIConnectionError, openai.APIResponseValidationError, _EmptyReplyError, *_BROKEN),
    )


def _spent(error: openai.APIStatusError) -> bool:
    return isinstance(error.body, dict) and error.body.get("code") == "insufficient_quota"
