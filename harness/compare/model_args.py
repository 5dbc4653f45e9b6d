"""The model arguments that lm-eval and Inspect hand on, as far as both are checked alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mote.harness.errors import MoteError, nearest
from mote.judges import MARKERS, Markers


def check_kinds(values: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    """Raise MoteError for a value that is not of its kind: ``kinds`` has for each name what it must be, in words."""
    for name, kind in kinds.items():
        if name not in values:
            continue
        value = values[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        right = {
            "a string": isinstance(value, str) and bool(value),
            "a whole number from 0": whole and value >= 0,
            "a whole number from 1": whole and value >= 1,
            "True or False": isinstance(value, bool),
            "an object": isinstance(value, Mapping),
        }[kind]
        if not right:
            raise MoteError(f"model_args: {name}={value!r} must be {kind}.")


def named_markers(name: str) -> Markers:
    """Return the markers of this name; raise MoteError, with the nearest, where there are none."""
    try:
        return Markers.named(name)
    except ValueError:
        raise MoteError(f"model_args: markers={name} is unknown.{nearest(name, MARKERS)}") from None
