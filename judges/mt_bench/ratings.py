"""From a judge's reply to its rating or its choice, strictly.

FastChat takes the first ``[[n]]``, or else the first ``[n]``: a judge that thinks aloud scores its draft, ``[[15]]``
scores 15, ``[[05]]`` is a crash, and "as in [1] ... 7/10" scores 1. Here the judge's own reasoning is stripped, only
the last bracketed rating counts, and what is not a number from 1 to 10 in plain writing is no rating:

====================================== ==========
reply                                  rating
====================================== ==========
``Rating: [[7]]``                      7
``[[3]] is too low. Rating: [[7.5]]``  7.5
``The scale is [[rating]]: [[7]]``     7
``<think>[[3]]</think>[[7]]``          7
``<think>[[3]] because``               none
``[[7]] ... [[15]]``                   none
``[[05]]``, ``[[0]]``, ``[[7/10]]``    none
``[7]``, ``7/10``                      none
====================================== ==========
"""

from __future__ import annotations

import re
from typing import Final

from mote.judges.llm.verdict import last_bracketed, without_reasoning
from mote.judges.reasoning import Markers

CHOICES: Final = ("A", "B", "C")
"""What a pairwise judge may say: A is better, B is better, a tie."""

UNSCORED: Final = -1
"""FastChat's score of what could not be scored; its ``show_result`` leaves such rows out."""

MODEL_1, MODEL_2, TIE, ERROR = "model_1", "model_2", "tie", "error"

_BRACKETED = re.compile(r"\[\[([^\[\]\n]*\d[^\[\]\n]*)\]\]")
_RATING = re.compile(r"(?:10(?:\.0+)?|[1-9](?:\.\d+)?)")


def rating_of(reply: str, markers: Markers | None = None) -> float | None:
    """Return the rating of a reply, 1 to 10, or None where it holds none."""
    found = _BRACKETED.findall(without_reasoning(reply, markers))
    if not found or not _RATING.fullmatch(found[-1].strip()):
        return None
    return float(found[-1])


def choice_of(reply: str, markers: Markers | None = None) -> str | None:
    """Return the last ``[[A]]``, ``[[B]]`` or ``[[C]]`` of a reply; None where the last bracket is none of them."""
    found = last_bracketed(without_reasoning(reply, markers))
    return found if found in CHOICES else None


def game_winner(choice: str | None, swapped: bool) -> str:
    """Return FastChat's name of a game's winner; in a swapped game ``model_2`` stands as assistant A."""
    if choice is None:
        return ERROR
    if choice == "C":
        return TIE
    return MODEL_1 if (choice == "A") != swapped else MODEL_2


def match_winner(first: str, second: str) -> str:
    """Return the winner of both games: who won both, else a tie; an unscored game makes the match unscored.

    The rule of MT-Bench (arXiv 2306.05685, section 3.4): a win must hold in both orders.
    """
    if ERROR in (first, second):
        return ERROR
    return first if first == second else TIE
