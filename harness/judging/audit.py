"""The audit of a run's judges: agreement, confusion, and flip rates corrected by people's labels.

Judges are compared where they answer the same question: judges of refusal with judges of refusal, judges of language
with judges of language. The labels that a judge uses tell which it is. The unit of the bootstrap is the
prompt. Where a task groups its prompts by places, subjects or topics, corrected flip rates have a second interval: it
resamples whole groups, since prompts of one place answer alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd
from rich.console import Console
from rich.table import Table

from mote.harness.errors import MoteError, nearest
from mote.harness.files import subfolder, write_atomic
from mote.harness.judging.sheet import HUMAN
from mote.harness.science.controls import BASELINE, RETEST
from mote.harness.science.splits import units_of
from mote.harness.store.run import RunStore
from mote.harness.store.samples import strata
from mote.judges import CLASSES, REFUSED, UNSCORED
from mote.judges.agreement import Alpha, Kappa, confusion, kappas, krippendorff_alpha
from mote.judges.llm.kinds import LABELS
from mote.judges.misclassification import Audit, CorrectionError, audit, corrected_flips

ENOUGH: Final = 10
"""Answers of the target class among which a judge that sees any would have seen one."""


class JudgeAudit(NamedTuple):
    """Agreement of a run's judges. ``kappas`` one row a pair; ``confusions`` by pair; ``alphas`` by kind of judgment.

    ``corrected`` has one row a profile, judge and person: rates and intervals, and those by ``unit`` (the attribute
    that groups prompts, empty where a task has none). Its ``errors`` say whose errors corrected it: those on untouched
    and on tuned answers ``apart``, or the ``pooled`` ones where a sample is too small for that.
    ``uncorrected`` says why a judge's rates could not be.
    ``apart`` has a row for untouched and for tuned answers of each pair: agreed, kappa, and, where one of the two is
    the judge that others are corrected by, the other's sensitivity and specificity (nan else, and of too small a
    sample). An edit that changes how answers sound can make a judge err more, and that biases corrected rates.
    """

    kappas: pd.DataFrame
    alphas: dict[str, Alpha]
    confusions: dict[tuple[str, str], pd.DataFrame]
    corrected: pd.DataFrame
    uncorrected: dict[tuple[str, str], str]
    apart: pd.DataFrame


def audit_run(folder: Path, *, truth: str | None = None, target: str = REFUSED, level: float = 0.95) -> JudgeAudit:
    """Compare all judges of a run; ``truth`` names the judge that others are corrected by, else people's labels do.

    Raises MoteError where the run has no such judge, or ``target`` is no class.
    """
    if target not in CLASSES:
        raise MoteError(f"'{target}' is no class.{nearest(target, CLASSES)}")
    with RunStore(folder, read_only=True) as store:
        names = store.judges()
        if truth is not None and truth not in names:
            raise MoteError(f"the run has no labels of a judge '{truth}'.{nearest(truth, names)}")
        frame, labels = _labelled(store)
        drawn = strata(store).set_index("generation_id")
    if not names:
        raise MoteError(f"{folder} holds no labels yet.")
    about = frame[["prompt_id", "profile", "kind", "part"]].assign(**_groups(frame["attributes"]))
    people = [truth] if truth else [name for name in names if name.startswith(HUMAN)]
    pairs, alphas, confusions, apart = [], {}, {}, []
    for kind, members in _by_kind(labels).items():
        if len(members) < 2:
            continue
        chosen = labels[members]
        clusters = list(about["prompt_id"])
        found = kappas(chosen, clusters, level=level)
        pairs.append(found.assign(kind=kind))
        apart += _apart(chosen, about, drawn, people, target, level)
        if len(found):
            alphas[kind] = krippendorff_alpha(chosen, clusters, level=level)
        for first, second in zip(found["first"], found["second"], strict=True):
            both = chosen[[first, second]].dropna()
            confusions[first, second] = confusion(both, first, second, LABELS[kind])
    rows, reasons = _corrected(labels, about, drawn, people, target, level)
    table = pd.concat(pairs, ignore_index=True) if pairs else pd.DataFrame()
    return JudgeAudit(table, alphas, confusions, rows, reasons, pd.DataFrame(apart))


def agreement_frame(store: RunStore, *, level: float = 0.95) -> pd.DataFrame:
    """Return the agreement of every two judges of a run that answer the same question: one row a pair.

    Columns: kind, first, second, items, left_out, agreed, kappa, low, high; no rows where one judge alone labelled.
    """
    frame, labels = _labelled(store)
    found = [
        kappas(labels[members], list(frame["prompt_id"]), level=level).assign(kind=kind)
        for kind, members in _by_kind(labels).items()
        if len(members) > 1
    ]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["kind", *Kappa._fields])


def agreement_words(store: RunStore, judge: str) -> str:
    """Say how far a judge's labels are those of each other judge of the same question, in one line."""
    found = agreement_frame(store)
    lines = []
    for row in _rows(found[(found["first"] == judge) | (found["second"] == judge)]):
        other = row.second if row.first == judge else row.first
        kappa = "" if pd.isna(row.kappa) else f", kappa {row.kappa:.3f} ({row.low:.3f} to {row.high:.3f})"
        lines.append(f"“{other}” gives the same label to {row.agreed:.1%} of {row.items:,} answers{kappa}")
    return "; ".join(lines) or f"“{judge}” is the only one that labelled this run"


