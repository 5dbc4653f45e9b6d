"""What a run's last report says of its effect, read from the report's tables: a list of runs shows it.

The tables may be a stranger's: they are read up to a limit, and whatever is not as a report writes it gives a blank.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from mote.harness.science.noise import RETESTS, NoiseFloor
from mote.harness.science.verdict import ControlLeg, verdict
from mote.reading import UnreadableError, read_text

ANSWERS: Final = "answers"
"""The measure of the legs that make the verdict, in ``verdict.csv``."""
RESAMPLED: Final = "retest"
"""The kind of the noise floor's row there."""
FLIPS: Final = "flips among target prompts"
"""What the row of the effect says in ``effect.csv``."""
_LARGEST: Final = 64 << 10
_MOST: Final = 1_000_000


class Reported(NamedTuple):
    """The last report's verdict, and the share of target prompts that flipped with its 95% interval; None: not there.

    ``verdict`` is one of ``mote.harness.science.verdict.Kind``. Shares are between 0 and 1.
    """

    verdict: str | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None


def reported(folder: Path, manifest: Mapping[str, Any]) -> Reported:
    """Return what the tables of a run's last report say; blanks where there is no report, or no readable one."""
    try:
        flips = next(row for row in _rows(folder, "effect") if row["what"] == FLIPS)
        effect, low, high = (_share(flips[name]) for name in ("value", "low", "high"))
        prompts, units = _count(flips["rows"]), _count(flips["units"])
        rows = [row for row in _rows(folder, "verdict") if row["measure"] == ANSWERS]
        legs = [_leg(row) for row in rows if row["kind"] != RESAMPLED]
        noise = next((_leg(row) for row in rows if row["kind"] == RESAMPLED), None)
    except (UnreadableError, csv.Error, ValueError, OverflowError, KeyError, TypeError, StopIteration):
        return Reported()
    floor = None
    if noise is not None:
        # Of the retests a verdict asks only whether there are enough.
        floor = NoiseFloor(math.nan, (math.nan,) * min(noise.sets, RETESTS), noise.p, units, noise.least_p)
    found = verdict(legs, floor, prompts, units, force=manifest.get("forced") is True)
    return Reported(found.kind, effect, low, high)


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(read_text(folder / "tables" / f"{name}.csv", _LARGEST))))


def _leg(row: Mapping[str, str]) -> ControlLeg:
    p = _share(row["p"]) if row["p"] else math.nan
    reached = _count(row["reached"]) if row["reached"] else 0
    return ControlLeg(row["kind"], p, _share(row["least_p"]), reached, _count(row["sets"]), row["stopped"] == "True")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text[:20]} is no share")
    return value


def _count(text: str) -> int:
    value = float(text)
    if not 0 <= value <= _MOST or value != int(value):
        raise ValueError(f"{text[:20]} is no count")
    return int(value)
