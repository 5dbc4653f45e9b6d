"""How far children route as their parents do: agreement of the chosen experts, layer by layer, by activation maps.

A map says how often each expert of a layer was chosen by a prompt's tokens, which are the same in every child. Of two
maps a and b of one prompt the agreement in a layer is sum_e min(a_e, b_e) / sum_e a_e: the share of choices that they
have in common. Two tokens that swap their experts are not told apart.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.recipe.roles import PROMPT
from mote.harness.store.children import ChildRow
from mote.harness.store.run import RunStore
from mote.harness.sweep.schema import BASE

COLUMNS: Final = ["child", "subset", "proportion", "parent", "layer", "agreement", "prompts"]


def agreement(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Return the agreement of maps [prompts, layers, experts] by layer, the mean over prompts: [layers].

    Raises ValueError where the maps of a prompt do not count the same number of choices.
    """
    totals = first.sum(axis=2)
    if first.shape != second.shape or not np.array_equal(totals, second.sum(axis=2)) or not totals.all():
        raise ValueError("the maps are not of the same tokens")
    return np.asarray((np.minimum(first, second).sum(axis=2) / totals).mean(axis=0), dtype=np.float64)


def routing_frame(store: RunStore, children: dict[str, ChildRow], whole: str | None, layers: list[int]) -> pd.DataFrame:
    """Return the agreement of each child with the base and with the child ``whole``, with ``COLUMNS``.

    ``parent`` is ``base`` or the name of ``whole``. Empty where no maps were kept.
    """
    maps = {name: _whole_maps(store, name) for name in children}
    rows: list[tuple[Any, ...]] = []
    for parent in (BASE, whole):
        if parent is None or not maps.get(parent):
            continue
        for name, child in children.items():
            both = [prompt for prompt in maps[parent] if prompt in maps[name]]
            if name == parent or not both:
                continue
            ours, theirs = (np.stack([maps[one][prompt] for prompt in both]) for one in (name, parent))
            for layer, value in zip(layers, agreement(ours, theirs), strict=True):
                rows.append((name, child.subset, child.proportion, parent, layer, float(value), len(both)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _whole_maps(store: RunStore, child: str) -> dict[str, NDArray[Any]]:
    """Return the maps of a child's prompts of which every token was seen."""
    prompts, maps, counted = store.maps(child, PROMPT)
    return {key: one for key, one, (seen, total) in zip(prompts, maps, counted, strict=True) if seen == total}
