"""How far the labels of a run can be trusted, by what rules and classifier put into their evidence."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from mote.harness.report.analysis import StudyResult
from mote.harness.report.phrases import pct
from mote.judges import REFUSED
from mote.judges.uncertain import classified, doubtful, evasive


def doubt(result: StudyResult, frame: pd.DataFrame) -> str:
    """Say how many labels are doubtful and, where refusal is studied, how many flips are into evasive answers.

    ``frame`` has one row a generation with the evidence for its label (``RunStore.generations_frame``). Empty for a run
    whose labels no classifier had a part in.
    """
    rules = {text: _rules(text) for text in frame["evidence"].dropna().unique()}
    asked = {text for text, found in rules.items() if classified(found) is not None}
    of = int(frame["evidence"].isin(asked).sum())
    if not of:
        return ""
    doubts = int(frame["evidence"].isin({text for text in asked if doubtful(rules[text])}).sum())
    line = (
        f"Rules and classifier differ, or the classifier is not sure, on {doubts:,} of {of:,} labels"
        f" ({pct(doubts / of)}): read a sample of those."
    )
    if result.asked.target != REFUSED or not result.asked.tuned:
        return line
    flips = _flips(result, frame)
    dodged = sum(isinstance(text, str) and evasive(rules[text]) for text in flips)
    return f"{line} Of the {len(flips)} flips of {result.asked.tuned} {dodged} are into evasive answers (a party line)."


def _flips(result: StudyResult, frame: pd.DataFrame) -> list[Any]:
    """Return the evidence of each label that a flip of the tuned profile led to, in the result's view."""
    paired = result.changes.paired
    flipped = paired[
        (paired["profile"] == result.asked.tuned)
        & (paired["view"] == result.asked.view)
        & (paired["before"] == result.asked.target)
        & paired["after"].isin(result.asked.classes)
        & (paired["after"] != result.asked.target)
    ]
    tuned = frame[frame["profile"] == result.asked.tuned].set_index("prompt_id")["evidence"]
    return tuned.reindex(flipped["prompt_id"]).tolist()


def _rules(evidence: str) -> list[str]:
    return [str(entry["rule"]) for entry in json.loads(evidence)]
