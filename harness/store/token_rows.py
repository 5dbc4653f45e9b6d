"""Which experts each single token chose (the paper's Figure 2), for a few example prompts of a run.

An activation map sums over a prompt's tokens; this table keeps them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.preconditions import DataError
from mote.harness.store.run import RunStore


class TokenRows(NamedTuple):
    """The choices of a prompt's tokens by the untouched model: ``chosen`` uint16 [tokens, layers, top_k]."""

    prompt_id: str
    tokens: tuple[str, ...]
    chosen: NDArray[np.uint16]


def add_token_rows(store: RunStore, prompts: Sequence[TokenRows]) -> None:
    """Store prompts' rows, all in one transaction. Raises DataError where texts and rows are not as many."""
    values = []
    for one in prompts:
        if len(one.tokens) != len(one.chosen):
            raise DataError(f"prompt '{one.prompt_id}': {len(one.chosen)} rows for {len(one.tokens)} tokens.")
        for position, (token, chosen) in enumerate(zip(one.tokens, one.chosen, strict=True)):
            blob = np.ascontiguousarray(chosen, dtype="<u2").tobytes()
            values.append((one.prompt_id, position, token, *chosen.shape, blob))
    insert = "insert into token_rows (prompt_id, position, token, layers, top_k, experts) values (?, ?, ?, ?, ?, ?)"
    with store.transaction():
        store.db.executemany(insert, values)


def read_token_rows(store: RunStore) -> list[TokenRows]:
    """Return what is stored, in the prompts' order; none for a run whose recipe asks for none."""
    rows = store.db.execute(
        "select t.prompt_id, t.token, t.layers, t.top_k, t.experts from token_rows t"
        " join prompts p using (prompt_id) order by p.position, t.position"
    ).fetchall()
    found: dict[str, tuple[list[str], list[NDArray[np.uint16]]]] = {}
    for prompt_id, token, layers, top_k, experts in rows:
        tokens, chosen = found.setdefault(prompt_id, ([], []))
        tokens.append(token)
        chosen.append(np.frombuffer(experts, dtype="<u2").reshape(layers, top_k).astype(np.uint16))
    return [TokenRows(key, tuple(tokens), np.stack(chosen)) for key, (tokens, chosen) in found.items()]


def choose_prompts(labels: Mapping[str, str], classes: Sequence[str], target: str, count: int) -> list[str]:
    """Return the prompts whose tokens are kept: the first of the target, the first of each other class, and so on.

    ``labels`` are in the prompts' order; those of no class are never taken.
    """
    order = [target, *(name for name in classes if name != target)]
    queues = [[key for key, label in labels.items() if label == name] for name in order]
    rounds = max(map(len, queues), default=0)
    taken = [queue[at] for at in range(rounds) for queue in queues if at < len(queue)]
    return taken[:count]


def long_table(prompts: Sequence[TokenRows], layers: Sequence[int], labels: Mapping[str, str]) -> pd.DataFrame:
    """Return one row for each expert that a token chose: prompt_id, label, position, token, layer, slot, expert."""
    parts = []
    for one in prompts:
        tokens, depth, top_k = one.chosen.shape
        parts.append(
            pd.DataFrame(
                {
                    "prompt_id": one.prompt_id,
                    "label": labels.get(one.prompt_id, ""),
                    "position": np.repeat(np.arange(tokens), depth * top_k),
                    "token": np.repeat(np.array(one.tokens, dtype=object), depth * top_k),
                    "layer": np.tile(np.repeat(np.asarray(layers), top_k), tokens),
                    "slot": np.tile(np.arange(top_k), tokens * depth),
                    "expert": one.chosen.ravel(),
                }
            )
        )
    columns = ["prompt_id", "label", "position", "token", "layer", "slot", "expert"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
