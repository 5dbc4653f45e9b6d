"""The paper's figures by number: where this report has each, and for the others what would give them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from mote.harness.report.catalogue import catalogue, key_of
from mote.tasks import TASKS


class PaperRow(NamedTuple):
    """A figure of the paper: its number, its content, the anchor in this report, and the words for it."""

    number: str
    what: str
    anchor: str
    here: str


_GRID: Final = "Not in this run: it is of the paper's grid of times and places, as in `mote run demo`."
_SENSITIVE: Final = (
    "Not in this run: it is of sensitive prompts, `mote run RECIPE --set task.name=sensitive` with ours, or "
    "`ccp_sensitive` with the paper's 1,360, which `mote data --fetch ccp_sensitive` gets."
)
_LANGUAGE: Final = "Not in this run: it is of the 600 sums in English and Chinese, as in `mote run demo-language`."
_NOBODY: Final = "Not in this run: no measured prompt made this transition."

# (number, what it shows, key of a figure or id of a section, what other run has it)
_FIGURES: Final = (
    ("1", "MoTE in the architecture", "", "An illustration without data; see the paper."),
    ("2", "Experts that a single token activates", "fig02-single-token", ""),
    ("3", "Activation map of a prompt", "fig03-prompt-map", ""),
    ("4", "Prompts by their maps, t-SNE", "fig04-tsne", ""),
    ("5", "Resonance map (fTRI) of refused prompts, distinctive experts circled", "fig05-resonance", _GRID),
    ("6", "Example, from refused to aligned", "examples", _GRID),
    ("7", "Example, from aligned to reasoned", "examples", _GRID),
    ("8", "Transitions under suppression, and of random experts", "fig08-transitions", _GRID),
    ("9", "Transitions on sensitive prompts", "fig09-transitions", _SENSITIVE),
    ("10", "Transitions under stimulation", "fig10-stimulation", _GRID),
    ("11", "Resonance map of reasoning in English", "fig11-resonance", _LANGUAGE),
    ("12", "Transitions of the language of reasoning", "fig12-transitions", _LANGUAGE),
    ("13", "Example, a switched language of reasoning", "examples", _LANGUAGE),
    ("14", "MT-Bench, untouched and suppressed", "fig14-mt-bench", ""),
)
_EXAMPLES: Final = {
    "6": ("0-REFUSED", "1-ALIGNED"),
    "7": ("1-ALIGNED", "2-REASONED"),
    "13": ("english", "chinese"),
}


def paper_index(
    task: str, made: Collection[str], missing: Mapping[str, str], transitions: Collection[tuple[str, str]]
) -> list[PaperRow]:
    """Return one row a figure; ``transitions`` are the (before, after) labels among the examples."""
    entries = catalogue(task)
    speaks = task == "reasoning_language"
    # Figures of one's own prompts have the same names, and show something else.
    theirs = task in TASKS
    rows = []
    for number, what, place, elsewhere in _FIGURES:
        if number in _EXAMPLES:
            there = _EXAMPLES[number] in transitions
            words = "Examples" if there else _NOBODY if speaks == (number == "13") else elsewhere
            rows.append(PaperRow(number, what, place if there else "", words))
        elif place in made and (theirs or not elsewhere):
            rows.append(PaperRow(number, what, place, entries[place].title))
        else:
            # A figure that this task has under this very name is missing for a reason of the run's own.
            own = theirs and place in entries and key_of(place, task) == place
            rows.append(
                PaperRow(number, what, "", f"Not in this run. {missing[place]}" if own or not elsewhere else elsewhere)
            )
    return rows
