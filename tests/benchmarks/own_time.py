"""The patch's own CPU time: how much of an engine's time is spent inside it.

    python -m tests.benchmarks.own_time --family glm4 --out results/router-patch

``tests.benchmarks.router_patch`` compares whole runs, which needs a quiet machine: on a shared one, runs of the same
work differ by more than the patch costs. Here each entry into the patch is clocked with the thread's own CPU time,
which no neighbour adds to, and the sum is set against the CPU time of the whole run. Model and load are the same. What
it leaves out is what vLLM itself does for a request with a profile: clone its parameters, carry the packet.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from tests.benchmarks.router_patch import FAMILIES, MODEL, machine, workloads


def clock(owner: type, name: str, spent: Counter[str]) -> None:
    """Add the thread's CPU nanoseconds inside a method to ``spent``."""
    original: Callable[..., Any] = getattr(owner, name)

    @wraps(original)
    def clocked(*args: Any, **kwargs: Any) -> Any:
        start = time.thread_time_ns()
        try:
            return original(*args, **kwargs)
        finally:
            spent[name] += time.thread_time_ns() - start

    setattr(owner, name, clocked)


def measure(folder: Path, requests: int) -> dict[str, dict[str, Any]]:
    """Return for each workload the CPU seconds of the run, those inside the patch, and their share."""
    from vllm import LLM

    from mote.patches import ModelLayout
    from mote.patches.admission import Admission
    from mote.patches.host import HostState
    from mote.patches.ledger import Ledger
    from tests.patches.asking import Ask, random_prompt

    spent: Counter[str] = Counter()
    for owner, names in (
        (Admission, ("accept",)),
        (HostState, ("admit", "begin", "route", "end", "forget")),
        (Ledger, ("absorb", "take_output", "request_finished")),
    ):
        for name in names:
            clock(owner, name, spent)
    options: dict[str, Any] = {"dtype": "bfloat16", "max_model_len": 128, "max_num_seqs": requests}
    options |= {"enforce_eager": True, "enable_prefix_caching": False, "max_num_batched_tokens": 4096}
    llm = LLM(str(folder), **options)
    rows: dict[str, dict[str, Any]] = {}
    for name, load in workloads(ModelLayout.from_config(folder), requests).items():
        asks = [Ask(random_prompt(i, 64), *load(i), max_tokens=32) for i in range(requests)]
        inputs: Any = [{"prompt_token_ids": each.prompt} for each in asks]
        params = [each.params() for each in asks]
        for _ in range(2):  # the first one warms up
            spent.clear()
            start = time.process_time()
            llm.generate(inputs, params, use_tqdm=False)
            whole = time.process_time() - start
        own = sum(spent.values()) / 1e9
        parts = {part: round(value / 1e9, 4) for part, value in spent.items()}
        rows[name] = {"cpu_seconds": round(whole, 3), "patch": round(own, 4), "share": round(own / whole, 4)} | parts
    return rows


def main() -> None:
    """Measure, print, and write the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=sorted(FAMILIES), default="glm4")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    import tests.conftest  # noqa: F401  (the environment of an offline engine)
    from tests.tiny_models import make_model

    with tempfile.TemporaryDirectory() as work:
        rows = measure(make_model(args.family, Path(work), **MODEL | FAMILIES[args.family]), args.requests)
    for name, row in rows.items():
        print(f"{name:28s} {row['cpu_seconds']:7.3f} CPU s, in the patch {row['patch']:.4f}, share {row['share']:.4f}")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        report = {"family": args.family, "mode": "eager", "requests": args.requests, "machine": machine()}
        text = json.dumps(report | {"workloads": rows}, indent=1)
        (args.out / f"own-time-{args.family}-{args.requests}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
