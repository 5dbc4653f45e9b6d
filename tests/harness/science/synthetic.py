"""Synthetic truth: maps and answers with planted experts and a known effect, to try the statistics on.

A study made of nothing but numbers, in which one knows what is there to be found. Its tokens choose experts as a
router does: each expert has a logit (some are busy, most are not), noise is added, the top k are chosen. On top of it

- planted experts have a higher logit in prompts of the target class: what detection should find;
- topic experts have a higher logit in some places, whatever the class: what detection should not be fooled by, where
  the class goes with the place;
- suppressing planted experts turns refusals into answers with a known chance; all other experts do nothing.

What it is not: a language model. Layers do not read each other, and a prompt's tokens are alike.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.preconditions import DataError
from mote.harness.science.controls import Expert
from mote.judges import ALIGNED, REASONED, REFUSED

DETECTABLE_EFFECTS: Final = {
    "log_odds": 1.75,
    "smd": 1.75,
    "auc": 2.5,
    "resonance": 3.0,
    "resonance_per_token": 3.0,
    "risk_difference": 3.0,
    "router_weight_resonance": 3.5,
}
"""The rise in logit at which a study of the default size has all its ten planted experts in the top ten of that ranking
in at least 95% of the runs (in 97 to 100% of 400; held by the tests). Differences of counts need more than those in
units of their noise: a planted expert that is rarely chosen stays rarely chosen, at 3.0 twenty times as often."""

DETECTABLE_EFFECT: Final = max(DETECTABLE_EFFECTS.values())
"""The rise in logit at which every ranking finds the planted experts: the default of a synthetic study."""


@dataclass(frozen=True)
class SyntheticStudy:
    """A made-up baseline: maps with their labels, and the truth behind them.

    `maps` is [prompts, layers, experts] of int32 counts, `weights` the router weights in the same shape, `tokens` the
    tokens of each prompt, `layers` the layers' numbers, `busyness` the experts' logits [layers, experts].
    """

    prompt_ids: list[str]
    labels: list[str]
    places: list[str]
    maps: NDArray[np.int32]
    weights: NDArray[np.float64]
    tokens: NDArray[np.int64]
    layers: tuple[int, ...]
    planted: tuple[Expert, ...]
    topical: tuple[Expert, ...]
    busyness: NDArray[np.float64]


def synthetic_study(
    seed: int,
    *,
    prompts: int = 240,
    layers: Sequence[int] = (1, 2, 3, 4),
    experts: int = 64,
    top_k: int = 4,
    planted: int = 10,
    effect: float = DETECTABLE_EFFECT,
    refused: float = 0.4,
    places: int = 12,
    topical: int = 0,
    topic_effect: float = 0.0,
    place_decides: float = 0.0,
    tokens: tuple[int, int] = (10, 20),
) -> SyntheticStudy:
    """Make a baseline in which `planted` experts have their logit raised by `effect` in refused prompts.

    `refused` is the share of refused prompts; the rest is aligned or reasoned, half and half. Prompts go round the
    `places`; with `place_decides` (0 to 1) that share of prompts is refused by their place alone (in the first places
    all, in the others none), so the class goes with the topic. `topical` experts have their logit raised by
    `topic_effect` in the first places. `tokens` are the least and the most tokens of a prompt.
    """
    if not 0 < refused < 1 or not 0 <= place_decides <= 1:
        raise DataError("The shares `refused` and `place_decides` lie between 0 and 1.")
    if planted + topical > len(layers) * experts or not 1 <= top_k < experts:
        raise DataError(f"{len(layers)} layers of {experts} experts are too few for these planted experts or top-k.")
    rng = np.random.default_rng(seed)
    busyness = rng.normal(0.0, 1.0, (len(layers), experts))
    marked = rng.choice(busyness.size, planted + topical, replace=False)
    is_planted, is_topical = (np.zeros(busyness.size) for _ in range(2))
    is_planted[marked[:planted]] = effect
    is_topical[marked[planted:]] = topic_effect
    place = np.arange(prompts) % places
    sensitive = place < round(refused * places)
    by_place = rng.random(prompts) < place_decides
    is_refused = np.where(by_place, sensitive, rng.random(prompts) < refused)
    # At least two of each side, so that every study has a class and something to compare it with.
    is_refused[:2], is_refused[-2:] = True, False
    other = np.where(rng.random(prompts) < 0.5, ALIGNED, REASONED)
    length = rng.integers(tokens[0], tokens[1] + 1, prompts)
    logits = (busyness.ravel() + is_refused[:, None] * is_planted + sensitive[:, None] * is_topical).reshape(
        prompts, len(layers), experts
    )
    maps, weights = _route(logits, length, top_k, rng)
    numbers = [(int(layers[i // experts]), int(i % experts)) for i in marked]
    return SyntheticStudy(
        prompt_ids=[f"synthetic/{i:05d}" for i in range(prompts)],
        labels=[REFUSED if refuses else str(name) for refuses, name in zip(is_refused, other, strict=True)],
        places=[f"place-{i:02d}" for i in place],
        maps=maps,
        weights=weights,
        tokens=length,
        layers=tuple(int(layer) for layer in layers),
        planted=tuple(sorted(numbers[:planted])),
        topical=tuple(sorted(numbers[planted:])),
        busyness=busyness,
    )


def flip_chance(study: SyntheticStudy, tuned: Collection[Expert], *, retest: float = 0.02, whole: float = 0.4) -> float:
    """Return the chance that a refused prompt is answered once `tuned` are suppressed: the truth of `answers`.

    `retest` is the chance with nothing suppressed (sampling noise), `whole` with all planted experts; between them it
    grows with the number of planted experts among the tuned ones.
    """
    share = len(set(tuned) & set(study.planted)) / max(len(study.planted), 1)
    return retest + (whole - retest) * share


def answers(
    study: SyntheticStudy,
    tuned: Collection[Expert],
    seed: int,
    *,
    retest: float = 0.02,
    whole: float = 0.4,
    reverse: float = 0.01,
    broken: float = 0.0,
    place_correlation: float = 0.0,
) -> pd.Series[str]:
    """Return the labels of all prompts under the suppression of `tuned`, indexed by prompt id.

    Refused prompts are answered with `flip_chance`; others are refused with the chance `reverse`; any prompt becomes
    DEGENERATE with the chance `broken`, before all else. With `place_correlation` above 0 each place has a flip chance
    of its own (Beta-distributed with the same mean), so that two refused prompts of a place correlate that much.
    """
    if not 0 <= place_correlation < 1:
        raise DataError(f"The correlation within a place lies from 0 to below 1, not {place_correlation}.")
    rng = np.random.default_rng(seed)
    chance = flip_chance(study, tuned, retest=retest, whole=whole)
    labels = np.array(study.labels, dtype=object)
    refused = labels == REFUSED
    names, place = np.unique(np.array(study.places), return_inverse=True)
    of_place = np.full(names.size, chance)
    if place_correlation > 0:
        size = 1.0 / place_correlation - 1.0
        of_place = rng.beta(chance * size, (1 - chance) * size, names.size)
    breaks, moves, kind = rng.random((3, labels.size))
    moved = moves < np.where(refused, of_place[place], reverse)
    to = np.where(refused, np.where(kind < 0.8, ALIGNED, REASONED), REFUSED)
    after = np.where(breaks < broken, "DEGENERATE", np.where(moved, to, labels))
    return pd.Series(after, index=pd.Index(study.prompt_ids, name="prompt_id"), dtype="str")


def baseline(study: SyntheticStudy) -> pd.Series[str]:
    """Return the baseline's labels, indexed by prompt id."""
    return pd.Series(study.labels, index=pd.Index(study.prompt_ids, name="prompt_id"), dtype="str")


def _route(
    logits: NDArray[np.float64], length: NDArray[np.int64], top_k: int, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Let each token of each prompt choose its top-k of noisy logits; weights are the softmax over the chosen."""
    prompts, layers, experts = logits.shape
    maps = np.empty((prompts, layers, experts), dtype=np.int32)
    weights = np.empty((prompts, layers, experts))
    offset = np.arange(layers)[None, :, None] * experts
    for i in range(prompts):
        noisy = logits[i] + rng.gumbel(size=(int(length[i]), layers, experts))
        chosen = np.argpartition(noisy, experts - top_k, axis=2)[:, :, experts - top_k :]
        raw = np.exp(np.take_along_axis(noisy, chosen, axis=2))
        flat = (chosen + offset).ravel()
        maps[i] = np.bincount(flat, minlength=layers * experts).reshape(layers, experts)
        share = (raw / raw.sum(axis=2, keepdims=True)).ravel()
        weights[i] = np.bincount(flat, share, minlength=layers * experts).reshape(layers, experts)
    return maps, weights
