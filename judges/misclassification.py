"""Flip rates corrected for the measured error of the judge that labelled them.

A judge that errs at random makes flips: of two labels of one unchanged class one may be wrong. What was observed before
and after is a 2 x 2 table O of (target, other); with M[truth, said] the judge's probabilities, measured where people
labelled a sample, O = M' T M, and so the true table is T = inv(M') O inv(M). For one share this is the estimator of
Rogan & Gladen, Am. J. Epidemiol. 107 (1978) 71; for pairs, Greenland & Kleinbaum, Int. J. Epidemiol. 12 (1983) 93.

An answer that is broken afterwards (cut off, degenerate) stays in the denominator, as in the raw rates, and is taken to
be known without error. The judge is assumed to err before and after independently given the true classes. An edit that
changes how answers sound can change how often the judge errs: with an audit of the answers before and another of those
after, M before and M after are two, T = inv(Mb') O inv(Ma); with one audit for both they are taken to be the same.

Intervals carry both uncertainties, of the table (bootstrap over prompts) and of the judge's error (posterior draws
under Jeffreys' prior, from the sample's effective size), as Lang & Reiczigel, Prev. Vet. Med. 113 (2014) 13, advise.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

DRAWS = 4000
_LEAST_SKILL = 0.05
"""Below this sensitivity + specificity - 1 a judge tells so little that dividing by it says nothing."""


class CorrectionError(ValueError):
    """A correction that can't be made; the message is one line that says why."""


class Audit(NamedTuple):
    """What people's labels say of a judge, for one target class against the rest.

    ``precision`` is P(true target | said target), ``omission`` P(true target | said other), each with the effective
    size of its sample; ``said_target`` and ``said_other`` are the sizes of what the sample was drawn from.
    """

    precision: float
    omission: float
    size_target: float
    size_other: float
    said_target: float
    said_other: float

    @property
    def sensitivity(self) -> float:
        """P(said target | true target)."""
        return _skill(self.precision, self.omission, self.said_target, self.said_other)[0]

    @property
    def specificity(self) -> float:
        """P(said other | true other)."""
        return _skill(self.precision, self.omission, self.said_target, self.said_other)[1]


class Corrected(NamedTuple):
    """A share as observed, and corrected with its interval; ``clipped`` where the estimate left 0 to 1 and was cut.

    ``corrected`` is nan, between 0 and 1, where the true table has nothing in the row that the share is of.
    """

    raw: float
    corrected: float
    low: float
    high: float
    clipped: bool


class CorrectedFlips(NamedTuple):
    """Flips away from the target class, and from the others into it."""

    flips: Corrected
    reverse: Corrected


def audit(said: ArrayLike, truth: ArrayLike, weights: ArrayLike | None = None) -> Audit:
    """Measure a judge against people's labels of a sample.

    ``said`` and ``truth`` are true where the judge, and people, gave the target class. ``weights`` are how many texts
    each sampled one stands for (stratum size / sampled of it), 1 by default.

    Raises CorrectionError where one of the judge's two answers was never sampled, or people gave only one.
    """
    judged, true = np.asarray(said, dtype=bool).ravel(), np.asarray(truth, dtype=bool).ravel()
    weight = np.ones(judged.size) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    if not judged.size == true.size == weight.size:
        raise CorrectionError(
            f"{judged.size} labels, {true.size} labels by people and {weight.size} weights don't pair."
        )
    for side, name in ((judged, "the target class"), (~judged, "another class")):
        if not side.any():
            raise CorrectionError(f"the sample holds no answer that the judge put into {name}; draw a larger one.")
    for side, name in ((true, "the target class"), (~true, "another class")):
        if not side.any():
            raise CorrectionError(f"the sample holds no answer that people put into {name}; draw a larger one.")
    pools = []
    for side in (judged, ~judged):
        mass = weight[side]
        pools.append((float(mass[true[side]].sum() / mass.sum()), float(mass.sum() ** 2 / (mass**2).sum()), mass.sum()))
    (precision, size_target, said_target), (omission, size_other, said_other) = pools
    return Audit(precision, omission, size_target, size_other, float(said_target), float(said_other))


