"""``mote scan RUN --method groups``: masks of many experts at once, then the leading experts alone, on the real engine.

Prompts, openings and the measure are those of the full scan (``scan.py``); what differs is how passes are spent
(``group_plan``), and that after a prompt only its telling openings are scored (``openings``). Every pass is stored
as it comes. All that is asked next follows from what is stored, so the same command goes on, and a larger budget goes
further: its masks are the same ones and further ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from mote.harness.engine.servers import engine_starter
from mote.harness.engine.trust import NOTHING_OWN, Own
from mote.harness.engine.vllm import Scored, Scoring
from mote.harness.errors import MoteError
from mote.harness.experts.scan import (
    OpenScan,
    ScanOptions,
    Tokeniser,
    open_scan,
    spread,
)
from mote.harness.experts.stages import EnoughError, Stages, check_stages
from mote.harness.progress import step
from mote.harness.science.causal import margins, scan_margins
from mote.harness.science.controls import Expert
from mote.harness.science.group_plan import LOOKS, mask_rounds, plan_singles
from mote.harness.science.group_testing import GroupEffects, Masks, check_share, draw_masks, group_effects, pair_falls
from mote.harness.science.openings import MASS
from mote.harness.store.scans import MaskMeasurement, MaskRow, StoredScan, mask_text
from mote.harness.study.session import StartsEngine
from mote.patches import Edit, ModelLayout, Profile

PAIR_P: Final = 0.05
"""Pairs up to this family-wise p are measured: both off, and each alone."""
MEASURED_PAIRS: Final = 3
FEW_MASKS: Final = 5
"""Masks an expert is in, on average, below which a scan says that it tells little. 1.5 found 6 of a full scan's top 20
(results/demo-models/group-scan-smollm.md)."""


@dataclass(frozen=True)
class GroupOptions:
    """``share`` of all experts in a mask, ``budget`` as a share of the full scan's passes, false discovery ``rate``.

    ``leading``: how many experts are measured alone on all prompts, at most.
    """

    share: float = 0.02
    budget: float = 0.1
    rate: float = 0.1
    leading: int = 30

    def __post_init__(self) -> None:
        """Raise MoteError for what can't be."""
        check_share(self.share)
        if not 0 < self.rate < 1:
            raise MoteError(f"--rate {self.rate:g}: a false discovery rate lies between 0 and 1.")


class GroupScan(NamedTuple):
    """What a group scan found.

    ``table`` has a row an expert, best first: layer, expert, masks (that held it), in_masks (effect), p and q (masks),
    prompts (measured alone on so many), complete, effect, low, high (95%, paired t), p_alone. ``pairs``: first, second
    (as (layer, expert)), masks, excess, p, and for those measured prompts, alone_first, alone_second, together, beyond
    (their sum), low, high. ``full`` is the number of passes of the full scan; ``shared`` how many of its top ``TOP``
    are among the top ``TOP`` here, where the run has that scan of the same prompts and openings.
    """

    scan: StoredScan
    table: pd.DataFrame
    pairs: pd.DataFrame
    full: int
    finished: bool
    shared: int | None = None


def group_scan_run(
    folder: Path,
    options: ScanOptions,
    groups: GroupOptions,
    console: Console,
    *,
    max_passes: int | None = None,
    engine: StartsEngine = engine_starter,
    own: Own = NOTHING_OWN,
    first_tokens: Tokeniser | None = None,
) -> GroupScan:
    """Scan a run's experts in groups, or go on with it. Says its cost before it starts.

    Raises MoteError (DataError) for what is wrong with the run, the options or the engine, and for a budget that pays
    for no useful number of masks.
    """
    check_stages("groups", options, groups.budget)
    further = {"share": groups.share, "mass": MASS}
    with open_scan(folder, options, console, further, engine=engine, own=own, first_tokens=first_tokens) as opened:
        work = _Work(opened, groups, max_passes)
        work.announce()
        try:
            finished = work.go()
        except EnoughError:
            finished = False
        return work.result(finished)


