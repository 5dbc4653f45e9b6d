"""Where a judge is asked: an OpenAI-compatible endpoint, and how patiently.

A key is named by its environment variable and read when a client is made. It is in no field, so it cannot be stored,
logged or shown with the endpoint.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mote.judges.reasoning import Markers
from mote.reading import UnreadableError, check_http_url

Structured = Literal["auto", "json", "text"]
_SHOWN_URL = 120
NO_KEY = "none"
"""What is sent where no key is named. The client would else take OPENAI_API_KEY and send it to whatever server."""


class JudgeError(ValueError):
    """A judge can't be used as it was named; the message is one line that says what to change."""


@dataclass(frozen=True)
class Endpoint:
    """A judge model behind a URL.

    Attributes:
        url: base URL of the API, usually ending in ``/v1``.
        model: the model's name at that server.
        key_env: name of the environment variable that holds the key; None sends none.
        structured: ``json`` asks the server for output that follows a schema, ``text`` for text that ends in a verdict;
            ``auto`` asks for the first and falls back to the second where the server refuses it.
        concurrency: requests under way at once.
        timeout: seconds until a request is given up, in all, also while bytes still come.
        attempts: how often one request is sent where the server is busy, broken or silent (429, 5xx, time-outs).
        tries: how often a judgment is asked for where the reply holds no usable verdict.
        max_tokens: what a judge may write, its reasoning included.
        backoff: seconds before the second attempt; doubled for each further one, up to a minute, with jitter. A
            server's ``Retry-After`` is kept to where it is longer.
        markers: what encloses the judge's own reasoning.
        body: further fields of the request, for what a server needs beside the standard.
    """

    url: str
    model: str
    key_env: str | None = None
    structured: Structured = "auto"
    concurrency: int = 8
    timeout: float = 180.0
    attempts: int = 6
    tries: int = 3
    max_tokens: int = 2048
    backoff: float = 1.0
    markers: Markers = field(default_factory=Markers)
    body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            check_http_url(self.url)
        except UnreadableError as error:
            raise JudgeError(f"judge URL '{_shown(self.url)}' {error}.") from None
        if not self.model.strip():
            raise JudgeError("a judge needs the name of a model, as its server lists it under /models.")
        if self.structured not in get_args(Structured):
            raise JudgeError(f"structured output '{self.structured}' is unknown. Known: auto, json, text.")
        for name in ("concurrency", "attempts", "tries", "max_tokens"):
            if getattr(self, name) < 1:
                raise JudgeError(f"a judge's {name} must be at least 1, not {getattr(self, name)}.")
        if not self.timeout > 0 or not self.backoff >= 0:
            raise JudgeError("a judge's timeout must be above 0 seconds and its backoff not below 0.")

    def key(self) -> str:
        """Return the key; raise JudgeError, naming the variable, where it is not set."""
        if self.key_env is None:
            return NO_KEY
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            # A user may have pasted the key itself where its name belongs: it must not be printed.
            known = self.key_env if self.key_env.isidentifier() and self.key_env.isupper() else "that you named"
            raise JudgeError(f"the environment variable {known} is not set; it should hold the key of the judge.")
        return key

    def describe(self) -> dict[str, Any]:
        """Return what a row or manifest says of the endpoint: nothing secret."""
        return {"url": self.url, "model": self.model, "max_tokens": self.max_tokens, "temperature": 0}


def _shown(url: str) -> str:
    """Return a URL without what stands before an @ and after a ?."""
    head, separator, tail = url.partition("://")
    return f"{head}{separator}{tail.rpartition('@')[2].partition('?')[0].partition('#')[0]}"[:_SHOWN_URL]
