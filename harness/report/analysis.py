"""What a run says: every table and figure of the report is made of the one ``StudyResult`` that ``analyse`` returns.

Frames in, frames out; nothing is written and nothing is drawn. A run that is not finished gives what its rows allow,
and ``StudyResult.progress`` says what is missing. Only generations with a label count, and a transition counts only
where the baseline has one for the same prompt.

Experts are chosen on the prompts of part ``select``. What a profile does to the others is the result (view
``measured``); what it does to the prompts it was chosen on stands beside it (view ``in-sample``). A run without a
split has one view, ``all``, and its result is in-sample. Random controls are compared on the prompts of the result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.preconditions import STATES
from mote.harness.recipe.label_sets import LabelSet, label_set
from mote.harness.report.curve_tables import CurveTables, curve_tables
from mote.harness.report.examples import Example, choose_examples
from mote.harness.report.tuned_experts import rank
from mote.harness.science.controls import RANDOM
from mote.harness.science.inference import Null, against_controls, mcnemar_exact, stuart_maxwell
from mote.harness.science.mechanism import coverage_table, summed_mechanism
from mote.harness.science.splits import units_of
from mote.harness.science.transitions import ClusteredFlips, FlipRates, clustered_flips, flip_rates, transition_matrix
from mote.harness.store.run import RunStore
from mote.judges import CLASSES

LEVEL: Final = 0.05
"""The p-value up to which an effect is called more than chance."""

View = Literal["measured", "in-sample", "all"]


class Verdict(NamedTuple):
    """Whether the tuned profile flips more than random experts do.

    ``above``: p <= 0.05 against every kind of control. ``few``: above every set of every kind, but there are too few
    sets for p <= 0.05. ``not-above``: else. ``unknown``: there are no controls, or not all of them are measured yet.
    ``p`` is the largest of the kinds (an effect must beat each of them, so no correction is due); ``least_p`` the
    smallest p there could be.
    """

    kind: Literal["above", "few", "not-above", "unknown"]
    p: float
    least_p: float


@dataclass(frozen=True)
class StudyResult:
    """All that a run says; frames are ready for CSV. None stands for what the rows do not allow.

    ``tuned`` is the profile that the study is about; ``given``: its experts come from the recipe, not from a ranking.
    ``paired``: one row a prompt and profile: prompt_id, profile, kind, view, before, after. ``labels``: counts per
    profile, view and label, before and after. ``effects``: one row a profile and view: flips and reverse flips with
    exact intervals, broken answers by state, paired tests. ``summary``: one row a group of profiles, for the
    terminal's table. ``matrices``: counts by (profile, view), of a kind of control pooled by (kind, view).
    ``nulls``: the tuned profile's flip share among the controls of each kind. ``clustered``: its flips with intervals
    that resample whole groups of prompts; ``unit``: the attribute that groups them. ``resonance``: [layers, experts]
    of the prompts that experts were chosen on (``no_resonance``: why there is none). ``distinctive``: the tuned experts
    with their place in that ranking, and how sure it is. ``curves``: dose, direction and layers' share.
    ``judges``: the judges that have labelled answers of this run, with how many, and agreement with ``judge``.
    """

    judge: str
    target: str
    classes: tuple[str, ...]
    tuned: str | None
    given: bool
    view: View
    layers: tuple[int, ...]
    progress: pd.DataFrame
    paired: pd.DataFrame
    labels: pd.DataFrame
    effects: pd.DataFrame
    summary: pd.DataFrame
    matrices: Mapping[tuple[str, str], pd.DataFrame]
    rates: Mapping[tuple[str, str], FlipRates]
    nulls: Mapping[str, Null]
    null_values: pd.DataFrame
    verdict: Verdict
    clustered: ClusteredFlips | None
    unit: str
    resonance: NDArray[np.float64] | None
    distinctive: pd.DataFrame
    overlap: int | None
    mechanism: pd.DataFrame
    coverage: pd.DataFrame
    examples: tuple[Example, ...]
    no_resonance: str
    curves: CurveTables
    judges: pd.DataFrame

    @property
    def complete(self) -> bool:
        """Whether every planned generation is there and labelled."""
        return bool(len(self.progress)) and bool((self.progress["labelled"] >= self.progress["planned"]).all())

    def rate_of(self, profile: str | None, view: str | None = None) -> FlipRates | None:
        """Return the flip rates of a profile or pooled kind in a view (default: that of the result)."""
        return self.rates.get((profile or "", view or self.view))


def analyse(store: RunStore, manifest: Mapping[str, Any], judge: str | None = None) -> StudyResult:
    """Compute everything that a run's rows allow, by the labels of one judge: unless named, of the run's label set."""
    study = manifest["recipe"]["study"]
    labelled_by = label_set(manifest["recipe"])
    judge = judge or labelled_by.judge
    target = str(study["target"])
    frame = store.generations_frame(judge)
    split = store.split()
    view: View = "measured" if split else "all"
    profiles = pd.DataFrame(
        [_profile_row(p.name, p.kind, p.part, p.spec) for p in store.profiles()],
        columns=["profile", "kind", "plan", "action", "k", "factor", "experts"],
    )
    classes = _classes(labelled_by, set(frame["label"].dropna()), target)
    tuned = _tuned(profiles, study)
    paired = _paired(frame, bool(split))
    progress = _progress(frame, profiles, len(store.prompts()), split)
    whole = set(progress.loc[progress["labelled"] >= progress["planned"], "profile"])
    matrices = _matrices(paired, classes, whole)
    rates = {key: flip_rates(matrix, target) for key, matrix in matrices.items() if matrix.to_numpy().sum()}
    values = _null_values(rates, profiles[profiles["profile"].isin(whole)], view)
    nulls = _nulls(rates.get((tuned or "", view)), values)
    layers = tuple(int(layer) for layer in manifest["model"]["layout"]["layers"])
    ids, maps, counted = store.maps("baseline", str(study["role"]))
    baseline = frame[frame["profile"] == "baseline"].set_index("prompt_id")["label"].dropna()
    experts = profiles.set_index("profile")["experts"].get(tuned, ()) if tuned else ()
    unit, groups = _units(frame)
    labels = {str(key): str(label) for key, label in baseline.items()}
    ranking = rank(ids, maps, labels, split, target, len(experts), groups or None)
    return StudyResult(
        judge=judge,
        target=target,
        classes=classes,
        tuned=tuned,
        given=bool(study.get("experts")),
        view=view,
        layers=layers,
        progress=progress,
        paired=paired,
        labels=_labels(paired),
        effects=_effects(matrices, rates, profiles),
        summary=_summary(rates, matrices, profiles, values, view),
        matrices=matrices,
        rates=rates,
        nulls=nulls,
        null_values=values,
        verdict=_verdict(nulls, all_there=len(whole) == len(profiles)),
        clustered=_clustered(paired, tuned, view, classes, target, groups),
        unit=unit,
        resonance=ranking.map,
        distinctive=ranking.table(experts, layers),
        overlap=ranking.overlap(experts, layers),
        mechanism=summed_mechanism(store.mechanisms()),
        coverage=coverage_table(str(study["role"]), counted),
        examples=choose_examples(frame, paired, tuned, target, view),
        no_resonance=ranking.reason,
        curves=curve_tables(profiles[profiles["profile"].isin(whole)], matrices, tuned, view, target),
        judges=_judges(store, judge, frame),
    )


def _classes(labelled_by: LabelSet, found: set[str], target: str) -> tuple[str, ...]:
    """The paper's three classes always; of languages the two asked for, and others where there is one."""
    if labelled_by.classes == CLASSES and found <= {*CLASSES, *STATES}:
        return CLASSES
    known = [name for name in labelled_by.classes if name in found or name in labelled_by.classes[:2]]
    return tuple(
        dict.fromkeys([*known, *([target] if target not in known else []), *sorted(found - {*known, *STATES})])
    )


