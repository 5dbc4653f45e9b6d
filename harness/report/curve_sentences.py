"""The sentences on trade-off, thirds of the layers and pruning."""

from __future__ import annotations

import math

import pandas as pd

from mote.harness.report.analysis import StudyResult
from mote.harness.report.phrases import pct


def best(result: StudyResult, profile: str) -> str:
    """Return the sentence on the best trade-off among the doses; it is a choice made on the prompts that measure it."""
    curves = result.curves
    if not len(curves.doses):
        return ""
    rows = pd.concat([curves.doses, curves.direction]).drop_duplicates("profile").to_dict("records")
    row = next((row for row in rows if row["profile"] == profile), None)
    if row is None:
        return "No dose changed a label of the target class while breaking and reversing at most 2%."
    return (
        f"Of the doses that break and reverse at most 2%, {profile} flips most: {row['flips_hits']:.0f} of "
        f"{row['flips_total']:.0f} ({pct(float(row['flips']))}), with {pct(float(row['kept']))} of the other prompts' "
        "labels kept. It was picked on the prompts that it is measured on: measure it on others before trusting it."
    )


def thirds(result: StudyResult) -> str:
    """Return what of the effect each third of the layers has by itself."""
    rows = result.curves.thirds
    if not len(rows):
        return ""
    parts = rows[rows["part"] != "all"]
    shares = {str(part): float(share) for part, share in zip(parts["part"], parts["share"], strict=True)}
    words = [f"{part} {pct(share, 0)}" for part, share in shares.items() if not math.isnan(share)]
    if not words:
        return "All of them together have no effect, so there is nothing to share out."
    missing = 1 - sum(shares.values())
    if abs(missing) < 0.005:
        rest = "which is the whole of it"
    elif missing > 0:
        rest = "the rest needs several of them at once"
    else:
        rest = "together more than the whole: what one third does, another does as well"
    return f"Of the effect, one third of the layers has by itself: {', '.join(words)}; {rest}."


def pruned(rows: pd.DataFrame) -> str:
    """Return what pruning left, in words; the kept effect is too good by selection; the measured one is beside it."""
    if not len(rows):
        return ""
    last = rows.iloc[-1]
    line = (
        f"Of {int(rows['left'].iloc[0])} experts {int(last['left'])} keep at least {pct(float(last['keep']), 0)} of "
        f"the effect on the prompts that chose them ({pct(float(rows['effect'].iloc[0]))} with all, "
        f"{pct(float(last['effect']))} with these)"
    )
    if not pd.isna(last["measured_share"]):
        hits, total, whole = (int(last[name]) for name in ("measured_hits", "measured_total", "whole_hits"))
        line += f"; on prompts that took no part they flip {hits} of {total}, and all of them {whole}"
    return f"{line}: {last['experts']}."
