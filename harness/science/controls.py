"""Random experts as controls: profiles that should do nothing special, matched ever more closely to the tuned ones.

The paper compares ten distinctive experts with one draw of ten random ones (section 3.1). That leaves open whether
the layers matter, or how busy the experts are; so there are three kinds of draws, each with many sets:

- ``uniform``: any experts of any MoE layer;
- ``layers``: as many experts of each layer as the tuned ones have there;
- ``frequency``: for each tuned expert one of the same layer, chosen among those nearest in activation frequency.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mote.harness.errors import nearest
from mote.harness.preconditions import DataError

Expert = tuple[int, int]
"""A routed expert as (layer, expert), layer as the model numbers it."""

BASELINE: Final = "baseline"
"""The name and the kind of the untouched model's profile."""
RETEST: Final = "retest"
"""The kind of the untouched model's profiles with other seeds; their names go on with a number."""
RANDOM: Final = "random-"
"""What the kinds of random sets begin with; one of ``KINDS`` follows."""

ControlKind = Literal["uniform", "layers", "frequency"]
KINDS: Final[tuple[ControlKind, ...]] = get_args(ControlKind)

NEAR: Final = 8
"""Among how many of the nearest in frequency a ``frequency`` control chooses: enough to draw many sets, few enough
to stay near (8 of 256 experts a layer are 3%)."""

TRIES_FOR_A_NEW_SET: Final = 100


def random_experts(
    kind: ControlKind,
    tuned: Sequence[Expert],
    frequency: NDArray[Any],
    layers: Sequence[int],
    n_sets: int,
    seed: int | np.random.Generator,
    *,
    near: int = NEAR,
) -> list[list[Expert]]:
    """Return `n_sets` sets of random experts, each of the size of `tuned`, sorted, none of them a tuned expert.

    `frequency` is [layers, experts], in any unit of activation (only its order and distances within a layer count,
    and only for ``frequency``); `layers` gives the model's number of each row. ``frequency`` takes the tuned experts
    in a random order, and for each one of the `near` experts of its layer that are nearest in frequency and still
    free, each with the same chance; `frequency_gap` says how near the result came.

    The sets differ from one another as long as new ones turn up within `TRIES_FOR_A_NEW_SET` draws; a small model
    may not have `n_sets` of them, and then sets repeat (which leaves a permutation test valid). The same integer seed
    gives the same sets; a Generator is drawn from and moves on.

    Raises `DataError` when a layer has too few experts that are not tuned, or an argument does not fit the model.
    """
    if kind not in KINDS:
        raise DataError(f"There is no control '{kind}'.{nearest(kind, KINDS)}")
    if n_sets < 1:
        raise DataError(f"At least one set of random experts is needed, not {n_sets}.")
    if near < 1:
        raise DataError(f"A frequency control chooses among at least 1 near expert, not {near}.")
    frequency = np.asarray(frequency, dtype=np.float64)
    _check(tuned, frequency, layers)
    _check_room(kind, tuned, frequency.shape[1], layers)
    rng = np.random.default_rng(seed)
    seen: set[tuple[Expert, ...]] = set()
    sets: list[list[Expert]] = []
    for _ in range(n_sets):
        for _ in range(TRIES_FOR_A_NEW_SET):
            drawn = tuple(sorted(_draw(kind, tuned, frequency, layers, near, rng)))
            if drawn not in seen:
                break
        seen.add(drawn)
        sets.append(list(drawn))
    return sets


def frequency_gap(
    tuned: Sequence[Expert], drawn: Sequence[Expert], frequency: NDArray[Any], layers: Sequence[int]
) -> float:
    """Return how much less busy `drawn` is than `tuned`: mean frequency of the tuned minus mean of the drawn experts.

    In the unit of `frequency`. Distinctive experts are often the busiest of their layer; then no control can be as
    busy, this is positive, and the report should say so beside the control.
    """
    frequency = np.asarray(frequency, dtype=np.float64)
    _check(tuned, frequency, layers)
    _check(drawn, frequency, layers)
    row = {number: i for i, number in enumerate(layers)}
    ours = [frequency[row[layer], expert] for layer, expert in tuned]
    theirs = [frequency[row[layer], expert] for layer, expert in drawn]
    return float(np.mean(ours) - np.mean(theirs))


def _check(tuned: Sequence[Expert], frequency: NDArray[np.float64], layers: Sequence[int]) -> None:
    if frequency.ndim != 2 or frequency.shape[0] != len(layers):
        shape = list(frequency.shape)
        raise DataError(f"The activation frequency must have the shape [{len(layers)} layers, experts], not {shape}.")
    if not np.isfinite(frequency).all():
        raise DataError("The activation frequency holds values that are not finite.")
    if not tuned:
        raise DataError("There are no tuned experts to draw controls for.")
    if len(set(tuned)) != len(tuned):
        twice = next(expert for expert, count in Counter(tuned).items() if count > 1)
        raise DataError(f"The expert {twice} is listed twice.")
    for layer, expert in tuned:
        if layer not in layers:
            closest = min(layers, key=lambda number: abs(number - layer))
            raise DataError(f"Layer {layer} of expert {(layer, expert)} is no MoE layer; the nearest one is {closest}.")
        if not 0 <= expert < frequency.shape[1]:
            raise DataError(
                f"Expert {expert} of layer {layer} does not exist; experts are 0 to {frequency.shape[1] - 1}."
            )


def _check_room(kind: str, tuned: Sequence[Expert], experts: int, layers: Sequence[int]) -> None:
    """A control needs as many free experts as tuned ones: in the model, or in each layer."""
    if kind == "uniform":
        if 2 * len(tuned) > experts * len(layers):
            free = experts * len(layers) - len(tuned)
            raise DataError(f"{len(tuned)} tuned experts leave only {free} others to draw a control from; tune fewer.")
        return
    for layer, count in Counter(layer for layer, _ in tuned).items():
        if 2 * count > experts:
            raise DataError(
                f"Layer {layer} has {count} tuned experts of {experts}: too few are left for a '{kind}' control; "
                f"tune at most {experts // 2} a layer or use 'uniform'."
            )


def _draw(
    kind: str,
    tuned: Sequence[Expert],
    frequency: NDArray[np.float64],
    layers: Sequence[int],
    near: int,
    rng: np.random.Generator,
) -> list[Expert]:
    experts = frequency.shape[1]
    taken = set(tuned)
    if kind == "uniform":
        free = [(layer, expert) for layer in layers for expert in range(experts) if (layer, expert) not in taken]
        return [free[i] for i in rng.choice(len(free), size=len(tuned), replace=False)]
    if kind == "layers":
        drawn: list[Expert] = []
        for layer, count in sorted(Counter(layer for layer, _ in tuned).items()):
            open_ = [expert for expert in range(experts) if (layer, expert) not in taken]
            drawn += [(layer, open_[i]) for i in rng.choice(len(open_), size=count, replace=False)]
        return drawn
    drawn = []
    row = {number: i for i, number in enumerate(layers)}
    # In a random order, so that no tuned expert always has the first choice of the neighbours it shares with another.
    for i in rng.permutation(len(tuned)):
        layer, expert = tuned[i]
        rates = frequency[row[layer]]
        order = np.lexsort((np.arange(experts), np.abs(rates - rates[expert])))
        close = [int(other) for other in order if (layer, int(other)) not in taken][:near]
        chosen = (layer, close[rng.integers(len(close))])
        taken.add(chosen)
        drawn.append(chosen)
    return drawn
