"""``merge.json`` and ``bake.json``: what a child was made from, and the digests of what it is."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from mote.harness.errors import MoteError
from mote.harness.files import digest_file, digest_of, read_document
from mote.harness.merge.journal import BAKED, RECORD, RECORDS
from mote.harness.merge.plan import Plan
from mote.harness.merge.schema import BakeRecipe
from mote.harness.recipe.manifest import now, versions_of

FORMATS: Final = {RECORD: "mote-child/1", BAKED: "mote-bake/1"}
_PACKAGES: Final = ("mote-harness", "torch", "safetensors", "numpy")


def finished_record(
    plan: Plan,
    shards: Mapping[str, Mapping[str, Any]],
    child: Mapping[str, str],
    parents: Mapping[str, Mapping[str, str]],
    small: Mapping[str, str],
    started: str,
) -> dict[str, Any]:
    """Return the record of a child. ``shards`` are the journal's entries, ``small`` the other files' digests."""
    weights = {name: str(shards[name]["sha256"]) for name in sorted(shards)}
    return {
        "format": FORMATS[record_name(plan)],
        "name": plan.recipe.name,
        "plan": plan.digest,
        "made_from": dict(child),
        "recipe": plan.recipe.model_dump(mode="json"),
        "parents": {
            parent.name: {"path": parent.source, "revision": parent.revision, "files": parents[parent.name]}
            for parent in plan.parents
        },
        "child": {"digest": digest_of(weights), "weights": weights, "files": dict(small)},
        "tensors": _table(plan.tensors),
        "bytes": _table(plan.bytes),
        "threshold": threshold_summary([one for name in sorted(shards) for one in shards[name]["outcomes"]]),
        "notes": plan.notes,
        "versions": {"python": platform.python_version(), **versions_of(_PACKAGES)},
        "times": {"started": started, "finished": now()},
    }


def threshold_summary(outcomes: list[list[Any]]) -> dict[str, Any] | None:
    """Return how many tensors of each group took something over or stayed the base's, and the groups cut through.

    A group of which some tensors are above the threshold and some are not is cut: its tensors come from two models.
    """
    if not outcomes:
        return None
    taken: Counter[str] = Counter()
    stayed: Counter[str] = Counter()
    for _, group, counted, _ in outcomes:
        (taken if any(counted) else stayed)[group] += 1
    groups = {group: {"taken": taken[group], "kept": stayed[group]} for group in sorted({*taken, *stayed})}
    return {"groups": groups, "cut": [group for group, found in groups.items() if found["taken"] and found["kept"]]}


def record_name(plan: Plan) -> str:
    """Return the name of the file that has the record of a plan's child."""
    return BAKED if isinstance(plan.recipe, BakeRecipe) else RECORD


def record_of(names: Iterable[str]) -> str | None:
    """Return which of a folder's files is its record; None where none is."""
    return next((name for name in RECORDS if name in names), None)


def record_text(record: Mapping[str, Any]) -> str:
    """Return a record as the file has it."""
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def read_record(folder: Path) -> dict[str, Any]:
    """Read a child's record; raise MoteError where there is none, or it is of another format."""
    name = next((name for name in RECORDS if (folder / name).exists()), None)
    if name is None:
        raise MoteError(f"{folder} holds no {' and no '.join(RECORDS)}: it is not the folder of a child.")
    return read_document(folder / name, FORMATS[name])


def digests(paths: Mapping[str, Path]) -> dict[str, str]:
    """Return the sha256 of each file, by the name it is given."""
    return {name: digest_file(path) for name, path in sorted(paths.items())}


def _table(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for (group, kind), count in sorted(counts.items()):
        table.setdefault(group, {})[kind] = count
    return table
