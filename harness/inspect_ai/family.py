"""Is it the profile or any experts: the logs of one task under the untouched model, a profile and its shams.

The effect of a profile on a metric is the mean over samples of its score less the untouched model's, each sample's
epochs taken together. Its p by permutation asks how many shams have an effect at least as large, whichever way
(Phipson and Smyth 2010: one is added above and below), over the samples that every log has scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.compare.answers import Answers
from mote.harness.compare.inspect_log import read_inspect
from mote.harness.compare.scores import paired_scores
from mote.harness.errors import MoteError
from mote.harness.science.inference import permutation_p
from mote.judges import MARKERS
from mote.patches import EMPTY_PROFILE

COLUMNS: Final = [
    *("task", "profile", "metric", "samples", "baseline", "tuned", "difference", "low", "high", "interval", "p_paired"),
    *("test", "shams", "sham_mean", "sham_least", "sham_most", "p_permutation", "least_p", "left_out"),
]
"""Of the table: a row for each task, profile and metric."""


class Family(NamedTuple):
    """The logs of one task: the untouched model's, a profile's, and those of its shams."""

    task: str
    baseline: Answers
    tuned: Answers
    shams: list[Answers]


def log_paths(given: Sequence[Path]) -> list[Path]:
    """Return the logs that are named, those of a folder in the order of their names; raise MoteError for none."""
    found: list[Path] = []
    for one in given:
        if one.is_dir():
            logs = sorted(path for path in one.iterdir() if path.suffix in (".eval", ".json") and path.is_file())
            if not logs:
                raise MoteError(f"{one} holds no log of Inspect (.eval, .json).")
            found += logs
        elif one.is_file():
            found.append(one)
        else:
            raise MoteError(f"there is neither a log nor a folder {one}.")
    return found


def families(paths: Sequence[Path]) -> list[Family]:
    """Read logs and put them together by task, each profile with its baseline and its shams.

    Raises MoteError for a log without receipts, for two logs of one task and profile, and for a task of which the
    baseline or every profile is missing.
    """
    by_task: dict[str, dict[str, tuple[Path, Answers]]] = {}
    for path in paths:
        answers = read_inspect(path, MARKERS["think"])
        if not answers.digests:
            raise MoteError(f"{path} carries no receipts: it is not of the model 'mote', so nothing pairs it.")
        (digest,) = answers.digests
        logs = by_task.setdefault(answers.task, {})
        if digest in logs:
            raise MoteError(
                f"{logs[digest][0]} and {path} are both of '{answers.task}' under '{answers.profile}': name the logs"
                " of one evaluation."
            )
        logs[digest] = path, answers
    return [family for task, logs in by_task.items() for family in _of_task(task, [one for _, one in logs.values()])]


def _of_task(task: str, logs: Sequence[Answers]) -> list[Family]:
    baseline = next((one for one in logs if one.digests == {EMPTY_PROFILE.digest}), None)
    if baseline is None:
        raise MoteError(f"task '{task}' has no log of the untouched model: evaluate it with profile=baseline, too.")
    models = {one.model for one in logs}
    if len(models) > 1:
        raise MoteError(f"the logs of task '{task}' are of {len(models)} models: their files differ.")
    found = []
    for one in logs:
        if one is not baseline and not one.sham_of:
            (digest,) = one.digests
            found.append(Family(task, baseline, one, [other for other in logs if other.sham_of == digest]))
    if not found:
        raise MoteError(f"task '{task}' has no log of a profile beside its {len(logs)} of baseline and shams.")
    return found


def table_of(family: Family, level: float = 0.95) -> pd.DataFrame:
    """Return a row for each metric that every log has: the paired difference, and the p among the shams.

    Columns are ``COLUMNS``; with no shams those of the permutation are nan. Raises MoteError where the logs have no
    scored sample in common.
    """
    sides = [_by_sample(one) for one in (family.baseline, family.tuned, *family.shams)]
    metrics = [name for name in sides[0] if all(name in side for side in sides)]
    rows = []
    for metric in metrics:
        joined = pd.concat([side[metric] for side in sides], axis=1, join="inner").dropna()
        if joined.empty:
            continue
        values = joined.to_numpy(dtype=np.float64)
        frames = [
            pd.DataFrame({"key": joined.index, "metric": metric, "filter": "inspect", "value": values[:, at]})
            for at in (0, 1)
        ]
        paired = paired_scores(frames[0], frames[1], level).iloc[0]
        shams = values[:, 2:].mean(axis=0) - values[:, 0].mean()
        most = max(len(side[metric]) for side in sides)
        rows.append(
            {
                "task": family.task,
                "profile": family.tuned.profile,
                "metric": metric,
                "samples": len(joined),
                "baseline": paired["before"],
                "tuned": paired["after"],
                **{name: paired[name] for name in ("difference", "low", "high", "interval", "test")},
                "p_paired": paired["p"],
                **_among(float(paired["difference"]), shams),
                "left_out": most - len(joined),
            }
        )
    if not rows:
        raise MoteError(f"the logs of task '{family.task}' have no scored sample in common.")
    return pd.DataFrame(rows, columns=COLUMNS)


def _among(effect: float, shams: NDArray[np.float64]) -> dict[str, float]:
    """The effect among those of the shams: by size, as a profile may move a metric either way."""
    count = int(shams.size)
    if not count:
        return {"shams": 0}
    return {
        "shams": count,
        "sham_mean": float(shams.mean()),
        "sham_least": float(shams.min()),
        "sham_most": float(shams.max()),
        "p_permutation": permutation_p(abs(effect), np.abs(shams)),
        "least_p": 1 / (count + 1),
    }


def _by_sample(answers: Answers) -> dict[str, pd.Series[float]]:
    """Metric -> each sample's score, the mean of its epochs."""
    units = {row["key"]: row["unit"] or row["key"] for row in answers.rows[["key", "unit"]].to_dict("records")}
    scores = answers.scores.assign(sample=answers.scores["key"].map(units))
    return {str(metric): some.groupby("sample")["value"].mean() for metric, some in scores.groupby("metric")}
