"""Memory that a score of a long answer takes, with the patch and without: prompt log-probabilities in pieces.

    python -m tests.benchmarks.surprise_memory --out results/reach

Each leg is an engine in a process of its own that prefills a prompt of so many tokens twice: once for one token, once
for the log-probabilities of the prompt's own tokens too. What the second takes above the first's peak is the figure
(``ru_maxrss`` of the process). Model: two layers of 12 experts, hidden size 64, a vocabulary of 129,280; random.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import tests.conftest  # noqa: F401  (the environment of an offline engine)
from tests.benchmarks.router_patch import machine

VOCABULARY: Final = 129_280


def main() -> None:
    """Measure, print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1500, 8000])
    parser.add_argument("--stock", type=int, default=1500, help="the longest prompt that is tried without the patch")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--leg", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.leg:
        print(json.dumps(_leg(Path(args.leg[0]), int(args.leg[1]))))
        return
    from tests.tiny_models import make_model

    rows = []
    with tempfile.TemporaryDirectory() as work:
        folder = make_model("glm4", Path(work), vocab_size=VOCABULARY, num_hidden_layers=2,
                            max_position_embeddings=max(args.tokens) + 8)  # fmt: skip
        for tokens in args.tokens:
            for patch in ("1", "0") if tokens <= args.stock else ("1",):
                command = [sys.executable, "-m", "tests.benchmarks.surprise_memory", "--leg", str(folder), str(tokens)]
                environment = {**os.environ, "MOTE_PATCH": patch}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                rows.append({"tokens": tokens, "patch": patch == "1", **found})
                print(rows[-1], flush=True)
    if args.out is not None:
        report = {"machine": machine(), "vocabulary": VOCABULARY, "legs": rows}
        (args.out / "surprise-memory.json").write_text(json.dumps(report, indent=1) + "\n")


def _leg(folder: Path, tokens: int) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder),
        dtype="float32",
        max_model_len=tokens + 8,
        max_num_batched_tokens=tokens + 8,
        max_num_seqs=1,
        enforce_eager=True,
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
        kv_cache_memory_bytes=256 << 20,
    )
    prompt: Any = {"prompt_token_ids": [at % VOCABULARY for at in range(tokens)]}
    peaks = []
    for number in (None, 0):
        params = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, prompt_logprobs=number)
        found = llm.generate([prompt], params, use_tqdm=False)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    scored = found[0].prompt_logprobs
    return {"scored": len(scored or ()), "MB before": peaks[0], "MB above": peaks[1] - peaks[0]}


if __name__ == "__main__":
    main()
