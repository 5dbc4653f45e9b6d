"""The card of a run's profile: its evidence, as the run's report has it, and a sample of its rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd
from pydantic import ValidationError

from mote.harness.engine.trust import is_safe
from mote.harness.errors import MoteError
from mote.harness.files import canonical_json
from mote.harness.preconditions import STATES
from mote.harness.recipe.label_sets import LABEL_SETS, label_set
from mote.harness.recipe.schema import recipe_of
from mote.harness.recipe.strict import explain
from mote.harness.report.analysis import StudyResult
from mote.harness.report.frames import Run, open_run
from mote.harness.science.clustered import korn_graubard
from mote.harness.science.controls import BASELINE
from mote.harness.secrets import redacted
from mote.harness.store.generations import DECIDED
from mote.harness.store.run import RunStore
from mote.harness.take_home.card import (
    FORMAT,
    MOST_ROWS,
    Asking,
    Card,
    Control,
    Effect,
    Harm,
    Interval,
    Message,
    Plan,
    Row,
    Rows,
    Said,
    Sample,
    Verdict,
)
from mote.patches import Profile

RULE: Final = (
    "of the measured prompts that both models answered with one seed, in the order of the sha256 of rows.digest and"
    " prompt id, first half those of the class under study, the rest others"
)


def card_of_run(folder: Path, name: str, sample: int) -> Card:
    """Return the card of a run's profile, with ``sample`` rows at most.

    Raises MoteError for a name that the run has not, and a run whose profile has no labelled answers yet.
    """
    run = open_run(folder)
    profile = run.profile(name)
    if not profile.canonical:
        raise MoteError(f"{folder}:{name} edits nothing: a card is of a profile that does.")
    try:
        return _card(run, profile, sample)
    except ValidationError as error:
        raise MoteError(f"{folder}: its card would be none that is read: {explain(error, Card)}") from None


def _card(run: Run, profile: Profile, sample: int) -> Card:
    rows, name = _rows(run), profile.name
    manifest = run.manifest
    mine = name == run.result.asked.tuned
    sessions = manifest["sessions"]
    return Card.model_validate(
        {
            "format": FORMAT,
            "run": manifest["recipe"]["name"],
            "profile": profile.to_dict(),
            "profile_digest": profile.digest,
            "model": _model(manifest["model"]),
            "prompts": {key: manifest["prompts"][key] for key in ("task", "count", "digest")},
            "asking": _asking(manifest["recipe"]),
            "target": run.target,
            "judge": run.judge,
            "text_judge": label_set(run.recipe).text_judge,
            "plan": _plan(manifest),
            "verdict": _verdict(run.result) if mine else None,
            "effect": _effect(run, name),
            "controls": _controls(run.result) if mine else [],
            "harm": _harm(run, name),
            "rows": rows,
            "versions": sessions[-1]["versions"] if sessions else {},
            "sample": _sample(run, name, rows.digest, min(sample, MOST_ROWS)),
        }
    )


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    # Where a model's folder lay says nothing elsewhere.
    name = model["name"] if "revision" in model["files"] else Path(model["name"]).name
    return {"name": name, "layout": model["layout"], "files": model["files"]}


def _asking(stored: Mapping[str, Any]) -> Asking:
    recipe = recipe_of(stored)
    model, label = recipe.model, recipe.task.label
    return Asking.model_validate(
        {
            "sampling": recipe.sampling,
            "options": redacted({name: value for name, value in model.options.items() if is_safe(name, value)}),
            "template": redacted(model.template),
            "markers": model.markers,
            "label": label if label in tuple(LABEL_SETS) else None,
            "text": stored.get("judges", {}).get("text", "rules"),
        }
    )


def _rows(run: Run) -> Rows:
    """Digest the study's answers: a line each, of profile, prompt, seed, the text's sha256, and the run's label."""
    digest, frame = hashlib.sha256(), run.generations
    labels = frame["label"].astype(object).where(frame["label"].notna(), None)
    for profile, prompt, seed, raw, label in zip(
        frame["profile"], frame["prompt_id"], frame["seed"], frame["raw"], labels, strict=True
    ):
        digest.update(canonical_json([profile, prompt, int(seed), text_digest(raw), label]).encode() + b"\n")
    return Rows(count=len(frame), digest=digest.hexdigest())


def text_digest(raw: str) -> str:
    """Return the sha256 of a raw text."""
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()


def _plan(manifest: Mapping[str, Any]) -> Plan | None:
    plan = manifest.get("plan")
    return Plan(**{key: plan[key] for key in ("digest", "written", "primary")}) if plan else None


def _verdict(result: StudyResult) -> Verdict:
    found = result.chance.verdict
    return Verdict(kind=found.kind, reason=found.reason, p=_known(found.p))


