"""What the pure functions of the study ask of their arguments, and the error they raise when it is not given.

A statistic computed from the wrong rows looks like any other statistic, so every function here refuses rather than
repairs: labels of another length, an unknown class, a class without prompts, a number that is not finite.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mote.harness.errors import MoteError, nearest
from mote.judges import STATES

__all__ = [
    "STATES",
    "DataError",
    "check_class",
    "check_level",
    "check_maps",
    "check_unique",
    "other_classes",
]


class DataError(MoteError, ValueError):
    """Data from which the asked statistic cannot be computed: one line that names the data and what is needed."""


def check_maps(maps: NDArray[Any], labels: Sequence[str]) -> None:
    """Raise `DataError` unless `maps` is a finite [prompts, layers, experts] array with one label a prompt."""
    if maps.ndim != 3:
        raise DataError(f"Activation maps must have the shape [prompts, layers, experts], not {list(maps.shape)}.")
    if len(labels) != maps.shape[0]:
        raise DataError(f"There are {maps.shape[0]} activation maps but {len(labels)} labels; give one label a map.")
    if not np.issubdtype(maps.dtype, np.number):
        raise DataError(f"Activation maps must be numbers, not {maps.dtype}.")
    if np.issubdtype(maps.dtype, np.floating) and not np.isfinite(maps).all():
        raise DataError("Activation maps hold values that are not finite; leave out the prompts whose capture failed.")


def check_class(target: str, labels: Iterable[str]) -> None:
    """Raise `DataError` that names `target` and the labels present when no label is `target`."""
    present = sorted(set(labels))
    if target not in present:
        there = ", ".join(present) if present else "none"
        hint = nearest(target, present) if present else ""
        hint = hint if hint.startswith(" Did you mean") else ""
        raise DataError(f"No prompt has the label '{target}'. Labels present: {there}.{hint}")


def other_classes(target: str, labels: Iterable[str], ignore: Collection[str]) -> list[str]:
    """Return the labels beside `target` that are not in `ignore`, sorted: what the target is compared with.

    Raises `DataError` that names the labels present when the target or everything beside it is missing.
    """
    present = set(labels)
    check_class(target, present)
    rest = sorted(label for label in present if label != target and label not in ignore)
    if not rest:
        there = ", ".join(sorted(present))
        raise DataError(
            f"No prompt to compare '{target}' with: the labels present are {there}. A second class is needed."
        )
    return rest


def check_level(level: float) -> None:
    """Raise `DataError` unless `level` is a confidence level strictly between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise DataError(f"A confidence level lies between 0 and 1, for instance 0.95, not {level}.")


def check_unique(names: Sequence[str], what: str) -> None:
    """Raise `DataError` that names the first of `names` that occurs twice; `what` is the word for one of them."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"The {what} '{name}' occurs twice; each may occur once.")
        seen.add(name)
