"""Sequential testing against random sets: ask for no answer that can't change the verdict.

A full design answers every target prompt under every random set and reads off p = (1 + sets that flip as many) /
(sets + 1). Most of it is wasted: once h sets flip as many as the tuned one, p can't be at most alpha any more (Besag &
Clifford 1991, Biometrika 78, 301-304), and a set need not go on when it has reached the tuned count, or can't any more.

`Design` fixes sets and prompts in their order before anything is answered; `ask` says which answers come next,
`progress` what the answers at hand mean. Both are pure: a killed run that gives the same answers is asked the same. A
family's result is read in the order of its sets and stops at the h-th that reached the count, so how many sets were in
flight at once changes the cost but never the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mote.harness.preconditions import DataError, check_unique

Answers = Mapping[tuple[str, str], bool]
"""(set, prompt) -> whether the answer left the class."""


class Ask(NamedTuple):
    """One answer to generate."""

    set: str
    prompt: str


@dataclass(frozen=True)
class Design:
    """A plan of control answers: `observed` flips of the tuned set on `prompts`, and each family's sets in order.

    `sequential`: a family stops once significance is out of its reach. `together`: so do all families, as the verdict
    needs each of them. `curtailed`: a set stops once decided. `whole` sets of each family, the first ones, are never
    curtailed: for the figure of the null distribution. With all three off every (set, prompt) is asked.
    """

    observed: int
    prompts: tuple[str, ...]
    families: Mapping[str, tuple[str, ...]]
    alpha: float = 0.05
    sequential: bool = True
    together: bool = True
    curtailed: bool = True
    whole: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.observed <= len(self.prompts):
            raise DataError(f"The tuned set can't flip {self.observed} of {len(self.prompts)} prompts.")
        if not 0 < self.alpha < 1:
            raise DataError(f"alpha lies between 0 and 1, for instance 0.05, not {self.alpha}.")
        check_unique(self.prompts, "prompt")
        check_unique([name for sets in self.families.values() for name in sets], "set")

    def exceedances(self, sets: int) -> int:
        """Return the number of sets that put p <= alpha out of reach of a family of that many sets."""
        return math.floor(self.alpha * (sets + 1) + 1e-9)


SetState = Literal["open", "reached", "short"]


class SetProgress(NamedTuple):
    """A set's flips among the answers at hand; `short`: it can't reach the observed count any more."""

    state: SetState
    flips: int
    answered: int
    finished: bool


class FamilyProgress(NamedTuple):
    """A family as far as its sets are decided, in order: `sets` of them, of which `reached` reached the count.

    `stopped`: significance is out of reach. `p` is nan until the family is finished. A finished family's p is
    (1 + reached) / (1 + sets); a stopped one's is Besag and Clifford's h / l, but never below the least that the full
    design could have given, so that both designs fall on the same side of alpha.
    """

    sets: int
    reached: int
    planned: int
    stopped: bool
    finished: bool
    p: float


def set_progress(design: Design, name: str, answers: Answers, *, whole: bool = False) -> SetProgress:
    """Return where one set stands; `whole`: it is answered to the end even where decided."""
    flips = answered = 0
    state: SetState = "open"
    total = len(design.prompts)
    for prompt in design.prompts:
        if state == "open":
            state = _decided(flips, total - answered, design.observed)
        if state != "open" and design.curtailed and not whole:
            break
        flip = answers.get((name, prompt))
        if flip is None:
            # Answers in flight come back in any order; what follows a gap is counted once the gap is filled.
            break
        answered += 1
        flips += bool(flip)
    if state == "open":
        state = _decided(flips, total - answered, design.observed)
    done = answered == total or (state != "open" and design.curtailed and not whole)
    return SetProgress(state, flips, answered, done)


def progress(design: Design, answers: Answers) -> dict[str, FamilyProgress]:
    """Return where each family stands."""
    return {family: _family(design, family, answers) for family in design.families}


def finished(design: Design, answers: Answers) -> bool:
    """Return whether no answer is needed any more."""
    return not ask(design, answers, 1)


def ask(design: Design, answers: Answers, room: int, block: int = 8) -> list[Ask]:
    """Return up to `room` answers to generate next, none of which is in `answers`; none where all is decided.

    Sets come in turn from all families, first the first of each; each gives its next `block` prompts at most, so that
    few answers are spent on a set that those in flight decide. Answers asked for before and not yet in `answers` are
    asked for again: leave out those in flight.
    """
    where = progress(design, answers)
    if design.sequential and design.together and any(family.stopped for family in where.values()):
        return _rest_of_whole(design, answers, room)
    asks: list[Ask] = []
    for at in range(max((len(sets) for sets in design.families.values()), default=0)):
        for family, sets in design.families.items():
            if at < len(sets) and not where[family].finished:
                asks += _next_of(design, sets[at], at, answers, block)
                if len(asks) >= room:
                    return asks[:room]
    return asks or _rest_of_whole(design, answers, room)


def _rest_of_whole(design: Design, answers: Answers, room: int) -> list[Ask]:
    asks: list[Ask] = []
    for sets in design.families.values():
        for at, name in enumerate(sets[: design.whole]):
            asks += _next_of(design, name, at, answers, len(design.prompts))
    return asks[:room]


def _next_of(design: Design, name: str, at: int, answers: Answers, block: int) -> list[Ask]:
    if set_progress(design, name, answers, whole=at < design.whole).finished:
        return []
    missing = [prompt for prompt in design.prompts if (name, prompt) not in answers]
    return [Ask(name, prompt) for prompt in missing[:block]]


def _family(design: Design, family: str, answers: Answers) -> FamilyProgress:
    names = design.families[family]
    limit = design.exceedances(len(names))
    reached = decided = 0
    for at, name in enumerate(names):
        found = set_progress(design, name, answers)
        if found.state == "open":
            break
        if not design.sequential and not set_progress(design, name, answers, whole=at < design.whole).finished:
            break
        decided += 1
        reached += found.state == "reached"
        if design.sequential and reached >= max(limit, 1):
            break
    stopped = design.sequential and reached >= max(limit, 1) and len(names) > 0
    whole = decided == len(names)
    if stopped:
        p = max(reached / decided, (1 + reached) / (1 + len(names)))
    else:
        p = (1 + reached) / (1 + len(names)) if whole else math.nan
    return FamilyProgress(decided, reached, len(names), stopped, stopped or whole, p)


def _decided(flips: int, left: int, observed: int) -> SetState:
    if flips >= observed:
        return "reached"
    return "short" if flips + left < observed else "open"


def shares_at_hand(design: Design, answers: Answers, sets: Sequence[str]) -> dict[str, float]:
    """Return the flip share of each set that was answered on all prompts: curtailed sets have none (it is censored)."""
    shares = {}
    for name in sets:
        flips = [answers.get((name, prompt)) for prompt in design.prompts]
        if flips and None not in flips:
            shares[name] = sum(bool(flip) for flip in flips) / len(flips)
    return shares
