"""Maps that rankings want beside a run's own: router weights, and the experts of the prompt's last token.

The first generated token is drawn after the prompt's last one, so what the router does there is nearest to what the
model says first. A run keeps counts over whole prompts; these two are captured when rankings are first compared, by
asking the untouched model the prompts of the choosing half once more, and kept with the maps of the baseline's answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mote.harness.engine.vllm import Answer
from mote.harness.errors import MoteError
from mote.harness.recipe.roles import LAST
from mote.harness.science.controls import BASELINE
from mote.harness.store.generations import CHOICES, WEIGHTS
from mote.harness.store.run import MapRow, RunStore

CAPTURE: Final = {"what": "prompt", "weights": True, "last": 1}
"""What is asked of the patch: counts and weights of the prompt, and counts of its last token."""
CAPTURED: Final = ("router_weight_resonance", "resonance_last_token")
"""The rankings that come of it."""


class MoreMaps(NamedTuple):
    """Router weights float32 and choices of the last token int32, both [prompts, layers, experts]."""

    weights: NDArray[np.float32]
    last: NDArray[np.int32]


def captured(store: RunStore) -> set[str]:
    """Return the prompts of which the maps are there."""
    return store.mapped(BASELINE, "prompt", WEIGHTS)


def read_maps(store: RunStore, prompts: list[str]) -> MoreMaps | None:
    """Return the maps of these prompts in their order, None unless all of them are there."""
    if not prompts or not captured(store).issuperset(prompts):
        return None
    return MoreMaps(_in_order(store, "prompt", prompts, WEIGHTS), _in_order(store, LAST, prompts, CHOICES))


def _in_order(store: RunStore, role: str, prompts: list[str], quantity: str) -> NDArray[Any]:
    ids, maps, _ = store.maps(BASELINE, role, prompts, quantity=quantity)
    place = {key: at for at, key in enumerate(ids)}
    return maps[[place[key] for key in prompts]]


def add_maps(store: RunStore, answers: Iterable[Answer]) -> None:
    """Store the maps of answers that were asked for with ``CAPTURE``, all or none.

    Raises MoteError where a prompt was not captured whole.
    """
    rows = {}
    # A study of the prompts' last token has those maps.
    there = store.mapped(BASELINE, LAST)
    for answer in answers:
        found = answer.observation.maps
        whole, last = found.get("prompt"), found.get(LAST)
        key = answer.request.prompt_id
        if whole is None or last is None or whole.weights is None or whole.counted != whole.total or last.counted != 1:
            raise MoteError(f"prompt '{key}' was not captured whole: its router weights can't be ranked.")
        rows[key] = [
            MapRow("prompt", whole.weights, whole.counted, whole.total, WEIGHTS),
            *([] if key in there else [MapRow(LAST, last.counts, last.counted, 1)]),
        ]
    store.add_maps(BASELINE, rows)
