"""A merge at R1's size: 91,991 tensors and 689 GB a parent, on sparse files of which one shard has real bytes.

    python -m tests.benchmarks.merge_r1 FOLDER [--recipe r1t] [--shard-bytes 4300000000] [--threads 2]

Plans the whole merge, writes the one shard, and projects time by its share of the bytes. FOLDER takes three shards.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np

from mote.harness.merge.child import check_target
from mote.harness.merge.plan import Plan, make_plan
from mote.harness.merge.schema import load_merge_recipe
from mote.harness.tensors import TensorFile
from tests.harness.merge.checkpoints import DeepSeek, write_sparse


def fill(file: TensorFile, seed: int) -> None:
    """Give a sparse shard random bytes that are numbers: no NaN among FP8 codes, small scales and weights."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 256, 1 << 24, dtype=np.uint8)
    codes[(codes & 0x7F) == 0x7F] = 0
    handle = os.open(file.path, os.O_RDWR)
    for entry in file.tensors.values():
        if entry.dtype == "F8_E4M3":
            blocks = codes
        else:
            values = (generator.random(1 << 20, dtype=np.float32) + 0.5) * np.float32(1e-3)
            blocks = (
                (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
                if entry.dtype == "BF16"
                else values.view(np.uint8)
            )
        for at in range(0, entry.nbytes, len(blocks)):
            os.pwrite(handle, blocks[: min(len(blocks), entry.nbytes - at)].data, entry.start + at)
    os.close(handle)


def planned(recipe: str, folder: Path) -> tuple[Plan, dict[str, Any]]:
    """Return the plan, and how long it took to make and check it, three times."""
    walls, cpus = [], []
    for _ in range(3):
        wall, cpu = perf_counter(), process_time()
        plan = make_plan(load_merge_recipe(recipe, [f"first={folder / 'a'}", f"second={folder / 'b'}"]))
        walls.append(perf_counter() - wall)
        cpus.append(process_time() - cpu)
    return plan, {"seconds": median(walls), "best_seconds": min(walls), "cpu_seconds": median(cpus)}


def refusal(plan: Plan, out: Path) -> str:
    """Return what a merge of the whole to this disk is told."""
    try:
        check_target(plan, out)
    except Exception as error:
        return str(error).replace(str(out), "OUT")
    return "the disk has room"


def anonymous_mb() -> float:
    """Return this process's anonymous memory in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) * 1024 / 1e6


def main() -> None:
    """Rehearse and print what was seen as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="r1t")
    parser.add_argument("--shard-bytes", type=int, default=4_300_000_000)
    parser.add_argument("--shard", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    for name in "ab":
        write_sparse(asked.folder / name, DeepSeek(), asked.shard_bytes)
    plan, planning = planned(asked.recipe, asked.folder)
    found: dict[str, Any] = {
        "recipe": asked.recipe,
        "tensors": len(plan.base.tensors),
        "shards": len(plan.shards),
        "bytes": plan.total,
        "copied_or_kept": plan.bytes_of("copied") + plan.bytes_of("kept"),
        "mixed": plan.bytes_of("mixed"),
        "planning": planning,
        "without room": refusal(plan, asked.folder / "child"),
        "anonymous_mb_of_the_plan": anonymous_mb(),
    }
    print(json.dumps(found), flush=True)
    from mote.harness.merge.writing import write_shard

    for seed, parent in enumerate(plan.parents):
        fill(parent.shards[asked.shard], seed)
    peaks: list[float] = []
    (asked.folder / "child").mkdir(exist_ok=True)
    wall, cpu = perf_counter(), process_time()
    path = asked.folder / "child" / plan.base.shards[asked.shard].path.name
    written = write_shard(plan, asked.shard, path, {}, asked.threads, lambda count: peaks.append(anonymous_mb()))
    wall, cpu = perf_counter() - wall, process_time() - cpu
    share = written.size / plan.total
    print(
        json.dumps(
            {
                "shard_bytes": written.size,
                "seconds": wall,
                "cpu_seconds": cpu,
                "projected_hours": wall / share / 3600,
                "projected_cpu_hours": cpu / share / 3600,
                "anonymous_mb": max(peaks),
                "threads": asked.threads,
                "load": os.getloadavg(),
            }
        )
    )


if __name__ == "__main__":
    main()