def write_audit(found: JudgeAudit, folder: Path) -> list[Path]:
    """Write the tables of an audit as CSV into a run's ``tables``; return their paths."""
    tables = {
        "judge-agreement": found.kappas,
        "judge-agreement-apart": found.apart,
        "judge-corrected-flips": found.corrected,
    }
    if found.alphas:
        tables["judge-alpha"] = pd.DataFrame(
            [{"kind": kind, **one._asdict(), "judges": "; ".join(one.judges)} for kind, one in found.alphas.items()]
        )
    if found.confusions:
        tables["judge-confusion"] = pd.concat(
            {f"{first} (rows), {second} (columns)": table for (first, second), table in found.confusions.items()},
            names=["judges", "label"],
        ).fillna(0)
    written = []
    subfolder(folder, "tables")
    for name, table in tables.items():
        if len(table):
            path = folder / "tables" / f"{name}.csv"
            write_atomic(path, table.to_csv(index=name == "judge-confusion"))
            written.append(path)
    return written


def show_audit(found: JudgeAudit, console: Console, *, judge: str, every: bool = False) -> None:
    """Print agreement, confusions, and corrected rates.

    Of the confusions only the one of ``judge`` that says most is printed, unless ``every`` is asked for: with a person
    if one has labelled, else with the other judge that shares most answers.
    """
    if found.kappas.empty:
        console.print("One judge only: nothing to compare yet.")
    else:
        table = Table(
            "judges", "answers", "left out", "agreed", "kappa", "95%", title="Agreement", title_justify="left"
        )
        for row in _rows(found.kappas):
            kappa = "-" if pd.isna(row.kappa) else f"{row.kappa:.3f}"
            span = "-" if pd.isna(row.low) else f"{row.low:.3f} to {row.high:.3f}"
            table.add_row(
                f"{row.first} / {row.second}", str(row.items), str(row.left_out), f"{row.agreed:.1%}", kappa, span
            )
        console.print(table)
        _show_apart(found.apart, console)
    for kind, one in found.alphas.items():
        console.print(
            f"Krippendorff's alpha, {kind}, {len(one.judges)} judges on {one.items} answers: {one.alpha:.3f}"
            f" ({one.low:.3f} to {one.high:.3f})",
            soft_wrap=True,
        )
    printed = list(found.confusions) if every else _telling_pair(found, judge)
    for first, second in printed:
        console.print(_confusion_table(first, second, found.confusions[first, second]))
    if left := len(found.confusions) - len(printed):
        console.print(f"{left} more confusion matri{'x' if left == 1 else 'ces'}: mote judge show RUN --all")
    _show_corrected(found, console)
    for (of, truth), reason in found.uncorrected.items():
        console.print(f"Rates of {of} are not corrected by {truth}: {reason}", soft_wrap=True)


def _show_apart(apart: pd.DataFrame, console: Console) -> None:
    table = Table(
        "judges", "answers", "both", "agreed", "kappa", "sensitivity", "specificity",
        title="Apart for untouched and tuned answers", title_justify="left",
    )  # fmt: skip
    for row in _rows(apart):
        kappa = "-" if pd.isna(row.kappa) else f"{row.kappa:.3f}"
        skill = (_share(row.sensitivity), _share(row.specificity))
        table.add_row(f"{row.first} / {row.second}", row.answers, str(row.items), f"{row.agreed:.1%}", kappa, *skill)
    if len(apart):
        console.print(table)


def _telling_pair(found: JudgeAudit, judge: str) -> list[tuple[str, str]]:
    """Return the pair of judges to print, as a list of one, or none where there is no pair."""
    if not found.confusions:
        return []

    def weight(pair: tuple[str, str]) -> tuple[bool, bool, int]:
        return judge in pair, any(name.startswith(HUMAN) for name in pair), int(found.confusions[pair].to_numpy().sum())

    return [max(found.confusions, key=weight)]


