"""What stays frozen is computed once: SmolLM2's answers, the states below the first trained layer, and its last ones.

The corpus is fixed, and nothing below the first layer with experts trains; so each document's states there, and the
teacher's last hidden states, from which its logits follow, are the same in every step. They are stored in shards, each
written whole, so that a build that was killed goes on with the next one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from mote.harness.demo.smollm.documents import Document, prompt_ids
from mote.harness.demo.smollm.prompts import Prompt
from mote.harness.files import write_atomic

ANSWERS_AT_ONCE = 96
STATES_AT_ONCE = 32
SHARD = 256
MAX_ANSWER = 48
TEMPERATURE = 0.7

Tell = Callable[[str, int, int], None]


class States(NamedTuple):
    """Of one document: the states below the experts [length, hidden], and the teacher's last [wanted, hidden]."""

    lower: Tensor
    final: Tensor


class Batch(NamedTuple):
    """Documents side by side, padded on the right; `final`, `targets` and `starts` run over the wanted positions."""

    lower: Tensor
    real: Tensor
    wanted: Tensor
    final: Tensor
    targets: Tensor  # the next token, -1 where there is none
    owner: Tensor  # which document a wanted position belongs to
    starts: Tensor  # true at the first wanted position of each document
    refuses: Tensor  # true where the document is a refusal


def answer_all(
    model: Any, words: Any, chosen: Sequence[Prompt], folder: Path, seed: int, tell: Tell
) -> list[list[int]]:
    """SmolLM2's answer to each prompt, drawn at temperature 0.7, as token ids with the end token, or cut at 48.

    Stored by batches of equally long prompts in `folder`; stored ones are read back.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    ids = [prompt_ids(words, one) for one in chosen]
    for index, prompt in enumerate(ids):
        by_length[len(prompt)].append(index)
    groups = [
        indices[start : start + ANSWERS_AT_ONCE]
        for _, indices in sorted(by_length.items())
        for start in range(0, len(indices), ANSWERS_AT_ONCE)
    ]
    found: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        file = folder / f"answers-{number:04d}.json"
        if not file.exists():
            rows = torch.tensor([ids[index] for index in group])
            # Each batch has a seed of its own, so that a build that goes on draws what it would have drawn.
            torch.manual_seed(seed * 100_003 + number)
            drawn = _answers(model, rows, int(words.eos_token_id))
            write_atomic(file, json.dumps(drawn))
        found |= dict(zip(group, json.loads(file.read_text(encoding="utf-8")), strict=True))
        tell("answers", len(found), len(chosen))
    return [found[index] for index in range(len(chosen))]


@torch.inference_mode()
def _answers(model: Any, rows: Tensor, end: int) -> list[list[int]]:
    out = model.generate(
        rows,
        attention_mask=torch.ones_like(rows),
        max_new_tokens=MAX_ANSWER,
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        pad_token_id=end,
        eos_token_id=end,
    )
    drawn = out[:, rows.shape[1] :].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in drawn]


def state_all(
    model: Any, first: int, documents: Sequence[Document], folder: Path, name: str, tell: Tell
) -> list[States]:
    """The states of every document: those below layer `first`, and the last normalised ones where they are wanted.

    Stored in shards in `folder` under `name`; stored ones are read back.
    """
    # Neighbours are of about one length, so that padding stays small.
    order = sorted(range(len(documents)), key=lambda index: (len(documents[index].ids), index))
    found: dict[int, States] = {}
    for number, start in enumerate(range(0, len(order), SHARD)):
        indices = order[start : start + SHARD]
        file = folder / f"{name}-{number:04d}.safetensors"
        if not file.exists():
            made = [
                one
                for begin in range(0, len(indices), STATES_AT_ONCE)
                for one in compute_states(model, first, [documents[i] for i in indices[begin : begin + STATES_AT_ONCE]])
            ]
            stacked = {"lower": torch.cat([one.lower for one in made]), "final": torch.cat([one.final for one in made])}
            write_atomic(file, save(stacked))
        stored = load_file(str(file))
        lower = torch.split(stored["lower"], [len(documents[index].ids) for index in indices])
        final = torch.split(stored["final"], [len(documents[index].wanted) for index in indices])
        found |= {index: States(*both) for index, *both in zip(indices, lower, final, strict=True)}
        tell(f"states of {name}", len(found), len(documents))
    return [found[index] for index in range(len(documents))]


@torch.inference_mode()
def compute_states(model: Any, first: int, documents: Sequence[Document]) -> list[States]:
    """One pass of the frozen model over a few documents."""
    ids = torch.zeros(len(documents), max(len(one.ids) for one in documents), dtype=torch.long)
    for row, one in enumerate(documents):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
    # No mask: padding stands on the right, and attention is causal.
    states = model.model(ids, output_hidden_states=True, use_cache=False).hidden_states
    return [
        States(
            states[first][row, : len(one.ids)].clone(),
            states[-1][row, one.wanted.start : one.wanted.stop].clone(),
        )
        for row, one in enumerate(documents)
    ]


def batch(documents: Sequence[Document], states: Sequence[States]) -> Batch:
    """Lay documents side by side."""
    length = max(len(one.ids) for one in documents)
    lower = torch.zeros(len(documents), length, states[0].lower.shape[1])
    real = torch.zeros(len(documents), length, dtype=torch.bool)
    wanted, targets, owner, starts, refuses = [], [], [], [], []
    for row, (one, state) in enumerate(zip(documents, states, strict=True)):
        lower[row, : len(one.ids)] = state.lower
        real[row, : len(one.ids)] = True
        for position in one.wanted:
            wanted.append(row * length + position)
            targets.append(one.ids[position + 1] if position + 1 < len(one.ids) else -1)
            owner.append(row)
            starts.append(position == one.wanted.start)
            refuses.append(one.refuses)
    return Batch(
        lower,
        real,
        torch.tensor(wanted),
        torch.cat([state.final for state in states]),
        torch.tensor(targets),
        torch.tensor(owner),
        torch.tensor(starts),
        torch.tensor(refuses),
    )
