"""``mote merge``: check, write shard by shard, finish. The same command goes on with a merge that was stopped.

On disk, in this order: the journal; each shard as ``.part``, then under its name; the tokenizer and other small files;
model card and record; ``config.json``; the index last. Until the configuration is there no engine takes the
folder for a model. Nothing is written before everything that headers can show has been checked.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mote.harness.errors import MoteError
from mote.harness.files import digest_of, is_unfinished, write_atomic
from mote.harness.merge.card import card_of
from mote.harness.merge.checkpoint import INDEX, Checkpoint
from mote.harness.merge.journal import JOURNAL, PART, RECORDS, Journal, begun_child
from mote.harness.merge.plan import Plan
from mote.harness.merge.record import digests, finished_record, read_record, record_name, record_of, record_text
from mote.harness.recipe.manifest import now
from mote.harness.tensors import digest_weights

if TYPE_CHECKING:
    from mote.harness.merge.writing import Written

_SPARE: Final = 64 << 20
_TOKENIZER: Final = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "generation_config.json"),
)
_NEVER: Final = {*RECORDS, JOURNAL, "config.json", INDEX, "README.md"}
CardOf = Callable[[Plan, Mapping[str, Any]], str]
"""Makes a child's README.md of its plan and its record."""


class Result(NamedTuple):
    """A finished child: its record as in ``merge.json`` or ``bake.json``, and whether it had been finished before."""

    record: dict[str, Any]
    before: bool


def check_target(plan: Plan, out: Path) -> None:
    """Raise MoteError unless ``out`` is new, empty, or holds this very merge; and unless the disk has room for it."""
    for parent in plan.parents:
        if out.resolve() in (parent.folder, *parent.folder.parents) or parent.folder in out.resolve().parents:
            raise MoteError(f"--out {out} lies in, or above, the parent '{parent.name}' ({parent.folder}).")
    if out.exists() and not out.is_dir():
        raise MoteError(f"--out {out} is a file; a child is a folder.")
    shards = {shard.path.name + end for shard in plan.base.shards for end in ("", PART)}
    others = {item.name for item in out.iterdir()} if out.is_dir() else set()
    begun = begun_child(out) if out.is_dir() else None
    record = read_record(out) if begun is None and record_of(others) else None
    if others and begun is None and record is None:
        raise MoteError(f"--out {out} is not empty and holds no merge ({min(others)}): take another folder.")
    if record is not None and record.get("plan") != plan.digest:
        raise MoteError(f"--out {out} holds the child of another recipe or other parents: take another folder.")
    if begun is not None and begun.get("plan", plan.digest) != plan.digest:
        raise MoteError(f"--out {out} holds a merge begun with another recipe or other parents: take another folder.")
    there = sum((out / name).stat().st_blocks * 512 for name in shards & others)
    free, needed = shutil.disk_usage(_existing(out)).free, max(plan.total - there, 0) + _SPARE
    if record is None and free < needed:
        raise MoteError(f"--out {out}: the child needs {needed / 1e9:.2f} GB more, and {free / 1e9:.2f} GB are free.")


def make_child(
    plan: Plan,
    out: Path,
    *,
    threads: int = 1,
    advance: Callable[[int], None] = lambda count: None,
    card: CardOf = card_of,
    also: Mapping[str, Any] = MappingProxyType({}),
) -> Result:
    """Write the child of a plan to ``out``, or go on with it; ``advance`` gets the bytes of weights as they are done.

    ``also`` are further entries of the record.

    Raises MoteError where ``out`` holds something else, the disk is too small, or a result is NaN or infinite.
    """
    import torch

    from mote.harness.merge.writing import sync_folder

    check_target(plan, out)
    parents = {parent.name: digests_of(parent) for parent in plan.parents}
    child = {"plan": plan.digest, "recipe": plan.recipe.digest, "parents": digest_of(parents)}
    if (out / record_name(plan)).is_file() and not (out / JOURNAL).exists():
        return Result(_same_child(out, child), before=True)
    out.mkdir(parents=True, exist_ok=True)
    started = now()
    kept = torch.get_num_threads()
    torch.set_num_threads(1)  # the hands are threads of their own; torch's would wait for each other
    try:
        with Journal(out, child) as journal:
            _write_shards(plan, out, journal, child, threads, advance)
            _finish_small(plan, out)
            record = {**_record(plan, journal, child, parents, started), **also}
            write_atomic(out / "README.md", card(plan, record))
            write_atomic(out / record_name(plan), record_text(record))
            _finish_last(plan, out)
            journal.remove()
            sync_folder(out)
    except OSError as error:
        if error.filename is not None:
            raise
        raise MoteError(f"{out}: {error.strerror}. The same command goes on when that is mended.") from None
    finally:
        torch.set_num_threads(kept)
    return Result(record, before=False)