def _known(p: float) -> float | None:
    return None if math.isnan(p) else float(p)


def _controls(result: StudyResult) -> list[Control]:
    verdict = result.chance.verdict
    found = [
        Control(kind=leg.kind, p=_known(leg.p), reached=leg.reached, sets=leg.sets, stopped=leg.stopped)
        for leg in verdict.legs
    ]
    if verdict.noise is not None:
        found.append(Control(kind="noise", p=_known(verdict.noise.p), sets=len(verdict.noise.retests)))
    return found


def _measured(run: Run, name: str) -> pd.DataFrame:
    flips = run.flips
    part = "measure" if (flips["part"] == "measure").any() else ""
    return flips[(flips["profile"] == name) & (flips["part"] == part)]


def _effect(run: Run, name: str) -> Effect | None:
    mine = _measured(run, name)
    mine = mine[mine["before"] == run.target]
    if mine.empty:
        return None
    share = korn_graubard(mine["flipped"].to_numpy(), mine["unit"].tolist())
    found = run.result.effect if name == run.result.asked.tuned else None
    net = None if found is None or found.net is None else found.net
    exact = None if found is None or found.exact is None else found.exact
    return Effect(
        flips=int(mine["flipped"].sum()),
        of=len(mine),
        share=Interval(value=share.share, low=share.low, high=share.high),
        units=share.units,
        net=None if net is None else Interval(value=net.net, low=net.low, high=net.high),
        chance=None if exact is None else exact.fall,
    )


def _harm(run: Run, name: str) -> Harm | None:
    mine = _measured(run, name)
    if mine.empty:
        return None
    ours, broken = mine["before"] == run.target, mine["after"].isin(STATES) & ~mine["before"].isin(STATES)
    found = run.result.effect
    stay = found.stay if name == run.result.asked.tuned else None
    moved = found.divergence[found.divergence["profile"] == name]
    kl = None if moved.empty else moved.iloc[0]
    return Harm(
        broken=int((broken & ours).sum()),
        of=int(ours.sum()),
        broken_others=int((broken & ~ours).sum()),
        of_others=int((~ours).sum()),
        kl=None if kl is None else Interval(value=float(kl["kl"]), low=float(kl["low"]), high=float(kl["high"])),
        entered=None if stay is None else Interval(value=stay.change, low=stay.low, high=stay.high),
    )


def _sample(run: Run, name: str, digest: str, count: int) -> Sample:
    """Draw rows by the digest of all rows, so that nobody has a choice."""
    before, after = _answers(run, BASELINE), _answers(run, name)
    both = [key for key, one in after.items() if key in before and before[key].seed == one.seed]
    measured = [key for key in both if after[key].measured] or both
    drawn = sorted(measured, key=lambda key: text_digest(digest + key))
    ours = [key for key in drawn if before[key].label == run.target]
    others = [key for key in drawn if before[key].label != run.target]
    first = ours[: of_the_class(count, len(others))]
    labels = _text_labels(run, (BASELINE, name))
    with RunStore(run.folder, read_only=True) as store:
        prompts = {row.prompt_id: row.messages for row in store.prompts()}
    rows = [
        Row(
            prompt_id=key,
            seed=after[key].seed,
            messages=[Message.model_validate(dict(one)) for one in prompts[key]],
            before=Said(label=labels[BASELINE, key], digest=text_digest(before[key].raw)),
            after=Said(label=labels[name, key], digest=text_digest(after[key].raw)),
        )
        for key in [*first, *others[: count - len(first)]]
        if (BASELINE, key) in labels and (name, key) in labels
    ]
    return Sample(rule=RULE, rows=rows)


def of_the_class(count: int, others: int) -> int:
    """Return how many of ``count`` prompts are of the class under study: half, and more where others are too few."""
    return max(count - count // 2, count - others)


class _Answer(NamedTuple):
    seed: int
    raw: str
    label: str
    measured: bool


def _answers(run: Run, profile: str) -> dict[str, _Answer]:
    """Return a profile's whole answers by prompt."""
    frame = run.generations
    frame = frame[(frame["profile"] == profile) & (frame["finish_reason"] != DECIDED)]
    columns = (frame[name] for name in ("prompt_id", "seed", "raw", "label", "part"))
    return {
        str(key): _Answer(int(seed), str(raw), str(label), part == "measure")
        for key, seed, raw, label, part in zip(*columns, strict=True)
    }


def _text_labels(run: Run, profiles: Sequence[str]) -> dict[tuple[str, str], str]:
    found = run.labels
    found = found[(found["judge"] == label_set(run.recipe).text_judge) & found["profile"].isin(profiles)]
    keys = zip(found["profile"].map(str), found["prompt_id"].map(str), strict=True)
    return dict(zip(keys, found["label"].map(str), strict=True))
