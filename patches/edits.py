"""Edits: what can be done to one routed expert, after the router's choice or before it. Neither vLLM nor torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mote.patches.errors import ProfileError

Action = Literal["suppress", "stimulate", "scale", "activate", "deactivate", "bias", "nudge"]
ACTIONS: tuple[str, ...] = get_args(Action)
BEFORE: tuple[str, ...] = ("activate", "deactivate", "bias", "nudge")
"""The actions on an expert's score before the router chooses; the others change the weights of what it chose."""
WITH_FACTOR: tuple[str, ...] = ("scale", "bias", "nudge")
OF_FACTOR = "'scale', 'bias' and 'nudge'"
_SHOWN = 80
_FEW = 12
MAX_FACTOR = 1000.0
"""Above this a scaled weight leaves nothing of the others in float32 arithmetic; stimulate says that better."""
MAX_BIAS = 50.0
"""A logit that is raised by more leaves the other experts no weight; activate and deactivate say that better."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit of one routed expert.

    Attributes:
        layer: decoder layer, as the model numbers it.
        expert: routed expert of that layer, from 0.
        action: after the router's choice ``suppress`` (its weight becomes 0), ``stimulate`` (it is always chosen, with
            the token's largest weight) or ``scale`` (its weight is multiplied by ``factor`` where it is chosen); the
            other weights are rescaled so that the token's weights keep their sum (the paper, section 2.5). Before the
            choice ``activate`` (its score becomes the token's highest), ``deactivate`` (the lowest), ``bias``
            (``factor`` is added to its score) or ``nudge`` (``factor`` standard deviations of the token's scores are
            added); the model's own rule then chooses and weighs (``mote.patches.choice``).
        factor: of ``scale``, 0 to 1000: 0 is the same as suppress, 1 changes nothing. Of ``bias`` and ``nudge``, -50 to
            50: 0 changes nothing. Of the others 0.
    """

    layer: int
    expert: int
    action: Action
    factor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("layer", "expert"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ProfileError(f"edit {self}: {name} must be a whole number from 0")
        if self.action not in ACTIONS:
            raise ProfileError(f"edit {self}: unknown action {short(self.action)!r}.{nearest(self.action, ACTIONS)}")
        least, most = (-MAX_BIAS, MAX_BIAS) if self.action in BEFORE else (0.0, MAX_FACTOR)
        if not isinstance(self.factor, int | float) or isinstance(self.factor, bool):
            raise ProfileError(f"edit {self}: factor must be a number from {least:g} to {most:g}")
        # NaN is not within anything, and a whole number may be too large for a float.
        if not least <= self.factor <= most:
            near = most if self.factor > most else least
            raise ProfileError(f"edit {self}: factor must be from {least:g} to {most:g}; the nearest is {near:g}")
        if self.action not in WITH_FACTOR and self.factor != 0.0:
            raise ProfileError(
                f"edit {self}: only {OF_FACTOR} take a factor; leave it out, or write one of these actions"
            )

    def __str__(self) -> str:
        return f"({short(self.layer)}, {short(self.expert)}) {short(self.action)}"

    @property
    def canonical(self) -> Edit:
        """The edit in its one spelling: scaling by 0 is suppression, factors are floats."""
        if self.action == "scale" and self.factor == 0.0:
            return Edit(self.layer, self.expert, "suppress")
        if self.action in WITH_FACTOR:
            return Edit(self.layer, self.expert, self.action, float(self.factor))
        return self

    @property
    def before_choice(self) -> bool:
        """Whether the edit changes the expert's score before the router chooses."""
        return self.action in BEFORE

    @property
    def is_nothing(self) -> bool:
        """Whether the edit changes nothing: a weight times 1, or a score plus 0."""
        return self.action in WITH_FACTOR and self.factor == (1.0 if self.action == "scale" else 0.0)

    def to_list(self) -> list[int | str | float]:
        """Return ``[layer, expert, action]``, with the factor as fourth where the action takes one."""
        head: list[int | str | float] = [self.layer, self.expert, self.action]
        return [*head, float(self.factor)] if self.action in WITH_FACTOR else head


def nearest(wrong: object, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, or a few of the names when none is close."""
    known = tuple(known)
    close = difflib.get_close_matches(short(wrong), known, n=1, cutoff=0.4)
    if close:
        return f" Did you mean '{close[0]}'?"
    more = f", and {len(known) - _FEW} more" if len(known) > _FEW else ""
    return f" Known: {', '.join(known[:_FEW])}{more}."


def short(value: object) -> str:
    """Return a value that a client wrote, at a length that a message can bear."""
    if isinstance(value, int) and not -(10**40) < value < 10**40:
        return "a number of more than 40 digits"
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def check_keys(what: str, data: Mapping[Any, Any], required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Raise ProfileError, which begins with ``what``, for a key that is unknown, with the nearest, or missing."""
    for key in data:
        if key not in required and key not in optional:
            raise ProfileError(f"{what}: unknown key {short(key)!r}.{nearest(key, (*required, *optional))}")
    for key in required:
        if key not in data:
            raise ProfileError(f"{what}: key '{key}' is missing")
