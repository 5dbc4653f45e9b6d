"""Causal scan: experts ranked by what switching each off alone does, beside the rankings by when they are seen.

For a sample of prompts the baseline's own answer opening is scored under teacher forcing: its log-probability against
that of alternative openings, once untouched and once with each expert suppressed (or scaled) alone. The fall of that
margin is the expert's effect. It costs one forward pass for each opening instead of a generation, and per-request
profiles put all of them into one batch.

This module says what to measure and what the measurements add up to; an engine measures (`scan.py`). A ranking by
single experts misses experts that stand in for one another: greedy pruning (`pruning.py`) sees those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from mote.harness.preconditions import DataError, check_level, check_unique
from mote.harness.science.controls import Expert
from mote.harness.science.inference import holm
from mote.harness.science.resonance import distinctive_experts

Definition = Literal["margin", "own"]
"""What an effect is the fall of: the margin of the own opening over the alternatives, or its log-probability alone."""


class Measurement(NamedTuple):
    """One forward pass to make: a prompt with one opening, and one expert edited, or untouched (`expert` None).

    Opening 0 is the prompt's own, 1 and up are the alternatives in their order.
    """

    prompt_id: str
    expert: Expert | None
    opening: int


class ScanPlan(NamedTuple):
    """Which experts are scanned on which prompts; every prompt is also measured untouched.

    `openings` is the number of openings scored after each prompt, its own among them.
    """

    experts: list[Expert]
    prompts: list[str]
    openings: int

    @property
    def cost(self) -> int:
        """The number of forward passes, each of one prompt and one opening, the untouched ones included."""
        return (len(self.experts) + 1) * len(self.prompts) * self.openings

    def __str__(self) -> str:
        """What the scan costs, to be shown before it starts."""
        return (
            f"({len(self.experts):,} experts + untouched) x {len(self.prompts):,} prompts x {self.openings:,} openings"
            f" = {self.cost:,} forward passes"
        )


def plan_scan(
    layers: Sequence[int],
    experts: int,
    prompts: Sequence[str],
    openings: int,
    *,
    ranking: NDArray[Any] | None = None,
    top: int | None = None,
) -> ScanPlan:
    """Plan the scan of all routed experts, or of the `top` ones of another `ranking` [layers, experts] (a pre-filter).

    `layers` are the MoE layers as the model numbers them. Experts come in the order of the ranking, so that a scan
    that is stopped has measured the likeliest ones; ties are taken by layer, then expert. Raises `DataError` for a
    pre-filter without a ranking, a `top` that is out of range, fewer than two prompts or openings, or a prompt listed
    twice.
    """
    if len(prompts) < 2:
        raise DataError(f"A causal scan needs at least two prompts, not {len(prompts)}.")
    if openings < 2:
        raise DataError("A causal scan needs the own opening and at least one alternative to it.")
    check_unique(list(prompts), "prompt id")
    size = len(layers) * experts
    if ranking is None:
        if top is not None:
            raise DataError(f"A scan of the top {top} experts needs the ranking that they are the top of.")
        return ScanPlan([(layer, expert) for layer in layers for expert in range(experts)], list(prompts), openings)
    scores = np.asarray(ranking, dtype=np.float64)
    if scores.shape != (len(layers), experts):
        raise DataError(f"The ranking has the shape {list(scores.shape)}, the model [{len(layers)}, {experts}].")
    count = size if top is None else top
    if not 1 <= count <= size:
        raise DataError(f"The pre-filter takes 1 to {size} experts, not {count}.")
    # Shifted to be positive: the pre-filter takes the top whether or not it is distinctive of the class.
    best = distinctive_experts(scores - scores.min() + 1.0, count, layers)
    return ScanPlan([(e.layer, e.expert) for e in best], list(prompts), openings)


def remaining(plan: ScanPlan, done: Iterable[Measurement]) -> list[Measurement]:
    """Return what is still to be measured, in order: the untouched prompts, then expert after expert."""
    have = set(done)
    edits: list[Expert | None] = [None, *plan.experts]
    wanted = (
        Measurement(prompt_id, expert, opening)
        for expert in edits
        for prompt_id in plan.prompts
        for opening in range(plan.openings)
    )
    return [measurement for measurement in wanted if measurement not in have]


def choose_alternatives(others: Mapping[str, Sequence[str]], own: Collection[str], count: int) -> list[str]:
    """Return up to `count` openings of the other classes' answers, the most frequent ones first.

    `others` gives for each other class the openings of its answers, `own` those of the class itself. The classes take
    turns, the largest first, so that each way of not being in the class has its say; equally frequent openings are
    taken in the order of their text. Of two openings of which one begins with the other, both would count the same
    event: the later one is left out, and so is one that stands so to an own opening. Raises `DataError` when none is
    left.
    """
    if count < 1:
        raise DataError(f"At least one alternative opening is needed, not {count}.")
    barred = [text for text in own if text]
    queues = {
        name: [text for text, _ in sorted(Counter(each).items(), key=lambda item: (-item[1], item[0])) if text]
        for name, each in sorted(others.items(), key=lambda item: (-len(item[1]), item[0]))
    }
    chosen: list[str] = []
    while len(chosen) < count and any(queues.values()):
        for queue in queues.values():
            while queue and len(chosen) < count:
                text = queue.pop(0)
                if not any(text.startswith(other) or other.startswith(text) for other in (*barred, *chosen)):
                    chosen.append(text)
                    break
    if not chosen:
        raise DataError(
            "Every opening of the other classes' answers is one of the class itself: take more tokens for an opening."
        )
    return chosen


class ScanMargins(NamedTuple):
    """Margins by prompt id without an edit, and one row an edited measurement: layer, expert, prompt_id, margin."""

    untouched: pd.Series[float]
    scan: pd.DataFrame


def margins(own: ArrayLike, alternatives: ArrayLike) -> NDArray[np.float64]:
    """Return how much likelier the baseline's own opening is than all alternatives together, as log-odds, [n].

    `own` is [n], `alternatives` [n, openings], both log-probabilities of whole openings. The alternatives'
    probabilities are added up, so an opening must not be the beginning of another. Raises `DataError` for values above
    0 or not finite: an opening that cannot occur measures nothing.
    """
    ours = np.asarray(own, dtype=np.float64)
    others = np.asarray(alternatives, dtype=np.float64)
    if ours.ndim != 1 or others.ndim != 2 or others.shape[0] != ours.size or others.shape[1] == 0:
        raise DataError(
            f"Own openings must have the shape [n] and alternatives [n, openings], "
            f"not {list(ours.shape)} and {list(others.shape)}."
        )
    for values in (ours, others):
        if not np.isfinite(values).all() or (values > 0).any():
            raise DataError("Log-probabilities of openings are finite and not above 0.")
    return np.asarray(ours - special.logsumexp(others, axis=1), dtype=np.float64)


def scan_margins(scores: pd.DataFrame, openings: int, definition: Definition = "margin") -> ScanMargins:
    """Return the margins that measured openings add up to.

    `scores` has a row for each forward pass with the columns layer, expert (both null where untouched), prompt_id,
    opening and logprob. A prompt and expert of which not all `openings` are measured yet is left out. With the
    definition "own" the margin is the own opening's log-probability itself. Raises `DataError` for a repeated row.
    """
    keys = ["layer", "expert", "prompt_id"]
    if scores.duplicated([*keys, "opening"]).any():
        row = scores[scores.duplicated([*keys, "opening"])].iloc[0]
        raise DataError(f"Opening {row['opening']} of '{row['prompt_id']}' was measured twice.")
    # Null is no key to pivot by; no layer is below 0.
    known = scores.assign(layer=scores["layer"].fillna(-1).astype(int), expert=scores["expert"].fillna(-1).astype(int))
    wide = known.pivot(index=keys, columns="opening", values="logprob").reindex(columns=range(openings)).dropna()
    values = wide.to_numpy(dtype=np.float64)
    found = values[:, 0] if definition == "own" else margins(values[:, 0], values[:, 1:])
    table = wide.index.to_frame(index=False).assign(margin=found)
    plain = table["layer"] < 0
    return ScanMargins(table[plain].set_index("prompt_id")["margin"], table[~plain].reset_index(drop=True))


def scan_effects(untouched: pd.Series[float], scan: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return the effect of each scanned expert: the mean fall of the margin when it is edited, best first.

    `untouched` is the margin of each prompt without an edit, indexed by prompt id; `scan` has a row for each edited
    measurement with the columns layer, expert, prompt_id, margin. Columns of the result: layer, expert, prompts,
    complete (measured on all prompts), effect (positive where the expert carries the behaviour), low and high (paired
    t interval), p (paired t-test; where all differences are equal, a sign test) and p_holm (over the complete experts).
    Raises `DataError` for a prompt without an untouched margin, a repeated measurement, or fewer than two prompts.
    """
    check_level(level)
    missing = [name for name in ("layer", "expert", "prompt_id", "margin") if name not in scan.columns]
    if missing:
        raise DataError(f"The scan has no column '{missing[0]}'.")
    if not untouched.index.is_unique or len(untouched) < 2:
        raise DataError("The untouched margins need at least two prompts, each once.")
    unknown = ~scan["prompt_id"].isin(untouched.index)
    if unknown.any():
        raise DataError(f"Prompt '{scan.loc[unknown, 'prompt_id'].iloc[0]}' was scanned but not measured untouched.")
    twice = scan.duplicated(["layer", "expert", "prompt_id"])
    if twice.any():
        row = scan[twice].iloc[0]
        raise DataError(f"Expert ({row['layer']}, {row['expert']}) was measured twice on '{row['prompt_id']}'.")
    if not np.isfinite(scan["margin"]).all() or not np.isfinite(untouched).all():
        raise DataError("The scan holds margins that are not finite.")
    falls = scan["prompt_id"].map(untouched).to_numpy(dtype=np.float64) - scan["margin"].to_numpy(dtype=np.float64)
    of_expert: dict[Expert, list[float]] = {}
    for layer, expert, fall in zip(scan["layer"], scan["expert"], falls, strict=True):
        of_expert.setdefault((int(layer), int(expert)), []).append(float(fall))
    rows = []
    # All experts measured on as many prompts in one test: one at a time costs more than the rest of a report's numbers.
    for count in sorted({len(fallen) for fallen in of_expert.values()}):
        alike = [expert for expert, fallen in of_expert.items() if len(fallen) == count]
        values = np.array([of_expert[expert] for expert in alike])
        complete = count == len(untouched)
        found = zip(alike, values.mean(axis=1), *_paired(values, level), strict=True)
        rows += [(*expert, count, complete, mean, low, high, p) for expert, mean, low, high, p in found]
    columns = ["layer", "expert", "prompts", "complete", "effect", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    adjusted = holm({at: float(p) for at, p in table.loc[table["complete"], "p"].items()})
    table["p_holm"] = pd.Series(adjusted, dtype="float64").reindex(table.index)
    order = ["effect", "layer", "expert"]
    return table.sort_values(order, ascending=[False, True, True], kind="stable").reset_index(drop=True)


def scan_ranking(effects: pd.DataFrame, layers: Sequence[int], experts: int) -> NDArray[np.float64]:
    """Return the effects of the complete experts as a ranking [layers, experts]; nan where nothing was measured.

    It goes with the other rankings into `detectors.compare_rankings`.
    """
    row = {layer: at for at, layer in enumerate(layers)}
    found = np.full((len(layers), experts), np.nan)
    known = effects[effects["complete"]]
    for layer, expert, effect in zip(known["layer"], known["expert"], known["effect"], strict=True):
        if layer not in row or not 0 <= expert < experts:
            raise DataError(f"Expert ({layer}, {expert}) is none of this model's.")
        found[row[layer], expert] = effect
    return found


def _paired(values: NDArray[np.float64], level: float) -> tuple[NDArray[np.float64], ...]:
    """Bounds of the mean and two-sided p-value of each row of paired differences [experts, prompts]."""
    mean, count = values.mean(axis=1), values.shape[1]
    if count < 2:
        unknown = np.full(len(values), np.nan)
        return unknown, unknown, np.ones(len(values))
    low, high = mean.copy(), mean.copy()
    # Without spread the t-test divides by nothing; that all go one way is still evidence.
    p = np.where(mean == 0, 1.0, 2.0 ** (1 - count))
    if (spread := np.ptp(values, axis=1) != 0).any():
        found = stats.ttest_1samp(values[spread], 0.0, axis=1)
        low[spread], high[spread] = found.confidence_interval(level)
        p[spread] = found.pvalue
    return low, high, p
