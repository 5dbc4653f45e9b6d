"""``mote scan RUN --method halving``: all experts on a few prompts, the better part on further ones, the last on all.

Prompts, openings, the edit and the finalists' measure are those of the full scan (``scan.py``). Until few are left an
expert is screened by the prompt's own opening alone (``science.halving``); prompts come in turn from every unit. Passes
that would change nothing are not made, and which those are is known from the untouched passes, so that the schedule is
planned on what it really costs. Every pass is stored as it comes and all that is asked next follows from the store: the
same command goes on, and a larger budget goes further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from mote.harness.engine.servers import engine_starter
from mote.harness.engine.trust import NOTHING_OWN, Own
from mote.harness.errors import MoteError
from mote.harness.experts.scan import (
    OpenScan,
    ScanOptions,
    Tokeniser,
    in_turn,
    look_untouched,
    open_scan,
)
from mote.harness.experts.stages import EnoughError, Stages, check_stages
from mote.harness.preconditions import DataError
from mote.harness.science.causal import Measurement
from mote.harness.science.controls import Expert
from mote.harness.science.halving import Schedule, own_logit, plan_halving
from mote.harness.science.openings import MASS
from mote.harness.store.scans import StoredScan
from mote.harness.study.session import StartsEngine


@dataclass(frozen=True)
class HalvingOptions:
    """``budget`` as a share of the full scan's passes; ``leading``: how many experts are measured on all prompts."""

    budget: float = 0.1
    leading: int = 30

    def __post_init__(self) -> None:
        """Raise MoteError for what can't be."""
        if self.leading < 1:
            raise MoteError(f"--leading {self.leading}: at least one expert has to be measured on all prompts.")


class HalvingScan(NamedTuple):
    """What a scan by halving found.

    ``table`` has a row an expert, best first: layer, expert, screened (on so many prompts, by their own openings), fall
    (there, the mean of the own opening's log-odds), prompts (measured on so many, by all telling openings), complete,
    effect, low, high (95%, paired t), p_alone. ``made`` are the forward passes, of ``full`` of the full scan;
    ``shared`` is as in ``group_scan.GroupScan``.
    """

    scan: StoredScan
    table: pd.DataFrame
    made: int
    full: int
    finished: bool
    shared: int | None = None


def halving_scan_run(
    folder: Path,
    options: ScanOptions,
    halving: HalvingOptions,
    console: Console,
    *,
    max_passes: int | None = None,
    engine: StartsEngine = engine_starter,
    own: Own = NOTHING_OWN,
    first_tokens: Tokeniser | None = None,
) -> HalvingScan:
    """Scan a run's experts by halving, or go on with it. Says its cost before it starts.

    Raises MoteError (DataError) for what is wrong with the run, the options or the engine, and for a budget that does
    not pay for one prompt a round.
    """
    check_stages("halving", options, halving.budget)
    further = {"mass": MASS}
    with open_scan(folder, options, console, further, engine=engine, own=own, first_tokens=first_tokens) as opened:
        work = _Work(opened, halving, max_passes)
        work.announce()
        try:
            work.go()
        except EnoughError:
            return work.result(finished=False)
        return work.result(finished=True)


