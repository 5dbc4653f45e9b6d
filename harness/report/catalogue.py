"""The figures that a report can have, by the names of their files, with the numbers that the paper gives them."""

from __future__ import annotations

from typing import Final, NamedTuple

from mote.tasks import TASKS


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
    """Return the figures of a run over a task, by the names of their files; of one's own prompts the paper has none."""
    found = {}
    for key, entry in CATALOGUE.items():
        name, number, title = _VARIANTS.get(task, {}).get(key, (key, *entry))
        found[name] = Entry(number if task in TASKS else "", title)
    return found
