"""``mote merge diff``: how far two checkpoints of one architecture lie apart, tensor by tensor, expert by expert.

Both normalisations are offered, relative (||W1 - W0|| / ||W0||) and rms (||W1 - W0|| / sqrt(values)), by the Frobenius
norm; the normalisation of arXiv 2506.14794 was not verified. FP8 weights are measured by what they stand for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from mote.harness.errors import MoteError
from mote.harness.files import write_atomic
from mote.harness.merge.agreement import check_agreement, check_names
from mote.harness.merge.checkpoint import FLOATS, FP8, Checkpoint, open_checkpoint
from mote.harness.merge.compute import Files, squared_distance
from mote.harness.merge.groups import GROUPS, SCALE, Place, place_of
from mote.harness.merge.schema import Parent
from mote.harness.merge.sources import Finder, Source

COLUMNS: Final = ["tensor", "group", "layer", "expert", "values", "relative", "rms", "squares_apart", "squares"]


def open_pair(first: str, second: str) -> tuple[Checkpoint, Checkpoint, list[str]]:
    """Open two checkpoints and check that they can be compared; returns them with notes on harmless differences."""
    left, right = (open_checkpoint(name, Parent(path=path)) for name, path in (("A", first), ("B", second)))
    return left, right, check_agreement(left, right)


def distances(
    left: Checkpoint, right: Checkpoint, *, threads: int = 1, advance: Callable[[int], None] = lambda count: None
) -> pd.DataFrame:
    """Return one row a tensor of ``left`` (one an expert of fused ones), with ``COLUMNS``; integers are left out.

    ``squares`` sum the base's values, ``squares_apart`` the differences, both in float64: rows add up to groups.
    Raises MoteError where the two have not the same tensors in the same shapes.
    """
    import torch

    pairs = _pairs(left, right)
    files: Files = {
        (number, at): os.open(shard.path, os.O_RDONLY)
        for number, checkpoint in enumerate((left, right))
        for at, shard in enumerate(checkpoint.shards)
    }
    kept = torch.get_num_threads()
    torch.set_num_threads(1)

    def measure(pair: tuple[str, Place, int | None, Source, Source]) -> tuple[object, ...]:
        name, place, expert, base, other = pair
        apart, own, count = squared_distance(files, base, other)
        advance(sum(one.nbytes for one in base.ranges))
        number = place.expert if expert is None else expert
        relative = float(np.sqrt(apart / own)) if own else (0.0 if not apart else float("inf"))
        return (name, place.group, place.layer, number, count, relative, float(np.sqrt(apart / count)), apart, own)

    try:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            rows = list(pool.map(measure, pairs))
    finally:
        torch.set_num_threads(kept)
        for handle in files.values():
            os.close(handle)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype({"layer": "Int64", "expert": "Int64"})


def summed(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the distances of groups of tensors: ``by`` names columns (group, layer, expert); rows without one go."""
    kept = frame.dropna(subset=by)
    sums = kept.groupby(by, sort=False)[["values", "squares_apart", "squares"]].sum().reset_index()
    sums["relative"] = np.sqrt(sums["squares_apart"] / sums["squares"].where(sums["squares"] > 0))
    sums["rms"] = np.sqrt(sums["squares_apart"] / sums["values"])
    if by == ["group"]:
        return sums.set_index("group").reindex([one for one in GROUPS if one in set(sums["group"])]).reset_index()
    return sums.sort_values(by).reset_index(drop=True)


def write_distances(frame: pd.DataFrame, out: Path) -> list[Path]:
    """Write ``distances.parquet``, tables by group, layer and expert, and the heat map; return their paths."""
    from mote.harness.merge.heat_map import heat_map

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "distances.parquet"]
    frame.drop(columns=["squares_apart", "squares"]).to_parquet(paths[0], index=False)
    for name, by in (("groups", ["group"]), ("layers", ["group", "layer"]), ("experts", ["layer", "expert"])):
        rows = frame[frame["group"] == "routed_experts"] if name == "experts" else frame
        table = summed(rows, by)[[*by, "values", "relative", "rms"]]
        if len(table):
            write_atomic(out / f"{name}.csv", table.to_csv(index=False))
            paths.append(out / f"{name}.csv")
    write_atomic(out / "distances.svg", heat_map(frame))
    return [*paths, out / "distances.svg"]


def _pairs(left: Checkpoint, right: Checkpoint) -> list[tuple[str, Place, int | None, Source, Source]]:
    ours, theirs = Finder(0, left), Finder(1, right)
    found, missing = [], []
    for name, entry in left.tensors.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in left.tensors:
            continue
        place = place_of(name, left.layers)
        experts: list[int | None] = list(range(entry.shape[0])) if place.fused and entry.shape else [None]
        for expert in experts:
            base, other = ours.find(name, place, expert), theirs.find(name, place, expert)
            if other is None and place.group != "mtp":
                missing.append(name)
            if base is None or other is None:
                continue
            if base.shape != other.shape:
                raise MoteError(
                    f"'{name}' is {list(base.shape)} in {left.source}, {list(other.shape)} in {right.source}."
                )
            if {base.dtype, other.dtype} <= {*FLOATS, FP8} and entry.nbytes:
                found.append((name if expert is None else f"{name}[{expert}]", place, expert, base, other))
    check_names(left, right, missing, theirs.used)
    return found
