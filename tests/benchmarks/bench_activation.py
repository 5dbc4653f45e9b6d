"""How fast maps of DeepSeek-R1's shape (58 x 256) are added up, and how much memory that takes.

    python tests/benchmarks/bench_activation.py [--maps 100000] [--limit-s 60] [--limit-mib 64]

Maps come from a small pool, made beforehand, so that only the adding is timed; the memory limit is on what the process
grows by while it adds. Exit code 1 when a limit is broken. A million maps: --maps 1000000 --limit-s 600.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np

from mote.harness.science.maps import MapAccumulator

LAYERS, EXPERTS, TOP_K, TOKENS = 58, 256, 8, 40
LABELS = ("0-REFUSED", "1-ALIGNED", "2-REASONED")


def peak_mib() -> float:
    """The largest resident memory of this process so far, in MiB (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=100_000)
    parser.add_argument("--limit-s", type=float, default=60.0)
    parser.add_argument("--limit-mib", type=float, default=64.0)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    chance = rng.dirichlet(np.full(EXPERTS, 0.3))
    pool = rng.multinomial(TOKENS * TOP_K, chance, size=(64, LAYERS)).astype(np.int32)
    accumulator = MapAccumulator(LAYERS, EXPERTS)
    for label in LABELS:
        accumulator.add(pool[0], label, TOKENS)
    before = peak_mib()
    start = time.perf_counter()
    for i in range(options.maps):
        accumulator.add(pool[i % 64], LABELS[i % 3], TOKENS)
    took = time.perf_counter() - start
    grown = peak_mib() - before
    spread = accumulator.contrast(LABELS[0]).ours.variance.max()
    print(f"{options.maps:,} maps of {LAYERS} x {EXPERTS}: {took:.1f} s ({options.maps / took:,.0f} a second), ")
    print(f"memory grew by {grown:.1f} MiB (peak {peak_mib():.0f} MiB), largest variance {spread:.3g}")
    return int(took > options.limit_s or grown > options.limit_mib)


if __name__ == "__main__":
    sys.exit(main())
