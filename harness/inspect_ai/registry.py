"""What Inspect imports by the entry point: the provider's name, and its class only once it is asked for."""

from __future__ import annotations

from typing import Any

from inspect_ai.model import modelapi

from mote.harness.inspect_ai import NAME


@modelapi(name=NAME)  # type: ignore[untyped-decorator]
def provider() -> type[Any]:
    """Return the class of the provider."""
    from mote.harness.inspect_ai.model import MoteAPI

    return MoteAPI
