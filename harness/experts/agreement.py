"""Rankings set against each other: how far each agrees with the causal scan, and what its top experts do.

Pure functions. Agreement is a rank correlation over the experts that the prompts chose at all, with a bootstrap over
prompts; beside it stands how far the scan agrees with itself, as no ranking can be expected to agree with it better.
What the top k do is their flips on prompts that chose no expert, among random sets matched to them (of the same
layers and nearly the same activation frequency, ``controls.py``), which each ranking and k has of its own; Holm's
correction is over the rankings of one k.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mote.harness.experts.rankings import CAUSAL, Halves, seen_rankings, top_experts
from mote.harness.preconditions import STATES, DataError
from mote.harness.science.causal import ScanMargins
from mote.harness.science.controls import Expert, random_experts
from mote.harness.science.detectors import compare_rankings
from mote.harness.science.inference import against_controls, cluster_sign_test, expanded_quantiles, holm, rate

DRAWS: Final = 200
LEAST: Final = 3
"""The fewest experts that a correlation is taken over."""
REFERENCE: Final = "resonance"
"""The ranking that every other one's flips are compared with, prompt by prompt."""


class TopSet(NamedTuple):
    """The top k of a ranking, best first, and random sets matched to them."""

    ranking: str
    k: int
    experts: list[Expert]
    controls: list[list[Expert]]


class Agreement(NamedTuple):
    """Spearman's correlation of a ranking with the causal scan over ``experts`` of them, with its interval."""

    experts: int
    spearman: float
    low: float
    high: float


def plan_sets(
    rankings: Mapping[str, NDArray[np.float64]],
    ks: Sequence[int],
    sets: int,
    mass: NDArray[np.float64],
    layers: tuple[int, ...],
    seed: int,
) -> list[TopSet]:
    """Take the top experts of each ranking [layers, experts] at each k, and draw ``sets`` matched sets for each.

    Matched are the activations in sum on the class's choosing prompts: ``mass`` is ``removed.target_mass`` of these.
    The draws depend on the seed and the top experts alone: rankings with the same ones share their controls, and more
    sets are the same ones and further ones. Raises `DataError`, naming ranking and k, where a ranking has too few
    experts above 0, or takes all of its layers' experts, so that there is no other set.
    """
    check_sizes(ks, mass.size)
    planned = []
    for k in sorted(set(ks)):
        for name, ranking in rankings.items():
            experts = top_experts(name, ranking, k, layers)
            stream = np.random.default_rng([seed, *(number for expert in sorted(experts) for number in expert)])
            try:
                drawn = random_experts("mass", sorted(experts), mass, layers, sets, stream) if sets else []
            except DataError as error:
                raise DataError(f"{name}, k = {k}: {error}") from None
            planned.append(TopSet(name, k, experts, drawn))
    return planned


def check_sizes(ks: Sequence[int], size: int) -> None:
    """Raise `DataError` for a k that a model of so many routed experts does not have."""
    for k in ks:
        if not 1 <= k <= size:
            raise DataError(f"--k {k}: the model has {size} routed experts; k lies between 1 and {size}.")


def falls_of(margins: ScanMargins, layers: tuple[int, ...], experts: int) -> NDArray[np.float64]:
    """Return the fall of each prompt's margin by each expert's edit, [prompts, layers, experts]; nan: not measured."""
    row = {layer: at for at, layer in enumerate(layers)}
    place = {key: at for at, key in enumerate(margins.untouched.index)}
    falls = np.full((len(place), len(layers), experts), np.nan)
    scan = margins.scan[margins.scan["prompt_id"].isin(place)]
    at = scan["prompt_id"].map(place), scan["layer"].map(row), scan["expert"]
    falls[at] = scan["prompt_id"].map(margins.untouched) - scan["margin"]
    return falls


def agreement(
    halves: Halves, falls: NDArray[np.float64], *, draws: int = DRAWS, level: float = 0.95, seed: int = 0
) -> dict[str, Agreement]:
    """Return how far each ranking by when experts are seen agrees with the causal scan, by name.

    Only experts count that a prompt of the choosing half chose and that were scanned on all prompts. In each draw of
    the bootstrap the scan's prompts, the class's and the others' (of pairs: whole pairs) are drawn anew, each with
    replacement, and both rankings are made again; percentile intervals, widened for few prompts. Resampling adds noise
    to both rankings, so the intervals reach further towards 0 than away from it. Raises `DataError` for fewer than
    three such experts.
    """
    used = compared(halves, falls)
    if used.sum() < LEAST:
        raise DataError(
            f"Only {int(used.sum())} experts were seen and scanned on all prompts; a correlation needs {LEAST}."
        )
    found = {name: _spearman(each, falls, used) for name, each in seen_rankings(halves).items()}
    rng = np.random.default_rng(seed)
    draw, least = _drawing(halves)
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(draws):
        resampled = draw(rng)
        again = falls[rng.choice(falls.shape[0], falls.shape[0])]
        for name, each in seen_rankings(resampled).items():
            drawn[name].append(_spearman(each, again, used))
    bounds = expanded_quantiles(min(falls.shape[0], least), level)
    return {
        name: Agreement(int(used.sum()), rho, *(float(bound) for bound in np.nanquantile(drawn[name], bounds)))
        for name, rho in found.items()
    }


