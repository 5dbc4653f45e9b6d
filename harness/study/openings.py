"""Where a class has set openings, and whether an answer may be ended at one.

``learn_openings`` finds the openings of the class under study in the baseline's own answers. A control answer that
opens so need not be read on, if nothing else ever followed: ``closed_openings`` counts what followed in all answers
that were read whole, those under random sets among them, and lets answers be ended only where at most one in a hundred
would have left the class.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import pandas as pd
from scipy import stats

from mote.harness.preconditions import STATES
from mote.harness.recipe.manifest import write_manifest
from mote.harness.science.controls import BASELINE, RANDOM
from mote.harness.science.stems import PURITY, learn
from mote.harness.study.session import Session

MOST_WRONG: Final = 0.01
"""The share of ended answers that may have left the class after all: the bound that is asked for."""
LEVEL: Final = 0.95
"""The level of that one-sided bound."""


class Ending(NamedTuple):
    """The openings, as tokens' texts, at which a control answer is ended."""

    openings: tuple[tuple[str, ...], ...]

    @property
    def tokens(self) -> int:
        """The tokens of the longest one."""
        return max((len(opening) for opening in self.openings), default=0)

    def opens(self, pieces: Sequence[str]) -> bool:
        """Return whether an answer, as its tokens' texts, begins with one: "In" does not begin with the token "I"."""
        return any(tuple(pieces[: len(opening)]) == opening for opening in self.openings)


def learn_openings(session: Session, frame: pd.DataFrame, purity: float = PURITY) -> dict[str, Any]:
    """Return the openings of the class under study, and what they cover, as the manifest holds them.

    ``frame`` is the store's ``generations_frame`` of the run's judge.
    """
    target = session.recipe.study.target
    baseline = frame[frame["profile"] == BASELINE]
    pieces = [session.engine.pieces(raw) for raw in baseline["raw"]]
    ours = [one for one, label in zip(pieces, baseline["label"], strict=True) if label == target]
    others = [one for one, label in zip(pieces, baseline["label"], strict=True) if label != target]
    stems = learn(ours, others, purity=purity)
    openings = ["".join(str(piece) for piece in opening) for opening in stems.openings]
    # An opening that is tokenised otherwise on its own would be asked for as other tokens than the answers had.
    same = all(session.engine.pieces(text) == list(one) for text, one in zip(openings, stems.openings, strict=True))
    left_out = "" if same else "an opening is tokenised otherwise on its own"
    if same and not stems.enough:
        left_out = f"the openings cover {stems.coverage:.0%} of the class's answers"
    return {
        "openings": openings,
        "coverage": round(stems.coverage, 4),
        "covered": stems.covered,
        "answers": stems.answers,
        "foreign": stems.foreign,
        "enough": stems.enough and same,
        "left_out": left_out,
    }


def closed_openings(session: Session, whole: Collection[str]) -> Ending | None:
    """Return where control answers are ended, or None where they are all read to their end; the manifest says why.

    ``whole`` names the random sets whose answers are read to their end in any case. Those, and the answers under all
    other profiles, are the evidence: they have to be there and labelled.
    """
    if not session.recipe.study.economy.stop_decided or session.recipe.judges.llm is not None:
        # A language model reads whole answers: what it would say of an opening nobody has measured.
        return None
    frame = session.store.generations_frame(session.labels.judge)
    found = learn_openings(session, frame, purity=1.0)
    texts = found["openings"] if found["enough"] else []
    ending = Ending(tuple(tuple(session.engine.pieces(text)) for text in texts))
    read = frame[~frame["kind"].str.startswith(RANDOM) | frame["profile"].isin(list(whole))]
    opened = read[[ending.opens(session.engine.pieces(str(raw))) for raw in read["raw"]]]
    noted = {"openings": texts, **_followed(opened["label"], session.recipe.study.target)}
    noted["left_out"] = found["left_out"] or _why_not(noted, ending.tokens, session.recipe.sampling.max_tokens)
    if noted["left_out"]:
        noted["openings"] = []
    session.manifest["ended_at"] = noted
    write_manifest(session.folder, session.manifest)
    return ending if noted["openings"] else None


def _followed(labels: pd.Series[Any], target: str) -> dict[str, Any]:
    """Return how many answers that open so were read whole, how many left the class, and the bound of their share."""
    left = int((~labels.isin([target, *STATES])).sum())
    bound = 1.0 if left >= len(labels) else float(stats.beta.ppf(LEVEL, left + 1, len(labels) - left))
    return {"read": len(labels), "left_class": left, "at_most": round(bound, 5)}


def _why_not(noted: dict[str, Any], tokens: int, room: int) -> str:
    if noted["at_most"] > MOST_WRONG:
        return (
            f"of {noted['read']} answers that open so and were read whole, {noted['left_class']} left the class: up to"
            f" {noted['at_most']:.1%} may, and {MOST_WRONG:.0%} is allowed"
        )
    return "" if tokens < room else "an opening is as long as an answer may be"
