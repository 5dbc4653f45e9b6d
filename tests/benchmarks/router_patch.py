"""What the router patch costs: tokens per CPU second against stock vLLM, in one process, in alternating rounds.

    python -m tests.benchmarks.router_patch --family glm4 --mode eager --rounds 10 --out results/router-patch

One engine is both sides: for a stock run every hook is taken out of vLLM, the routers get their own classes back, the
scheduler's place for the ledger is empty, and, compiled, the model runs another graph: the one that vLLM compiles when
nothing of the patch is there. So both sides read the same weights and caches at the same addresses. (Two engines of
one model differ by 3% for no other reason.) Compiled, a further row, ``operator``, keeps the patch's graph and takes
out every hook: what the call in the graph alone costs.
Each round runs every workload once, in turned order, and a workload's ratio is taken to the stock run of the same
round, so that drift of the machine cancels; the table shows medians over the rounds. CPU seconds of the whole process
are counted, so a busy machine slows the clock on the wall and the measure less.

Model: 8 layers with experts, hidden size 512, 64 experts of width 256, 6 chosen. Load: 64 requests of 64 + 32 tokens;
profiles suppress 10 random experts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

MODEL: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "moe_intermediate_size": 256,
    "num_experts_per_tok": 6,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "glm4": {"num_hidden_layers": 9, "n_routed_experts": 64, "n_group": 1, "topk_group": 1},
    "qwen3": {"num_hidden_layers": 8, "num_experts": 64},
}
TARGETS = {"idle": 0.99, "half tuned": 0.97, "all tuned": 0.96, "all tuned, prompt capture": 0.94}


@contextmanager
def stock(llm: Any, graph: dict[str, Any] | None = None) -> Iterator[None]:
    """Take every hook of the patch out of vLLM, and out of one engine's routers and scheduler; put all back after.

    ``graph`` holds the attributes in which the compiled model keeps its graph, as they are without the patch.
    """
    from mote.patches.wrap import HOOKS

    core = llm.llm_engine.engine_core.engine_core
    model = compiled_model(core)
    routers = tuned_routers(core)
    classes = [type(router) for router in routers]
    ledger, core.scheduler.aux_output_connector = core.scheduler.aux_output_connector, None
    mine = {name: getattr(model, name) for name in graph or {}}
    for owner, name, original, _ in reversed(HOOKS):
        setattr(owner, name, original)
    for router in routers:
        router.__class__ = type(router).__bases__[0]
    for name, value in (graph or {}).items():
        setattr(model, name, value)
    try:
        yield
    finally:
        for name in graph or {}:
            setattr(model, name, mine[name])
        for router, tuned in zip(routers, classes, strict=True):
            router.__class__ = tuned
        for owner, name, _, wrapped in HOOKS:
            setattr(owner, name, wrapped)
        core.scheduler.aux_output_connector = ledger


def stock_graph(llm: Any) -> dict[str, Any]:
    """Compile the model of an engine a second time, without the patch, as the engine did at its start."""
    core = llm.llm_engine.engine_core.engine_core
    model = compiled_model(core)
    with stock(llm, {"aot_compiled_fn": None, "compiled": False}):
        core.model_executor.driver_worker.worker.model_runner.warming_up_model()
        return {"aot_compiled_fn": model.aot_compiled_fn, "compiled": True}


def compiled_model(core: Any) -> Any:
    """Return the module of an engine that vLLM compiles."""
    return core.model_executor.driver_worker.worker.model_runner.get_model().model


def tuned_routers(core: Any) -> list[Any]:
    """Return the routers of an engine's model that call the patch."""
    routers = [module.router for module in compiled_model(core).modules() if hasattr(module, "router")]
    return [router for router in routers if hasattr(router, "mote_state")]


@contextmanager
def counted_routes(llm: Any) -> Iterator[Counter[str]]:
    """Count how often routers reach the patch, by their own way or by the operator of the compiled graph."""
    core = llm.llm_engine.engine_core.engine_core
    state, calls = core.model_executor.driver_worker.worker.model_runner.mote_state, Counter[str]()
    original = state.route

    def route(*args: Any) -> None:
        calls["route"] += 1
        original(*args)

    state.route = route
    try:
        yield calls
    finally:
        del state.route


