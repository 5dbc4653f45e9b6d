"""Random experts as controls: profiles that should do nothing special, matched ever more closely to the tuned ones.

The paper compares ten distinctive experts with one draw of ten random ones (section 3.1). That leaves open whether
the layers matter, or how busy the experts are; so there are four kinds of draws, each with many sets:

- ``uniform``: any experts of any MoE layer;
- ``layers``: as many experts of each layer as the tuned ones have there;
- ``frequency``: for each tuned expert one of the same layer, chosen among those nearest in activation frequency;
- ``mass``: experts of the tuned ones' layers, as many as it takes until they are chosen as often in sum.

Tuned experts may be drawn, the tuned set itself is not: a permutation test asks how the tuned set ranks among all sets
of its kind, and a draw that shuns its members comes from another, tamer population (the busiest are missing).
Sets differ from one another; a model that has fewer than asked gives fewer.
"""

from __future__ import annotations

import math
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

ControlKind = Literal["uniform", "layers", "frequency", "mass"]
KINDS: Final[tuple[ControlKind, ...]] = get_args(ControlKind)

MOST_SETS: Final = 200
"""The most sets of a kind that a study draws: p can then reach 1 / 201, 0.005."""

NEAR: Final = 8
"""Among how many of the nearest in frequency a ``frequency`` control chooses: enough to draw many sets, few enough
to stay near (8 of 256 experts a layer are 3%)."""

MASS_TOLERANCE: Final = 0.05
"""The share by which a ``mass`` control may miss the tuned set's mass before another is tried."""

TRIES_FOR_MASS: Final = 50
TRIES_FOR_A_NEW_SET: Final = 500


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
    """Return up to `n_sets` distinct sets of random experts, each sorted, none of them the tuned set itself.

    `frequency` is [layers, experts], the mean activation map of the target class's choosing prompts (`target_mass`),
    in any unit (``uniform`` and ``layers`` do not read it); `layers` gives the model's number of each row. All kinds
    but ``mass`` have the tuned set's size. Tuned experts may be drawn (see the module).

    ``frequency`` takes the tuned experts in a random order, and for each one of the `near` experts of its layer that
    are nearest in frequency (itself among them) and still free, each with the same chance; `frequency_gap` says how
    near the result came. ``mass`` goes through the tuned set's layers in a random order; in each it draws experts
    without replacement, each in proportion to its mass, until their sum reaches the tuned ones' in that layer, and
    keeps or drops the last, whichever is nearer. What a layer misses is carried to the next. A set that misses the
    whole by more than `MASS_TOLERANCE` is drawn anew, up to `TRIES_FOR_MASS` times; then the nearest stands.

    Fewer than `n_sets` come back where `TRIES_FOR_A_NEW_SET` draws (a tenth of them by mass) give no new one: so many
    sets such a model has, and p is never below 1 / (sets + 1). A set drawn twice would be one answer counted twice, and
    with few sets that is a p-value the data can't give. The same integer seed gives the same sets; a Generator is drawn
    from and moves on.

    Raises `DataError` when the tuned set is the only one of its kind, or an argument does not fit the model.
    """
    if kind not in KINDS:
        raise DataError(f"There is no control '{kind}'.{nearest(kind, KINDS)}")
    if n_sets < 1:
        raise DataError(f"At least one set of random experts is needed, not {n_sets}.")
    if near < 1:
        raise DataError(f"A frequency control chooses among at least 1 near expert, not {near}.")
    frequency = np.asarray(frequency, dtype=np.float64)
    _check(tuned, frequency, layers)
    _check_kind(kind, tuned, frequency, layers)
    rng = np.random.default_rng(seed)
    seen: set[tuple[Expert, ...]] = {tuple(sorted(tuned))}
    sets: list[list[Expert]] = []
    # A draw by mass is itself the best of many.
    tries = TRIES_FOR_A_NEW_SET // 10 if kind == "mass" else TRIES_FOR_A_NEW_SET
    for _ in range(n_sets):
        for _ in range(tries):
            drawn = tuple(sorted(_draw(kind, tuned, frequency, layers, near, rng)))
            if drawn not in seen:
                break
        else:
            break
        seen.add(drawn)
        sets.append(list(drawn))
    return sets