def _confusion_table(first: str, second: str, counts: pd.DataFrame) -> Table:
    shown = Table(f"{first} \\ {second}", *map(str, counts.columns), title="Confusion", title_justify="left")
    for name, values in counts.iterrows():
        shown.add_row(str(name), *(str(int(value)) for value in values))
    return shown


def _show_corrected(found: JudgeAudit, console: Console) -> None:
    if len(found.corrected):
        unit = str(found.corrected["unit"].iloc[0])
        by_unit = [f"95% by {unit}"] if unit else []
        shown = Table(
            "profile", "judge", "checked by", "flips, raw", "corrected", "95%", *by_unit,
            "reverse, raw", "corrected", "95%", *by_unit, title="Flip rates", title_justify="left",
        )  # fmt: skip
        # Random sets are many, and read together: the table in the file has them.
        random = found.corrected["kind"].str.startswith("random")
        for row in _rows(found.corrected[~random]):
            shown.add_row(
                str(row.profile), str(row.judge), f"{row.truth} ({row.audited})",
                _share(row.flips), _share(row.flips_corrected), _span(row.flips_low, row.flips_high),
                *([_span(row.flips_low_by_unit, row.flips_high_by_unit)] if unit else []),
                _share(row.reverse), _share(row.reverse_corrected), _span(row.reverse_low, row.reverse_high),
                *([_span(row.reverse_low_by_unit, row.reverse_high_by_unit)] if unit else []),
            )  # fmt: skip
        console.print(shown)
        if random.any():
            console.print(f"{int(random.sum())} rows of random sets are in the table judge-corrected-flips.csv alone.")


