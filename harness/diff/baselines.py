"""What finished runs say without being asked: classes of untouched answers, maps, routes, scans of single experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import pandas as pd

from mote.harness.diff.sides import Side, common
from mote.harness.experts.rankings import causal_scan
from mote.harness.science.causal import scan_effects, scan_margins
from mote.harness.science.clustered import NetEffect, net_effect
from mote.harness.science.inference import Significance, cluster_sign_test, mcnemar_exact, stuart_maxwell
from mote.harness.science.map_difference import Mapped, compare_maps
from mote.harness.science.transitions import ClusteredFlips, FlipRates, clustered_flips, flip_rates, transition_matrix
from mote.harness.store.run import RunStore
from mote.harness.store.scans import Scans, StoredScan
from mote.harness.sweep.routing import agreement

TOPS: Final = (10, 20, 50)


class Classes(NamedTuple):
    """What became of the class of each prompt, untouched, from the first model to the second.

    ``net`` is the fall of the class under study with its interval over units. ``changed`` counts prompts of another
    label, ``by_seed`` those of another label in the first model itself with another seed (None without a retest), of
    the ``retested``; ``beyond_seed`` tests whether the models differ more often than the seeds.
    """

    target: str
    matrix: pd.DataFrame
    rates: FlipRates
    clustered: ClusteredFlips | None
    net: NetEffect
    mcnemar: Significance
    margins: Significance
    changed: int
    retested: int
    by_seed: int | None
    beyond_seed: Significance | None


def class_changes(first: Side, second: Side) -> Classes:
    """Return the transitions of the untouched answers from one model to the other."""
    halves = first.halves
    before, after = (
        pd.Series(dict(side.labels), dtype=object).reindex(list(halves.prompts)) for side in (first, second)
    )
    units = [halves.units.get(key, key) for key in halves.prompts]
    classes, target = halves.label_set.classes, halves.target
    matrix = transition_matrix(before, after, classes)
    rates = flip_rates(matrix, target)
    clustered = None
    if halves.units:
        clustered = clustered_flips(before, after, pd.Series(units, index=before.index), classes, target)
    changed = before != after
    retest = pd.Series(dict(first.retest), dtype=object).reindex(before.index)
    asked = retest.notna()
    again = (retest != before) & asked
    beyond = None
    if asked.any():
        apart = (changed.astype(int) - again.astype(int))[asked]
        beyond = cluster_sign_test(apart.to_numpy(), [unit for unit, there in zip(units, asked, strict=True) if there])
    return Classes(
        target, matrix, rates, clustered,
        net_effect((before == target).to_numpy(float), (after == target).to_numpy(float), units),
        mcnemar_exact(rates.flips.hits, rates.reverse.hits), stuart_maxwell(matrix.to_numpy()),
        int(changed.sum()), int(asked.sum()), int(again.sum()) if asked.any() else None, beyond,
    )  # fmt: skip


def map_tables(first: Side, second: Side, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the correlation of maps by layer with the routing agreement, and the overlap of the leading experts.

    Maps are those of the prompts that both runs rank by. The agreement is of the prompts' tokens, which are the same in
    both (``sweep.routing``): the share of a layer's choices in common.
    """
    layers = first.halves.layers
    # Of every prompt that a run ranks by, not of its choosing half alone.
    left, right = first.halves.sides.marks, second.halves.sides.marks
    keys, at, other = common(first.mapped, second.mapped)
    taken = [i for i, key in enumerate(keys) if key in left and key in right]
    keys = [keys[i] for i in taken]
    mapped = (
        Mapped(first.maps[at[taken]], [left[key] for key in keys], first.halves.sides.target),
        Mapped(second.maps[other[taken]], [right[key] for key in keys], second.halves.sides.target),
    )
    size = len(layers) * first.halves.experts
    ks = [k for k in sorted({len(first.tuned.edits), *TOPS}) if k <= size // 2]
    maps, tops = compare_maps(*mapped, layers, ks, seed=seed)
    _, at, other = common(first.routed, second.routed)
    routed = agreement(first.routes[at], second.routes[other])
    maps["routing"] = [*routed.tolist(), float(routed.mean())]
    return maps.assign(prompts=len(keys), routed=len(at)), tops


def scan_difference(first: Side, second: Side) -> pd.DataFrame | None:
    """Return by how much each expert's effect differs between both runs' causal scans; None without like scans.

    Columns as of ``scan_effects``, ``effect`` the second's less the first's, on prompts with the same openings in both.
    """
    found = [_margins(side) for side in (first, second)]
    if found[0] is None or found[1] is None:
        return None
    (ours, left), (theirs, right) = found[0], found[1]
    if any(ours[key] != theirs[key] for key in ("action", "factor", "tokens", "alternatives")):
        return None
    same = [key for key, text in ours["prompts"].items() if theirs["prompts"].get(key) == text]
    if len(same) < 2:
        return None
    both = left[left["prompt_id"].isin(same)].merge(right, on=["layer", "expert", "prompt_id"], suffixes=("", "_other"))
    return scan_effects(pd.Series(0.0, index=same), both.assign(margin=both["fall"] - both["fall_other"]))


def _margins(side: Side) -> tuple[Mapping[str, Any], pd.DataFrame] | None:
    with RunStore(side.folder, read_only=True) as store:
        scans = Scans(store)
        found: StoredScan | None = causal_scan([one for one in scans.scans() if not one.by_masks])
        if found is None:
            return None
        margins = scan_margins(scans.scores(found.scan_id), found.openings)
    falls = margins.scan["prompt_id"].map(margins.untouched) - margins.scan["margin"]
    return found.settings, margins.scan.assign(fall=falls).dropna(subset=["fall"])