def possible_sets(
    kind: Literal["uniform", "layers"], tuned: Sequence[Expert], experts: int, layers: Sequence[int]
) -> int:
    """Return how many sets of a kind there are beside the tuned one: what a permutation test can at most compare with.

    `experts` is the number of experts a layer. (How many ``frequency`` and ``mass`` sets there are is known only by
    drawing them.)
    """
    _check(tuned, np.zeros((len(layers), experts)), layers)
    if kind == "uniform":
        return math.comb(experts * len(layers), len(tuned)) - 1
    return math.prod(math.comb(experts, count) for count in Counter(layer for layer, _ in tuned).values()) - 1


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


def _check_kind(kind: str, tuned: Sequence[Expert], frequency: NDArray[np.float64], layers: Sequence[int]) -> None:
    """A control needs another set of its kind; one by mass needs masses."""
    experts = frequency.shape[1]
    if (kind == "uniform" and possible_sets("uniform", tuned, experts, layers) < 1) or (
        kind in ("layers", "frequency") and possible_sets("layers", tuned, experts, layers) < 1
    ):
        raise DataError(f"{len(tuned)} tuned experts are all that a '{kind}' control could draw; tune fewer.")
    if kind == "mass":
        if (frequency < 0).any():
            raise DataError("The activation frequency holds negative values; a 'mass' control needs activations.")
        row = {number: i for i, number in enumerate(layers)}
        if not sum(frequency[row[layer], expert] for layer, expert in tuned) > 0:
            raise DataError("The tuned experts are never chosen by these prompts: no set can be matched to their mass.")


def _draw(
    kind: str,
    tuned: Sequence[Expert],
    frequency: NDArray[np.float64],
    layers: Sequence[int],
    near: int,
    rng: np.random.Generator,
) -> list[Expert]:
    experts = frequency.shape[1]
    if kind == "mass":
        return _draw_by_mass(tuned, frequency, layers, rng)
    drawn: list[Expert] = []
    if kind == "uniform":
        flat = rng.choice(experts * len(layers), size=len(tuned), replace=False)
        return [(layers[i // experts], int(i % experts)) for i in flat]
    if kind == "layers":
        for layer, count in sorted(Counter(layer for layer, _ in tuned).items()):
            drawn += [(layer, int(i)) for i in rng.choice(experts, size=count, replace=False)]
        return drawn
    taken: set[Expert] = set()
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


def _draw_by_mass(
    tuned: Sequence[Expert], mass: NDArray[np.float64], layers: Sequence[int], rng: np.random.Generator
) -> list[Expert]:
    """The nearest of some draws to the tuned set's mass; the first that is near enough."""
    row = {number: i for i, number in enumerate(layers)}
    wanted: dict[int, float] = {}
    for layer, expert in tuned:
        wanted[layer] = wanted.get(layer, 0.0) + float(mass[row[layer], expert])
    total = sum(wanted.values())
    # By layer: its number, what is wanted of it, the experts that are ever chosen and their masses.
    rows = []
    for layer, want in sorted(wanted.items()):
        there = np.flatnonzero(mass[row[layer]] > 0)
        rows.append((layer, want, there, mass[row[layer], there]))
    best: list[Expert] = []
    miss = math.inf
    for _ in range(TRIES_FOR_MASS):
        drawn: list[Expert] = []
        left = 0.0  # of the mass wanted in the layers so far
        for at in rng.permutation(len(rows)):
            layer, want, there, masses = rows[at]
            left += want
            picked, got = _reach(masses, left, rng)
            drawn += [(layer, int(expert)) for expert in there[picked]]
            left -= got
        if drawn and abs(left) < miss:
            best, miss = drawn, abs(left)
        if miss <= MASS_TOLERANCE * total:
            break
    return best or list(tuned)


def _reach(mass: NDArray[np.float64], wanted: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], float]:
    """Places in `mass`, drawn in proportion to it, whose sum is nearest to `wanted`; and that sum."""
    if wanted <= 0:
        return np.zeros(0, dtype=np.int64), 0.0
    # The smallest of exponential variables with these rates: a draw in proportion to them, without replacement.
    order = (rng.exponential(size=mass.size) / mass).argsort()
    sums = mass[order].cumsum()
    stop = int(sums.searchsorted(wanted))
    below = float(sums[stop - 1]) if stop else 0.0
    if stop < mass.size and float(sums[stop]) - wanted <= wanted - below:
        return order[: stop + 1], float(sums[stop])
    return order[:stop], below