class _Work(Stages):
    """The untouched model, the rounds, the finalists."""

    def __init__(self, opened: OpenScan, halving: HalvingOptions, max_passes: int | None) -> None:
        super().__init__(opened, max_passes)
        self.finalists = min(halving.leading, len(self.all))
        self.budget = int(halving.budget * self.scan.plan.cost)
        self.order = in_turn(self.prompts, self.halves.units, self.scan.settings["seed"])

    def announce(self) -> None:
        """Say what the scan costs at most."""
        full = self.scan.plan.cost
        self.session.console.print(
            f"Scan by halving: at most {self.budget:,} forward passes, {self.budget / full:.0%} of the full scan's"
            f" {full:,}",
            soft_wrap=True,
        )

    def go(self) -> None:
        """Measure round after round, then the finalists. Raises EnoughError where this start's passes are used up."""
        self.singles([(None, self.prompts)], "Untouched", range(self.scan.plan.openings))
        schedule = self._plan()
        left = list(self.all)
        for number, one in enumerate(schedule.rounds, start=1):
            left = self._best(left, self.order[: one.first], one.experts)
            what = f"Round {number} of {len(schedule.rounds)}"
            self.singles([(expert, self.order[one.first : one.end]) for expert in left], what, [0])
        seen = self.order[: schedule.rounds[-1].end] if schedule.rounds else []
        finalists = self._best(left, seen, schedule.finalists)
        self.singles([(expert, self.prompts) for expert in finalists], "Finalists")

    def result(self, *, finished: bool) -> HalvingScan:
        """Put together what is stored by now."""
        table = pd.DataFrame(self.all, columns=["layer", "expert"])
        if finished:
            falls = self._falls()
            table["screened"] = falls.count(axis=1).reindex(self.all, fill_value=0).to_numpy()
            table["fall"] = falls.mean(axis=1).reindex(self.all).to_numpy()
            table = table.merge(self.alone(), on=["layer", "expert"], how="left").fillna({"prompts": 0})
            table["complete"] = table["prompts"] == len(self.prompts)
            # An expert that left early was worse than those that stayed, whatever its few prompts say.
            columns = ["effect", "screened", "fall"]
            table = table.sort_values(columns, ascending=False, na_position="last", kind="stable")
        table = table.reset_index(drop=True)
        shared = self.shared(table) if finished else None
        made = self.scans.made(self.scan_id)
        return HalvingScan(self.opened.stored, table, made, self.scan.plan.cost, finished, shared)

    def _plan(self) -> Schedule:
        untouched = len(self.prompts) * self.scan.plan.openings
        openings = [len(self.telling[key]) for key in self.order]
        try:
            schedule = plan_halving(self.budget - untouched, self._choosing(), openings, len(self.all), self.finalists)
        except DataError as error:
            fewer = "a larger --budget, or fewer finalists with --leading, goes on from here"
            raise MoteError(f"Beside the {untouched:,} untouched passes, {error}"[:-1] + f"; {fewer}.") from None
        rounds = ", ".join(f"{one.experts:,} on {one.end - one.first}" for one in schedule.rounds)
        self.session.console.print(
            f"Experts and prompts of the rounds: {rounds}; then {schedule.finalists} on all {len(self.prompts)}:"
            f" at most {untouched + schedule.passes:,} passes",
            soft_wrap=True,
        )
        return schedule

    def _choosing(self) -> list[int]:
        """Return how many experts the tokens of each prompt with its own opening choose, in the order of the rounds."""
        missing = [Measurement(key, None, 0) for key in self.order if (key, 0) not in self.known]
        for some in look_untouched(self.opened, missing):
            self.known.update({(each.row.measurement.prompt_id, 0): each for each in some})
        chosen = [self.known[key, 0].chosen for key in self.order]
        return [len(self.all) if one is None else len(one) for one in chosen]

    def _best(self, experts: Sequence[Expert], prompts: Sequence[str], count: int) -> list[Expert]:
        """Return the experts with the largest mean falls on these prompts alone, whatever else is measured by now."""
        if count >= len(experts):
            return list(experts)
        means = self._falls().reindex(columns=list(prompts)).loc[list(experts)].mean(axis=1)
        return [experts[at] for at in (-means.to_numpy()).argsort(kind="stable")[:count]]

    def _falls(self) -> pd.DataFrame:
        """Return the falls of the own openings' log-odds, a row an expert and a column a prompt; nan: not measured."""
        scores = self.scans.own_scores(self.scan_id)
        scores["logit"] = own_logit(scores["logprob"])
        plain = scores[scores["layer"].isna()].set_index("prompt_id")["logit"]
        edited = scores[scores["layer"].notna()].astype({"layer": int, "expert": int})
        wide = edited.pivot(index=["layer", "expert"], columns="prompt_id", values="logit")
        return -wide.sub(plain.reindex(wide.columns), axis=1)
