"""Replies to scores: log-probabilities of thousands of tokens, read in a third of the time that pydantic takes.

A study asks for as many of them as for answers, and a reply holds an object for every token. msgspec decodes JSON into
slots of known types, skips what is not asked for, and refuses what is of another type, as pydantic does for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from mote.reading import UnreadableError


class LogProb(Protocol):
    """One entry of vLLM's ``prompt_logprobs``: a natural log, finite."""

    logprob: float


Rows = Sequence[Mapping[int, LogProb] | None]
"""What a server says of each token of a prompt: by token id; None for the first, which nothing comes before."""


def read_scores(content: bytes) -> Any:
    """Return a reply to a request for prompt log-probabilities, as pydantic's model of an answer with these besides.

    Raises UnreadableError for what is no such reply.
    """
    import msgspec

    try:
        return _decoder().decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise UnreadableError(str(error)[:200]) from None


def own_logprobs(tokens: Sequence[int], rows: Rows) -> list[float]:
    """Return the log-probability of each of a prompt's own tokens; nan where there is none, as for the first.

    Raises KeyError and ValueError where the rows are of other tokens.
    """
    if not rows:
        return []
    return [row[token].logprob if row else math.nan for token, row in zip(tokens, rows, strict=True)]


@cache
def _decoder() -> Any:
    # Only a study on servers has the package, which the extra of that name brings.
    import msgspec

    # Not followed by the garbage collector: thousands come at once, and nothing in one can point back.
    logprob = msgspec.defstruct("LogProb", [("logprob", float)], gc=False)
    choice = msgspec.defstruct(
        "Choice",
        [
            ("text", str),
            ("finish_reason", str | None, None),
            ("routed_experts", str | None, None),
            ("prompt_logprobs", list[dict[int, logprob] | None] | None, None),  # type: ignore[valid-type]
        ],
    )
    usage = msgspec.defstruct("Usage", [("prompt_tokens", int), ("completion_tokens", int)])
    return msgspec.json.Decoder(msgspec.defstruct("Completion", [("choices", list[choice]), ("usage", usage)]))  # type: ignore[valid-type]
