"""What Inspect imports by the entry point: the provider's name, and its class only once it is asked for."""

from __future__ import annotations

from inspect_ai.model import ModelAPI, modelapi

from mote.harness.inspect_ai import NAME


@modelapi(name=NAME)
def provider() -> type[ModelAPI]:
    """Return the class of the provider."""
    from mote.harness.inspect_ai.model import MoteAPI

    return MoteAPI
