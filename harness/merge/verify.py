"""``mote merge check``: whether a child is what its record says, and its parents those it was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mote.harness.errors import MoteError
from mote.harness.files import digest_file, digest_of
from mote.harness.merge.record import read_record
from mote.harness.tensors import digest_weights, read_tensor_file


class Parentage(NamedTuple):
    """One parent by the record: where it lay, and ``state``: the same, changed, or not here."""

    name: str
    path: str
    state: str


def check_child(folder: Path, advance: Callable[[int], None] = lambda count: None) -> dict[str, Any]:
    """Verify a child against its record and return the record; reads every byte. ``advance`` gets those of weights.

    Raises MoteError naming the first file that is missing, changed, or was made by another recipe.
    """
    record = read_record(folder)
    child, made_from = _parts(folder, record)
    for name, digest in child["files"].items():
        _check_file(folder / name, digest)
    for name, digest in child["weights"].items():
        _check_metadata(folder / name, made_from)
        _check_file(folder / name, digest)
        advance((folder / name).stat().st_size)
    if digest_of(child["weights"]) != child["digest"]:
        raise MoteError(f"{folder}: the record's digest of the child is not that of its weights' digests.")
    further = sorted({path.name for path in folder.glob("*.safetensors")} - set(child["weights"]))
    if further:
        raise MoteError(f"{folder / further[0]} is no part of the child.")
    return record


def parentage(record: Mapping[str, Any]) -> list[Parentage]:
    """Return what became of the parents: their weights' digests are computed anew where they lie on this machine."""
    found = []
    for name, parent in record["parents"].items():
        folder = Path(parent["path"]).expanduser()
        state = "not here"
        if folder.is_dir():
            same = all(
                (folder / file).is_file() and digest_weights(folder / file) == digest
                for file, digest in parent["files"].items()
            )
            state = "the same" if same else "changed"
        found.append(Parentage(name, str(parent["path"]), state))
    return found


def _parts(folder: Path, record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        child, made_from = record["child"], record["made_from"]
        whole = all(isinstance(child[key], dict) for key in ("weights", "files")) and child["weights"]
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise MoteError(f"{folder}: its record has no digests of the child.")
    return child, made_from


def _check_file(path: Path, digest: str) -> None:
    if not path.is_file():
        raise MoteError(f"{path} is missing.")
    if digest_file(path) != digest:
        raise MoteError(f"{path} is not the file that the merge wrote: its sha256 differs.")


def _check_metadata(path: Path, made_from: Mapping[str, str]) -> None:
    metadata = read_tensor_file(path).metadata
    if metadata.get("mote_child") != digest_of(dict(made_from)):
        raise MoteError(f"{path} carries the digest of another merge in its header.")
