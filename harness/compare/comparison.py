"""Two sets of answers to the same prompts: what changed. The transition matrix of any two labelled sets, and for scored
tasks the paired difference.

Only pairs count: the same prompt of ours, or the same document by its hash. What has no partner is counted and said,
and so is whatever else differs between the sides than the profile.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from mote.harness.compare.answers import Answers
from mote.harness.compare.scores import paired_scores
from mote.harness.errors import MoteError, nearest
from mote.harness.preconditions import STATES
from mote.harness.science.inference import Rate, Significance, mcnemar_exact, stuart_maxwell
from mote.harness.science.transitions import ClusteredFlips, FlipRates, clustered_flips, flip_rates, transition_matrix
from mote.judges import CLASSES, ENGLISH


class Example(NamedTuple):
    """A prompt whose outcome changed, with both texts."""

    key: str
    question: str
    before: str
    after: str
    raw_before: str
    raw_after: str


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two sides.

    ``pairs`` has the columns key, question, before, after (labels, None without), raw_before and raw_after, one row a
    pair. ``matrix``, ``rates`` and the tests are None where the sides have no labels. ``clustered`` has the intervals
    that resample whole units, None where no answers share one. ``scores`` has a row for each common metric and filter.
    ``unpaired`` counts (before, after) what has no partner; ``caveats`` say what else differs, one sentence each.
    """

    before: Answers
    after: Answers
    pairs: pd.DataFrame
    unpaired: tuple[int, int]
    caveats: tuple[str, ...]
    target: str | None
    matrix: pd.DataFrame | None
    rates: FlipRates | None
    clustered: ClusteredFlips | None
    mcnemar: Significance | None
    margins: Significance | None
    scores: pd.DataFrame
    examples: tuple[Example, ...]


def compare(
    before: Answers,
    after: Answers,
    *,
    target: str | None = None,
    examples: int = 2,
    level: float = 0.95,
    margin: float | None = None,
) -> Comparison:
    """Pair two sets of answers and count what changed; ``target`` is the class whose flips are counted.

    With a ``margin`` each metric is tested for a change smaller than that, in its own unit.
    ``examples`` pairs of each transition are shown, those whose keys have the smallest sha256: the text doesn't choose.
    Raises MoteError where the sides are of different tasks, share no prompt, or have nothing in common to compare.
    """
    _check_task(before, after)
    pairs = _pairs(before, after)
    unpaired = (len(before.rows) - len(pairs), len(after.rows) - len(pairs))
    if pairs.empty:
        raise MoteError(
            f"{before.name} and {after.name} share no prompt or document ({len(before.rows)} and {len(after.rows)}"
            " answers): they are logs of different tasks, or of different versions of one."
        )
    keys = set(pairs["key"])
    scores = paired_scores(_only(before.scores, keys), _only(after.scores, keys), level, margin)
    labelled = pairs.dropna(subset=["before", "after"])
    matrix = rates = clustered = mcnemar = margins = None
    if len(labelled):
        classes = _classes([*labelled["before"], *labelled["after"]])
        target = _target(target, classes, labelled["before"])
        indexed = labelled.set_index("key")
        matrix = transition_matrix(indexed["before"], indexed["after"], classes)
        rates = flip_rates(matrix, target, level)
        clustered = _clustered(indexed, classes, target, level)
        mcnemar = mcnemar_exact(rates.flips.hits, rates.reverse.hits)
        margins = stuart_maxwell(matrix.to_numpy())
    elif target is not None:
        raise MoteError(f"--target {target}: the answers of {before.name} have no labels.")
    elif scores.empty:
        raise MoteError(_nothing(before, after))
    return Comparison(
        before=before,
        after=after,
        pairs=pairs[["key", "question", "before", "after", "raw_before", "raw_after"]],
        unpaired=unpaired,
        caveats=tuple(_caveats(before, after, pairs, len(labelled))),
        target=target if matrix is not None else None,
        matrix=matrix,
        rates=rates,
        clustered=clustered,
        mcnemar=mcnemar,
        margins=margins,
        scores=scores,
        examples=_examples(labelled if matrix is not None else _scored(pairs, before, after, scores), examples),
    )


