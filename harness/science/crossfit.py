"""Cross-fitting: choose experts on A and measure on B, and the reverse, and pool what was measured.

A split in halves measures on half of the prompts. Each fold of `splits.stratified_folds` or `grouped_folds` chooses its
own experts and has its own random sets; no prompt is measured under experts that it helped to choose, and every prompt
is measured once. The folds' tuned sets differ: the result is about the way of choosing, not about one set.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mote.harness.preconditions import DataError, check_unique
from mote.harness.science.clustered import NetEffect, net_effect
from mote.harness.science.controls import ControlKind, Expert, random_experts
from mote.harness.science.dose import layer_thirds
from mote.harness.science.splits import Split, grouped_half


class FoldRows(NamedTuple):
    """What one fold measured: its prompts, and whether each has the class before and under the fold's tuned set."""

    prompt_ids: Sequence[str]
    before: ArrayLike
    after: ArrayLike


def both_ways(split: Split) -> list[Split]:
    """Return a split and its reverse: the two folds of a cross-fitted half."""
    return [split, Split(select=split.measure, measure=split.select)]


def grouped_folds(
    prompt_ids: Sequence[str], groups: Sequence[Hashable], labels: Sequence[str], seed: int
) -> list[Split]:
    """Return the two folds of a cross-fitted split that shares no group (see `splits.grouped_half`)."""
    return both_ways(grouped_half(prompt_ids, groups, labels, seed))


def pooled_effect(folds: Sequence[FoldRows], units: Mapping[str, Hashable] | None, level: float = 0.95) -> NetEffect:
    """Return the net effect over the measured prompts of all folds, clustered by unit (default: each prompt).

    A unit whose prompts lie in several folds stays one unit. The interval takes the folds' choices as given: that they
    were chosen on each other's prompts makes them depend on one another a little, which no simple interval counts.
    Raises `DataError` for a prompt measured twice with different seeds kept apart (give each prompt once).
    """
    ids = [name for fold in folds for name in fold.prompt_ids]
    check_unique(ids, "measured prompt")
    before, after = (
        np.concatenate([np.asarray(values, dtype=np.float64).ravel() for values in side]) if folds else np.zeros(0)
        for side in ([fold.before for fold in folds], [fold.after for fold in folds])
    )
    return net_effect(before, after, ids if units is None else [units[name] for name in ids], level)


def pooled_null(observed: Mapping[str, float], null: Mapping[str, ArrayLike]) -> tuple[float, NDArray[np.float64]]:
    """Return the flips of all folds' tuned sets, and those of their random sets joined: the n-th of each fold.

    `observed` and `null` hold flips (counts, not shares: folds differ in size) by fold. The random sets of a fold are
    drawn independently of another's, so joining them by number is a draw of both; there are as many joined sets as
    the fold with the fewest has. For `verdict.control_leg`.
    """
    if not observed or set(observed) != set(null):
        raise DataError(f"The folds {sorted(observed)} have random sets in {sorted(null)}; each fold needs its own.")
    arrays = [np.asarray(null[fold], dtype=np.float64).ravel() for fold in observed]
    fewest = min(array.size for array in arrays)
    if fewest < 1:
        raise DataError("Each fold needs at least one random set.")
    return float(sum(observed.values())), np.sum([array[:fewest] for array in arrays], axis=0)


def third_controls(
    kind: ControlKind,
    tuned: Sequence[Expert],
    mass: NDArray[Any],
    layers: Sequence[int],
    n_sets: int,
    seed: int,
) -> dict[str, list[list[Expert]]]:
    """Return random sets for the tuned experts of each third of the layers (`dose.layer_thirds`), by third.

    Each third is a profile with controls of its own: of its layers, its number of experts or its mass. Thirds without
    a tuned expert are left out. Each third has its own stream.
    """
    found = {}
    for at, (name, experts) in enumerate(layer_thirds(tuned, layers).items()):
        if experts:
            found[name] = random_experts(kind, experts, mass, layers, n_sets, np.random.default_rng([seed, at]))
    return found