def reliability(halves: Halves, falls: NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0) -> float:
    """Return how far a causal scan [prompts, layers, experts] agrees with itself on other prompts of the same kind.

    The mean rank correlation of the effects on two random halves of its prompts, over the experts that ``agreement``
    compares, stepped up to the whole scan by the Spearman-Brown formula. nan for fewer than four prompts or three such
    experts.
    """
    used = compared(halves, falls)
    if falls.shape[0] < 4 or used.sum() < LEAST:
        return float("nan")
    rng = np.random.default_rng(seed)
    half = falls.shape[0] // 2
    flat = falls[:, used]
    rhos = []
    for _ in range(draws):
        order = rng.permutation(falls.shape[0])
        first, second = flat[order[:half]].mean(axis=0), flat[order[half:]].mean(axis=0)
        rhos.append(float(stats.spearmanr(first, second).statistic))
    rho = float(np.mean(rhos))
    return 2 * rho / (1 + rho)


def flips_table(
    sets: Sequence[TopSet],
    labels: Mapping[tuple[Expert, ...], Mapping[str, str]],
    units: Mapping[str, Hashable],
    mass: NDArray[np.float64],
    layers: tuple[int, ...],
    target: str,
    named: Mapping[tuple[Expert, ...], Collection[str]] | None = None,
) -> pd.DataFrame:
    """Return one row for each ranking and k: what its top experts did to prompts of the class, among its controls.

    ``labels`` gives by set of experts (sorted) the label of each prompt under it, the same prompts for all; ``named``
    the prompts whose answer names the unit that they ask about. Columns: ranking, k, prompts, flips, share, low, high
    (exact interval), flips_named (flips that do so: an answer about another place is a change of another kind; nan
    where units have no names), broken, broken_share; sets, matched_mean, matched_max, matched_broken (mean share),
    busier (activations a prompt of the class that the top experts have more in sum than the controls on average, by
    ``mass``), p (permutation), p_holm (over the rankings of the k), least_p (the smallest p that so many sets can
    give); p_vs_resonance: flips against those of the resonance's top k on the same prompts, whole units
    (``units``: prompt -> place) changing sign together; experts, as text, best first.
    """
    rows = []
    for one in sets:
        mine = labels[tuple(sorted(one.experts))]
        flips = [_flipped(label, target) for label in mine.values()]
        broken = sum(label in STATES for label in mine.values())
        found = rate(sum(flips), len(flips))
        row: dict[str, Any] = {"ranking": one.ranking, "k": one.k, "prompts": found.total, "flips": found.hits}
        row |= {"share": found.share, "low": found.low, "high": found.high}
        row["flips_named"] = float("nan")
        if named is not None:
            about = named[tuple(sorted(one.experts))]
            row["flips_named"] = sum(flip for key, flip in zip(mine, flips, strict=True) if key in about)
        row |= {"broken": broken, "broken_share": broken / len(flips), "sets": len(one.controls)}
        row |= _controls(one, labels, found.share, mass, layers, target)
        row["experts"] = " ".join(f"({layer},{expert})" for layer, expert in one.experts)
        rows.append(row)
    table = pd.DataFrame(rows)
    table["p_holm"] = np.nan
    for _, group in table[table["p"].notna()].groupby("k"):
        adjusted = holm({at: float(p) for at, p in group["p"].items()})
        table.loc[list(adjusted), "p_holm"] = list(adjusted.values())
    table["p_vs_resonance"] = [_against(one, sets, labels, units, target) for one in sets]
    return table


