"""``sweep.json``: the record of a sweep. Recipe as resolved, parents and prompts by digest, and what each start did."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from mote.harness.errors import MoteError
from mote.harness.files import is_unfinished, read_document, write_atomic
from mote.harness.recipe.manifest import new_session, now
from mote.harness.recipe.schema import differences
from mote.harness.secrets import redacted
from mote.harness.study.session import LOG_NAME
from mote.harness.sweep.schema import RECIPES, SweepRecipe
from mote.patches import Profile

FORMAT: Final = "mote-sweep/1"
MANIFEST_NAME: Final = "sweep.json"
_NO_ANSWER: Final = ("model.reload:", "model.check_every:", "maps:", "task.file:", "profiles:", "prompts: file:")
"""What may differ from start to start, as no answer depends on it."""
_OURS: Final = {LOG_NAME, "run.lock", "run.sqlite", "run.sqlite-wal", "run.sqlite-shm", "children"}


def sweep_manifest(
    recipe: SweepRecipe,
    parents: Mapping[str, Mapping[str, Any]],
    model: Mapping[str, Any],
    prompts: Mapping[str, Any],
    profiles: Sequence[Profile],
) -> dict[str, Any]:
    """Return the record of a sweep that has not begun; ``parents`` are path, revision and digests of each."""
    content = recipe.model_dump(mode="json", exclude={"parents"})
    # Where the package lies says nothing; its own prompts go by their name.
    if recipe.task.file is not None and Path(recipe.task.file).parent == RECIPES:
        content["task"]["file"] = Path(recipe.task.file).name
    return {
        "format": FORMAT,
        "recipe": redacted(content),
        "recipe_digest": recipe.digest,
        "parents": {name: {"path": one["path"], "revision": one["revision"]} for name, one in parents.items()},
        "weights": {name: dict(one["files"]) for name, one in parents.items()},
        "layout": model["layout"],
        "prompts": dict(prompts),
        "profiles": {profile.name: profile.digest for profile in profiles},
        "keep": False,
        "checks": [],
        "sessions": [],
        "finished": None,
    }


def read_sweep(folder: Path) -> dict[str, Any]:
    """Return the record of a sweep; raise MoteError where there is none."""
    path = folder / MANIFEST_NAME
    if not path.exists():
        raise MoteError(f"{folder} holds no {MANIFEST_NAME}: it is not the folder of a sweep.")
    manifest = read_document(path, FORMAT)
    for key in ("recipe", "parents", "weights", "prompts", "profiles", "sessions"):
        if key not in manifest:
            raise MoteError(f"{path} has no '{key}'; a sweep's record has.")
    return manifest


def opened(folder: Path, new: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record that a folder has, None of a new sweep.

    Raises MoteError, showing each difference, where it is of another recipe, other parents or other prompts.
    """
    if folder.is_file():
        raise MoteError(f"{folder} is a file; a sweep needs a folder: choose one with --out.")
    if not (folder / MANIFEST_NAME).exists():
        left = [item for item in folder.iterdir() if item.name not in _OURS] if folder.exists() else []
        if not all(is_unfinished(item, MANIFEST_NAME) for item in left):
            raise MoteError(f"{folder} is not empty and holds no sweep: choose another folder with --out.")
        return None
    old = read_sweep(folder)
    changed = [
        line
        for part, prefix in (("recipe", ""), ("weights", "parent "), ("prompts", "prompts: "), ("profiles", "profile "))
        for line in differences(old[part], new[part], prefix)
        # Where files lie may differ by start; what they hold is compared by digest.
        if not line.startswith(_NO_ANSWER)
    ]
    if changed:
        raise MoteError(
            f"{folder} holds another sweep ({'; '.join(changed)}). Take another folder with --out, or the recipe and"
            " parents that it was made with."
        )
    for one in old.setdefault("checks", []):
        if one["answers"] or one["parameters"]:
            raise MoteError(failed_check(one))
    # Equal but for where things lie, which is this start's.
    return old | {name: new[name] for name in ("recipe", "recipe_digest", "parents")}


def failed_check(check: Mapping[str, Any]) -> str:
    """Return what is wrong where a child reloaded in place is not what a fresh engine loads, and the remedy."""
    return (
        f"{check['child']}: {check['answers']} of {check['prompts']} answers and {check['parameters']} parameters of"
        " the engine whose weights were reloaded are not those of a fresh engine, so answers since the check before are"
        " in doubt. Sweep into another folder (--out) with --set model.reload=false."
    )


@contextmanager
def noted(folder: Path, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Note that a start began, what it did and how long it lasted; yields the record to add to."""
    session = {
        **new_session(),
        "engines": None,
        "why": None,
        "children": 0,
        "answers": 0,
        "seconds_proving": 0.0,
        "seconds_checking": 0.0,
        "seconds_making": 0.0,
        "cpu_seconds_making": 0.0,
        "seconds_answering": 0.0,
    }
    manifest["sessions"].append(session)
    write_sweep(folder, manifest)
    try:
        yield manifest
    finally:
        session["ended"] = now()
        for name in (
            "seconds_proving",
            "seconds_checking",
            "seconds_making",
            "cpu_seconds_making",
            "seconds_answering",
        ):
            session[name] = round(float(session[name]), 2)
        write_sweep(folder, manifest)


def write_sweep(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a sweep's record atomically."""
    write_atomic(folder / MANIFEST_NAME, json.dumps(redacted(manifest), indent=2, ensure_ascii=False) + "\n")
