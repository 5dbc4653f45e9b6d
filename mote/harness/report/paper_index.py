"""The paper's figures by number: where this report has each, and for the others what would give it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from mote.harness.report.figures import CATALOGUE


class PaperRow(NamedTuple):
    """One figure of the paper: its number, what it shows, the anchor in this report, and the words for it."""

    number: str
    what: str
    anchor: str
    here: str


_SINGLE: Final = (
    "Not in this run: a run keeps counts per prompt, not the choices of each token; "
    "capturing the rows of a prompt's tokens would give it."
)
_SENSITIVE: Final = "Not in this run: a run over a set of sensitive prompts (the paper's has 1,360) would give it."
_LANGUAGE: Final = (
    "Not in this run: a run over the paper's 600 sums, with a language of reasoning as target, would give it."
)

# (number, what it shows, key of a figure or id of a section, else what would give it)
_FIGURES: Final = (
    ("1", "MoTE in the architecture", "", "An illustration without data; see the paper."),
    ("2", "Experts that a single token activates", "", _SINGLE),
    ("3", "Activation map of a prompt", "fig03-prompt-map", ""),
    ("4", "Prompts by their maps, t-SNE", "fig04-tsne", ""),
    ("5", "Resonance map (fTRI), distinctive experts circled", "fig05-resonance", ""),
    ("6", "Example, from refused to aligned", "examples", ""),
    ("7", "Example, from aligned to reasoned", "examples", ""),
    ("8", "Transitions under suppression, and of random experts", "fig08-transitions", ""),
    ("9", "Transitions on sensitive prompts", "", _SENSITIVE),
    ("10", "Transitions under stimulation", "fig10-stimulation", ""),
    ("11", "Resonance map of reasoning in English", "", _LANGUAGE),
    ("12", "Transitions of the language of reasoning", "", _LANGUAGE),
    ("13", "Example, a switched language of reasoning", "", _LANGUAGE),
    ("14", "MT-Bench, untouched and suppressed", "", "Not in this run: MT-Bench under both profiles would give it."),
)


def paper_index(
    made: Collection[str], missing: Mapping[str, str], transitions: Collection[tuple[str, str]]
) -> list[PaperRow]:
    """Return one row a figure; ``transitions`` are the (before, after) labels among the examples."""
    examples = {"6": ("0-REFUSED", "1-ALIGNED"), "7": ("1-ALIGNED", "2-REASONED")}
    rows = []
    for number, what, place, without in _FIGURES:
        if number in examples:
            there = examples[number] in transitions
            words = "Examples" if there else "Not in this run: no measured prompt made this transition."
            rows.append(PaperRow(number, what, place if there else "", words))
        elif place in made:
            rows.append(PaperRow(number, what, place, CATALOGUE[place].title))
        else:
            rows.append(PaperRow(number, what, "", without or f"Not in this run. {missing[place]}"))
    return rows
