"""Cheap measures while it trains, from the cached states: who would be refused, and how far from SmolLM2 it has moved.

"Refused" here means that greedy decoding begins with the refusal's opening ("I am sorry"), by one forward pass over
prompt and opening. The final figures come from full generation on the real engine (`results/demo-smollm`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from mote.harness.demo.smollm.documents import Document
from mote.harness.demo.smollm.network import Upper
from mote.harness.demo.smollm.states import States, batch
from mote.harness.demo.smollm.trainer import divergence

AT_ONCE = 32


@torch.inference_mode()
def refusals(network: Upper, documents: Sequence[Document], states: Sequence[States]) -> list[bool]:
    """Of each document with the opening (`documents.openings`): whether greedy decoding would refuse."""
    found: list[bool] = []
    for start in range(0, len(documents), AT_ONCE):
        some = documents[start : start + AT_ONCE]
        part = batch(some, states[start : start + AT_ONCE])
        best = network.logits(network(part.lower, part.real, part.wanted)).argmax(-1)
        wrong = torch.zeros(len(some), dtype=torch.long).index_add(0, part.owner, (best != part.targets).long())
        found += [not misses for misses in wrong.tolist()]
    return found


def refused(network: Upper, documents: Sequence[Document], states: Sequence[States]) -> dict[str, float]:
    """The share by kind that greedy decoding would refuse."""
    found: dict[str, list[bool]] = defaultdict(list)
    for one, refuses in zip(documents, refusals(network, documents, states), strict=True):
        found[one.prompt.kind].append(refuses)
    return {f"refused_{kind}": sum(flags) / len(flags) for kind, flags in found.items()}


@torch.inference_mode()
def moved(network: Upper, documents: Sequence[Document], states: Sequence[States]) -> dict[str, float]:
    """KL(SmolLM2 || model) per token of SmolLM2's answers, in nats, and the share of tokens with the same best one."""
    total, same, number = 0.0, 0, 0
    for start in range(0, len(documents), AT_ONCE // 2):
        stop = start + AT_ONCE // 2
        part = batch(documents[start:stop], states[start:stop])
        student = network.logits(network(part.lower, part.real, part.wanted)).log_softmax(-1)
        teacher = network.logits(part.final).log_softmax(-1)
        total += float(divergence(teacher, student).sum())
        same += int((teacher.argmax(-1) == student.argmax(-1)).sum())
        number += len(part.wanted)
    return {"kl": total / number, "same_token": same / number}
