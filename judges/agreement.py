"""How far judges agree: Cohen's kappa of two, Krippendorff's alpha of any number, each with an interval.

A judge that gave no label, or UNSCORED, said nothing about a text: such texts are left out of the comparison of that
judge and counted. TRUNCATED and DEGENERATE are labels like the others. Intervals are percentile bootstraps that draw
whole clusters where clusters are given: the answers to one prompt under thirty profiles are not thirty texts.

Cohen, Educ. Psychol. Meas. 20 (1960) 37; Krippendorff, Content Analysis, 4th ed. (2019), ch. 12.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import NamedTuple

import krippendorff
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.judges.labels import UNSCORED

DRAWS = 1000


class AgreementError(ValueError):
    """Labels that can't be compared; the message is one line that says why."""


class Kappa(NamedTuple):
    """Agreement of two judges: share of the same labels, and kappa with its interval, on ``items`` texts.

    ``left_out`` texts have a label of one of the two only. Kappa is nan where both use one and the same label
    throughout: then chance alone explains all agreement, and there is nothing to measure.
    """

    first: str
    second: str
    items: int
    left_out: int
    agreed: float
    kappa: float
    low: float
    high: float


class Alpha(NamedTuple):
    """Krippendorff's alpha (nominal) of several judges on the ``items`` texts that at least two of them labelled."""

    judges: tuple[str, ...]
    items: int
    alpha: float
    low: float
    high: float


def said(labels: pd.Series[str]) -> pd.Series[str]:
    """Return labels with UNSCORED as missing."""
    return labels.where(labels != UNSCORED)


def confusion(labels: pd.DataFrame, first: str, second: str, order: Sequence[str] = ()) -> pd.DataFrame:
    """Return counts of texts by the label of ``first`` (rows) and of ``second`` (columns), UNSCORED and none included.

    ``labels`` has one row a text and one column a judge. Labels of ``order`` come first, in that order, if they occur.
    """
    left, right = (labels[name].fillna("none") for name in (first, second))
    found = {*left.unique(), *right.unique()}
    names = [name for name in order if name in found] + sorted(found - set(order))
    table = pd.crosstab(left, right).reindex(index=names, columns=names, fill_value=0)
    return table.rename_axis(index=first, columns=second)


def cohen_kappa(
    labels: pd.DataFrame,
    first: str,
    second: str,
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Kappa:
    """Return the agreement of two judges (columns of ``labels``); raise AgreementError where they share no text."""
    left, right = said(labels[first]), said(labels[second])
    both = (left.notna() & right.notna()).to_numpy()
    left_out = int((left.notna() ^ right.notna()).sum())
    if not both.any():
        raise AgreementError(f"no text has a label of both '{first}' and '{second}'.")
    codes, names = pd.factorize(pd.concat([left[both], right[both]]), sort=True)
    a, b = np.split(codes.astype(np.int64), 2)
    units = _units(clusters, both)
    # Kappa depends on the table of counts alone, and the table is a sum over clusters.
    tables = np.zeros((int(units.max()) + 1, len(names), len(names)))
    np.add.at(tables, (units, a, b), 1)
    whole = tables.sum(axis=0, keepdims=True)
    weights = _weights(len(tables), draws, seed)
    low, high = _interval(_kappa(np.einsum("du,uij->dij", weights, tables)), level)
    return Kappa(first, second, int(both.sum()), left_out, float((a == b).mean()), float(_kappa(whole)[0]), low, high)


def kappas(labels: pd.DataFrame, clusters: Sequence[Hashable] | None = None, **options: float) -> pd.DataFrame:
    """Return one row a pair of judges that share a text, with the fields of ``Kappa``."""
    rows = []
    for first, second in combinations(labels.columns, 2):
        if (said(labels[first]).notna() & said(labels[second]).notna()).any():
            rows.append(cohen_kappa(labels, first, second, clusters, **options))  # type: ignore[arg-type]
    return pd.DataFrame(rows, columns=list(Kappa._fields))


def krippendorff_alpha(
    labels: pd.DataFrame,
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Alpha:
    """Return Krippendorff's alpha of the columns of ``labels``; nan where all labels that can be compared are one.

    Raises AgreementError where no text was labelled by two judges.
    """
    spoken = pd.DataFrame({column: said(labels[column]) for column in labels})
    names = sorted({str(name) for column in spoken for name in spoken[column].dropna()})
    counts = (
        np.stack([(spoken == name).sum(axis=1).to_numpy() for name in names], axis=1) if names else np.zeros((0, 0))
    )
    paired = counts.sum(axis=1) >= 2 if counts.size else np.zeros(0, dtype=bool)
    if not paired.any():
        raise AgreementError(f"no text was labelled by two of {', '.join(map(str, labels.columns))}.")
    units = _units(clusters, paired)
    counts = counts[paired]
    drawn = _alphas(_weights(int(units.max()) + 1, draws, seed) @ _coincidences(counts, units))
    low, high = _interval(drawn, level)
    return Alpha(tuple(map(str, labels.columns)), len(counts), _alpha(counts), low, high)


def _kappa(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappa of each of a stack of tables [draws, labels, labels]; nan where expected agreement is 1."""
    total = tables.sum(axis=(1, 2))
    observed = np.trace(tables, axis1=1, axis2=2) / total
    expected = (tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1) / total**2
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa: NDArray[np.float64] = np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
    return kappa


def _alpha(counts: NDArray[np.int64]) -> float:
    if np.count_nonzero(counts.sum(axis=0)) < 2:
        return math.nan
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


def _coincidences(counts: NDArray[np.int64], units: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum the texts' coincidences [labels, labels] over each unit, flattened: they add up, so draws need no texts."""
    labels = counts.shape[1]
    each = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(labels, dtype=np.int64)
    found = np.zeros((int(units.max()) + 1, labels * labels))
    np.add.at(found, units, (each / (counts.sum(axis=1) - 1)[:, None, None]).reshape(len(counts), -1))
    return found


def _alphas(coincidences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nominal alpha of each of a stack of flattened coincidence matrices; nan where one label is all there is."""
    labels = round(math.sqrt(coincidences.shape[1]))
    tables = coincidences.reshape(-1, labels, labels)
    margins = tables.sum(axis=2)
    total = margins.sum(axis=1)
    observed = total - np.trace(tables, axis1=1, axis2=2)
    expected = (total**2 - (margins**2).sum(axis=1)) / (total - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        alphas: NDArray[np.float64] = np.where(expected > 1e-9, 1 - observed / expected, np.nan)
    return alphas


def _units(clusters: Sequence[Hashable] | None, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    if clusters is None:
        return np.arange(int(kept.sum()))
    if len(clusters) != len(kept):
        raise AgreementError(f"there are {len(kept)} texts but {len(clusters)} clusters; give one cluster a text.")
    codes, _ = pd.factorize(pd.Series(list(clusters), dtype=object)[kept])
    return codes.astype(np.int64)


def _weights(units: int, draws: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=draws).astype(np.float64)


def _interval(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