def digests_of(parent: Checkpoint) -> dict[str, str]:
    """Return the digests that name a parent's weights, by file."""
    return {shard.path.name: digest_weights(shard.path) for shard in parent.shards}


def tokenizer_files(parent: Checkpoint) -> list[Path]:
    """Return the files that say how a parent turns text into tokens and back."""
    return [parent.folder / name for name in _TOKENIZER if (parent.folder / name).is_file()]


def _write_shards(
    plan: Plan, out: Path, journal: Journal, child: dict[str, str], threads: int, advance: Callable[[int], None]
) -> None:
    from mote.harness.merge.writing import write_shard

    metadata = {"mote_recipe": child["recipe"], "mote_child": digest_of(child)}
    for number, shard in enumerate(plan.base.shards):
        path = out / shard.path.name
        entry = journal.shards.get(path.name)
        if entry is not None and path.is_file() and path.stat().st_size == entry["size"]:
            advance(shard.size - shard.data_start)
            continue
        written = write_shard(plan, number, path, metadata, threads, advance)
        journal.add(path.name, _entry(written))


def _entry(written: Written) -> dict[str, Any]:
    outcomes = [
        [one.name, one.group, list(one.counted), [list(two) for two in one.distances]] for one in written.outcomes
    ]
    return {"sha256": written.sha256, "size": written.size, "outcomes": outcomes}


def _finish_small(plan: Plan, out: Path) -> None:
    """Write the tokenizer and other small files."""
    for name, path in _small_files(plan).items():
        write_atomic(out / name, path.read_bytes())


def _record(
    plan: Plan, journal: Journal, child: dict[str, str], parents: dict[str, dict[str, str]], started: str
) -> dict[str, Any]:
    files = digests({**_small_files(plan), **{name: plan.base.folder / name for name in _last_files(plan)}})
    return finished_record(plan, journal.shards, child, parents, files, started)


def _finish_last(plan: Plan, out: Path) -> None:
    """Write what makes the folder a model, the index last."""
    for name in _last_files(plan):
        write_atomic(out / name, (plan.base.folder / name).read_bytes())
    names = {*_small_files(plan), *_last_files(plan), *RECORDS, "README.md"}
    # What kills left: of a shard, and within the atomic writing of any other file.
    unfinished = [path for path in out.glob(".*") if any(is_unfinished(path, name) for name in names)]
    for left in [*out.glob(f"*.safetensors{PART}"), *unfinished]:
        left.unlink()


def _last_files(plan: Plan) -> list[str]:
    """Return the names of what makes a folder a model, in the order of writing."""
    return ["config.json", INDEX] if plan.base.indexed else ["config.json"]


def _small_files(plan: Plan) -> dict[str, Path]:
    """Return what else a child's folder has: the base's small files, the tokenizer's of the parent named for it."""
    found = {
        path.name: path
        for path in sorted(plan.base.folder.iterdir())
        if path.is_file() and path.suffix in (".json", ".jinja", ".model", ".txt", ".py") and path.name not in _NEVER
    }
    if plan.recipe.tokenizer is not None:
        giver = next(parent for parent in plan.parents if parent.name == plan.recipe.tokenizer)
        found = {name: path for name, path in found.items() if name not in _TOKENIZER}
        found |= {path.name: path for path in tokenizer_files(giver)}
    return found


def _same_child(out: Path, child: dict[str, str]) -> dict[str, Any]:
    record = read_record(out)
    changed = [key for key, value in child.items() if record.get("made_from", {}).get(key) != value]
    if changed:
        raise MoteError(f"--out {out} holds the child of other {changed[0]}: take another folder.")
    return record


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
