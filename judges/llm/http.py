"""HTTP to servers that are not trusted: nothing is followed elsewhere, nothing unpacks, no reply is without end.

A redirect would carry the prompt, and within one host the key, to whoever the server names. A reply packed with gzip
can be a thousand times what came over the wire. Both are refused, and a reply is read up to a bound.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import openai

from mote.reading import UnreadableError, check_reply_head, check_reply_size

# Newer releases of the client bring an httpx under another name, and take no other's classes.
_AsyncClient: Final = next(base for base in openai.DefaultAsyncHttpxClient.__mro__ if base.__name__ == "AsyncClient")
_httpx: Any = importlib.import_module(_AsyncClient.__module__.partition(".")[0])


class UntrustedReplyError(_httpx.TransportError):  # type: ignore[misc]
    """A server's reply was not taken; the message is a line that says why."""


class _Bounded(_httpx.AsyncByteStream):  # type: ignore[misc]
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for part in self._stream:
            read += len(part)
            _hold_to_bound(read)
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


class _BoundedWaiting(_httpx.SyncByteStream):  # type: ignore[misc]
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        read = 0
        for part in self._stream:
            read += len(part)
            _hold_to_bound(read)
            yield part

    def close(self) -> None:
        self._stream.close()


def _hold_to_bound(read: int) -> None:
    try:
        check_reply_size(read)
    except UnreadableError as error:
        raise UntrustedReplyError(str(error)) from None


def _check_head(response: Any) -> None:
    try:
        check_reply_head(response.status_code, response.headers)
    except UnreadableError as error:
        raise UntrustedReplyError(str(error)) from None


async def _checked(response: Any) -> None:
    _check_head(response)
    response.stream = _Bounded(response.stream)


def _checked_waiting(response: Any) -> None:
    _check_head(response)
    response.stream = _BoundedWaiting(response.stream)


def http_client() -> Any:
    """Return a client for ``openai.AsyncOpenAI(http_client=...)`` with these bounds."""
    return openai.DefaultAsyncHttpxClient(
        follow_redirects=False, headers={"accept-encoding": "identity"}, event_hooks={"response": [_checked]}
    )


def http_client_that_waits() -> Any:
    """Return a client for ``openai.OpenAI(http_client=...)`` with these bounds."""
    return openai.DefaultHttpxClient(
        follow_redirects=False, headers={"accept-encoding": "identity"}, event_hooks={"response": [_checked_waiting]}
    )
