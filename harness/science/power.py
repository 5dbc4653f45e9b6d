"""Power before cost: how likely a study of a given size is to say "above", and the least effect that it finds.

By simulation with a fixed seed, of the very tests that decide (`verdict`): flips of the tuned set against those of
random sets of every kind, and the noise floor. Within a unit flips are alike by the intraclass correlation `icc`
(each unit has a rate of its own, Beta-distributed around the run's share).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mote.harness.preconditions import DataError
from mote.harness.science.noise import RETESTS, exchange_p
from mote.harness.science.verdict import ALPHA, PROMPTS, UNITS

NULL_GUESS: Final = (0.5, 19.5)
"""A guess of how the flip shares of random sets are spread, before any is seen: Beta, mean 2.5%, a tenth above 7%.
(Of the demo's 150 sets of ten experts the mean is 2.2%, a tenth are above 5%, the largest is 27%.)"""

SIMULATIONS: Final = 2000


class Study(NamedTuple):
    """The size of a study: target prompts by unit, random sets of each kind, retests.

    `nulls` are the shares that random sets flip in truth, one tuple a kind or one for all kinds, drawn from with
    replacement; none for `NULL_GUESS`. `noise` is the share that sampling anew flips.
    """

    unit_sizes: tuple[int, ...]
    sets: tuple[int, ...]
    retests: int = RETESTS
    noise: float = 0.03
    icc: float = 0.0
    nulls: tuple[tuple[float, ...], ...] = ()


class Power(NamedTuple):
    """The chance of "above" with its Monte Carlo standard error; `controls` and `floor` are the legs' own chances."""

    power: float
    error: float
    controls: float
    floor: float


def even_units(prompts: int, units: int) -> tuple[int, ...]:
    """Return the sizes of `units` units that share out `prompts` prompts as evenly as can be."""
    if not 1 <= units <= prompts:
        raise DataError(f"{prompts} target prompts can't come in {units} units.")
    return tuple(prompts // units + (at < prompts % units) for at in range(units))


def power(study: Study, share: float, *, alpha: float = ALPHA, simulations: int = SIMULATIONS, seed: int = 0) -> Power:
    """Return the chance that a study whose tuned experts flip `share` in truth says "above".

    0 for a study below the least number of prompts or units. Raises `DataError` where a number does not fit.
    """
    _check(study, share)
    sizes = np.array(study.unit_sizes)
    if sizes.sum() < PROMPTS or sizes.size < UNITS:
        return Power(0.0, 0.0, 0.0, 0.0)
    # One stream a part, so that another share or fewer sets leave the other draws as they were.
    streams = [np.random.default_rng([seed, part]) for part in range(3)]
    ours = _flips(np.full(simulations, share), sizes, study.icc, streams[0])
    beats = np.ones(simulations, dtype=bool)
    total = ours.sum(axis=1)
    for kind, count in enumerate(study.sets):
        truth = _null(study, kind, simulations * count, streams[1])
        theirs = _flips(truth, sizes, study.icc, streams[1]).sum(axis=1).reshape(simulations, count)
        beats &= 1 + (theirs >= total[:, None]).sum(axis=1) <= alpha * (1 + count) + 1e-9
    floor = _floor(study, ours, sizes, alpha, streams[2])
    found = float((beats & floor).mean())
    return Power(found, math.sqrt(found * (1 - found) / simulations), float(beats.mean()), float(floor.mean()))


def chance_of(needed: int, unit_sizes: Sequence[int], share: float, icc: float = 0.0) -> float:
    """Return the chance of at least `needed` flips, exactly: what a study can do against random sets already seen.

    With all random sets at hand the flips needed are known: with 50 sets, one more than the second highest flips.
    Flips of a unit are beta-binomial with mean `share` and correlation `icc` within it.
    """
    if not 0 <= share <= 1 or not 0 <= icc < 1:
        raise DataError(f"A share and a correlation lie between 0 and 1, not {share} and {icc}.")
    law = np.ones(1)
    if icc == 0 or share in (0.0, 1.0):
        return float(stats.binom.sf(needed - 1, sum(unit_sizes), share))
    size = 1 / icc - 1
    for count in unit_sizes:
        law = np.convolve(law, stats.betabinom.pmf(np.arange(count + 1), count, share * size, (1 - share) * size))
    return float(law[max(needed, 0) :].sum())


def least_effect(
    study: Study, wanted: float = 0.8, *, alpha: float = ALPHA, simulations: int = 1000, seed: int = 0
) -> float:
    """Return the smallest true share (to half a point) that is found with the chance `wanted`; nan where none is."""
    if not 0 < wanted < 1:
        raise DataError(f"The wanted power lies between 0 and 1, for instance 0.8, not {wanted}.")
    low, high = 0.0, 1.0
    if power(study, high, alpha=alpha, simulations=simulations, seed=seed).power < wanted:
        return math.nan
    while high - low > 0.005:
        middle = (low + high) / 2
        enough = power(study, middle, alpha=alpha, simulations=simulations, seed=seed).power >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def _check(study: Study, share: float) -> None:
    if not 0 <= share <= 1 or not 0 <= study.noise <= 1:
        raise DataError(f"Shares lie between 0 and 1, not {share} and {study.noise}.")
    if not 0 <= study.icc < 1:
        raise DataError(f"The correlation within a unit lies from 0 to below 1, not {study.icc}.")
    if not study.unit_sizes or min(study.unit_sizes) < 1 or not study.sets or min(study.sets) < 1 or study.retests < 1:
        raise DataError("A study needs units of at least one prompt, random sets of at least one kind, and a retest.")
    if len(study.nulls) not in (0, 1, len(study.sets)) or not all(study.nulls):
        raise DataError(f"{len(study.sets)} kinds of random sets have {len(study.nulls)} laws; give one, or one each.")


def _null(study: Study, kind: int, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    if not study.nulls:
        return rng.beta(*NULL_GUESS, count)
    return rng.choice(np.array(study.nulls[kind if len(study.nulls) > 1 else 0]), count)


def _rates(shares: NDArray[np.float64], units: int, icc: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Each run's rate in each unit, [runs, units]."""
    wide = np.repeat(shares[:, None], units, axis=1)
    if icc == 0:
        return wide
    size = 1 / icc - 1
    inside = np.clip(wide, 1e-12, 1 - 1e-12)
    return np.where((wide > 0) & (wide < 1), rng.beta(inside * size, (1 - inside) * size), wide)


def _flips(
    shares: NDArray[np.float64], sizes: NDArray[np.int64], icc: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    return np.asarray(rng.binomial(sizes, _rates(shares, sizes.size, icc, rng)), dtype=np.int64)


def _floor(
    study: Study,
    ours: NDArray[np.int64],
    sizes: NDArray[np.int64],
    alpha: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Whether each simulated run is above the noise floor; retests are the same model, so they share units' rates."""
    rates = _rates(np.full(ours.shape[0], study.noise), sizes.size, study.icc, rng)
    retests = rng.binomial(sizes[None, None], np.repeat(rates[:, None], study.retests, axis=1))
    runs = np.concatenate([ours[:, None], retests], axis=1).swapaxes(1, 2)
    return np.array([exchange_p(run) <= alpha for run in runs])


def spread(values: ArrayLike, sizes: Sequence[int]) -> tuple[float, ...]:
    """Return what `Study.nulls` takes from the flip counts of random sets seen: shares shrunk to their binomial noise.

    Counts of a few prompts vary by chance beside the sets' own differences; taken as true shares they would be drawn
    with that noise twice. Each share is drawn towards the mean so that the spread left is the sets' own.
    """
    counts = np.asarray(values, dtype=np.float64)
    total = float(sum(sizes))
    shares = counts / total
    mean, seen = float(shares.mean()), float(shares.var(ddof=1)) if shares.size > 1 else 0.0
    noise = mean * (1 - mean) / total
    kept = math.sqrt(max(0.0, 1 - noise / seen)) if seen > 0 else 0.0
    return tuple(float(value) for value in np.clip(mean + kept * (shares - mean), 0.0, 1.0))
