"""Exact probabilities of a class that has a stem: P(refusal) without sampling, by how refusals open.

A model that refuses does so in a few set phrases. Where the baseline's own answers show which openings mean the class,
the chance of the class is the summed chance of those openings: one teacher-forced prefill a prompt and set, and no
sampling noise. `learn` finds the openings and says what they cover; `class_chance` adds up their log-probabilities;
`with_exact` combines the exact chances with sampled labels, which see what the openings miss.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from mote.harness.preconditions import DataError, check_level
from mote.harness.science.clustered import cluster_variance
from mote.harness.science.splits import number_units

Token = Hashable
Opening = tuple[Token, ...]

COVERAGE: Final = 0.8
"""The share of the class's answers that openings must cover to stand for it."""

PURITY: Final = 0.98
"""The share of answers with an opening that must be of the class."""


class Stems(NamedTuple):
    """Openings of a class, none of which begins another; `covered` of `answers` answers of the class have one.

    `foreign`: answers of other classes that have one. `enough`: whether the openings may stand for the class.
    """

    openings: tuple[Opening, ...]
    covered: int
    answers: int
    foreign: int
    enough: bool

    @property
    def coverage(self) -> float:
        """The share of the class's answers that begin with one of the openings."""
        return self.covered / self.answers

    def has(self, answer: Sequence[Token]) -> bool:
        """Return whether an answer begins with one of the openings."""
        return any(tuple(answer[: len(opening)]) == opening for opening in self.openings)


class Adjusted(NamedTuple):
    """A mean with its interval; `correlation` of sampled and exact values, `spared`: variance that exactness took."""

    mean: float
    low: float
    high: float
    correlation: float
    spared: float


def learn(
    ours: Sequence[Sequence[Token]],
    others: Sequence[Sequence[Token]],
    *,
    coverage: float = COVERAGE,
    purity: float = PURITY,
    support: int = 2,
    most: int = 8,
    longest: int = 32,
) -> Stems:
    """Return the fewest and shortest openings that mark the class's answers `ours` off from `others`.

    Answers are sequences of tokens (ids or texts), the baseline's own. An opening is a prefix of up to `longest` tokens
    shared by at least `support` answers of the class, and of all answers that begin so at least the share `purity` is
    of the class; of nested ones the shortest is taken, for it covers most. Up to `most` openings, the most frequent
    first, until all answers that can be are covered. `Stems.enough` says whether they cover the share `coverage`.
    Raises `DataError` without an answer of the class.
    """
    if not ours:
        raise DataError("No answer of the class is there to learn openings from.")
    if not 0 < coverage <= 1 or not 0 < purity <= 1:
        raise DataError(f"Coverage and purity are shares above 0, not {coverage} and {purity}.")
    foreign: Counter[Opening] = Counter()
    for answer in others:
        foreign.update(tuple(answer[:n]) for n in range(1, min(len(answer), longest) + 1))
    found: Counter[Opening] = Counter()
    # Breadth first over the tree of prefixes: a prefix that marks the class closes its branch.
    level: dict[Opening, list[Sequence[Token]]] = {(): list(ours)}
    while level:
        deeper: dict[Opening, list[Sequence[Token]]] = defaultdict(list)
        for prefix, answers in level.items():
            n = len(prefix)
            if n and len(answers) >= purity * (len(answers) + foreign[prefix]):
                found[prefix] = len(answers)
                continue
            for answer in answers:
                if n < min(len(answer), longest):
                    deeper[(*prefix, answer[n])].append(answer)
        level = {prefix: answers for prefix, answers in deeper.items() if len(answers) >= support}
    best = sorted(found, key=lambda opening: (-found[opening], len(opening), str(opening)))[:most]
    covered = sum(found[opening] for opening in best)
    outside = sum(foreign[opening] for opening in best)
    return Stems(tuple(best), covered, len(ours), outside, covered >= coverage * len(ours))


def class_chance(logprobs: Sequence[ArrayLike]) -> float:
    """Return the chance that an answer begins with one of the openings.

    `logprobs` holds for each opening the log-probabilities of its tokens after the prompt, teacher forced, under the
    sampling temperature. Openings of `learn` exclude one another, so their chances add up. It is the class's chance up
    to what the openings do not cover. Raises `DataError` for a log-probability above 0 or nan.
    """
    if not logprobs:
        raise DataError("There is no opening whose chance could be summed.")
    sums = []
    for at, values in enumerate(logprobs):
        tokens = np.asarray(values, dtype=np.float64).ravel()
        if tokens.size == 0 or np.isnan(tokens).any() or (tokens > 1e-6).any():
            raise DataError(f"Opening {at} has no log-probabilities, or one that is nan or above 0.")
        sums.append(float(tokens.sum()))
    chance = math.exp(float(special.logsumexp(sums)))
    if chance > 1 + 1e-3:
        raise DataError(f"The openings' chances sum to {chance:.3f}: one of them begins another.")
    return min(1.0, chance)


def with_exact(
    sampled: ArrayLike,
    begins: ArrayLike,
    exact: ArrayLike,
    units: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Adjusted:
    """Return the class's share from sampled labels with the exact chances as control variate.

    One row a sampled answer: `sampled` is 1 where it has the class, `begins` 1 where it begins with one of the
    openings, `exact` the chance that it would (`class_chance`). begins - exact is 0 on average whatever the model does,
    so the mean of sampled - (begins - exact) has the same expectation as that of sampled: unbiased with the coefficient
    1, which needs no estimate. What is left of sampling noise are the answers where label and opening disagree. The
    interval is clustered over units (default: rows), a t-interval of G - 1 degrees of freedom.
    """
    check_level(level)
    y, x, q = (np.asarray(values, dtype=np.float64).ravel() for values in (sampled, begins, exact))
    if not y.size == x.size == q.size or y.size < 2:
        raise DataError(f"Sampled, begins and exact have {y.size}, {x.size} and {q.size} values; give one each a row.")
    at = np.arange(y.size) if units is None else number_units(units)
    if at.size != y.size or int(at.max()) < 1:
        raise DataError("Each row needs a unit, and there must be at least two units.")
    values = y - (x - q)
    mean = float(values.mean())
    half = float(stats.t.ppf((1 + level) / 2, int(at.max()))) * math.sqrt(cluster_variance(values, at))
    # How much sampling noise is gone: that of y around its chance, against that of what is left.
    before, after = float(((y - q) ** 2).mean()), float(((y - x) ** 2).mean())
    spared = 1 - after / before if before > 0 else 0.0
    varies = y.std() > 0 and q.std() > 0
    return Adjusted(mean, mean - half, mean + half, float(np.corrcoef(y, q)[0, 1]) if varies else math.nan, spared)
