"""HTTP to a study's servers: as many requests at once as are asked, and nothing of a reply is taken on trust.

A redirect is not followed: it would carry the prompts, and within one host the key, to whoever the server names. A
reply comes as it is or not at all: packed, it can be a thousand times what came over the wire. It is read up to a
bound.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final
from urllib.request import getproxies

from mote.harness.engine.failures import AwayError, BrokenReplyError, in_one_line, of_status
from mote.harness.errors import MoteError
from mote.reading import MOST_REPLY, UnreadableError, check_reply_head, check_reply_size

if TYPE_CHECKING:
    import aiohttp

_IDLE: Final = 4.0
"""Seconds that a connection waits for its next request; vLLM's server closes one after five."""


def key_of(variable: str | None) -> str:
    """Return the servers' key that an environment variable holds; vLLM without a key takes any.

    Raises MoteError where the variable is not set, or holds what no header can.
    """
    if variable is None:
        return "none"
    key = os.environ.get(variable, "").strip()
    if not key:
        raise MoteError(f"the environment variable {variable} is not set; it should hold the servers' key.")
    if not (key.isascii() and key.isprintable()):
        raise MoteError(f"the environment variable {variable} holds no key: it has characters that none has.")
    return key


class Wire:
    """The connections of one client to all of its servers, from ``open`` to ``close``; the loop must be the same."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connections possible; each is made when it is first needed."""
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Accept-Encoding": "identity", "Content-Type": "application/json"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            # Looked up for each request, which costs a tenth of one.
            trust_env=bool(getproxies()),
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, url: str, key: str) -> bytes:
        """Return what stands at a URL. Raises as ``post``."""
        return await self._asked("GET", url, key, None)

    async def post(self, url: str, key: str, body: bytes) -> bytes:
        """Return the reply to a JSON body.

        Raises AwayError where none comes or the server is busy or broken, RefusedError where the server refuses the
        request, and BrokenReplyError for a reply that is not taken.
        """
        return await self._asked("POST", url, key, body)

    async def _asked(self, method: str, url: str, key: str, body: bytes | None) -> bytes:
        import aiohttp

        if self._session is None:
            raise RuntimeError("the wire is not open")
        headers = {"Authorization": f"Bearer {key}"}
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                check_reply_head(response.status, response.headers)
                content = await _bounded(response)
        except UnreadableError as error:
            raise BrokenReplyError(f"{error}.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise AwayError(in_one_line(error) or type(error).__name__) from None
        if response.status >= 400:
            after = response.headers.get("retry-after", "")
            raise of_status(response.status, _json(content), in_one_line(response.reason or ""), after)
        return content


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    stated = response.content_length
    if stated is not None and stated <= MOST_REPLY:
        return await response.read()
    parts, read = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        read += len(part)
        check_reply_size(read)
    return b"".join(parts)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
