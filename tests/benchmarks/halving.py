"""What a scan by halving finds of a full scan, over many orders of the prompts, read off the full scan's passes.

    python -m tests.benchmarks.halving RUN [--orders 200]

RUN has a scan of all experts (`mote scan RUN --experts all`). Each row: a budget, as a share of the full scan's passes,
and how many finalists; the passes that would be made (their mean share); how many of the full scan's top 20 are found
(mean, least, most); the shares of the orders that find 16 and 18.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.experts.agreement import falls_of
from mote.harness.experts.stages import TOP
from mote.harness.preconditions import DataError
from mote.harness.recipe.manifest import read_manifest
from mote.harness.science.causal import scan_margins
from mote.harness.science.halving import own_logit, plan_halving
from mote.harness.science.openings import MASS, telling_openings
from mote.harness.store.run import RunStore
from mote.harness.store.scans import Scans

Floats = NDArray[np.float64]


class Full(NamedTuple):
    """A full scan: falls of the margin and of the own opening's log-odds and whether tokens chose [prompts, experts],
    telling openings of each prompt, and all openings."""

    falls: Floats
    screened: Floats
    chosen: NDArray[np.bool_]
    telling: NDArray[np.int64]
    openings: int


def read_full(folder: Path) -> Full:
    """Read a run's largest scan of all experts."""
    layout = read_manifest(folder)["model"]["layout"]
    layers, experts = tuple(layout["layers"]), int(layout["experts"])
    with RunStore(folder, read_only=True) as store:
        scans = Scans(store)
        scan = max((one for one in scans.scans() if not one.telling_only), key=lambda one: one.passes)
        scores = scans.scores(scan.scan_id)
    found = scan_margins(scores, scan.openings)
    prompts = list(found.untouched.index)
    own = scores[scores["opening"] == 0].assign(logit=lambda frame: own_logit(frame["logprob"]))
    plain = own[own["layer"].isna()].set_index("prompt_id")["logit"]
    edited = own[own["layer"].notna()].astype({"layer": int, "expert": int})
    every = pd.MultiIndex.from_product([layers, range(experts)], names=["layer", "expert"])

    def wide(values: str) -> pd.DataFrame:
        return edited.pivot(index="prompt_id", columns=["layer", "expert"], values=values).loc[prompts, every]

    telling = telling_openings(scores[scores["layer"].isna()], scan.openings, MASS)
    return Full(
        falls_of(found, layers, experts).reshape(len(prompts), -1),
        plain[prompts].to_numpy(dtype=float)[:, None] - wide("logit").to_numpy(dtype=float),
        wide("selected").to_numpy() > 0,
        np.array([len(telling[key]) for key in prompts]),
        scan.openings,
    )


def replay(full: Full, order: NDArray[np.int64], budget: float, finalists: int) -> tuple[float, int]:
    """Return the passes that halving makes, as a share of the full scan's, and how many of its top 20 it finds."""
    screened, chosen, telling = full.screened[order], full.chosen[order], full.telling[order]
    prompts, experts = screened.shape
    all_passes, untouched = (experts + 1) * prompts * full.openings, prompts * full.openings
    counts = [int(count) for count in chosen.sum(axis=1)]
    schedule = plan_halving(int(budget * all_passes) - untouched, counts, [int(n) for n in telling], experts, finalists)
    left, made = np.arange(experts), untouched
    for one in schedule.rounds:
        left = _best(left, screened[: one.first], one.experts)
        made += int(chosen[one.first : one.end][:, left].sum())
    seen = schedule.rounds[-1].end
    left = _best(left, screened[:seen], finalists)
    made += int((chosen[:, left] * telling[:, None]).sum() - chosen[:seen][:, left].sum())
    best = _best(left, full.falls, TOP)
    return made / all_passes, len(set(best) & set(_best(np.arange(experts), full.falls, TOP)))


def _best(left: NDArray[np.int64], falls: Floats, count: int) -> NDArray[np.int64]:
    if count >= len(left):
        return left
    return left[np.argsort(-falls[:, left].mean(axis=0), kind="stable")[:count]]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--orders", type=int, default=200)
    options = parser.parse_args()
    full = read_full(options.run)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(full.falls)) for _ in range(options.orders)]
    print("| budget | finalists | passes | mean | least to most | 16 or more | 18 or more |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for budget in (0.05, 0.06, 0.075, 0.1, 0.15):
        for finalists in (22, 30):
            try:
                made, shared = np.array([replay(full, order, budget, finalists) for order in orders]).T
            except DataError as error:
                print(f"| {budget:.1%} | {finalists} | {error} |")
                continue
            print(
                f"| {budget:.1%} | {finalists} | {made.mean():.1%} | {shared.mean():.1f} | {shared.min():.0f} to"
                f" {shared.max():.0f} | {(shared >= 16).mean():.0%} | {(shared >= 18).mean():.0%} |"
            )


if __name__ == "__main__":
    main()
