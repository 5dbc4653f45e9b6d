"""Dose and direction: how an effect grows with the number of experts or the factor, and which layers carry it.

A dose is a number of experts (the top 1, 3, 5, ...) or the factor that scales them. Each dose has its transition
matrix; the curve sets flips beside what they cost: reverse flips, broken text, and general quality where it was
measured. What an engine generates and what is counted here meet in the matrices only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from mote.harness.preconditions import STATES, DataError
from mote.harness.science.controls import Expert
from mote.harness.science.inference import Rate, rate
from mote.harness.science.resonance import ExpertScore
from mote.harness.science.transitions import flip_rates
from mote.judges import REFUSED

DOSES: Final = (1, 3, 5, 10, 20, 50)
"""The numbers of experts of a dose curve."""

THIRDS: Final = ("early", "middle", "late")

RATES: Final = ("flips", "reverse", "broken", "broken_others", "kept")


def doses(ranked: Sequence[ExpertScore], sizes: Sequence[int] = DOSES) -> dict[int, list[Expert]]:
    """Return the experts of each dose: nested top sets of `ranked` (best first), as many sizes as it has experts for.

    Raises `DataError` when it has fewer than the smallest size.
    """
    possible = sorted({size for size in sizes if 1 <= size <= len(ranked)})
    if not possible:
        raise DataError(f"A ranking of {len(ranked)} experts is too short for the doses {list(sizes)}.")
    return {size: [(e.layer, e.expert) for e in ranked[:size]] for size in possible}


def dose_curve(
    matrices: Mapping[tuple[str, float], pd.DataFrame],
    target: str = REFUSED,
    *,
    quality: Mapping[tuple[str, float], float] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return one row for each (action, dose) with all rates of `transitions.flip_rates`, sorted by action and dose.

    Columns: action, dose, quality (nan where not measured), and for each of flips, reverse, broken, broken_others and
    kept (`kept_others`) its name alone for the share and with _hits, _total, _low, _high.
    """
    measured = quality or {}
    unknown = [key for key in measured if key not in matrices]
    if unknown:
        raise DataError(f"Quality is given for the dose {unknown[0]}, which has no transition matrix.")
    rows = []
    for (action, dose), matrix in sorted(matrices.items(), key=lambda item: item[0]):
        found = flip_rates(matrix, target, level)
        row: dict[str, object] = {"action": action, "dose": dose, "quality": measured.get((action, dose), float("nan"))}
        for name in RATES:
            value = kept_others(matrix, target, level) if name == "kept" else getattr(found, name)
            row |= {name: value.share, f"{name}_hits": value.hits, f"{name}_total": value.total}
            row |= {f"{name}_low": value.low, f"{name}_high": value.high}
        rows.append(row)
    fields = [column for name in RATES for column in (name, *(f"{name}_{part}" for part in _PARTS))]
    return pd.DataFrame(rows, columns=["action", "dose", "quality", *fields])


def kept_others(matrix: pd.DataFrame, target: str = REFUSED, level: float = 0.95) -> Rate:
    """Return, of the prompts that had another answer class than `target`, how many have the same class after.

    What an edit leaves alone. Its complement is all it costs there: reverse flips, broken text, and changes between the
    other classes, of which sampling anew makes some, too.
    """
    others = [name for name in matrix.index if name != target and name not in STATES]
    rows = matrix.loc[others].to_numpy(dtype=np.int64)
    kept = matrix.loc[others, others].to_numpy(dtype=np.int64).trace()
    return rate(int(kept), int(rows.sum()), level)


def best_dose(curve: pd.DataFrame, *, max_broken: float = 0.02, max_reverse: float = 0.02) -> pd.Series[Any] | None:
    """Return the row of a dose curve with most flips among those that break and reverse little; None where none does.

    Both limits hold for the shares at hand: broken text among the target and among the others, reverse flips. Of equal
    rows the lowest dose wins. The choice is made on the prompts of the curve, so measure it again on others.
    """
    broken = curve[["broken", "broken_others"]].max(axis="columns")
    usable = curve[(broken <= max_broken) & ~(curve["reverse"] > max_reverse) & curve["flips"].notna()]
    if usable.empty:
        return None
    order = usable.sort_values(["flips", "dose"], ascending=[False, True], kind="stable")
    return order.iloc[0]


def layer_thirds(experts: Sequence[Expert], layers: Sequence[int]) -> dict[str, list[Expert]]:
    """Share out experts to the early, middle and late third of the MoE layers `layers`, in their order.

    The thirds are as even as they can be, the middle one taking what does not divide; a third may have no expert.
    """
    if len(layers) < len(THIRDS):
        raise DataError(f"Thirds need at least three MoE layers, not {len(layers)}.")
    ordered = sorted(layers)
    size = len(ordered) // 3
    part = {
        layer: "early" if at < size else "late" if at >= len(ordered) - size else "middle"
        for at, layer in enumerate(ordered)
    }
    found: dict[str, list[Expert]] = {name: [] for name in THIRDS}
    for layer, expert in experts:
        if layer not in part:
            raise DataError(
                f"Layer {layer} of expert {(layer, expert)} is no MoE layer of {ordered[0]} to {ordered[-1]}."
            )
        found[part[layer]].append((layer, expert))
    return found


def layer_shares(parts: Mapping[str, float], whole: float, nothing: float = 0.0) -> pd.DataFrame:
    """Return how much of an effect each group of layers has by itself.

    `parts` is the effect (say the flip share) with the experts of one group of layers only, `whole` with all of them,
    `nothing` with none (the test-retest). Columns: part, effect, share (of the whole's effect, both over `nothing`;
    nan where the whole has none). The last row, "together", is what the whole has beyond the parts' sum: positive where
    groups need each other, negative where each alone is enough.
    """
    gain = whole - nothing
    alone = {name: effect - nothing for name, effect in parts.items()}
    rows = [(name, parts[name], gained / gain if gain else float("nan")) for name, gained in alone.items()]
    together = gain - sum(alone.values())
    rows.append(("together", together, together / gain if gain else float("nan")))
    return pd.DataFrame(rows, columns=["part", "effect", "share"])


_PARTS: Final = ("hits", "total", "low", "high")
