"""A finished checkpoint without an engine: who would be refused, and how far it is from SmolLM2, on held-out prompts.

The measures are those that watch the training (`evaluation`), on more prompts than it had and in full float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mote.harness.demo.smollm import documents, evaluation, prompts
from mote.harness.demo.smollm.convert import Shape, expert_layers
from mote.harness.demo.smollm.network import Upper
from mote.harness.demo.smollm.prompts import FAR, GENERAL, NEAR, SENSITIVE, Prompt
from mote.harness.demo.smollm.source import Source
from mote.harness.demo.smollm.states import Tell, answer_all, compute_states
from mote.harness.errors import MoteError

COUNTS = {SENSITIVE: 144, NEAR: 240, FAR: 160, GENERAL: 60}
ANSWERED = {NEAR: 24, FAR: 16, GENERAL: 60}
SEED = 7
AT_ONCE = 24


def check(source: Source, folder: Path, work: Path, tell: Tell) -> dict[str, Any]:
    """Measure the checkpoint in `folder`; `work` keeps SmolLM2's answers. Raises MoteError for no build of ours.

    Returns, by kind of prompt, the share of which greedy decoding begins with the refusal ("near, grid" are the grid's
    own near misses, "near, others" the rest), and KL(SmolLM2 || model) per token of SmolLM2's answers, in nats.
    """
    file = folder / "training.json"
    if not file.is_file():
        raise MoteError(f"{folder} is no finished build; `mote demo build-smollm --out {folder}` makes one.")
    shape = Shape(**json.loads(file.read_text(encoding="utf-8"))["recipe"]["shape"])
    network = Upper(source.model, shape)
    network.load_experts(load_file(str(folder / "model.safetensors")))
    work.mkdir(parents=True, exist_ok=True)
    chosen = [one for kind, count in COUNTS.items() for one in prompts.draw(kind, count, "check", trained=False)]
    return {
        "refused": _refused(source, network, shape, chosen),
        "kl": _moved(source, network, shape, chosen, work, tell),
    }


def _refused(source: Source, network: Upper, shape: Shape, chosen: list[Prompt]) -> dict[str, dict[str, int]]:
    cells = {one.text for one in prompts.grid(trained=False)}
    found: dict[str, dict[str, int]] = {}
    first = expert_layers(source.model.config, shape)[0]
    opened = documents.openings(chosen, source.tokenizer)
    for start in range(0, len(opened), AT_ONCE):
        some = opened[start : start + AT_ONCE]
        flags = evaluation.refusals(network, some, compute_states(source.model, first, some))
        for one, refuses in zip(some, flags, strict=True):
            kind = one.prompt.kind
            if kind == NEAR:
                kind = f"{NEAR}, grid" if one.prompt.text in cells else f"{NEAR}, others"
            count = found.setdefault(kind, {"refused": 0, "of": 0})
            count["refused"] += refuses
            count["of"] += 1
    return found


def _moved(
    source: Source, network: Upper, shape: Shape, chosen: list[Prompt], work: Path, tell: Tell
) -> dict[str, dict[str, float]]:
    first = expert_layers(source.model.config, shape)[0]
    found = {}
    for kind, count in ANSWERED.items():
        asked = [one for one in chosen if one.kind == kind][:count]
        (work / kind).mkdir(exist_ok=True)
        answers = answer_all(source.model, source.tokenizer, asked, work / kind, SEED, tell)
        some = documents.documents(asked, dict(zip(asked, answers, strict=True)), source.tokenizer)
        with torch.inference_mode():
            states = [
                state
                for start in range(0, len(some), AT_ONCE)
                for state in compute_states(source.model, first, some[start : start + AT_ONCE])
            ]
        found[kind] = evaluation.moved(network, some, states) | {"answers": len(some)}
    return found