def _check_task(before: Answers, after: Answers) -> None:
    if before.task and after.task and before.task != after.task:
        raise MoteError(
            f"{before.name} is of the task '{before.task}', {after.name} of '{after.task}': they must be of one."
        )


def _pairs(before: Answers, after: Answers) -> pd.DataFrame:
    both = before.rows.merge(after.rows, on="key", suffixes=("_before", "_after"))
    known = (both["doc_hash_before"] != "") & (both["doc_hash_after"] != "")
    both = both[~known | (both["doc_hash_before"] == both["doc_hash_after"])]
    question = both["question_before"].where(both["question_before"] != "", both["question_after"])
    return both.rename(columns={"label_before": "before", "label_after": "after"}).assign(question=question)


def _clustered(pairs: pd.DataFrame, classes: Sequence[str], target: str, level: float) -> ClusteredFlips | None:
    units = pairs["unit_before"].where(pairs["unit_before"] != "", pairs["unit_after"])
    if (units == "").any() or units.is_unique:
        return None
    return clustered_flips(pairs["before"], pairs["after"], units, classes, target, level=level)


def _only(scores: pd.DataFrame, keys: set[str]) -> pd.DataFrame:
    return scores[scores["key"].isin(keys)]


def _classes(labels: Sequence[str]) -> tuple[str, ...]:
    found = set(labels) - set(STATES)
    return CLASSES if found <= set(CLASSES) else tuple(sorted(found))


def _target(asked: str | None, classes: Sequence[str], before: pd.Series[str]) -> str:
    if asked is not None:
        if asked not in classes:
            raise MoteError(f"--target {asked} is not a class of these answers.{nearest(asked, classes)}")
        return asked
    # The paper's two studies: refusals that are answered, English reasoning that turns Chinese.
    for usual in (CLASSES[0], ENGLISH):
        if usual in classes:
            return usual
    counts = before[before.isin(list(classes))].value_counts()
    return str(counts.index[0]) if len(counts) else str(classes[0])


def _caveats(before: Answers, after: Answers, pairs: pd.DataFrame, labelled: int) -> list[str]:
    count = len(pairs)
    said = []
    if not before.digests or not after.digests:
        which = " and ".join(side.name for side in (before, after) if not side.digests)
        said.append(f"No receipts in {which}: what was done to the model is not known.")
    elif before.digests == after.digests:
        said.append("Both sides have the same profile: what changed is noise, or what else differs.")
    said += dict.fromkeys(
        f"{side.name} is read by the judge '{side.judge}', not by its own, '{side.own_judge}'."
        for side in (before, after)
        if side.own_judge not in ("", side.judge)
    )
    if before.own_judge and after.own_judge and before.judge != after.judge:
        said.append("The labels are of different judges: what changed may be the judge.")
    if before.model and after.model and before.model != after.model:
        said.append("The model's files differ.")
    prompts = pairs[(pairs["prompt_before"] != "") & (pairs["prompt_after"] != "")]
    other = int((prompts["prompt_before"] != prompts["prompt_after"]).sum())
    if other:
        said.append(f"{other} of {count} prompts were rendered differently (chat template, few-shot, system prompt).")
    known = (pairs["sampling_before"] != "") & (pairs["sampling_after"] != "")
    sampled = pairs[known & (pairs["sampling_before"] != pairs["sampling_after"])]
    if len(sampled):
        first = sampled.iloc[0]
        said.append(
            f"{len(sampled)} of {count} were sampled differently: {first['sampling_before']} before,"
            f" {first['sampling_after']} after."
        )
    known = (pairs["seed_before"] != -1) & (pairs["seed_after"] != -1)
    seeds = int((known & (pairs["seed_before"] != pairs["seed_after"])).sum())
    if seeds:
        said.append(f"{seeds} of {count} were drawn with another seed.")
    said += dict.fromkeys(note for side in (before, after) for note in side.notes)
    both = pairs[(pairs["question_before"] != "") & (pairs["question_after"] != "")]
    changed = int((both["question_before"].map(_blank_free) != both["question_after"].map(_blank_free)).sum())
    if changed:
        said.append(f"{changed} of {count} pairs have one id and two questions: they may be of different sets.")
    if 0 < labelled < count:
        said.append(f"{count - labelled} of {count} pairs have no label on one side and are in no count.")
    return said


