"""The sentences on a search's outcome beside the study: its winner, its null searches, and what follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mote.harness.drawing import short
from mote.harness.errors import MoteError
from mote.harness.report.phrases import pct
from mote.reading import UnreadableError, read_json

NAME: Final = "search.json"
"""The file among a run's tables that ``mote search`` writes."""
NULLS: Final = {"shuffled": "classes shuffled", "pool": "random pools"}
RULED: Final = {
    "above": "Above its null: the winner does more than the same search with shuffled classes, and in random pools.",
    "not-above": "Not above its null: the same search, where there is nothing to find, finds as much.",
    "few": "Too few null searches, or no null of one kind: the winner can't be told from them.",
    "none": "Nothing found: no set within the bounds has a net effect in the answers, and the untouched model stands.",
}


class _Part(BaseModel):
    """What else stands in the file is passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class _Plan(_Part):
    trials: int
    held: tuple[int, int]


class _Winner(_Part):
    experts: list[tuple[int, int]]
    factor: float
    left: float
    left_low: float
    left_high: float
    entered: float
    net: float
    broken: float
    kl: float


class _Null(_Part):
    kind: Literal["shuffled", "pool"]
    searches: int
    mean: float
    most: float
    p: float


class _Ruling(_Part):
    said: Literal["above", "not-above", "few", "none"]
    nulls: list[_Null]


class _Outcome(_Part):
    target: str
    plan: _Plan
    winner: _Winner
    ruling: _Ruling


def search_sentences(tables: Path) -> list[str]:
    """Return sentences on the last search of a run, from ``search.json`` among its tables; none where there is none.

    Raises MoteError where the file is no search's.
    """
    path = tables / NAME
    if not path.exists():
        return []
    try:
        # As JSON, in which a list is a pair's only form.
        found = _Outcome.model_validate_json(json.dumps(read_json(path)))
    except UnreadableError as error:
        raise MoteError(f"{path} {error}") from None
    except ValidationError as error:
        raise MoteError(f"{path} is no search's: {error.errors()[0]['msg']}") from None
    said = [_winner(found)]
    for null in found.ruling.nulls:
        said.append(
            f"{NULLS[null.kind].capitalize()}, {null.searches:,} searches: net {null.mean:+.1%} on average and"
            f" {null.most:+.1%} at most; p = {null.p:.3f}."
        )
    return [*said, RULED[found.ruling.said]]


def _winner(found: _Outcome) -> str:
    best, (targets, others) = found.winner, found.plan.held
    begin = f"The best of {found.plan.trials:,} trials"
    if not best.experts:
        return f"{begin} is the untouched model, whose net effect is 0."
    return (
        f"{begin} multiplies the weights of {len(best.experts):,} experts by {best.factor:g}. On the half that chose"
        f" nothing {pct(best.left)} of {targets:,} prompts leave {short(found.target[:200])}"
        f" (95%: {pct(best.left_low)} to {pct(best.left_high)}), {pct(best.entered)} of {others:,} others enter:"
        f" net {best.net:+.1%}; {pct(best.broken)} of the answers are broken, KL {best.kl:.4f} nats a token."
    )
