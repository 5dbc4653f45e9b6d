"""What figures are drawn from, how profiles are called in them, and the numbers the paper gives its figures."""

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
from mote.harness.report.words import where_words
from mote.harness.science.controls import RANDOM
from mote.harness.science.dose import THIRDS
from mote.harness.store.token_rows import TokenRows

Draw = Callable[[Layout], Figure]
Made = tuple[Draw | None, str, pd.DataFrame | None]
"""How to draw a figure, or None; its alternative text, or what would give it; its table, where it has one."""


class Bench(NamedTuple):
    """MT-Bench of the same model: who judged, the models in order, and the scores of ``mt_bench.scores``."""

    judge: str
    models: tuple[str, ...]
    scores: pd.DataFrame


class Entry(NamedTuple):
    """A figure that a report can have: its number in the paper ("" for ours) and its title."""

    paper: str
    title: str


CATALOGUE: Final[dict[str, Entry]] = {
    "fig02-single-token": Entry("2", "Experts that a single token activates"),
    "fig03-prompt-map": Entry("3", "Activation map of one prompt"),
    "fig04-tsne": Entry("4", "All prompts by their activation maps, t-SNE"),
    "fig05-resonance": Entry("5", "Resonance map with the distinctive experts"),
    "fig08-transitions": Entry("8", "Transitions: tuned, and random controls"),
    "fig10-stimulation": Entry("10", "Transitions when the same experts are stimulated"),
    "fig14-mt-bench": Entry("14", "MT-Bench, untouched and tuned"),
    "null-distribution": Entry("", "The effect among random sets of experts"),
    "dose": Entry("", "Dose: how many experts are suppressed"),
    "direction": Entry("", "Direction: the same experts from switched off to forced on"),
    "trade-off": Entry("", "What is gained against what it costs"),
    "thirds": Entry("", "Which layers carry the effect"),
    "pruning": Entry("", "Which of the experts are needed"),
    "rankings": Entry("", "Rankings of experts side by side"),
}
"""The figures of a run over the paper's grid; a key is the name of the figure's files."""

_SENSITIVE: Final = {
    "fig08-transitions": ("fig09-transitions", "9", "Transitions on sensitive prompts: tuned, and random controls")
}
_VARIANTS: Final[dict[str, dict[str, tuple[str, str, str]]]] = {
    "sensitive": _SENSITIVE,
    "ccp_sensitive": _SENSITIVE,
    "reasoning_language": {
        "fig05-resonance": ("fig11-resonance", "11", "Resonance map of the language of reasoning"),
        "fig08-transitions": ("fig12-transitions", "12", "Transitions of the language of reasoning"),
        "fig10-stimulation": ("stimulation", "", "Transitions when the same experts are stimulated"),
    },
}


def key_of(key: str, task: str) -> str:
    """Return under which name a figure goes for a task: the paper numbers the same figure anew for each of its sets."""
    return _VARIANTS.get(task, {}).get(key, (key, "", ""))[0]


def catalogue(task: str) -> dict[str, Entry]:
    """Return the figures of a run over a task, by the names of their files."""
    found = {}
    for key, entry in CATALOGUE.items():
        name, number, title = _VARIANTS.get(task, {}).get(key, (key, *entry))
        found[name] = Entry(number, title)
    return found


@dataclass(frozen=True)
class Material:
    """What figures are drawn from: the result, and of the baseline the prompts' maps, labels and attributes.

    Of many prompts ``maps`` [prompts, layers, experts] holds an evenly spread part, and ``labels``, ``attributes`` and
    ``questions`` are of the same. ``tokens`` are the choices of single tokens, ``known`` the label of every prompt,
    ``experts`` how many a layer has; ``bench``, ``pruned`` and ``rankings`` are there where such was made.
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
    bench: Bench | None = None
    pruned: pd.DataFrame = field(default_factory=pd.DataFrame)
    rankings: pd.DataFrame = field(default_factory=pd.DataFrame)

    def shown_prompt(self) -> int | None:
        """The prompt of Figure 3: the first whose label is the target's, else the first."""
        if not len(self.maps):
            return None
        return next((i for i, label in enumerate(self.labels) if label == self.result.target), 0)


KIND_TITLES: Final = {
    "random-uniform": "Random, any experts",
    "random-layers": "Random, same layers",
    "random-frequency": "Random, matched activity",
}


def title_of(result: StudyResult, name: str) -> tuple[str, str]:
    """Return the title of a profile or kind of control, and a line that says on what it was counted."""
    where = where_words(result, result.view)
    if name.startswith(RANDOM) and name in KIND_TITLES:
        sets = int((result.null_values["kind"] == name).sum())
        return KIND_TITLES[name], f"{sets} sets pooled"
    if name.startswith("retest"):
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
