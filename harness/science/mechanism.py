"""The mechanism check and the coverage of the maps, summed over a run: proof that the edits did what they say."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd


def summed_mechanism(checks: Iterable[tuple[str, list[dict[str, Any]]]]) -> pd.DataFrame:
    """Sum the mechanism check over each profile: tokens edited, and what is proved of its experts by their action."""
    names = ("tokens", "selected", "entered", "left", "weight_before", "weight_after")
    rows = []
    for profile, some in groupby(checks, key=itemgetter(0)):
        answers, edits, sums = 0, set[tuple[int, int, str]](), dict.fromkeys(names, 0.0)
        for _, entries in some:
            answers += 1
            edits |= {(entry["layer"], entry["expert"], entry["action"]) for entry in entries}
            for entry in entries:
                for name in names:
                    sums[name] += float(entry.get(name) or 0)
        whole = [int(sums[name]) for name in names[:4]]
        actions = "+".join(sorted({action for *_, action in edits}))
        rows.append((profile, actions, answers, len(edits), *whole, *(sums[name] for name in names[4:])))
    return pd.DataFrame(rows, columns=["profile", "action", "answers", "edits", *names])


def coverage_table(role: str, counted: list[tuple[int, int]]) -> pd.DataFrame:
    """Return over how many tokens the maps were counted: one row, with the tokens there were."""
    tokens = np.array(counted, dtype=np.int64).reshape(-1, 2)
    whole = int((tokens[:, 0] == tokens[:, 1]).sum())
    row = (role, len(tokens), whole, int(tokens[:, 0].sum()), int(tokens[:, 1].sum()))
    return pd.DataFrame([row], columns=["role", "maps", "whole_maps", "tokens_counted", "tokens"])
