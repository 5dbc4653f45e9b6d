"""The options of a judge's endpoint, for ``mote judge ask`` and ``mote mt-bench judge``."""

from __future__ import annotations

from typing import Any

from mote.harness.errors import MoteError
from mote.reading import UnreadableError, parse_json


def endpoint_of(url: str, model: str, key_env: str | None, **options: Any) -> Any:
    """Return the endpoint of a judge; raise MoteError for what is wrong in it."""
    from mote.judges.llm.endpoint import Endpoint, JudgeError

    try:
        return Endpoint(url, model, key_env, **options)
    except JudgeError as error:
        raise MoteError(str(error)) from None


def body_of(text: str | None) -> dict[str, Any]:
    """Return further fields of a request from JSON."""
    try:
        body = parse_json(text or "{}")
    except UnreadableError as error:
        raise MoteError(f"--body {error}.") from None
    if not isinstance(body, dict):
        raise MoteError("--body should be a JSON object, for instance '{\"top_k\": 1}'.")
    return body