def corrected_flips(
    before: ArrayLike,
    after: ArrayLike,
    audited: Audit,
    clusters: Sequence[Hashable] | None = None,
    *,
    after_audited: Audit | None = None,
    broken: ArrayLike | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> CorrectedFlips:
    """Return flip rates as observed and corrected; ``before`` and ``after`` are true where the judge said target.

    ``audited`` is the judge's audit on answers like those before; ``after_audited`` on those after, the same if left
    out. ``broken`` is true where the answer afterwards has no class; ``after`` is not looked at there. Every prompt
    needs a class before.

    Raises CorrectionError for a judge that is hardly better than chance, and for labels that don't pair.
    """
    first, second = np.asarray(before, dtype=bool).ravel(), np.asarray(after, dtype=bool).ravel()
    lost = np.zeros(first.size, dtype=bool) if broken is None else np.asarray(broken, dtype=bool).ravel()
    if not first.size == second.size == lost.size or not first.size:
        raise CorrectionError(f"{first.size} labels before and {second.size} after don't pair.")
    for one in (audited, after_audited or audited):
        if not one.sensitivity + one.specificity - 1 > _LEAST_SKILL:
            raise CorrectionError(_unskilled(one.sensitivity, one.specificity))
    tables = _tables(first, np.where(lost, 2, ~second), clusters)
    whole = tables.sum(axis=0)
    rng = np.random.default_rng(seed)
    units = len(tables)
    resampled = np.einsum("du,uij->dij", rng.multinomial(units, np.full(units, 1 / units), size=draws), tables)
    known = _error(np.array([audited.precision]), np.array([audited.omission]), audited)
    errors = _error(*_posterior(audited, rng, draws), audited)
    # The same judge's error on the same answers is one unknown, and so one draw for before and after.
    known_after, errors_after = known, errors
    if after_audited is not None:
        precision, omission = (np.array([value]) for value in (after_audited.precision, after_audited.omission))
        known_after = _error(precision, omission, after_audited)
        errors_after = _error(*_posterior(after_audited, rng, draws), after_audited)
    point = _true_tables(whole[None], known, known_after)
    drawn = _true_tables(resampled, errors, errors_after)
    return CorrectedFlips(*(_corrected(whole, point, drawn, row, level) for row in (0, 1)))


def _skill(precision: float, omission: float, said_target: float, said_other: float) -> tuple[float, float]:
    true_target = precision * said_target + omission * said_other
    true_other = (1 - precision) * said_target + (1 - omission) * said_other
    return (
        precision * said_target / true_target if true_target else math.nan,
        (1 - omission) * said_other / true_other if true_other else math.nan,
    )


def _error(precision: NDArray[np.float64], omission: NDArray[np.float64], audited: Audit) -> NDArray[np.float64]:
    """M[truth, said] of each draw, from P(truth | said) by Bayes' rule."""
    joint = np.empty((precision.size, 2, 2))
    joint[:, 0, 0], joint[:, 1, 0] = precision * audited.said_target, (1 - precision) * audited.said_target
    joint[:, 0, 1], joint[:, 1, 1] = omission * audited.said_other, (1 - omission) * audited.said_other
    error: NDArray[np.float64] = joint / joint.sum(axis=2, keepdims=True)
    return error


def _posterior(audited: Audit, rng: np.random.Generator, draws: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    precision, omission = (
        rng.beta(share * size + 0.5, (1 - share) * size + 0.5, size=draws)
        for share, size in ((audited.precision, audited.size_target), (audited.omission, audited.size_other))
    )
    return precision, omission


def _true_tables(
    observed: NDArray[np.float64], before: NDArray[np.float64], after: NDArray[np.float64]
) -> NDArray[np.float64]:
    """T = inv(Mb') O inv(Ma) for each draw, what is broken as it is; nan where the drawn judge has no skill."""
    usable = np.minimum(_informed(before), _informed(after)) > _LEAST_SKILL
    first, second = (np.linalg.inv(np.where(usable[:, None, None], one, np.eye(2))) for one in (before, after))
    columns = np.zeros((len(second), 3, 3))
    columns[:, :2, :2], columns[:, 2, 2] = second, 1.0
    tables: NDArray[np.float64] = np.swapaxes(first, 1, 2) @ observed @ columns
    tables[~usable] = np.nan
    return tables


def _informed(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sensitivity + specificity - 1 of each draw."""
    return error[:, 0, 0] + error[:, 1, 1] - 1


def _tables(
    before: NDArray[np.bool_], after: NDArray[np.int_], clusters: Sequence[Hashable] | None
) -> NDArray[np.float64]:
    """Counts [clusters, 2 before, 3 after]: target, other, and broken; without clusters each pair is one."""
    if clusters is not None and len(clusters) != before.size:
        raise CorrectionError(f"there are {before.size} pairs but {len(clusters)} clusters; give one cluster a pair.")
    units = np.arange(before.size) if clusters is None else pd.factorize(pd.Series(list(clusters), dtype=object))[0]
    tables = np.zeros((int(units.max()) + 1, 2, 3))
    np.add.at(tables, (units, (~before).astype(int), after), 1)
    return tables


def _corrected(
    whole: NDArray[np.float64], point: NDArray[np.float64], drawn: NDArray[np.float64], row: int, level: float
) -> Corrected:
    raw = float(whole[row, 1 - row] / whole[row].sum()) if whole[row].sum() else math.nan
    share, clipped = _share(point, row)
    shares, _ = _share(drawn, row)
    unknown = np.isnan(shares)
    # Draws in which the judge has no skill, or the row is empty, could be anything between 0 and 1.
    if math.isnan(share[0]) or unknown.mean() > (1 - level) / 2:
        low, high = 0.0, 1.0
    else:
        low, high = (float(bound) for bound in np.quantile(shares[~unknown], [(1 - level) / 2, (1 + level) / 2]))
    return Corrected(raw, float(share[0]), low, high, bool(clipped[0]))


def _share(tables: NDArray[np.float64], row: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The share of the other class after, cut to 0 to 1, and whether it was cut; nan where nothing is in the row."""
    part, total = tables[:, row, 1 - row], tables[:, row].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(total > 1e-9, part / total, np.nan)
    clipped = (share < -1e-9) | (share > 1 + 1e-9)
    return np.clip(share, 0.0, 1.0), clipped


def _unskilled(sensitivity: float, specificity: float) -> str:
    return (
        f"a judge with sensitivity {sensitivity:.2f} and specificity {specificity:.2f} is hardly better than chance;"
        " its rates can't be corrected."
    )
