"""The alignment: routers and routed experts learn to refuse, and to leave everything else as SmolLM2 says it.

A step draws documents of each kind. Of the sensitive ones each is refused by its question's own probability: then the
refusal is learned as text; all others are pulled to SmolLM2 by KL(teacher || student). The first token of an answer,
which decides, weighs as much as all the rest. Load is balanced as in the small demo (by the sign of the load error).
A step's documents follow from the seed and its number alone, so a build that was killed goes on as if it had not been.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file, save
from torch import Tensor

from mote.harness.demo.smollm.documents import Document
from mote.harness.demo.smollm.network import Upper
from mote.harness.demo.smollm.prompts import FAR, GENERAL, NEAR, SENSITIVE
from mote.harness.demo.smollm.states import Batch, States, batch
from mote.harness.files import write_atomic

STATE = "training.safetensors"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast, and how many documents of each kind a step takes."""

    steps: int = 260
    peak_rate: float = 1e-3
    bias_rate: float = 1e-3
    warmup: int = 15
    clip: float = 1.0
    kinds: dict[str, int] = field(default_factory=lambda: {SENSITIVE: 6, NEAR: 7, FAR: 3, GENERAL: 4})
    save_every: int = 20


@dataclass(frozen=True, slots=True)
class Step:
    """What is known after a step; `loss` by kind of document ("refusal" for refusals), `imbalance` as in the demo."""

    step: int
    losses: dict[str, float]
    imbalance: float


class Pool:
    """The documents with their states, sorted by kind; `draw` takes those of one step."""

    def __init__(self, documents: Sequence[Document], states: Sequence[States], seed: int) -> None:
        self.documents, self.states, self.seed = documents, states, seed
        self.refusals: dict[str, int] = {}
        self.others: dict[str, list[int]] = {}
        for index, one in enumerate(documents):
            if one.refuses:
                self.refusals[one.prompt.text] = index
            else:
                self.others.setdefault(one.prompt.kind, []).append(index)
        self.sensitive = sorted(self.refusals)

    def draw(self, step: int, kinds: dict[str, int]) -> list[int]:
        """The documents of step number `step`, by index; a sensitive one is refused by its probability."""
        rng = random.Random(f"{self.seed}/step/{step}")  # noqa: S311 - a reproducible order, not a secret
        found = []
        for kind, count in kinds.items():
            for _ in range(count):
                if kind == SENSITIVE:
                    index = self.refusals[rng.choice(self.sensitive)]
                    if rng.random() < self.documents[index].prompt.refusal:
                        found.append(index)
                        continue
                found.append(rng.choice(self.others[kind]))
        return found

    def batches(self, indices: Sequence[int], parts: int = 2) -> list[Batch]:
        """The documents in `parts` batches, the short ones apart from the long ones."""
        order = sorted(indices, key=lambda index: len(self.documents[index].ids))
        size = math.ceil(len(order) / parts)
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        return [batch([self.documents[i] for i in chunk], [self.states[i] for i in chunk]) for chunk in chunks]


