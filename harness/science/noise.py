"""Noise floor: does a profile change the class's share more than sampling anew does?

The untouched model answers some prompts otherwise with another seed. `noise_floor` sets the tuned profile's answers
beside those of at least three retests (the untouched model, other seeds), on the same prompts.

The test. Where a profile does nothing, its run is one more retest: within each unit the runs could change places. So
each unit's tuned run is exchanged with each of its retests, in all units independently, and p is the share of these
(R + 1)^G arrangements in which the runs called tuned left the class at least as often. Prompts of a unit are kept
together, so whatever makes them alike within a run leaves the size at 5%; no law of large numbers is needed, which with
five units would be wanting (a cluster-robust t-test has 4 degrees of freedom, a sign test over five units can't go
below 1 / 32 and, against one retest, needs all five to agree). Three retests and five units have 1,024 arrangements.
The law of the sum is found exactly, by convolution over units. With one retest, this is the sign test of clusters.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mote.harness.preconditions import DataError
from mote.harness.science.splits import number_units

RETESTS: Final = 3
"""The fewest retests of a verdict: with 3, three units can reach 1 / 64."""


class NoiseFloor(NamedTuple):
    """A profile among its retests: shares of the class, and the exact one-sided p of the profile's being lower.

    `units` are those in which the runs differ at all; `least_p` is the smallest p that so many units and retests allow.
    """

    tuned: float
    retests: tuple[float, ...]
    p: float
    units: int
    least_p: float


def noise_floor(tuned: ArrayLike, retests: ArrayLike, units: Sequence[Hashable]) -> NoiseFloor:
    """Test whether `tuned` has the class less often than `retests`, by exchange of runs within units (see the module).

    `tuned` is [prompts], 1 where the answer has the class; `retests` [retests, prompts] the same of the untouched model
    with other seeds (the run that chose the prompts is none of them: prompts chosen for having the class there have it
    less often in every other run). `units` gives each prompt's unit, or the prompt itself where they are independent.
    Raises `DataError` without a retest, or where values are not 0 or 1.
    """
    ours = np.asarray(tuned, dtype=np.float64)
    theirs = np.asarray(retests, dtype=np.float64)
    if theirs.ndim != 2 or theirs.shape[0] < 1 or theirs.shape[1:] != ours.shape or ours.size == 0:
        raise DataError(
            f"The retests must have the shape [retests, {ours.size} prompts], not {list(theirs.shape)}; "
            "at least one retest and one prompt are needed."
        )
    if ours.size != len(units):
        raise DataError(f"There are {ours.size} prompts but {len(units)} units; give one unit a prompt.")
    runs = np.concatenate([ours[None], theirs])
    if not np.isin(runs, (0.0, 1.0)).all():
        raise DataError("The noise floor compares answers: 1 where one has the class, 0 where not.")
    at = number_units(units)
    # [units, runs]: how often each run left the class, the tuned one first.
    left = np.stack([np.bincount(at, weights=1.0 - run) for run in runs], axis=1).astype(np.int64)
    differ = (left != left[:, :1]).any(axis=1)
    least = float(np.prod((left == left.max(axis=1, keepdims=True)).mean(axis=1)))
    return NoiseFloor(
        float(ours.mean()), tuple(float(run.mean()) for run in theirs), exchange_p(left), int(differ.sum()), least
    )


def exchange_p(left: NDArray[np.int64]) -> float:
    """Return the chance that runs drawn one from each unit sum to at least what the first runs do.

    `left` is [units, runs]: how often each run left the class, the tuned one first. Exact, by convolution.
    """
    law = np.ones(1)
    above = 0  # by how much the first runs exceed the units' least ones: the law starts at those
    for unit in left:
        step = np.bincount(unit - unit.min()) / unit.size
        law = np.convolve(law, step)
        above += int(unit[0] - unit.min())
    return min(1.0, float(law[above:].sum()))