def workloads(layout: Any, requests: int) -> dict[str, Callable[[int], tuple[Any, Any]]]:
    """Name each workload: (profile, capture) of the i-th request."""
    from mote.patches import Profile
    from tests.patches.asking import random_profile

    many = [Profile(str(i), random_profile(layout, i, actions="suppress").edits) for i in range(requests)]
    return {
        "idle": lambda i: (None, None),
        "half tuned": lambda i: (many[0] if i % 2 else None, None),
        "all tuned": lambda i: (many[0], None),
        "all tuned, prompt capture": lambda i: (many[0], "prompt"),
        f"{requests} different profiles": lambda i: (many[i], None),
    }


def measure(folder: Path, mode: str, rounds: int, requests: int, only: list[str]) -> dict[str, list[float]]:
    """Return CPU seconds by workload and round; ``stock`` is vLLM without the patch."""
    from vllm import LLM

    from mote.patches import ModelLayout, read_observation
    from tests.patches.asking import Ask, random_prompt

    options: dict[str, Any] = {
        "dtype": "bfloat16",
        "max_model_len": 128,
        "max_num_seqs": requests,
        "enable_prefix_caching": False,
    }
    options |= {"enforce_eager": mode == "eager", "max_num_batched_tokens": 4096}
    llm = LLM(str(folder), **options)
    graph = stock_graph(llm) if mode == "compiled" else None
    loads = workloads(ModelLayout.from_config(folder), requests)
    if only:
        loads = {name: load for name, load in loads.items() if name in only}
    prompts = [random_prompt(i, 64) for i in range(requests)]

    def run(load: Callable[[int], tuple[Any, Any]]) -> float:
        asks = [Ask(prompt, *load(i), max_tokens=32) for i, prompt in enumerate(prompts)]
        inputs: Any = [{"prompt_token_ids": each.prompt} for each in asks]
        params = [each.params() for each in asks]
        start = time.process_time()
        outputs = llm.generate(inputs, params, use_tqdm=False)
        spent = time.process_time() - start
        for each, output in zip(asks, outputs, strict=True):
            if each.profile is not None and read_observation(output.outputs[0]).receipt.tokens_edited != 95:
                raise RuntimeError("a request was not tuned; the measure would be void")
        return spent

    def untuned(graph: dict[str, Any] | None) -> float:
        with stock(llm, graph):
            return run(lambda i: (None, None))

    runs: dict[str, Callable[[], float]] = {"stock": lambda: untuned(graph)}
    if mode == "compiled":
        runs["operator"] = lambda: untuned(None)
    runs |= {name: (lambda load=load: run(load)) for name, load in loads.items()}  # type: ignore[misc]
    for name, once in runs.items():
        with counted_routes(llm) as calls:
            once()
        if (calls["route"] == 0) != (name == "stock"):
            raise RuntimeError(f"the patch was called {calls['route']} times in '{name}'; the measure would be void")
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs) if number % 2 else reversed(runs):
            spent[name].append(runs[name]())
    return spent


def machine() -> str:
    """Name the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    """Measure, print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=sorted(FAMILIES), default="glm4")
    parser.add_argument("--mode", choices=["eager", "compiled"], default="eager")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--only", action="append", default=[], help="a workload to run, beside stock; may be repeated")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    import tests.conftest  # noqa: F401  (the environment of an offline engine)
    from tests.tiny_models import make_model

    with tempfile.TemporaryDirectory() as work:
        folder = make_model(args.family, Path(work), **MODEL | FAMILIES[args.family])
        spent = measure(folder, args.mode, args.rounds, args.requests, args.only)
    tokens = args.requests * 96
    rows = {
        name: {
            "tokens_per_cpu_second": round(tokens / median(times)),
            "ratio": round(median(base / own for base, own in zip(spent["stock"], times, strict=True)), 4),
            "target": TARGETS.get(name),
            "cpu_seconds": [round(value, 3) for value in times],
        }
        for name, times in spent.items()
    }
    report = {"family": args.family, "mode": args.mode, "requests": args.requests, "rounds": args.rounds}
    report |= {"machine": machine(), "workloads": rows}
    for name, row in rows.items():
        print(f"{name:28s} {row['tokens_per_cpu_second']:>8} tokens/CPU s  ratio {row['ratio']:.4f}")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        name = f"{args.family}-{args.mode}-{args.requests}.json"
        (args.out / name).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
