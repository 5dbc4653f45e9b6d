"""Secrets are told by their names and by their looks, and are never written or shown.

A token among the engine's options, a key in a judge's further fields: whatever a recipe carries lands in a run's
manifest and report, and in messages. ``***`` stands there for what a name such as ``hf_token`` or ``api_key`` holds,
and for a text that looks as well-known services' tokens do. What stood under such a name, and what the environment
holds under one, is replaced in any text that is hidden so, for as long as the process lives.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "***"

_NAMES: Final = re.compile(
    r"(?:^|[_.-])(?:token|secret|passwd|password|passphrase|credentials?|authorization|bearer|cookie)$"
    r"|(?:^|[_.-])(?:api|access|auth|private|secret|signing|admin)[_.-]?key$|^key$|apikey$|^auth$",
    re.IGNORECASE,
)
_LOOKS: Final = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|AKIA[A-Z0-9]{16}|AIza[\w-]{30,}|xox[a-z]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
    r"|(?<=Bearer )[\w.~+/-]{8,}=*|(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"
)
_LEAST: Final = 6
"""Characters of a value that is replaced in any text: shorter ones stand in too many words."""
_known: set[str] = set()


def report_no_usage() -> None:
    """Keep vLLM from reporting usage unless told to: an instrument pointed at unpublished models must not."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def redacted(value: Any) -> Any:
    """Return a value of JSON's kinds with its secrets hidden; what is hidden is known to ``hide`` from then on."""
    if isinstance(value, Mapping):
        return {key: _of_name(str(key), one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(one) for one in value]
    return _LOOKS.sub(HIDDEN, value) if isinstance(value, str) else value


def is_secret(name: str) -> bool:
    """Return whether a name says that its value is a secret: ``hf_token``, ``api_key``, and not ``max_tokens``."""
    return bool(_NAMES.search(name))


def hide(text: str) -> str:
    """Return a text without what looks like a secret, and without those that this process knows."""
    for value in sorted({*_known, *_of_environment()}, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return _LOOKS.sub(HIDDEN, text)


def _of_name(name: str, value: Any) -> Any:
    if not is_secret(name):
        return redacted(value)
    if isinstance(value, str) and value and value != HIDDEN:
        if len(value) >= _LEAST:
            _known.add(value)
        return HIDDEN
    return [_of_name(name, one) for one in value] if isinstance(value, list | tuple) else redacted(value)


def _of_environment() -> set[str]:
    return {value for name, value in os.environ.items() if is_secret(name) and len(value) >= 2 * _LEAST}