class _Work(Stages):
    """Masks, pairs, looks and finalists."""

    def __init__(self, opened: OpenScan, groups: GroupOptions, max_passes: int | None) -> None:
        super().__init__(opened, max_passes)
        self.groups = groups
        self.budget = int(groups.budget * self.scan.plan.cost)
        # In turn from every place, as the prompts themselves were chosen.
        self.looks = spread(self.prompts, self.halves.units, LOOKS, self.scan.settings["seed"])

    def announce(self) -> None:
        """Say what the scan costs at most."""
        full = self.scan.plan.cost
        mean = self.groups.share * len(self.all)
        self.session.console.print(
            f"Group scan: at most {self.budget:,} forward passes, {self.groups.budget:.0%} of the full scan's {full:,};"
            f" masks of {mean:.1f} of {len(self.all):,} experts on average",
            soft_wrap=True,
        )

    def go(self) -> bool:
        """Measure stage after stage; return that all is done."""
        self.singles([(None, self.prompts)], "Untouched", range(self.scan.plan.openings))
        telling = self.telling
        self._warn_of_few_masks()
        self._masks([(prompt, self._experts(mask)) for prompt, mask in self._drawn if mask.any()], "Masks")
        effects, pairs = self._estimates
        spent = len(self.prompts) * self.scan.plan.openings + sum(len(telling[prompt]) for prompt, _ in self._drawn)
        spent += self._measure_pairs(pairs, self.budget - spent)
        look, whole = (sum(len(telling[key]) for key in keys) for keys in (self.looks, self.prompts))
        plan = plan_singles(self.budget - spent, look, whole, self.groups.leading, len(self.all))
        best = [self.all[at] for at in np.argsort(-effects.effect, kind="stable")[: plan.looked]]
        self.singles([(expert, self.looks) for expert in best], "Leading experts")
        seen = self._looked()
        finalists = sorted(best, key=lambda expert: -seen[expert])[: plan.finalists]
        self.singles([(expert, self.prompts) for expert in finalists], "Finalists")
        return True

    def _warn_of_few_masks(self) -> None:
        each = len(self._drawn) * self.groups.share
        if each < FEW_MASKS:
            self.session.console.print(
                f"Each expert is in {each:.1f} masks on average: too few to tell experts apart. Give it more prompts"
                " (--prompts), a larger --budget, or scan all experts alone on fewer prompts (no --method).",
                soft_wrap=True,
            )

    def result(self, finished: bool) -> GroupScan:
        """Put together what is stored by now."""
        table = pd.DataFrame(self.all, columns=["layer", "expert"])
        pairs = pd.DataFrame()
        if finished:
            effects, pairs = self._estimates
            table["masks"] = self._stored.applied.sum(axis=0)
            table["in_masks"], table["p"], table["q"] = effects.effect, effects.p, effects.q
            table = table.merge(self.alone(), on=["layer", "expert"], how="left").fillna({"prompts": 0})
            table["complete"] = table["prompts"] == len(self.prompts)
            # An expert that was never looked at stands behind those that were.
            table = table.sort_values(["effect", "in_masks"], ascending=False, na_position="last", kind="stable")
            pairs = self._with_measured(pairs)
        table = table.reset_index(drop=True)
        shared = self.shared(table) if finished else None
        return GroupScan(self.opened.stored, table, pairs, self.scan.plan.cost, finished, shared)

    @cached_property
    def _drawn(self) -> list[tuple[str, NDArray[np.bool_]]]:
        """All masks of the budget, round by round, each with the prompt that it is measured on."""
        rounds = mask_rounds(self.budget, self.telling)
        drawn = draw_masks(rounds, len(self.prompts), len(self.all), self.groups.share, self.scan.settings["seed"])
        return [pair for masks in drawn for pair in zip(self.prompts, masks, strict=True)]

    def _experts(self, mask: NDArray[np.bool_]) -> tuple[Expert, ...]:
        return tuple(self.all[at] for at in np.flatnonzero(mask))

    @cached_property
    def _stored(self) -> Masks:
        """The drawn masks with their falls, in their order; asked for once all of them are measured.

        An empty mask changes nothing: its fall is 0, and no pass is needed to know it.
        """
        falls = self._mask_falls()
        found = [falls[prompt, mask_text(self._experts(mask))] if mask.any() else 0.0 for prompt, mask in self._drawn]
        applied = np.array([mask for _, mask in self._drawn], dtype=bool)
        return Masks(applied, np.array(found), [prompt for prompt, _ in self._drawn], self.groups.share)

    @cached_property
    def _estimates(self) -> tuple[GroupEffects, pd.DataFrame]:
        effects = group_effects(self._stored, rate=self.groups.rate, seed=self.scan.settings["seed"])
        return effects, pair_falls(self._stored, effects.left, seed=self.scan.settings["seed"])

    def _mask_falls(self) -> dict[tuple[str, str], float]:
        scores = self.scans.mask_scores(self.scan_id)
        if scores.empty:
            return {}
        wide = scores.pivot(index=["prompt_id", "experts"], columns="opening", values="logprob")
        values = wide.reindex(columns=range(self.scan.plan.openings)).dropna()
        if values.empty:
            return {}
        plain = scan_margins(self.scans.scores(self.scan_id), self.scan.plan.openings).untouched
        array = values.to_numpy(dtype=np.float64)
        found = margins(array[:, 0], array[:, 1:])
        return {
            (str(prompt), str(text)): float(plain[prompt] - margin)
            for (prompt, text), margin in zip(values.index, found, strict=True)
        }

    def _looked(self) -> dict[Expert, float]:
        """The mean falls on the prompts of a look alone, whatever else is measured by now: a resumed scan's choice."""
        found = scan_margins(self.scans.scores(self.scan_id), self.scan.plan.openings)
        rows = found.scan[found.scan["prompt_id"].isin(self.looks)]
        falls = rows["prompt_id"].map(found.untouched) - rows["margin"]
        means = rows.assign(fall=falls).groupby(["layer", "expert"], as_index=False)["fall"].mean()
        experts = zip(means["layer"].astype(int), means["expert"].astype(int), strict=True)
        return dict(zip(experts, means["fall"].astype(float), strict=True))

    def _measure_pairs(self, pairs: pd.DataFrame, left: int) -> int:
        """Measure the certain pairs, both experts off and each alone, as far as half of what is left goes."""
        whole = sum(map(len, self.telling.values()))
        some = pairs[pairs["p"] <= PAIR_P].head(min(MEASURED_PAIRS, left // 2 // (3 * whole)))
        chosen = [(self.all[one], self.all[two]) for one, two in zip(some["first"], some["second"], strict=True)]
        self._masks([(prompt, pair) for pair in chosen for prompt in self.prompts], "Pairs")
        self.singles([(expert, self.prompts) for pair in chosen for expert in pair], "Pairs, each alone")
        return 3 * whole * len(chosen)

    def _with_measured(self, pairs: pd.DataFrame) -> pd.DataFrame:
        falls = self._mask_falls()
        found = scan_margins(self.scans.scores(self.scan_id), self.scan.plan.openings)
        alone = found.scan.set_index(["layer", "expert", "prompt_id"])["margin"]
        rows = []
        for row in pairs.to_dict("records"):
            pair = [self.all[row["first"]], self.all[row["second"]]]
            there = [key for key in self.prompts if (key, mask_text(pair)) in falls]
            said = {"first": pair[0], "second": pair[1], **{name: row[name] for name in ("masks", "excess", "p")}}
            if there and all((*expert, key) in alone.index for expert in pair for key in there):
                each = [np.array([found.untouched[key] - alone[(*expert, key)] for key in there]) for expert in pair]
                said |= _beyond(np.array([falls[key, mask_text(pair)] for key in there]), *each)
            rows.append(said)
        return pd.DataFrame(rows)

    def _masks(self, wanted: Sequence[tuple[str, tuple[Expert, ...]]], what: str) -> None:
        done = self.scans.done_masks(self.scan_id)
        asked = dict.fromkeys(
            MaskMeasurement(key, tuple(sorted(experts)), at) for key, experts in wanted for at in self.telling[key]
        )
        some, all_of_them = self.allowed([each for each in asked if each not in done])
        if some:
            requests = [self._request(each) for each in some]
            with step(self.session.console, what, len(some)) as advance:
                for scored in self.session.engine.score(requests):
                    self.scans.add_masks(self.scan_id, [_mask_row(some[at], one) for at, one in scored])
                    advance(len(scored))
        if not all_of_them:
            raise EnoughError

    def _request(self, each: MaskMeasurement) -> Scoring:
        profile = mask_profile(each.experts, self.scan.settings, self.session.model.layout)
        messages = self.halves.prompts[each.prompt_id].messages
        return Scoring(each.prompt_id, messages, profile, self.scan.openings[each.prompt_id][each.opening])


def mask_profile(experts: Sequence[Expert], settings: Mapping[str, Any], layout: ModelLayout) -> Profile:
    """Return the profile that edits all experts of a mask as a scan's settings say."""
    edits = tuple(Edit(*expert, settings["action"], settings["factor"]) for expert in experts)
    return Profile(f"mask-of-{len(edits)}", edits, model=layout)


def _mask_row(measurement: MaskMeasurement, scored: Scored) -> MaskRow:
    observation = scored.observation
    return MaskRow(
        measurement,
        sum(scored.logprobs),
        sum(effect.selected for effect in observation.mechanism),
        observation.receipt.digest,
        observation.receipt.tokens_edited,
    )


def _beyond(together: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, Any]:
    beyond = together - first - second
    low, high = stats.ttest_1samp(beyond, 0.0).confidence_interval(0.95)
    return {
        "prompts": len(beyond), "alone_first": first.mean(), "alone_second": second.mean(),
        "together": together.mean(), "beyond": beyond.mean(), "low": float(low), "high": float(high),
    }  # fmt: skip
