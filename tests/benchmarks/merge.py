"""What a merge costs, beside `cp` and beside mergekit, as ratios within one run.

    python -m tests.benchmarks.merge FOLDER [--rounds 5] [--mergekit /path/of/mergekit-yaml] [--parts speed,memory,...]

FOLDER takes about 8 GB. Parents are random Mixtral checkpoints (16 experts a layer, 24,000 words), read once before
each measurement; each round measures `cp` of the child with `sync`, one read of the second parent, and the merges,
each in this process with torch loaded. ``memory`` runs merges in processes of their own and takes the highest
anonymous memory of /proc/PID/status, every 5 ms; its 8 GB parents are sparse, their child is not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any

import torch

from mote.harness.files import digest_file
from mote.harness.merge.arithmetic import dequantise, mix_dequantised, quantise
from mote.harness.merge.child import make_child
from mote.harness.merge.plan import make_plan
from mote.harness.merge.schema import MergeRecipe
from tests.harness.merge.checkpoints import DeepSeek, Spec, write_checkpoint, write_holes, write_sparse

HIDDEN, WIDTH, EXPERTS, VOCABULARY = 1024, 1024, 16, 24_000
ALL = [{"groups": ["all"], "weights": {"b": 0.5}}]
COPY = [{"groups": ["all"], "weights": {"b": 1}}]
EXPERT_COPY = [{"groups": ["routed_experts"], "weights": {"b": 1}}]


def specs(layers: int) -> list[Spec]:
    """Return a Mixtral's tensors; 11 layers are 1.27 GB."""
    found = [Spec("model.embed_tokens.weight", "BF16", (VOCABULARY, HIDDEN))]
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        found += [Spec(f"{stem}.self_attn.{one}_proj.weight", "BF16", (HIDDEN, HIDDEN)) for one in "qo"]
        found += [Spec(f"{stem}.self_attn.{one}_proj.weight", "BF16", (HIDDEN // 4, HIDDEN)) for one in "kv"]
        found += [Spec(f"{stem}.{one}_layernorm.weight", "BF16", (HIDDEN,)) for one in ("input", "post_attention")]
        found.append(Spec(f"{stem}.block_sparse_moe.gate.weight", "BF16", (EXPERTS, HIDDEN)))
        for expert in range(EXPERTS):
            experts = f"{stem}.block_sparse_moe.experts.{expert}"
            found += [Spec(f"{experts}.w{one}.weight", "BF16", (WIDTH, HIDDEN)) for one in (1, 2, 3)]
    return [*found, Spec("model.norm.weight", "BF16", (HIDDEN,)), Spec("lm_head.weight", "BF16", (VOCABULARY, HIDDEN))]


def config(layers: int) -> dict[str, Any]:
    """Return the configuration of such a Mixtral."""
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_hidden_layers": layers,
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDTH,
        "vocab_size": VOCABULARY,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def make_pair(folder: Path, layers: int) -> dict[str, Path]:
    """Write two random parents, unless they are there."""
    found = {}
    for seed, name in enumerate("ab"):
        found[name] = folder / f"{layers}-{name}"
        if not (found[name] / "model.safetensors").is_file():
            generator = torch.Generator().manual_seed(seed)
            tensors = {
                one.name: (torch.randn(one.shape, generator=generator) * 0.02).bfloat16() for one in specs(layers)
            }
            write_checkpoint(found[name], tensors, config(layers))
    return found


def merge(parents: dict[str, Path], rules: list[dict[str, Any]], out: Path, threads: int, **more: Any) -> None:
    """Make a child anew."""
    shutil.rmtree(out, ignore_errors=True)
    recipe = {"name": "bench", "parents": {name: str(path) for name, path in parents.items()}, "base": "a"}
    make_child(make_plan(MergeRecipe.model_validate(recipe | {"rules": rules} | more)), out, threads=threads)


def read(path: Path) -> None:
    """Read a file once."""
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that something takes, by the clock and of CPU time, `cp`'s included."""
    wall, cpu = perf_counter(), _cpu()
    work()
    return perf_counter() - wall, _cpu() - cpu


def _cpu() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def speed(folder: Path, rounds: int) -> dict[str, Any]:
    """Return medians of seconds, and of the ratios round by round."""
    parents = make_pair(folder, 11)
    first, second, out = parents["a"] / "model.safetensors", parents["b"] / "model.safetensors", folder / "child"
    copied = folder / "copied.safetensors"

    def cp() -> None:
        copied.unlink(missing_ok=True)
        subprocess.run(["cp", first, copied], check=True)
        subprocess.run(["sync", copied], check=True)

    far = {"threshold": {"distance": "relative", "above": 0.1}}
    work: dict[str, Callable[[], object]] = {
        "cp and sync": cp,
        "read of the second parent": lambda: read(second),
        "sha256 of the child": lambda: digest_file(first),
        "mixing all, 1 thread": lambda: merge(parents, ALL, out, 1),
        "mixing all, 2 threads": lambda: merge(parents, ALL, out, 2),
        "mixing all with a threshold, 2 threads": lambda: merge(parents, ALL, out, 2, **far),
        "copying all, 1 thread": lambda: merge(parents, COPY, out, 1),
        "copying all, 2 threads": lambda: merge(parents, COPY, out, 2),
        "copying the experts, 2 threads": lambda: merge(parents, EXPERT_COPY, out, 2),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(rounds):
        read(first)
        read(second)
        for name, one in work.items():
            times[name].append(timed(one))
    wall = {name: [one[0] for one in found] for name, found in times.items()}
    ratios = {}
    cpu_all = {name: [one[1] for one in found] for name, found in times.items()}
    for name in list(work)[3:]:
        read_too = wall["read of the second parent"] if name.startswith("mixing") else [0.0] * rounds
        shares = [a / (b + c) for a, b, c in zip(wall[name], wall["cp and sync"], read_too, strict=True)]
        ratios[name] = {"median": median(shares), "best": min(shares), "worst": max(shares)}
        read_cpu = cpu_all["read of the second parent"] if name.startswith("mixing") else [0.0] * rounds
        ratios[name]["cpu"] = median(
            a / (b + c) for a, b, c in zip(cpu_all[name], cpu_all["cp and sync"], read_cpu, strict=True)
        )
    return {
        "bytes": first.stat().st_size,
        "rounds": rounds,
        "seconds": {name: median(found) for name, found in wall.items()},
        "cpu_seconds": {name: median(found) for name, found in cpu_all.items()},
        "ratios": ratios,
    }


def linear(folder: Path, rounds: int) -> dict[str, Any]:
    """Return seconds a GB, by CPU time of this process, at three sizes."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for layers in (5, 11, 23):
            parents = make_pair(folder, layers)
            for path in parents.values():
                read(path / "model.safetensors")
            size = (parents["a"] / "model.safetensors").stat().st_size
            _, cpu = timed(partial(merge, parents, ALL, folder / "child", 1))
            found.setdefault(f"{size / 1e9:.2f} GB", []).append(cpu / size * 1e9)
    shutil.rmtree(folder / "child", ignore_errors=True)
    return {size: min(one) for size, one in found.items()}


def memory(folder: Path) -> dict[str, Any]:
    """Return the highest anonymous memory (MB) of merges of 1.27 and 8 GB, and of a process that imports torch."""
    sparse = {}
    for name in "ab":
        sparse[name] = folder / f"sparse-{name}"
        sparse[name].mkdir(exist_ok=True)
        (sparse[name] / "config.json").write_text(json.dumps(config(77)))
        write_holes(sparse[name] / "model.safetensors", specs(77))
    fp8 = {name: folder / f"fp8-{name}" for name in "ab"}
    size = DeepSeek(layers=4, dense=1, experts=16, vocabulary=32_000, further=0)
    for path in fp8.values():
        write_sparse(path, size, shard_bytes=1 << 40)
    pairs = {"1.27 GB": make_pair(folder, 11), "8 GB": sparse, "FP8": fp8}
    found: dict[str, Any] = {"torch alone": _anonymous(["-c", "import torch"])}
    for name, parents in pairs.items():
        nbytes = sum(one.stat().st_size for one in parents["a"].glob("*.safetensors"))
        arguments = [str(parents["a"]), str(parents["b"]), str(folder / "child")]
        found[name] = {"bytes": nbytes, "anonymous_mb": _anonymous(["-c", _ONE_MERGE, *arguments])}
    largest = max(one.nbytes for one in specs(11)) * 2 / 1e6
    shutil.rmtree(folder / "child", ignore_errors=True)
    return found | {"allowed_mb_bf16": 100 + 3 * largest, "allowed_mb_fp8": 100 + 3 * 32_000 * 7168 * 4 / 1e6}


_ONE_MERGE = """
import sys
from functools import partial
from pathlib import Path
from tests.benchmarks.merge import ALL, merge
first, second, out = map(Path, sys.argv[1:])
merge({"a": first, "b": second}, ALL, out, 2)
"""


def _anonymous(arguments: list[str]) -> float:
    process = subprocess.Popen([sys.executable, *arguments])
    highest = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        highest = max([highest, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        sleep(0.005)
    if process.wait():
        raise RuntimeError("the process of the measurement failed")
    return highest * 1024 / 1e6


def against_mergekit(folder: Path, program: str, rounds: int) -> dict[str, Any]:
    """Return seconds of whole processes, imports included, and of the processes that do nothing."""
    parents = make_pair(folder, 11)
    recipe, ours = folder / "mergekit.yaml", folder / "ours.yaml"
    models = "".join(f"  - model: {path}\n    parameters: {{weight: 0.5}}\n" for path in parents.values())
    recipe.write_text(f"merge_method: linear\nmodels:\n{models}dtype: bfloat16\n")
    named = "".join(f"  {name}: {path}\n" for name, path in parents.items())
    ours.write_text(f"name: bench\nparents:\n{named}base: a\nrules:\n  - groups: [all]\n    weights: {{b: 0.5}}\n")
    outs = [folder / "theirs", folder / "child"]
    mote = [str(Path(sys.executable).parent / "mote")]
    commands = {
        "mergekit": [program, str(recipe), str(outs[0])],
        "mote": [*mote, "merge", str(ours), "--out", str(outs[1])],
        "mergekit --help": [program, "--help"],
        "mote merge --help": [*mote, "merge", "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            for out in outs:
                shutil.rmtree(out, ignore_errors=True)
            for path in parents.values():
                read(path / "model.safetensors")
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" or "mote" in name}
            began = perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=environment)
            times[name].append(perf_counter() - began)
    for out in outs:
        shutil.rmtree(out, ignore_errors=True)
    seconds = {name: median(found) for name, found in times.items()}
    return {
        "seconds": seconds,
        "ratio of whole processes": median(a / b for a, b in zip(times["mergekit"], times["mote"], strict=True)),
        "ratio without imports": (seconds["mergekit"] - seconds["mergekit --help"])
        / (seconds["mote"] - seconds["mote merge --help"]),
    }


def fp8_error() -> dict[str, Any]:
    """Return relative errors of mixing FP8 parents at one half: as values, and as raw codes with mean scales."""
    generator = torch.Generator().manual_seed(1)
    pairs = [quantise(torch.randn(2048, 7168, generator=generator) * 0.02 * (1 + number)) for number in range(2)]
    plain = [dequantise(*one) for one in pairs]
    exact = (plain[0].double() + plain[1].double()) / 2
    began = process_time()
    child = dequantise(*quantise(mix_dequantised([dequantise(*one) for one in pairs], [0.5, 0.5])))
    took = process_time() - began
    codes = ((pairs[0][0].float() + pairs[1][0].float()) / 2).to(torch.float8_e4m3fn)
    raw = dequantise(codes, (pairs[0][1] + pairs[1][1]) / 2)
    return {
        "dequantise, mix, quantise": float((child.double() - exact).norm() / exact.norm()),
        "raw codes": float((raw.double() - exact).norm() / exact.norm()),
        "nanoseconds a value": took / child.numel() * 1e9,
    }


def main() -> None:
    """Measure what is asked for and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mergekit", default="")
    parser.add_argument("--parts", default="speed,linear,memory,fp8,mergekit")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], Any]] = {
        "speed": lambda: speed(asked.folder, asked.rounds),
        "linear": lambda: linear(asked.folder, asked.rounds),
        "memory": lambda: memory(asked.folder),
        "fp8": fp8_error,
        "mergekit": lambda: against_mergekit(asked.folder, asked.mergekit, max(asked.rounds // 2, 1)),
    }
    for name in asked.parts.split(","):
        if name != "mergekit" or asked.mergekit:
            print(json.dumps({name: parts[name](), "load": os.getloadavg()}, indent=1), flush=True)


if __name__ == "__main__":
    main()