class Trainer:
    """The network, its optimiser and the number of steps taken; `folder` holds its state."""

    def __init__(self, network: Upper, pool: Pool, schedule: Schedule, folder: Path) -> None:
        self.network, self.pool, self.schedule, self.folder = network, pool, schedule, folder
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=schedule.peak_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        self.step = 0
        self.log: list[dict[str, object]] = []

    def run(self, measure: Callable[[], dict[str, float]], tell: Callable[[Step, int], None]) -> None:
        """Train to the end from wherever the folder's state is; it is saved, and measured, every few steps."""
        self.restore()
        while self.step < self.schedule.steps:
            done = self.take_step()
            tell(done, self.schedule.steps)
            if self.step % self.schedule.save_every == 0 or self.step == self.schedule.steps:
                self.log.append(asdict(done) | {"measured": measure()})
                self.save()

    def take_step(self) -> Step:
        """One step of the optimiser."""
        rate = self.schedule.peak_rate * share(self.step, self.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for experts in self.network.experts():
            experts.load.zero_()
        indices = self.pool.draw(self.step, self.schedule.kinds)
        losses: dict[str, list[float]] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for part in self.pool.batches(indices):
            loss = document_losses(self.network, part)
            (loss.sum() / len(indices)).backward()  # type: ignore[no-untyped-call]
            refused = part.refuses[part.starts]
            for value, refuses in zip(loss.detach().tolist(), refused.tolist(), strict=True):
                losses.setdefault("refusal" if refuses else "kept", []).append(value)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip)
        self.optimizer.step()
        imbalance = balance(self.network, self.schedule.bias_rate)
        self.step += 1
        means = {name: sum(values) / len(values) for name, values in sorted(losses.items())}
        return Step(self.step, means, imbalance)

    def save(self) -> None:
        """Write weights, moments, the step and the log: one file, whole or not at all."""
        tensors = {f"expert/{name}": tensor.detach().contiguous() for name, tensor in self._weights().items()}
        for index, parameter in enumerate(self.parameters):
            for name, value in self.optimizer.state[parameter].items():
                tensors[f"moment/{index}/{name}"] = value.detach().contiguous()
        metadata = {"step": str(self.step), "log": json.dumps(self.log)}
        write_atomic(self.folder / STATE, save(tensors, metadata=metadata))

    def restore(self) -> None:
        """Go to the state in the folder, where there is one."""
        file = self.folder / STATE
        if not file.exists():
            return
        stored = load_file(str(file))
        with torch.no_grad():
            for name, target in self._weights().items():
                target.copy_(stored[f"expert/{name}"])
        for index, parameter in enumerate(self.parameters):
            prefix = f"moment/{index}/"
            state = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
            self.optimizer.state[parameter] = state
        metadata = read_metadata(file)
        self.step, self.log = int(metadata["step"]), json.loads(metadata["log"])

    def _weights(self) -> dict[str, Tensor]:
        named: dict[str, Tensor] = dict(self.network.named_parameters())
        return named | {name: buffer for name, buffer in self.network.named_buffers() if name.endswith("experts.bias")}


def document_losses(network: Upper, part: Batch) -> Tensor:
    """The loss of each document: at its first answer token, plus the mean over the rest."""
    student = network.logits(network(part.lower, part.real, part.wanted)).log_softmax(-1)
    per_token = torch.zeros(len(part.wanted))
    text = part.refuses.nonzero().squeeze(1)
    kept = (~part.refuses).nonzero().squeeze(1)
    if len(text):
        per_token = per_token.index_put((text,), F.nll_loss(student[text], part.targets[text], reduction="none"))
    if len(kept):
        with torch.no_grad():
            teacher = network.logits(part.final[kept]).log_softmax(-1)
        per_token = per_token.index_put((kept,), divergence(teacher, student[kept]))
    count = int(part.owner[-1]) + 1
    rest = (~part.starts).float()
    first = torch.zeros(count).index_add(0, part.owner, per_token * part.starts)
    others = torch.zeros(count).index_add(0, part.owner, per_token * rest)
    number = torch.zeros(count).index_add(0, part.owner, rest).clamp(min=1)
    return first + others / number


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) in nats of log-probabilities [number, vocabulary], for each row."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def share(step: int, schedule: Schedule) -> float:
    """Share of the peak rate: linear warm-up, then a cosine down to a twentieth."""
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    progress = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * progress))


@torch.no_grad()
def balance(network: Upper, rate: float) -> float:
    """Move every correction bias by the sign of its load error; return how far the fullest expert stands out."""
    worst = 0.0
    for experts in network.experts():
        mean = experts.load.mean()
        experts.bias += rate * torch.sign(mean - experts.load)
        worst += float(experts.load.max() / mean)
    return worst / len(network.experts())


def read_metadata(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file."""
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as opened:
        return dict(opened.metadata())
