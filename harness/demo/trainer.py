"""Two phases of plain next-token training, as real models are made, and the checkpoint they end in.

1. Base: answers to everything, with and without reasoning; all parameters train.
2. Alignment: refusal by a probability on sensitive questions and the language rule, with everything else replayed;
   only the routers and the routed experts train (the rest is frozen). Whoever shows the demo has to say so: with all
   parameters free, the decision moves out of the routed experts.

Load is balanced without an auxiliary loss: after each step the correction bias of an expert moves by the sign of its
load error (DeepSeek-V3, arXiv 2412.19437, section 2.1.2). Nothing here knows of profiles or edits, and no expert is
treated unlike another.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mote.harness.demo import corpus, tokenizer
from mote.harness.demo.example import ALIGNED_PHASE, BASE, PARENTS
from mote.harness.demo.model import Network, Shape, read_weights, write_weights


@dataclass(frozen=True, slots=True)
class Phase:
    """Length and learning rates of a phase of training."""

    steps: int
    peak_rate: float
    bias_rate: float
    warmup: int = 40
    rows: int = 12
    row_length: int = 192
    weight_decay: float = 0.05
    clip: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that, with the seed, decides the checkpoint."""

    shape: Shape = field(default_factory=Shape)
    base: Phase = field(default_factory=lambda: Phase(steps=2300, peak_rate=3e-3, bias_rate=2e-3))
    alignment: Phase = field(default_factory=lambda: Phase(steps=450, peak_rate=2e-3, bias_rate=1e-3, warmup=20))


EXPERTS_ONLY = Phase(steps=700, peak_rate=1.5e-3, bias_rate=1e-3, warmup=20)
"""Of parents of which only routers and routed experts train: longer than the recipe's alignment, at a lower rate."""


@dataclass(frozen=True, slots=True)
class Step:
    """The state after a step of training, for the progress callback."""

    phase: str
    step: int
    steps: int
    loss: float
    tokens: int
    imbalance: float  # largest load of an expert over the mean load, averaged over layers


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows; `targets` are the next tokens at the flat indices `wanted`. `tokens` counts what is not padding."""

    ids: Tensor
    positions: Tensor
    documents: Tensor
    wanted: Tensor
    targets: Tensor
    tokens: int


Progress = Callable[[Step], None]


def train(
    seed: int,
    out: Path,
    *,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Path:
    """Train a demo checkpoint from `seed` and write it to the folder `out`, in bf16, ready for Hugging Face and vLLM.

    The same seed, machine, versions and number of threads give the same weights. Raises FileExistsError when `out`
    already holds a checkpoint.
    """
    _check_free(out)
    recipe = recipe or Recipe()
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        words = tokenizer.train_tokenizer()
        network = Network(recipe.shape)
        network.initialise(torch.Generator().manual_seed(seed))
        for name, phase in ((BASE, recipe.base), (ALIGNED_PHASE, recipe.alignment)):
            run_phase(network, words, name, phase, seed, progress)
    finally:
        torch.set_num_threads(before)
    write_checkpoint(network, words, out)
    return out


def train_parents(
    seed: int,
    out: Path,
    *,
    recipe: Recipe | None = None,
    start: Path | None = None,
    experts_only: bool = False,
    steps: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Train one base and from it two children, for merging studies: `out/reasoner` and `out/answerer`.

    Both have the same architecture and tokenizer. All parameters train, so that every tensor differs between them; with
    `experts_only` only routers and routed experts do, by the phase `EXPERTS_ONLY`. `start` is a checkpoint of the
    recipe's shape that is the base, instead of one that is trained anew; `steps` are each parent's, if not the phase's.
    """
    for parent in PARENTS:
        _check_free(out / parent)
    recipe = recipe or Recipe()
    words = tokenizer.train_tokenizer()
    base = Network(recipe.shape)
    if start is not None:
        read_weights(base, start)
    else:
        base.initialise(torch.Generator().manual_seed(seed))
        run_phase(base, words, BASE, recipe.base, seed, progress)
    phase = EXPERTS_ONLY if experts_only else recipe.alignment
    if steps is not None:
        phase = replace(phase, steps=steps)
    folders = {}
    for parent in PARENTS:
        child = copy.deepcopy(base)
        run_phase(child, words, parent, phase, seed, progress, experts_only=experts_only)
        folders[parent] = out / parent
        write_checkpoint(child, words, folders[parent])
    return folders


def _check_free(out: Path) -> None:
    if (out / "model.safetensors").exists():
        raise FileExistsError(f"{out} already holds a checkpoint; name another folder or remove it")