def _rows(frame: pd.DataFrame) -> Iterable[Any]:
    return frame.itertuples(index=False)


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _span(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{_share(low)} to {_share(high)}"


def _labelled(store: RunStore) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a run's generations, and beside them what each of its judges labelled them; both by generation id."""
    frame = store.generations_frame("").drop(columns="label").set_index("generation_id")
    labels = {name: store.labels_of(name) for name in store.judges()}
    return frame, pd.DataFrame(labels, index=frame.index)


def _groups(attributes: pd.Series[str]) -> dict[str, Any]:
    """Return the attribute that groups a task's prompts, empty where it has none, and each prompt's group."""
    unit, units = units_of({str(row): json.loads(text) for row, text in attributes.items()})
    return {"unit": unit, "group": [units.get(str(row)) for row in attributes.index]}


def _by_kind(labels: pd.DataFrame) -> dict[str, list[str]]:
    """Sort judges by the labels that they use; one that has said nothing but UNSCORED is of no kind."""
    kinds: dict[str, list[str]] = {}
    for name in labels:
        used = set(labels[name].dropna()) - {UNSCORED}
        kind = next((kind for kind, known in LABELS.items() if used and used <= set(known)), None)
        if kind is not None:
            kinds.setdefault(kind, []).append(str(name))
    return kinds


def _apart(
    chosen: pd.DataFrame, about: pd.DataFrame, drawn: pd.DataFrame, people: Sequence[str], target: str, level: float
) -> list[dict[str, object]]:
    """Return how each two judges agree on answers that no edit touched and, apart, on those under edits."""
    rows: list[dict[str, object]] = []
    for name, which in _parts(about["kind"]):
        part = chosen[which]
        if part.empty:
            continue
        for row in _rows(kappas(part, list(about.loc[which, "prompt_id"]), level=level)):
            known = [judge for judge in (row.first, row.second) if judge in people]
            skill = (math.nan, math.nan)
            if len(known) == 1:
                (other,) = {row.first, row.second} - set(known)
                skill = _skill(part[other], part[known[0]], drawn, target)
            rows.append({"answers": name, **row._asdict(), "sensitivity": skill[0], "specificity": skill[1]})
    return rows


def _skill(said: pd.Series[str], truth: pd.Series[str], drawn: pd.DataFrame, target: str) -> tuple[float, float]:
    try:
        found, _ = _audit(said.where(said.isin(CLASSES)), truth, drawn, target)
    except CorrectionError:
        return math.nan, math.nan
    return found.sensitivity, found.specificity


def _corrected(
    labels: pd.DataFrame, about: pd.DataFrame, drawn: pd.DataFrame, people: Sequence[str], target: str, level: float
) -> tuple[pd.DataFrame, dict[tuple[str, str], str]]:
    rows: list[dict[str, object]] = []
    reasons: dict[tuple[str, str], str] = {}
    classed = labels.where(labels.isin(CLASSES))
    for judge in labels:
        if judge in people or str(judge).startswith(HUMAN) or classed[judge].isna().all():
            continue
        for truth in people:
            if classed[truth].isna().all():
                continue
            try:
                checked, size = _audit(classed[judge], labels[truth], drawn, target)
                apart = _audits_apart(classed[judge], labels[truth], about, drawn, target)
                found = _rates(classed[judge], labels[judge], about, checked, apart, target, level)
            except CorrectionError as error:
                reasons[str(judge), truth] = str(error)
                continue
            rows += [{**row, "judge": str(judge), "truth": truth, "audited": size} for row in found]
    return pd.DataFrame(rows), reasons


def _parts(kinds: pd.Series[str]) -> list[tuple[str, pd.Series[bool]]]:
    """Name the answers that no edit touched, and those under profiles with edits."""
    untouched = kinds.isin((BASELINE, RETEST))
    return [("untouched", untouched), ("tuned", ~untouched)]


def _audits_apart(
    said: pd.Series[str], truth: pd.Series[str], about: pd.DataFrame, drawn: pd.DataFrame, target: str
) -> tuple[Audit, Audit] | None:
    """Measure a judge on untouched and on tuned answers; None where a sample is too small for that.

    Raises CorrectionError for a judge that sees nothing of the target in one of them, though there is enough to see.
    """
    found = []
    for name, which in _parts(about["kind"]):
        try:
            found.append(_audit(said[which], truth[which], drawn, target)[0])
        except CorrectionError:
            missed = which & (truth == target) & said.notna()
            if int(missed.sum()) >= ENOUGH and not (said[missed] == target).any():
                raise CorrectionError(
                    f"of {int(missed.sum())} {name} answers that are {target} it calls none that."
                ) from None
            return None
    return found[0], found[1]


def _audit(said: pd.Series[str], truth: pd.Series[str], drawn: pd.DataFrame, target: str) -> tuple[Audit, int]:
    """Measure a judge on the answers that people gave any label but UNSCORED; each weighs what its stratum does."""
    both = said.notna() & truth.notna() & (truth != UNSCORED)
    index = said.index[both]
    weights = pd.Series(1.0, index=index)
    known = drawn.reindex(index).dropna(subset=["stratum"])
    if len(known):
        counts = known.groupby("stratum")["stratum"].transform("size")
        weights.loc[known.index] = known["stratum_size"].astype(float) / counts
    return audit(said[both] == target, truth[both] == target, weights), len(index)


def _rates(
    classed: pd.Series[str],
    label: pd.Series[str],
    about: pd.DataFrame,
    checked: Audit,
    apart: tuple[Audit, Audit] | None,
    target: str,
    level: float,
) -> list[dict[str, object]]:
    """Flip rates by profile, on the prompts that experts were not chosen on where the run has a split."""
    first, second = apart or (checked, checked)
    table = about.assign(classed=classed, label=label)
    if table["part"].notna().any():
        table = table[table["part"] == "measure"]
    before = table[table["profile"] == BASELINE].set_index("prompt_id")["classed"].dropna().rename("before")
    rows: list[dict[str, object]] = []
    for profile, after in table[table["profile"] != BASELINE].groupby("profile", sort=False):
        paired = after[after["label"].notna()].join(before, on="prompt_id", how="inner")
        if paired.empty:
            continue
        kind = paired["kind"].iloc[0]
        later = first if kind == RETEST else second
        correct = partial(
            corrected_flips,
            paired["before"] == target,
            paired["classed"] == target,
            first,
            # The same errors, and not two draws of them, where before and after are untouched.
            after_audited=None if later is first else later,
            broken=paired["classed"].isna(),
            level=level,
        )
        unit, groups = paired["unit"].iloc[0], paired["group"].nunique()
        found = correct()
        # One group alone can't be resampled.
        clustered = correct(clusters=list(paired["group"])) if groups > 1 else None
        row: dict[str, object] = {"profile": profile, "kind": kind, "prompts": len(paired)}
        row |= {"unit": unit, "groups": groups, "errors": "apart" if apart else "pooled"}
        row |= {"sensitivity": later.sensitivity, "specificity": later.specificity}
        for name, one in (("flips", found.flips), ("reverse", found.reverse)):
            by_unit = getattr(clustered, name, None)
            row |= {
                name: one.raw,
                f"{name}_corrected": one.corrected,
                f"{name}_low": one.low,
                f"{name}_high": one.high,
                f"{name}_low_by_unit": math.nan if by_unit is None else by_unit.low,
                f"{name}_high_by_unit": math.nan if by_unit is None else by_unit.high,
                f"{name}_clipped": one.clipped,
            }
        rows.append(row)
    return rows
