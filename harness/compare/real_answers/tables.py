"""Transitions between real models, their intervals, and the audit of the judges: frames in, frames out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.compare.real_answers.data import (
    ANSWERED,
    CHIMERA,
    COMPLETE,
    DENIAL,
    EVASIVE,
    MODELS,
    R1,
    TWO_JUDGES,
    V3,
    VERDICTS,
    Data,
)
from mote.harness.science.inference import Interval, clopper_pearson, cluster_rate_interval, cluster_sign_test, rate
from mote.harness.science.transitions import transition_matrix
from mote.judges import STATES

SHORT: Final = {R1: "R1", V3: "V3-0324", CHIMERA: "R1T-Chimera", "o": "Qwen2-7B", "d": "abliterated"}
PAIRS: Final = ((R1, CHIMERA), (V3, CHIMERA), (R1, V3))
BY_HAND: Final = "hand"
REFUSED: Final = "REFUSED"

CLASSES_OF: Final = {
    "refusal": (REFUSED, ANSWERED),
    "compliance": (REFUSED, EVASIVE, ANSWERED),
    BY_HAND: ("refused", "partial", "answered"),
}
"""The classes of each source of labels, what is withheld first; LLM judges have VERDICTS."""


class Transition(NamedTuple):
    """What became of one class between two models: counts, and both intervals of the share that was turned."""

    before: str
    after: str
    labels: str
    part: str
    pairs: int
    source: str
    turned: str
    hits: int
    total: int
    share: float
    low: float
    high: float
    low_by_request: float
    high_by_request: float
    units: int
    withheld_before: float
    withheld_after: float
    change: float
    change_low: float
    change_high: float
    p: float


def classes_of(labels: str) -> tuple[str, ...]:
    """Return the classes that a source of labels has, the answer last."""
    return CLASSES_OF.get(labels, VERDICTS)


def pair(data: Data, before: str, after: str, labels: str) -> pd.DataFrame:
    """Return what two models were both asked, with both labels: request, unit, set, language, before, after.

    Pairs without a label on a side (the LLM judges differ, or failed) are left out.
    """
    column = "label" if labels == BY_HAND else labels
    if before in ("o", "d"):
        frame = data.twins.assign(unit=data.twins["request"], set="twins", language="en", model=data.twins["side"])
    else:
        frame = data.replies
    sides = [frame[frame["model"] == model].set_index("request") for model in (before, after)]
    both = sides[0][["unit", "set", "language", column]].join(sides[1][column].rename("after"), how="inner")
    return both.rename(columns={column: "before"}).dropna(subset=["before", "after"]).reset_index()


def sources(data: Data) -> list[tuple[str, str, str]]:
    """Return (before, after, source of labels) of each comparison that is shown."""
    found = [(*one, labels) for one in PAIRS for labels in (TWO_JUDGES, *data.judges, *data.ours)]
    return [*found, *(("o", "d", labels) for labels in (BY_HAND, *data.ours))]


def matrix(pairs: pd.DataFrame, labels: str) -> pd.DataFrame:
    """Return the transition matrix of paired labels, without the states that do not occur."""
    found = transition_matrix(
        pairs.set_index("request")["before"], pairs.set_index("request")["after"], classes_of(labels)
    )
    empty = [state for state in STATES if not found.loc[state].sum() and not found[state].sum()]
    return found.drop(index=empty, columns=empty)


def transitions(data: Data) -> pd.DataFrame:
    """Return one row a pair of models, source of labels, part of the requests and class that is withheld."""
    rows = []
    for before, after, labels in sources(data):
        pairs = pair(data, before, after, labels)
        for part, some in _parts(pairs, labels):
            rows += [one._asdict() for one in _turned(before, after, labels, part, some)]
    return pd.DataFrame(rows, columns=list(Transition._fields))


def _parts(pairs: pd.DataFrame, labels: str) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "all", pairs
    if labels == TWO_JUDGES:
        for name, some in pairs.groupby("set", sort=True):
            yield str(name), some


def _turned(before: str, after: str, labels: str, part: str, pairs: pd.DataFrame) -> Iterator[Transition]:
    *withheld, answer = classes_of(labels)
    # A reply in a state (another language, broken) is neither withheld nor answered: its pair says nothing of a change.
    classed = pairs[pairs["before"].isin(classes_of(labels)) & pairs["after"].isin(classes_of(labels))]
    held = [classed[side].isin(withheld).to_numpy(dtype=np.float64) for side in ("before", "after")]
    change: NDArray[np.float64] = held[1] - held[0]
    interval = by_unit(change, list(classed["unit"]))
    test = cluster_sign_test(change, list(classed["unit"]))
    for source in withheld:
        some = pairs[pairs["before"] == source]
        hits = np.asarray(some["after"] == answer, dtype=np.float64)
        exact, clustered = rate(int(hits.sum()), len(some)), by_unit(hits, list(some["unit"]))
        yield Transition(
            SHORT[before], SHORT[after], labels, part, len(pairs), source, answer, exact.hits, exact.total, exact.share,
            exact.low, exact.high, clustered.low, clustered.high, int(some["unit"].nunique()), float(held[0].mean()),
            float(held[1].mean()), float(change.mean()), interval.low, interval.high, test.p,
        )  # fmt: skip


def by_unit(values: NDArray[np.float64], units: Sequence[str]) -> Interval:
    """Return an interval of the mean of values that counts each request in all its languages as one unit.

    A bootstrap of whole units; where all values are 0 or all 1, which no bootstrap can widen, the exact interval of as
    many units.
    """
    count = len(set(units))
    if count < 2:
        return Interval(float("nan"), float("nan"))
    if len(set(values.tolist())) == 1 and values[0] in (0.0, 1.0):
        return clopper_pearson(count if values[0] else 0, count)
    return cluster_rate_interval(values, units)


def between_parents(data: Data) -> pd.DataFrame:
    """Return the child's verdicts by both parents' (LLM judges): what neither, one or both parents withhold."""
    replies = data.replies.dropna(subset=[TWO_JUDGES])
    wide = replies.pivot_table(index="request", columns="model", values=TWO_JUDGES, aggfunc="first")
    wide = wide[[R1, V3, CHIMERA]].dropna().rename(columns=SHORT)
    return wide.groupby(["R1", "V3-0324", "R1T-Chimera"]).size().rename("requests").reset_index()


def providers(data: Data) -> pd.DataFrame:
    """Return how often the child answers what a parent evades, by who served the parent (LLM judges)."""
    rows = []
    for parent in (R1, V3):
        served = data.replies[data.replies["model"] == parent].set_index("request")["provider"]
        pairs = pair(data, parent, CHIMERA, TWO_JUDGES)
        pairs = pairs.assign(provider=pairs["request"].map(served))
        for provider, some in pairs.groupby("provider", sort=True):
            evaded = some[some["before"] == EVASIVE]
            found = rate(int((evaded["after"] == COMPLETE).sum()), len(evaded))
            rows.append({"parent": SHORT[parent], "provider": provider, "pairs": len(some), **found._asdict()})
    return pd.DataFrame(rows)


def audit(data: Data) -> pd.DataFrame:
    """Return one row a judge, ruler, language and class of the ruler: how many of them the judge sees.

    Rulers are the two LLM judges where they agree, the replies labelled by hand, and the hand labels of the twins.
    ``seen`` is the judge's same class; ``withheld`` any class that is no answer; ``unscored`` a state.
    """
    rows = []
    replies = data.replies[data.replies["model"].isin(MODELS)]
    for judge in data.ours:
        for ruler, frame, right in (
            (TWO_JUDGES, replies, replies[TWO_JUDGES]),
            (BY_HAND, data.hand, data.hand["right"].map(lambda label: REFUSED if label.startswith("0") else ANSWERED)),
            ("twins, by hand", data.twins.assign(language="en"), data.twins["label"].str.upper()),
        ):
            rows += list(_audited(judge, ruler, frame.assign(right=right).dropna(subset=["right"])))
    return pd.DataFrame(rows)


def _audited(judge: str, ruler: str, frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    same = {DENIAL: REFUSED, COMPLETE: ANSWERED, "PARTIAL": EVASIVE}
    for language, some in [("all", frame), *((str(name), one) for name, one in frame.groupby("language"))]:
        for right, rows in some.groupby("right"):
            given = rows[judge]
            seen = rate(int((given == same.get(str(right), right)).sum()), len(rows))
            withheld = rate(int(given.isin((REFUSED, EVASIVE)).sum()), len(rows))
            yield {
                "judge": judge, "ruler": ruler, "language": language, "right": right, "replies": len(rows),
                "seen": seen.hits, "share": seen.share, "low": seen.low, "high": seen.high,
                "withheld": withheld.hits, "withheld_share": withheld.share,
                "unscored": int(given.isin(STATES).sum()),
            }  # fmt: skip


def confusion(data: Data, judge: str, languages: Sequence[str]) -> pd.DataFrame:
    """Return counts of both LLM judges' verdicts (rows) by a judge's labels (columns), replies of some languages."""
    some = data.replies[data.replies["language"].isin(list(languages)) & data.replies["model"].isin(MODELS)]
    some = some.dropna(subset=[TWO_JUDGES])
    found = pd.crosstab(some[TWO_JUDGES], some[judge])
    columns = [*classes_of(judge), *(state for state in STATES if state in found)]
    return found.reindex(index=list(VERDICTS), columns=columns, fill_value=0)


def judges_by_hand(data: Data) -> pd.DataFrame:
    """Return the LLM judges' verdicts on the replies labelled by hand that are among theirs, one row a combination."""
    known = data.replies[["text", *data.judges]].drop_duplicates("text")
    found = data.hand.merge(known, on="text", how="inner")
    return found.groupby(["right", *data.judges], dropna=False).size().rename("replies").reset_index()


def between_judges(data: Data) -> pd.DataFrame:
    """Return what the two LLM judges say of the same replies, counts."""
    first, second = data.judges
    return pd.crosstab(data.replies[first].fillna("no verdict"), data.replies[second].fillna("no verdict"))
