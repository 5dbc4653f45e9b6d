"""How the patch takes the place of a method of vLLM, and the list of all it took."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

HOOKS: list[tuple[type, str, Callable[..., Any], Callable[..., Any]]] = []
"""Every hook in place, as (class, method, vLLM's own function, ours): what a measurement takes out and puts back."""


def wrap(owner: type, name: str, around: Callable[..., Any]) -> None:
    """Replace a method by ``around(original, self, ...)``."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(original, self, *args, **kwargs)

    setattr(owner, name, wrapped)
    HOOKS.append((owner, name, original, wrapped))
