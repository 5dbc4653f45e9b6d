"""Write results/verdict/README.md: the verdict held against worlds whose truth is known.

    python -m tests.harness.science.verdict_table [studies] > results/verdict/README.md

Everything is made up by `worlds` from fixed seeds: no model runs. 200 studies a world take some ten minutes
of one core.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing import Pool
from typing import NamedTuple

import numpy as np

from mote.harness.science.clustered import korn_graubard, net_effect
from mote.harness.science.inference import clopper_pearson
from tests.harness.science.worlds import NULL_WORLDS, SPECIAL, World, foretold, judge, make

REPEATS = 20


class Cell(NamedTuple):
    """A kind of study for the intervals: 60 target prompts and 60 others in `units`, equal or growing in size."""

    units: int
    unequal: bool
    icc: float
    share: float
    reverse: float


def interval_cells() -> Iterator[Cell]:
    """Yield all cells."""
    for units in (5, 8, 14):
        for unequal in (False, True):
            for icc in (0.0, 0.2, 0.5):
                for share in (0.02, 0.05, 0.15, 0.3, 0.5):
                    for reverse in (0.0, 0.02):
                        yield Cell(units, unequal, icc, share, reverse)


def coverage(cell: Cell, studies: int) -> tuple[float, float]:
    """Return how often the intervals of the flip share and of the net effect hold the truth."""
    rng = np.random.default_rng([int(1000 * float(value)) for value in cell])
    weight = np.arange(1, cell.units + 1) if cell.unequal else np.ones(cell.units)
    at = np.repeat(np.arange(cell.units), np.maximum(1, np.round(60 * weight / weight.sum()).astype(int)))
    units, both = at.tolist(), [*at.tolist(), *at.tolist()]
    before = np.repeat([1.0, 0.0], at.size)
    size = 1 / cell.icc - 1 if cell.icc else 0.0
    single = net = 0
    for _ in range(studies):
        left, entered = (
            rng.random(at.size)
            < (rng.beta(rate * size, (1 - rate) * size, cell.units) if size and rate else np.full(cell.units, rate))[at]
            for rate in (cell.share, cell.reverse)
        )
        one = korn_graubard(left.astype(float), units)
        single += one.low <= cell.share <= one.high
        effect = net_effect(before, np.concatenate([~left, entered]).astype(float), both)
        net += effect.low <= (cell.share - cell.reverse) / 2 <= effect.high
    return single / studies, net / studies


def _world(task: tuple[World, int]) -> str:
    world, studies = task
    kinds: Counter[str] = Counter()
    legs: Counter[str] = Counter()
    for seed in range(studies):
        found = judge(make(world, seed), seed)
        kinds[found.kind] += 1
        for leg in found.legs:
            legs[leg.kind] += leg.p <= 0.05
    low, high = clopper_pearson(kinds["above"], studies)
    other = ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()) if name not in ("above", "not-above"))
    return (
        f"| {world.name} | {kinds['above'] / studies:.1%} ({low:.1%} to {high:.1%}) | {world.bound:.0%} "
        f"| {legs['mass'] / studies:.1%} | {legs['layers'] / studies:.1%} | {other} |"
    )


def _power(task: tuple[World, int]) -> str:
    world, studies = task
    said, found, shares = [], [], []
    for seed in range(studies):
        made = make(world, seed)
        said.append(foretold(made, seed, simulations=400).power)
        found += [judge(made, 1000 * seed + again).kind == "above" for again in range(REPEATS)]
        shares.append(float(made.chance(made.tuned).mean()))
    each = np.array(found).reshape(studies, REPEATS).mean(axis=1)
    worst = float(np.abs(each - said).max())
    return (
        f"| {world.name} | {np.mean(shares):.1%} | {np.mean(said):.1%} | {np.mean(found):.1%} "
        f"| {np.mean(found) - np.mean(said):+.1%} | {worst:.0%} |"
    )


def _cells(task: tuple[Sequence[Cell], int]) -> tuple[float, float, Cell]:
    cells, studies = task
    found = [(*coverage(cell, studies), cell) for cell in cells]
    return min(one for one, _, _ in found), *min((net, cell) for _, net, cell in found)


def main(studies: int = 200) -> None:
    """Print the page."""
    groups: dict[tuple[int, bool, float], list[Cell]] = {}
    for cell in interval_cells():
        groups.setdefault((cell.units, cell.unequal, cell.icc), []).append(cell)
    with Pool(os.cpu_count()) as pool:
        worlds = pool.map(_world, [(world, studies) for world in NULL_WORLDS], chunksize=1)
        powers = pool.map(_power, [(world, max(studies // 10, 4)) for world in SPECIAL], chunksize=1)
        covered = pool.map(_cells, [(cells, 5 * studies) for cells in groups.values()], chunksize=1)
    print(_HEAD.format(studies=studies))
    print("\n".join(worlds))
    print(_POWER.format(studies=max(studies // 10, 4), repeats=REPEATS))
    print("\n".join(powers))
    print(_COVERAGE.format(studies=5 * studies))
    for (units, unequal, icc), (single, net, cell) in zip(groups, covered, strict=True):
        sizes = "unequal" if unequal else "equal"
        print(f"| {units}, {sizes} | {icc:g} | {single:.1%} | {net:.1%} | {cell.share:.0%}, {cell.reverse:.0%} |")


_HEAD = """# The verdict in worlds whose truth is known

Made by `python -m tests.harness.science.verdict_table {studies} > results/verdict/README.md`, from fixed seeds.

No expert is special in these worlds: a suppressed expert does harm by being chosen, each by a constant of its own that
does not depend on the class (`tests/harness/science/worlds.py` has the formula). "Above" is wrong in all of them.
{studies} studies a world, each with 50 sets of either decisive kind and three retests; intervals are exact, 95%.

| world | "above" | bound | beyond the mass-matched sets alone | beyond same-layer sets alone | other verdicts |
| --- | --- | --- | --- | --- | --- |"""

_POWER = """
## Power

The planted experts do more harm than others, so "above" is right. Foretold by `power` from the true shares of the tuned
set and of random sets; found in {repeats} repetitions of each of {studies} studies (controls and answers anew).
The share found in a single study has a standard error of up to 11 points.

| world | true share | foretold | found | difference | most in one study |
| --- | --- | --- | --- | --- | --- |"""

_COVERAGE = """
## Intervals

60 target prompts and 60 others in few units; the lowest coverage of the nominal 95% over flip shares of 2, 5, 15, 30
and 50% and reverse flips of 0 and 2%, {studies} studies a cell.

| units | ICC | a share (Korn-Graubard), lowest | net effect, lowest | at flips, reverse |
| --- | --- | --- | --- | --- |"""


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:]))