def _blank_free(text: str) -> str:
    return "".join(text.split())


def _nothing(before: Answers, after: Answers) -> str:
    left, right = (sorted(set(side.scores["metric"])) for side in (before, after))
    return (
        f"nothing to compare: neither labels nor a common number per document. {before.name} has"
        f" {', '.join(left) or 'none'}; {after.name} has {', '.join(right) or 'none'}."
    )


def _scored(pairs: pd.DataFrame, before: Answers, after: Answers, scores: pd.DataFrame) -> pd.DataFrame:
    """The pairs with the first right-or-wrong metric in place of labels, for examples; none where there is none."""
    binary = scores[scores["test"].str.startswith("McNemar")]
    if binary.empty:
        return pairs.iloc[:0]
    metric, filter_name = binary.iloc[0]["metric"], binary.iloc[0]["filter"]
    values = {}
    for name, side in (("before", before), ("after", after)):
        mine = side.scores[(side.scores["metric"] == metric) & (side.scores["filter"] == filter_name)]
        values[name] = {key: f"{metric} {value:.0f}" for key, value in zip(mine["key"], mine["value"], strict=True)}
    return pairs.assign(**{name: pairs["key"].map(found) for name, found in values.items()}).dropna(
        subset=["before", "after"]
    )


def _examples(pairs: pd.DataFrame, each: int) -> tuple[Example, ...]:
    changed = pairs[pairs["before"] != pairs["after"]]
    if changed.empty or not each:
        return ()
    order = [hashlib.sha256(str(key).encode()).hexdigest() for key in changed["key"]]
    changed = changed.assign(order=order).sort_values(["before", "after", "order"])
    changed = changed[changed.groupby(["before", "after"], sort=False).cumcount() < each]
    return tuple(
        Example(row["key"], row["question"], row["before"], row["after"], row["raw_before"], row["raw_after"])
        for row in changed.to_dict("records")
    )


def to_dict(found: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values; a share of nothing is null."""
    return {
        "before": _side(found.before),
        "after": _side(found.after),
        "task": found.before.task or found.after.task,
        "pairs": len(found.pairs),
        "same_output": int((found.pairs["raw_before"] == found.pairs["raw_after"]).sum()),
        "unpaired": {"before": found.unpaired[0], "after": found.unpaired[1]},
        "caveats": list(found.caveats),
        "target": found.target,
        "matrix": None
        if found.matrix is None
        else {"labels": list(map(str, found.matrix.index)), "counts": found.matrix.to_numpy().tolist()},
        "rates": None if found.rates is None else _plain(_rates(found.rates)),
        "clustered": None if found.clustered is None else _clustered_values(found.clustered),
        "tests": None
        if found.mcnemar is None or found.margins is None
        else {"mcnemar_exact": _plain(found.mcnemar._asdict()), "stuart_maxwell": _plain(found.margins._asdict())},
        "scores": [
            _plain({str(name): value for name, value in row.items()}) for row in found.scores.to_dict("records")
        ],
        "examples": [example._asdict() for example in found.examples],
    }


def _side(side: Answers) -> dict[str, Any]:
    return {
        "name": side.name,
        "source": side.source,
        "task": side.task,
        "profile": side.profile,
        "digests": sorted(side.digests),
        "judge": side.judge,
        "answers": len(side.rows),
    }


def _rates(rates: FlipRates) -> dict[str, Any]:
    return {
        name: value._asdict() if isinstance(value, Rate) else value
        for name, value in rates._asdict().items()
        if name != "target"
    }


def _clustered_values(clustered: ClusteredFlips) -> dict[str, Any]:
    values = clustered._asdict()
    return _plain({name: value._asdict() if hasattr(value, "_asdict") else value for name, value in values.items()})


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _plain(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and math.isnan(value)
        else value
        for name, value in values.items()
    }