def write_checkpoint(network: Network, words: PreTrainedTokenizerFast, out: Path) -> None:
    """Write weights, configuration and tokenizer as a Hugging Face folder."""
    out.mkdir(parents=True, exist_ok=True)
    words.save_pretrained(str(out))
    end, pad = tokenizer.end_id(words), int(words.pad_token_id or 0)
    write_weights(network, out, end_id=end, pad_id=pad, dtype=torch.bfloat16)


def run_phase(
    network: Network,
    words: PreTrainedTokenizerFast,
    name: str,
    phase: Phase,
    seed: int,
    progress: Progress | None = None,
    *,
    experts_only: bool | None = None,
) -> None:
    """Train `network` in place for the steps of one phase; `experts_only` is that of alignment if nothing else is said.

    With it routers and routed experts train, and nothing else.
    """
    trainable = free_parameters(network, name == ALIGNED_PHASE if experts_only is None else experts_only)
    decayed = [parameter for parameter in trainable if parameter.dim() >= 2]
    others = [parameter for parameter in trainable if parameter.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": phase.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=phase.peak_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    for step, batch in zip(range(phase.steps), batches(words, name, phase, seed), strict=False):
        rate = phase.peak_rate * schedule(step, phase)
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = network(batch.ids, batch.positions, batch.documents, batch.wanted)
        loss = F.cross_entropy(logits, batch.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trainable, phase.clip)
        optimizer.step()
        imbalance = balance(network, phase.bias_rate)
        if progress:
            progress(Step(name, step + 1, phase.steps, float(loss.detach()), batch.tokens, imbalance))


def free_parameters(network: Network, experts_only: bool) -> list[torch.nn.Parameter]:
    """The parameters that train: all, or those of all routers and routed experts; the others are frozen."""
    for parameter in network.parameters():
        parameter.requires_grad_(not experts_only)
    if experts_only:
        for layer in network.expert_layers():
            for parameter in (layer.router, layer.gate_up, layer.down):
                parameter.requires_grad_(True)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def schedule(step: int, phase: Phase) -> float:
    """Share of the peak rate: linear warm-up, then a cosine down to nothing."""
    if step < phase.warmup:
        return (step + 1) / phase.warmup
    progress = (step - phase.warmup) / max(1, phase.steps - phase.warmup)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


@torch.no_grad()
def balance(network: Network, rate: float) -> float:
    """Move every correction bias by the sign of its load error; return how far the fullest expert stands out."""
    worst = 0.0
    for layer in network.expert_layers():
        mean = layer.load.mean()
        layer.bias += rate * torch.sign(mean - layer.load)
        worst += float(layer.load.max() / mean)
    return worst / network.shape.layers


def batches(words: PreTrainedTokenizerFast, name: str, phase: Phase, seed: int) -> Iterator[Batch]:
    """Packed batches of the phase's corpus without end. Only the completions are predicted, never the prompts."""
    examples = corpus.stream(seed, name)
    rows: list[list[tuple[list[int], int]]] = []
    row: list[tuple[list[int], int]] = []
    used = 0
    while True:
        example = next(examples)
        prompt = tokenizer.prompt_ids(words, example)
        document = [*prompt, *tokenizer.completion_ids(words, example)]
        if used + len(document) > phase.row_length:
            rows.append(row)
            row, used = [], 0
            if len(rows) == phase.rows:
                yield pack(rows, phase.row_length)
                rows = []
        row.append((document, len(prompt)))
        used += len(document)


def pack(rows: list[list[tuple[list[int], int]]], length: int) -> Batch:
    """Lay documents (ids, length of the prompt) side by side in rows of `length`."""
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros_like(ids)
    documents = torch.full_like(ids, -1)
    wanted: list[int] = []
    targets: list[int] = []
    for r, row in enumerate(rows):
        start = 0
        for number, (document, prompt_length) in enumerate(row):
            end = start + len(document)
            ids[r, start:end] = torch.tensor(document)
            positions[r, start:end] = torch.arange(len(document))
            documents[r, start:end] = number
            wanted.extend(range(r * length + start + prompt_length - 1, r * length + end - 1))
            targets.extend(document[prompt_length:])
            start = end
    tokens = int((documents >= 0).sum())
    return Batch(ids, positions, documents, torch.tensor(wanted), torch.tensor(targets), tokens)


def describe(recipe: Recipe) -> dict[str, object]:
    """The recipe as plain data, for the model card and the manifest."""
    return asdict(recipe)
