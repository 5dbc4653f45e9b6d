"""The sentences on what a recipe has measured after its study: other rankings' top experts, thirds among chance."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from mote.harness.errors import MoteError
from mote.harness.report.phrases import p_is, pct
from mote.harness.report.ranking_figure import COLUMNS, LARGEST, NAMES
from mote.harness.science.dose import THIRDS
from mote.reading import UnreadableError, read_text

_WAYS: Final = {
    "suppress": "suppressed after the router's choice,",
    "deactivate": "deactivated before it, so that others come in,",
}
_SAID: Final = 3
"""Other rankings that the report's first page names."""


def beside_the_study(table: pd.DataFrame, tuned: int, primary: str) -> list[str]:
    """Return a sentence on the other rankings' top experts, as many as the study tuned, best first; none without one.

    ``table`` is that of ``read_rankings``, ``tuned`` the number of experts, ``primary`` the study's own ranking.
    """
    needed = ["flips", "prompts", "p_holm", "sets"]
    if not len(table) or any(name not in table for name in (*COLUMNS, *needed)):
        return []
    if not all(pd.api.types.is_numeric_dtype(table[name]) for name in needed) or table[needed[:2]].isna().any(
        axis=None
    ):
        return []
    rows = table[(table["k"] == tuned) & (table["ranking"] != primary)].sort_values("flips", ascending=False)
    said = []
    for row in rows.head(_SAID).to_dict(orient="records"):
        p, sets = float(row["p_holm"]), float(row["sets"])
        among = f", {p_is(p)} among {sets:.0f} random sets of their own" if np.isfinite([p, sets]).all() else ""
        name = NAMES.get(str(row["ranking"]), str(row["ranking"]))
        said.append(f"by {name} {row['flips']:.0f} of {row['prompts']:.0f} ({pct(float(row['share']))}{among})")
    return [f"The top {tuned} by other rankings flip: {'; '.join(said)}."] if said else []


def deactivated_beside_chance(path: Path) -> str:
    """Return a sentence on suppression and deactivation among the same sets, from `deactivated_chance.csv`, or "".

    Raises MoteError where the file is no such table.
    """
    rows = _rows(
        path, "action", ("flips", "prompts", "broken", "sets", "matched_mean", "p"), len(_WAYS), "deactivation"
    )
    if strange := [row["action"] for row in rows if row["action"] not in _WAYS]:
        raise MoteError(f"{path} is no table of deactivation: '{strange[0][:80]}' is no way to switch experts off")
    said = [
        f"{_WAYS[row['action']]} {row['flips']:.0f} of {row['prompts']:.0f} flip, {row['broken']:.0f} break,"
        f" {row['sets']:.0f} random sets {pct(row['matched_mean'])} on average ({p_is(row['p'])})"
        for row in rows
    ]
    return f"The same experts and random sets switched off in two ways: {'; '.join(said)}." if said else ""


def thirds_beside_chance(path: Path) -> str:
    """Return a sentence on each third's flips among random sets of its own, from `thirds_chance.csv`; empty without.

    Raises MoteError where the file is no such table.
    """
    rows = _rows(path, "third", ("flips", "prompts", "sets", "matched_mean", "p"), len(THIRDS), "thirds")
    said = [
        f"{row['third'][:20]} {row['flips']:.0f} of {row['prompts']:.0f}, {row['sets']:.0f} random sets of its"
        f" layers, chosen as often, {pct(row['matched_mean'])} on average ({p_is(row['p'])})"
        for row in rows
    ]
    return f"Each third among chance: {'; '.join(said)}." if said else ""


def _rows(path: Path, key: str, columns: Sequence[str], most: int, what: str) -> list[dict[str, Any]]:
    """Return the first rows of a table beside the study, with numbers in ``columns``; none where there is no file.

    Raises MoteError where the file is no such table.
    """
    if not path.exists():
        return []
    try:
        table = pd.read_csv(io.StringIO(read_text(path, LARGEST)), nrows=most)
        found = table[[key, *columns]].astype({key: str, **dict.fromkeys(columns, float)})
    except (UnreadableError, ValueError, OverflowError, KeyError) as error:
        raise MoteError(f"{path} is no table of {what}: {' '.join(str(error).split())[:120]}") from None
    return [{str(name): value for name, value in row.items()} for row in found.to_dict(orient="records")]
