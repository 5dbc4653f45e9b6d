"""Runs as sides of a comparison: a profile's answers with a judge's labels, each held to its receipt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from mote.harness.compare.answers import Answers, finish_of, rows_of, sampling_of, scores_of
from mote.harness.errors import MoteError, nearest
from mote.harness.files import digest_of
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.schema import markers_of
from mote.harness.store.questions import last_question
from mote.harness.store.run import PACKED_NAME, STORE_NAME, RunStore
from mote.judges import CLASSES, TRUNCATED, language
from mote.patches import EMPTY_PROFILE, Profile, ProfileError

PARTS: Final = ("measure", "select", "all")
"""Which prompts of a run: those that measure the effect, those that chose the experts, or both."""

_PART_SAYS: Final = {"measure": "measure, not choose, the experts", "select": "chose the experts"}


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run's store."""
    return any((folder / name).is_file() for name in (STORE_NAME, PACKED_NAME))


def split_run(text: str) -> tuple[Path, str | None]:
    """Return the folder and the profile's name of ``RUN`` or ``RUN:PROFILE``; what exists as a folder has no name."""
    folder, separator, name = text.rpartition(":")
    if not separator or Path(text).is_dir():
        return Path(text), None
    return Path(folder), name


def profile_of_run(folder: Path, name: str) -> Profile:
    """Return a profile of a run by its name; raise MoteError, with the nearest name, where it has none such."""
    with RunStore(folder, read_only=True) as store:
        specs = {row.name: row.spec for row in store.profiles()}
    if name not in specs:
        raise MoteError(f"{folder} has no profile '{name}'.{nearest(name, specs)}")
    return Profile.from_dict(specs[name])


def read_profile(text: str, option: str) -> Profile:
    """Return the profile that an option names: ``baseline``, a profile file, or ``RUN:PROFILE`` of a run's folder.

    ``option`` begins each error, as the user wrote it: ``--profile ``. Raises MoteError where there is none.
    """
    if text == EMPTY_PROFILE.name:
        return EMPTY_PROFILE
    if Path(text).is_file():
        try:
            return Profile.read(text)
        except ProfileError as error:
            raise MoteError(f"{option}{error}") from None
    folder, name = split_run(text)
    if folder.is_dir() and name is not None:
        return profile_of_run(folder, name)
    if folder.is_dir():
        raise MoteError(f"{option}{text} is a folder; name a profile of a run with {text}:PROFILE.")
    near = nearest(Path(text).name, _neighbours(Path(text)))
    raise MoteError(f"{option}{text} is neither a profile file, nor RUN:PROFILE of a run, nor 'baseline'.{near}")


def _neighbours(path: Path) -> list[str]:
    parent = path.parent
    found = [file.name for file in parent.glob("*.json")] if parent.is_dir() else []
    return [*found, EMPTY_PROFILE.name]


def read_run(folder: Path, name: str, judge: str | None, label: str, part: str | None) -> Answers:
    """Read a profile of a run with its labels, those of ``judge`` or else of the run's own.

    ``part`` is one of PARTS, None all of the prompts; a run whose prompts were never split has but one part.
    Raises MoteError where the run has no such profile, no such answers or no such labels.
    """
    manifest = read_manifest(folder)
    labelled = label_set(manifest["recipe"])
    judge = judge or labelled.judge
    with RunStore(folder, read_only=True) as store:
        profiles = [row.name for row in store.profiles()]
        if name not in profiles:
            raise MoteError(f"{folder} has no profile '{name}'.{nearest(name, profiles)}")
        frame = store.generations_frame(judge)
    frame = frame[frame["profile"] == name]
    if frame.empty:
        raise MoteError(f"{folder} has no answer under '{name}' yet; go on with its `mote run`.")
    if frame["label"].isna().all():
        raise MoteError(f"{folder} has no labels of the judge '{judge}' under '{name}'.")
    for row in frame.to_dict("records"):
        if json.loads(row["receipt"])["digest"] != row["profile_digest"]:
            raise MoteError(f"{folder}: the receipt of {row['prompt_id']} is not that of profile '{name}'.")
    frame, notes = _part_of(f"{folder.name}:{name}", frame.dropna(subset=["label"]), part)
    rows = rows_of(
        {
            "key": row["prompt_id"],
            "prompt_id": row["prompt_id"],
            "question": last_question(json.loads(row["messages"])),
            "raw": row["raw"],
            "label": row["label"] if label == "label" else _spoken(row, label),
            "seed": row["seed"],
            "sampling": sampling_of(json.loads(row["sampling"])),
            "finish_reason": finish_of(row["finish_reason"]),
            "opens": bool(row["prompt_opens"]),
        }
        for row in frame.to_dict("records")
    )
    return Answers(
        name=f"{folder.name}:{name}",
        source="run",
        task=str(manifest["prompts"]["task"]),
        profile=name,
        digests=frozenset(frame["profile_digest"]),
        model=digest_of(manifest["model"]["files"]),
        judge=judge,
        rows=rows,
        scores=scores_of(),
        own_judge=labelled.judge,
        text_judge=labelled.text_judge,
        labels=labelled.name,
        markers=markers_of(manifest["recipe"]),
        notes=notes,
    )


def _part_of(name: str, frame: pd.DataFrame, part: str | None) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The answers of a part of a run's prompts, and the sentence that says which part was left out."""
    if part in (None, "all") or frame["part"].isna().all():
        return frame, ()
    taken = frame[frame["part"] == part]
    if taken.empty:
        raise MoteError(f"{name} has no answers in the part '{part}' of its prompts; take --part all.")
    left = len(frame) - len(taken)
    said = f"{name}: the {len(taken)} prompts that {_PART_SAYS[str(part)]}; the other {left} are left out (--part all)."
    return taken, ((said,) if left else ())


def _spoken(row: Mapping[Any, Any], which: str) -> str:
    """The language of a run's answer, as the task's filter for lm_eval has it."""
    classed = (*CLASSES, TRUNCATED) if which == "reasoning_language" else CLASSES
    if row["label"] not in classed:
        return str(row["label"])
    return language(row[which.removesuffix("_language")]).name
