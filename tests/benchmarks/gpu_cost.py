"""What the router patch costs on a GPU: output tokens per second against stock vLLM, by batch size.

    python -m tests.benchmarks.gpu_cost --shape qwen3-30b-a3b --out results/gpu

A model of a real shape has random weights, so nothing is downloaded. CUDA graphs and torch.compile are on, as when
serving, and the model runner is the one that vLLM chooses. One process measures stock vLLM (``MOTE_PATCH=0``), another
the patch; each fills the card, so they run one after the other, and a ratio is between two processes on one machine. In
a process the loads alternate, and a load's figure is the median of its rounds. A prompt has 128 tokens and an answer
64; the time of both counts, output tokens are divided by it. The process of the patch also asks the questions of
``mote verify``.

Loads: ``idle``, no request is tuned; ``tuned``, every request suppresses ten random experts; ``maps``, tuned, and the
prompt's map is captured; ``rows``, tuned, and the experts of every token.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

PROMPT, ANSWER = 128, 64
BATCHES = (1, 64, 256)
SHAPES: dict[str, dict[str, Any]] = {
    # The published configuration: 30.5 billion parameters, 61 GB.
    "qwen3-30b-a3b": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "hidden_act": "silu",
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
    },
    # DeepSeek-V3's attention, router and width; 10 of 58 layers with experts, each expert a quarter as wide.
    "deepseek-v3-reduced": {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 512,
        "num_hidden_layers": 11,
        "first_k_dense_replace": 1,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "n_group": 8,
        "topk_group": 4,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "vocab_size": 129280,
        "max_position_embeddings": 4096,
    },
}
LOADS = ("idle", "tuned", "maps", "rows")


def measure(folder: Path, rounds: int, patched: bool, out: Path) -> None:
    """Write the seconds of every load, batch size and round in this process, and then the answers of ``verify``."""
    import torch
    import vllm
    from vllm import LLM, SamplingParams

    from mote.patches import ModelLayout, Profile, read_observation, request_args
    from mote.patches.verify import verify
    from tests.patches.asking import random_profile

    llm = LLM(
        str(folder),
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=512,
        max_num_seqs=max(BATCHES),
        compilation_config={"cudagraph_capture_sizes": list(BATCHES)},
    )
    layout = ModelLayout.from_config(folder)
    profile = Profile("ten", random_profile(layout, 0, 10, "suppress").edits)

    def run(load: str, batch: int) -> float:
        capture = {"maps": "prompt", "rows": "rows"}.get(load)
        extra = None if load == "idle" else request_args(profile, capture)
        params = SamplingParams(temperature=0.0, max_tokens=ANSWER, ignore_eos=True, detokenize=False, extra_args=extra)
        prompts: Any = [{"prompt_token_ids": [(7 * i + 13 * n) % 32000 for n in range(PROMPT)]} for i in range(batch)]
        llm.reset_prefix_cache()
        start = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        spent = time.perf_counter() - start
        for output in outputs:
            if len(output.outputs[0].token_ids) != ANSWER:
                raise RuntimeError("an answer is short; the measure would be void")
            if extra is not None and read_observation(output.outputs[0]).receipt.tokens_edited != PROMPT + ANSWER - 1:
                raise RuntimeError("a request was not tuned; the measure would be void")
        return spent

    spent: dict[str, dict[str, list[float]]] = {}
    for batch in BATCHES:
        loads = LOADS if patched else ("idle",)
        times: dict[str, list[float]] = {load: [] for load in loads}
        for number in range(rounds + 1):
            for load in loads if number % 2 else reversed(loads):
                seconds = run(load, batch)
                if number:  # the first round warms up
                    times[load].append(round(seconds, 4))
        spent[str(batch)] = times
    config = llm.llm_engine.vllm_config
    found = {
        "card": torch.cuda.get_device_name(),
        "versions": {"vllm": vllm.__version__, "torch": torch.__version__},
        "runner": f"V{1 + config.use_v2_model_runner}",
        "graphs": getattr(config.compilation_config.cudagraph_mode, "name", "none"),
        "seconds": spent,
    }
    out.write_text(json.dumps(found))
    if patched:
        said = verify(llm, layout, rounds=1).to_markdown().replace(str(folder), "random weights")
        out.write_text(json.dumps(found | {"verify": said.splitlines()}))


def in_a_process(shape: str, rounds: int, patched: bool) -> dict[str, Any]:
    """Measure in a process of its own, whose end frees the card."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "out.json"
        command = [sys.executable, "-m", __spec__.name, "--shape", shape, "--rounds", str(rounds)]
        environment = {**os.environ, "MOTE_PATCH": str(int(patched)), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        subprocess.run([*command, "--child", str(out)], env=environment, check=True)
        answer: dict[str, Any] = json.loads(out.read_text())
        return answer


def table(stock: dict[str, Any], patched: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Output tokens per second of each load and batch size, and each load's ratio to stock."""
    rows: dict[str, dict[str, float]] = {}
    for batch, loads in patched["seconds"].items():
        base = median(stock["seconds"][batch]["idle"])
        rows[batch] = {"stock": round(int(batch) * ANSWER / base)}
        for load, times in loads.items():
            rows[batch][load] = round(int(batch) * ANSWER / median(times))
            rows[batch][f"{load} / stock"] = round(base / median(times), 3)
    return rows


def main() -> None:
    """Measure both, print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a folder")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        folder = args.child.parent / "model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(SHAPES[args.shape]))
        measure(folder, args.rounds, os.environ["MOTE_PATCH"] == "1", args.child)
        return
    stock = in_a_process(args.shape, args.rounds, False)
    patched = in_a_process(args.shape, args.rounds, True)
    rows = table(stock, patched)
    for batch, row in rows.items():
        print(f"batch {batch:>3}:", ", ".join(f"{name} {value:g}" for name, value in row.items()))
    report = {"shape": args.shape, "rounds": args.rounds, "prompt": PROMPT, "answer": ANSWER}
    report |= {"tokens_per_second": rows, "stock": stock, "patched": patched}
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{args.shape}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
