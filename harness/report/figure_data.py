"""``FigureData``, which all figures of a report are drawn from, and the titles of profiles in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mote.harness.drawing import Layout
from mote.harness.report.analysis import StudyResult
from mote.harness.report.phrases import where_words
from mote.harness.science.controls import RANDOM, RETEST
from mote.harness.science.dose import THIRDS
from mote.harness.store.token_rows import TokenRows

Draw = Callable[[Layout], Figure]
Made = tuple[Draw | None, str, pd.DataFrame | None]
"""A figure's drawing function, or None; its alternative text, or how to get the figure; its table, or None."""


class Bench(NamedTuple):
    """MT-Bench of the same model: who judged, the models in order, and the scores of ``mt_bench.scores``."""

    judge: str
    models: tuple[str, ...]
    scores: pd.DataFrame


@dataclass(frozen=True)
class FigureData:
    """The source of all figures: the result, and of the baseline the prompts' maps, labels and attributes.

    Of many prompts ``maps`` [prompts, layers, experts] holds an evenly spread part, and ``labels``, ``attributes`` and
    ``questions`` are of the same. ``tokens`` are the choices of single tokens, ``known`` the label of every prompt,
    ``experts`` how many a layer has; ``bench`` (or why there is none), ``pruned`` and ``rankings`` are there where such
    was made.
    """

    result: StudyResult
    maps: NDArray[np.int32]
    labels: list[str]
    attributes: pd.DataFrame
    questions: list[str]
    unit: str
    task: str = "refusal_grid"
    tokens: Sequence[TokenRows] = ()
    known: Mapping[str, str] = field(default_factory=dict)
    experts: int = 0
    bench: Bench | str = ""
    pruned: pd.DataFrame = field(default_factory=pd.DataFrame)
    rankings: pd.DataFrame = field(default_factory=pd.DataFrame)

    def shown_prompt(self) -> int | None:
        """The prompt of Figure 3: the first whose label is the target's, else the first."""
        if not len(self.maps):
            return None
        return next((i for i, label in enumerate(self.labels) if label == self.result.asked.target), 0)


KIND_TITLES: Final = {
    "random-mass": "Random, chosen as often",
    "random-layers": "Random, same layers",
    "random-uniform": "Random, any experts",
    "random-frequency": "Random, each chosen alike",
}


def title_of(result: StudyResult, name: str) -> tuple[str, str]:
    """Return the title of a profile or kind of control, and a line that says on what it was counted."""
    where = where_words(result, result.asked.view)
    if name.startswith(RANDOM) and name in KIND_TITLES:
        sets = int((result.chance.sets["kind"] == name).sum())
        return KIND_TITLES[name], f"{sets} sets pooled"
    if name.startswith(RETEST):
        return "Untouched, other seed", where
    kind, _, number = name.partition("-")
    if kind == "scale":
        k, _, factor = number.partition("-")
        return f"Top {k} scaled by {factor}", where
    if kind in THIRDS:
        return f"Only the {number} of the {kind} layers", where
    if kind in ("suppress", "stimulate") and number.isdigit():
        return f"Top {number} {kind}{'ed' if kind == 'suppress' else 'd'}", where
    return name, where


def long_map(values: NDArray[Any], layers: tuple[int, ...], name: str) -> pd.DataFrame:
    """Return a map [layers, experts] as a frame with the columns layer, expert and a value."""
    rows, columns = values.shape
    return pd.DataFrame(
        {"layer": np.repeat(layers[:rows], columns), "expert": np.tile(np.arange(columns), rows), name: values.ravel()}
    )