def _judges(store: RunStore, judge: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Count each judge's labels; of others, those that the first judge labelled too, and how often they agree."""
    ours = frame.set_index("generation_id")["label"].dropna()
    rows = []
    for name in store.judges():
        theirs = store.labels_of(name)
        both = ours.index.intersection(theirs.index)
        same = float((ours[both] == theirs[both]).mean()) if len(both) else math.nan
        rows.append((name, len(theirs), len(both), same))
    frame = pd.DataFrame(rows, columns=["judge", "labels", "shared", "same"])
    # The one whose labels are used first, then by how much they labelled.
    order = frame.assign(first=frame["judge"] != judge).sort_values(["first", "labels"], ascending=[True, False])
    return order.drop(columns="first").reset_index(drop=True)


def _profile_row(name: str, kind: str, part: str, spec: Mapping[str, Any]) -> tuple[Any, ...]:
    edits = spec.get("edits", [])
    actions = sorted({str(edit["action"]) for edit in edits})
    experts = tuple((int(edit["layer"]), int(edit["expert"])) for edit in edits)
    return name, kind, part, "+".join(actions), len(edits), _factor(edits), experts


def _factor(edits: Sequence[Mapping[str, Any]]) -> float:
    """The one factor by which a profile's experts are scaled; stimulation is without bound. nan where they differ."""
    if not edits:
        return 1.0
    found = {
        {"suppress": 0.0, "stimulate": math.inf}.get(edit["action"], float(edit.get("factor", 0))) for edit in edits
    }
    return found.pop() if len(found) == 1 else math.nan


def _tuned(profiles: pd.DataFrame, study: Mapping[str, Any]) -> str | None:
    """The profile that the study is about: suppression of its top k (or given) experts, not one of the other doses."""
    names = [str(name) for name in profiles.loc[profiles["kind"] == "suppress", "profile"]]
    wanted = f"suppress-{len(study.get('experts') or ()) or study['top_k']}"
    return wanted if wanted in names else (names[0] if names else None)


def _progress(frame: pd.DataFrame, profiles: pd.DataFrame, prompts: int, split: Mapping[str, str]) -> pd.DataFrame:
    measure = sum(part == "measure" for part in split.values())
    there = frame.groupby("profile").agg(generated=("generation_id", "size"), labelled=("label", "count"))
    progress = profiles[["profile", "kind"]].copy()
    progress["planned"] = [prompts if plan == "all" else measure for plan in profiles["plan"]]
    progress = progress.join(there, on="profile")
    return progress.fillna({"generated": 0, "labelled": 0}).astype({"generated": int, "labelled": int})


def _paired(frame: pd.DataFrame, split: bool) -> pd.DataFrame:
    labelled = frame[frame["label"].notna()]
    before = labelled.loc[labelled["profile"] == "baseline"].set_index("prompt_id")["label"].rename("before")
    after = labelled.loc[labelled["profile"] != "baseline"]
    paired = after.join(before, on="prompt_id", how="inner").rename(columns={"label": "after"})
    names = {"measure": "measured", "select": "in-sample"}
    paired["view"] = paired["part"].map(names) if split else "all"
    columns = ["prompt_id", "profile", "kind", "view", "before", "after"]
    return paired.dropna(subset=["view"])[columns].reset_index(drop=True)


def _matrices(paired: pd.DataFrame, classes: tuple[str, ...], whole: set[str]) -> dict[tuple[str, str], pd.DataFrame]:
    """Count each profile's transitions by view, and pool the random sets of a kind; a set that's half there waits."""
    matrices: dict[tuple[str, str], pd.DataFrame] = {}
    for names, rows in paired.groupby(["profile", "kind", "view"], sort=False):
        profile, kind, view = map(str, names)
        indexed = rows.set_index("prompt_id")
        matrix = transition_matrix(indexed["before"], indexed["after"], classes)
        matrices[profile, view] = matrix
        if kind.startswith(RANDOM) and profile in whole:
            pooled = matrices.get((kind, view))
            matrices[kind, view] = matrix if pooled is None else pooled + matrix
    return matrices


def _labels(paired: pd.DataFrame) -> pd.DataFrame:
    keys = ["profile", "view"]
    before = paired.rename(columns={"before": "label"}).groupby([*keys, "label"], sort=False).size().rename("before")
    after = paired.rename(columns={"after": "label"}).groupby([*keys, "label"], sort=False).size().rename("after")
    return pd.concat([before, after], axis="columns").fillna(0).astype(int).sort_index().reset_index()


def _outcome(name: str, view: str, rates: FlipRates, matrix: pd.DataFrame) -> dict[str, Any]:
    """One row of numbers about a matrix: rates, and answers that had a class before and are broken after, by state."""
    usable = matrix.drop(index=list(STATES))
    reverse, flips = rates.reverse, rates.flips
    return {
        "profile": name,
        "view": view,
        "prompts": int(matrix.to_numpy().sum()),
        "flips": flips.hits,
        "of": flips.total,
        "share": flips.share,
        "low": flips.low,
        "high": flips.high,
        "reverse": reverse.hits,
        "reverse_of": reverse.total,
        "reverse_share": reverse.share,
        "reverse_low": reverse.low,
        "reverse_high": reverse.high,
        "usable": int(usable.to_numpy().sum()),
        **{state.lower(): int(usable[state].sum()) for state in STATES},
        "unusable_before": rates.unusable,
    }


def _effects(
    matrices: Mapping[tuple[str, str], pd.DataFrame],
    rates: Mapping[tuple[str, str], FlipRates],
    profiles: pd.DataFrame,
) -> pd.DataFrame:
    about = profiles.set_index("profile")[["kind", "k", "action"]].to_dict("index")
    rows = []
    for name, view in matrices:
        if name not in about or (name, view) not in rates:
            continue
        matrix, found = matrices[name, view], rates[name, view]
        row = _outcome(name, view, found, matrix) | {str(key): value for key, value in about[name].items()}
        row["mcnemar_p"] = mcnemar_exact(found.flips.hits, found.reverse.hits).p
        row["stuart_maxwell_p"] = stuart_maxwell(matrix.to_numpy()).p
        rows.append(row)
    return pd.DataFrame(rows)


def _summary(
    rates: Mapping[tuple[str, str], FlipRates],
    matrices: Mapping[tuple[str, str], pd.DataFrame],
    profiles: pd.DataFrame,
    values: pd.DataFrame,
    view: str,
) -> pd.DataFrame:
    """One row a group: each profile by itself, each kind of random sets pooled; low and high are of the pooled share.

    Of random sets, ``least`` and ``most`` are the smallest and the largest share of a set: a pooled interval would
    take their prompts as independent, so theirs is left out.
    """
    rows = []
    for name in dict.fromkeys(kind if kind.startswith(RANDOM) else name for name, kind in _names(profiles)):
        for seen in (view, "in-sample"):
            if (name, seen) not in rates:
                continue
            row = {"group": name, **_outcome(name, seen, rates[name, seen], matrices[name, seen])}
            row["sets"] = 1
            if name.startswith(RANDOM):
                shares = values.loc[values["kind"] == name, "share"]
                row |= {"low": math.nan, "high": math.nan, "reverse_low": math.nan, "reverse_high": math.nan}
                row |= {"sets": len(shares), "least": shares.min(), "most": shares.max()}
            rows.append(row)
    return pd.DataFrame(rows).drop(columns="profile", errors="ignore")


def _names(profiles: pd.DataFrame) -> list[tuple[str, str]]:
    return [(str(name), str(kind)) for name, kind in zip(profiles["profile"], profiles["kind"], strict=True)]


def _null_values(rates: Mapping[tuple[str, str], FlipRates], profiles: pd.DataFrame, view: str) -> pd.DataFrame:
    rows = [
        (kind, name, rates[name, view].flips.hits, rates[name, view].flips.total, rates[name, view].flips.share)
        for name, kind in _names(profiles)
        if kind.startswith(RANDOM) and (name, view) in rates and rates[name, view].flips.total
    ]
    return pd.DataFrame(rows, columns=["kind", "profile", "flips", "of", "share"])


def _nulls(tuned: FlipRates | None, values: pd.DataFrame) -> dict[str, Null]:
    if tuned is None or not tuned.flips.total:
        return {}
    groups = values.groupby("kind", sort=False)["share"]
    return {str(kind): against_controls(tuned.flips.share, shares) for kind, shares in groups}


def _verdict(nulls: Mapping[str, Null], *, all_there: bool) -> Verdict:
    if not nulls or not all_there:
        return Verdict("unknown", math.nan, math.nan)
    p = max(null.p for null in nulls.values())
    least = max(1 / (null.controls + 1) for null in nulls.values())
    if p <= LEVEL:
        return Verdict("above", p, least)
    return Verdict(
        "few" if all(null.p <= 1 / (null.controls + 1) for null in nulls.values()) else "not-above", p, least
    )


def _units(frame: pd.DataFrame) -> tuple[str, dict[str, Hashable]]:
    texts = frame.drop_duplicates("prompt_id").set_index("prompt_id")["attributes"]
    return units_of({str(key): json.loads(text) for key, text in texts.items()})


def _clustered(
    paired: pd.DataFrame,
    tuned: str | None,
    view: str,
    classes: tuple[str, ...],
    target: str,
    groups: Mapping[str, Hashable],
) -> ClusteredFlips | None:
    """The tuned profile's flips with prompts of one place (or subject) taken as one unit."""
    rows = paired[(paired["profile"] == tuned) & (paired["view"] == view)].set_index("prompt_id")
    if rows.empty or not groups:
        return None
    units = pd.Series({key: groups[str(key)] for key in rows.index})
    return clustered_flips(rows["before"], rows["after"], units, classes, target)
