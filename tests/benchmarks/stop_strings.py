"""What stop strings cost under a large profile: bytes an answer, memory, and tokens per second.

    python -m tests.benchmarks.stop_strings --out results/reach

The load is that of lm-eval's generation tasks (GSM8K): few-shot prompts, greedy answers, several stop strings that may
never come. One engine answers the same requests in alternating rounds: untuned without and with stop strings, and
under a profile of 1,000 edits without and with them. A ratio is taken to the untuned run with stop strings of the same
round, so that drift of the machine cancels. Memory is what the packets weigh: all that left the scheduler for an
answer, what vLLM's front end kept of it until its end, and the packet that the client got; and the process's resident
memory at most, sampled every 20 ms.

Model: 24 layers of 128 experts, 8 chosen, hidden size 64; random weights. Load: 16 requests of 64 + 200 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.router_patch import machine

MODEL: dict[str, Any] = {
    "num_hidden_layers": 25,
    "n_routed_experts": 128,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 8,
}
STOP = ["Question:", "</s>", "<|im_end|>"]
REQUESTS, PROMPT, TOKENS, EDITS = 16, 64, 200, 1000
BASE = "no edits, stop strings"


def main() -> None:
    """Measure, print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--capture", action="store_true", help="the tuned requests also ask for maps of their roles")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    import tests.conftest  # noqa: F401  (the environment of an offline engine)
    from tests.tiny_models import make_model

    with tempfile.TemporaryDirectory() as work:
        rows = measure(make_model("glm4", Path(work), **MODEL), args.rounds, "roles" if args.capture else None)
    report = {"machine": machine(), "rounds": args.rounds, "requests": REQUESTS, "tokens": TOKENS, "edits": EDITS}
    report |= {"capture": args.capture, "workloads": rows}
    for name, row in rows.items():
        print(name, row)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        file = args.out / f"stop-strings{'-roles' if args.capture else ''}.json"
        file.write_text(json.dumps(report, indent=1) + "\n")


def measure(folder: Path, rounds: int, capture: str | None) -> dict[str, dict[str, Any]]:
    """Return for each workload: tokens per second of wall and CPU time, the ratio, bytes an answer, and peak memory."""
    from vllm import LLM

    from mote.patches import ModelLayout, Profile
    from tests.patches.asking import random_profile

    llm = LLM(
        str(folder),
        dtype="float32",
        max_model_len=PROMPT + TOKENS,
        max_num_seqs=REQUESTS,
        enforce_eager=True,
        enable_prefix_caching=False,
    )
    wide = Profile("wide", random_profile(ModelLayout.from_config(folder), 0, EDITS, actions="suppress").edits)
    loads = {
        "no edits": (None, []),
        BASE: (None, STOP),
        f"{EDITS} edits": (wide, []),
        f"{EDITS} edits, stop strings": (wide, STOP),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in loads}
    sizes: dict[str, dict[str, int]] = {}
    for number in range(rounds + 1):
        for name in list(loads) if number % 2 else reversed(loads):
            wall, cpu = time.perf_counter(), time.process_time()
            with resident() as peak, counted_packets(llm) as packets:
                packet = run(llm, *loads[name], capture)
            if number:  # the first round warms up
                spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            sent, kept = (max(packets[part].values(), default=0) for part in ("sent", "kept"))
            sizes[name] = {"sent": sent, "kept": kept, "packet": packet // REQUESTS, "resident_mb": peak[0] >> 20}
    rows = {}
    for name, times in spent.items():
        rows[name] = {
            "tokens_per_second": round(REQUESTS * TOKENS / median(wall for wall, _ in times), 1),
            "tokens_per_cpu_second": round(REQUESTS * TOKENS / median(cpu for _, cpu in times), 1),
            "ratio": round(median(base[1] / own[1] for base, own in zip(spent[BASE], times, strict=True)), 4),
            "bytes_an_answer": sizes[name],
            "cpu_seconds": [round(cpu, 3) for _, cpu in times],
        }
    return rows


@contextmanager
def resident() -> Iterator[list[int]]:
    """Sample the process's resident memory while something runs; the list holds the most bytes that were seen."""
    peak, ended = [0], threading.Event()
    page = os.sysconf("SC_PAGE_SIZE")

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], int(Path("/proc/self/statm").read_text().split()[1]) * page)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


@contextmanager
def counted_packets(llm: Any) -> Iterator[dict[str, dict[str, int]]]:
    """Count by request the bytes that leave the scheduler, and those that vLLM's front end keeps until the end."""
    counts: dict[str, dict[str, int]] = {"sent": {}, "kept": {}}
    processor = llm.llm_engine.output_processor
    original = processor.process_outputs

    def process_outputs(outputs: Any, *args: Any, **kwargs: Any) -> Any:
        states = {output.request_id: processor.request_states.get(output.request_id) for output in outputs}
        for output in outputs:
            if output.routed_experts is not None:
                sent = counts["sent"].get(output.request_id, 0)
                counts["sent"][output.request_id] = sent + output.routed_experts.nbytes
        result = original(outputs, *args, **kwargs)
        for name, state in states.items():
            if state is not None and state.routed_experts_chunks:
                counts["kept"][name] = sum(chunk.nbytes for chunk in state.routed_experts_chunks)
        return result

    processor.process_outputs = process_outputs
    try:
        yield counts
    finally:
        del processor.process_outputs


def run(llm: Any, profile: Any, stop: list[str], capture: str | None) -> int:
    """Answer all requests once and return the bytes of their packets."""
    from vllm import SamplingParams

    from mote.patches import read_observation, request_args
    from tests.patches.asking import random_prompt

    extra = None if profile is None else request_args(profile, capture)
    settings = {"temperature": 0.0, "max_tokens": TOKENS, "ignore_eos": True}
    params = SamplingParams(**settings, stop=stop, extra_args=extra)  # type: ignore[arg-type]
    prompts: Any = [{"prompt_token_ids": random_prompt(i, PROMPT)} for i in range(REQUESTS)]
    size = 0
    for output in llm.generate(prompts, params, use_tqdm=False):
        answer = output.outputs[0]
        if len(answer.token_ids) != TOKENS:
            raise RuntimeError("an answer ended early; the measure would be void")
        if profile is not None:
            size += answer.routed_experts.nbytes
            if read_observation(answer).receipt.tokens_edited != PROMPT + TOKENS - 1:
                raise RuntimeError("a request was not tuned; the measure would be void")
    return size


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