def chance_table(table: pd.DataFrame, what: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return rows of ``flips_table``, whose ranking is named ``what``, as they are written: Holm's p over all of them.

    ``columns`` come before p, p_holm, least_p and the experts.
    """
    table = table.rename(columns={"ranking": what}).reset_index(drop=True)
    adjusted = holm({at: float(p) for at, p in table["p"].items()})
    return table.assign(p_holm=pd.Series(adjusted))[[*columns, "p", "p_holm", "least_p", "experts"]]


def overlap(rankings: Mapping[str, NDArray[np.float64]], ks: Sequence[int]) -> pd.DataFrame:
    """Return the experts that each ranking's top k shares with the causal scan's: ranking, k, shared, chance."""
    rows = []
    for k in ks:
        for name, ranking in rankings.items():
            # A scan behind a pre-filter may have too few experts for the larger k.
            if name != CAUSAL and CAUSAL in rankings and np.isfinite(rankings[CAUSAL]).sum() >= max(k, 3):
                pair = compare_rankings({name: ranking, CAUSAL: rankings[CAUSAL]}, k).iloc[0]
                rows.append((name, k, int(pair["shared"]), float(pair["chance"])))
    return pd.DataFrame(rows, columns=["ranking", "k", "shared", "chance"])


def _controls(
    one: TopSet,
    labels: Mapping[tuple[Expert, ...], Mapping[str, str]],
    share: float,
    mass: NDArray[np.float64],
    layers: tuple[int, ...],
    target: str,
) -> dict[str, float]:
    if not one.controls:
        names = ("matched_mean", "matched_max", "matched_broken", "busier", "p", "least_p")
        return dict.fromkeys(names, float("nan"))
    each = [list(labels[tuple(sorted(drawn))].values()) for drawn in one.controls]
    shares = [float(np.mean([_flipped(label, target) for label in found])) for found in each]
    null = against_controls(share, shares)
    gone = _mass_of(one.experts, mass, layers)
    return {
        "matched_mean": null.mean,
        "matched_max": max(shares),
        "matched_broken": float(np.mean([label in STATES for found in each for label in found])),
        "busier": float(np.mean([gone - _mass_of(drawn, mass, layers) for drawn in one.controls])),
        "p": null.p,
        "least_p": 1 / (len(shares) + 1),
    }


def _mass_of(experts: Sequence[Expert], mass: NDArray[np.float64], layers: Sequence[int]) -> float:
    row = {layer: at for at, layer in enumerate(layers)}
    return float(sum(mass[row[layer], expert] for layer, expert in experts))


def _against(
    one: TopSet,
    sets: Sequence[TopSet],
    labels: Mapping[tuple[Expert, ...], Mapping[str, str]],
    units: Mapping[str, Hashable],
    target: str,
) -> float:
    """The p-value of a ranking's flips against the reference's of the same k; nan for itself or without it."""
    other = next((each for each in sets if (each.ranking, each.k) == (REFERENCE, one.k)), None)
    if other is None or one.ranking == REFERENCE:
        return float("nan")
    mine, theirs = (labels[tuple(sorted(each.experts))] for each in (one, other))
    differences = [int(_flipped(mine[key], target)) - int(_flipped(theirs[key], target)) for key in mine]
    # A prompt without a unit is one of its own; then this is McNemar's exact test.
    return cluster_sign_test(differences, [units.get(key, key) for key in mine]).p


def _flipped(label: str, target: str) -> bool:
    return label != target and label not in STATES


def compared(halves: Halves, falls: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which experts [layers, experts] a prompt of the choosing half chose and were scanned on all prompts."""
    return np.asarray((halves.maps.sum(axis=0) > 0) & np.isfinite(falls).all(axis=0))


def _spearman(ranking: NDArray[np.float64], falls: NDArray[np.float64], used: NDArray[np.bool_]) -> float:
    effects = falls[:, used].mean(axis=0)
    mine = ranking[used]
    if np.ptp(mine) == 0 or np.ptp(effects) == 0:
        return float("nan")
    return float(stats.spearmanr(mine, effects).statistic)


def _drawing(halves: Halves) -> tuple[Callable[[np.random.Generator], Halves], int]:
    """Return what draws the choosing prompts anew, and how many of what is drawn there are, of the rarer kind."""
    if len(halves.pairs):
        of: dict[Hashable, list[int]] = defaultdict(list)
        for row, pair in enumerate(halves.pairs):
            of[pair].append(row)
        rows = [np.array(each) for each in of.values()]

        def whole_pairs(rng: np.random.Generator) -> Halves:
            picked = [rows[at] for at in rng.choice(len(rows), len(rows))]
            # A pair that is drawn twice is two pairs.
            names = [number for number, some in enumerate(picked) for _ in some]
            return replace(_resampled(halves, np.concatenate(picked)), pairs=names)

        return whole_pairs, len(rows)
    ours = np.array([mark == halves.sides.target for mark in halves.marks])
    sides = [np.flatnonzero(ours), np.flatnonzero(~ours)]

    def each_side(rng: np.random.Generator) -> Halves:
        return _resampled(halves, np.concatenate([rng.choice(side, side.size) for side in sides]))

    return each_side, min(side.size for side in sides)


def _resampled(halves: Halves, picks: NDArray[np.intp]) -> Halves:
    return replace(
        halves,
        ids=[halves.ids[i] for i in picks],
        maps=halves.maps[picks],
        tokens=[halves.tokens[i] for i in picks],
        other_maps={role: maps[picks] for role, maps in halves.other_maps.items()},
        weights=None if halves.weights is None else halves.weights[picks],
    )
