"""One shard of a child on its way to the disk: header, steps by several hands, sha256 as it goes, fsync, rename.

Every step writes at its own place, since block scales lie before their weights in a safetensors file, and a writer in
the file's order would have to hold the shard. The sha256 follows in a thread of its own, as far as the file is whole
from its beginning.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any, Final, NamedTuple

import torch

from mote.harness.errors import MoteError
from mote.harness.merge.compute import Distance, Files, compute, lone_source, parents_that_count, scaled
from mote.harness.merge.journal import PART
from mote.harness.merge.plan import Copy, Mix, Plan, Scale, Step
from mote.harness.merge.sources import Range, Source

_CHUNK: Final = 1 << 22
_TASK: Final = 1 << 25
_FLUSH_EVERY: Final = 0.25


class Outcome(NamedTuple):
    """What a threshold did with one tensor: which parents counted, and how far each lay from the base."""

    name: str
    group: str
    counted: tuple[bool, ...]
    distances: tuple[Distance, ...]


class Written(NamedTuple):
    """A finished shard: its sha256, its size, and what thresholds did in it."""

    sha256: str
    size: int
    outcomes: list[Outcome]


def header_of(plan: Plan, shard: int, metadata: Mapping[str, str]) -> bytes:
    """Return a shard's length and header: the base's tensors at the base's places, with ``metadata`` beside its own."""
    source = plan.base.shards[shard]
    content: dict[str, Any] = json.loads(source.raw)
    content["__metadata__"] = {"format": "pt", **source.metadata, **metadata}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_shard(
    plan: Plan, shard: int, path: Path, metadata: Mapping[str, str], threads: int, advance: Callable[[int], None]
) -> Written:
    """Write one shard to ``path`` by way of ``path``.part; ``advance`` gets the bytes as they are done.

    Raises MoteError with a tensor's name where a result is NaN or infinite; the .part stays for the next start.
    """
    header = header_of(plan, shard, metadata)
    source = plan.base.shards[shard]
    size = len(header) + source.size - source.data_start
    part = path.with_name(path.name + PART)
    files = _open_used(plan, plan.shards[shard])
    # What a kill left is written anew, and a link that has its name is not written through.
    part.unlink(missing_ok=True)
    out = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        os.truncate(out, size)
        digest = _Follower(out, size)
        flusher = _Flusher(out)
        digest.start()
        flusher.start()
        try:
            _put(out, memoryview(header), 0)
            digest.done(0, len(header))
            hand = _Hand(out, len(header), files, digest, advance)
            outcomes = _by_hands(hand, plan.shards[shard], threads)
            sha256 = digest.result()
        finally:
            digest.stop()
            flusher.stop()
        flusher.check()
        os.fsync(out)
    finally:
        os.close(out)
        for one in files.values():
            os.close(one)
    os.replace(part, path)
    sync_folder(path.parent)
    return Written(sha256, size, outcomes)


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open_used(plan: Plan, steps: list[Step]) -> dict[tuple[int, int], int]:
    used: set[tuple[int, int]] = set()
    for step in steps:
        ranges = (step.source,) if isinstance(step, Copy) else _ranges(step)
        used.update((one.parent, one.shard) for one in ranges)
    return {(parent, at): os.open(plan.parents[parent].shards[at].path, os.O_RDONLY) for parent, at in used}


def _ranges(step: Mix | Scale) -> Iterator[Range]:
    for source in [step.target] if isinstance(step, Scale) else [source for _, source in step.sources]:
        yield from source.ranges
        yield from source.scale_ranges


def _by_hands(hand: _Hand, steps: list[Step], threads: int) -> list[Outcome]:
    """Work the steps off in the order of the file, several at a time."""
    tasks = list(_tasks(steps))
    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        # The first error ends the shard; what others have begun is waited for, what they haven't is not begun.
        return [outcome for found in pool.map(hand.work, tasks) for outcome in found]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _tasks(steps: list[Step]) -> Iterator[list[Step]]:
    """Bundle steps by the order of the file, neighbouring copies into one."""
    bundle: list[Step] = []
    held = 0
    for step in _joined(sorted(steps, key=_start)):
        bundle.append(step)
        held += step.source.nbytes if isinstance(step, Copy) else step.nbytes
        if held >= _TASK:
            yield bundle
            bundle, held = [], 0
    if bundle:
        yield bundle


def _start(step: Step) -> int:
    # A weight is done when its turn comes, and its scales, which lie before, with it.
    return step.start if isinstance(step, Copy) or step.start >= 0 else step.scale_start


def _joined(steps: list[Step]) -> Iterator[Step]:
    last: Copy | None = None
    for step in steps:
        if isinstance(step, Copy) and last is not None and _follows(last, step):
            last = Copy(last.source._replace(nbytes=last.source.nbytes + step.source.nbytes), last.start)
            continue
        if last is not None:
            yield from _cut(last)
        last = step if isinstance(step, Copy) else None
        if last is None:
            yield step
    if last is not None:
        yield from _cut(last)


def _follows(first: Copy, second: Copy) -> bool:
    one, other = first.source, second.source
    return (
        (one.parent, one.shard) == (other.parent, other.shard)
        and one.start + one.nbytes == other.start
        and first.start + one.nbytes == second.start
    )


def _cut(copy: Copy) -> Iterator[Copy]:
    """Cut a long copy so that several hands can take it."""
    for at in range(0, max(copy.source.nbytes, 1), _TASK):
        nbytes = min(_TASK, copy.source.nbytes - at)
        yield Copy(copy.source._replace(start=copy.source.start + at, nbytes=nbytes), copy.start + at)


class _Hand:
    """Does steps; shared by all threads, as reads and writes name their places."""

    def __init__(
        self, out: int, data_start: int, files: Files, digest: _Follower, advance: Callable[[int], None]
    ) -> None:
        self._out = out
        self._data_start = data_start
        self._files = files
        self._digest = digest
        self._advance = advance

    def work(self, steps: list[Step]) -> list[Outcome]:
        outcomes = []
        for step in steps:
            if isinstance(step, Copy):
                self._copy(step.source, self._data_start + step.start)
                self._advance(step.source.nbytes)
                continue
            if isinstance(step, Scale):
                self._scale(step)
                self._advance(step.nbytes)
                continue
            outcome = self._mix(step)
            if outcome is not None and step.start >= 0:
                outcomes.append(outcome)
            self._advance(step.nbytes)
        return outcomes

    def _copy(self, source: Range, at: int) -> None:
        copy_range(self._files[source.parent, source.shard], source.start, self._out, at, source.nbytes)
        self._digest.done(at, source.nbytes)

    def _mix(self, step: Mix) -> Outcome | None:
        weights, distances = parents_that_count(self._files, step)
        lone = lone_source(step, weights)
        starts = [self._data_start + at if at >= 0 else -1 for at in (step.start, step.scale_start)]
        if lone is not None:
            self._take_over(lone, starts)
        else:
            compute(self._files, step, weights, self._writer(starts[0]), self._writer(starts[1]))
            for start, ranges in zip(starts, (step.target.ranges, step.target.scale_ranges), strict=True):
                if start >= 0:
                    self._digest.done(start, sum(one.nbytes for one in ranges))
        if step.threshold is None:
            return None
        counted = tuple(weight > 0 for weight in weights[1:])
        return Outcome(step.name, step.place.group, counted, tuple(distances))

    def _scale(self, step: Scale) -> None:
        """Multiply a weight's values; of FP8 the block scales, and codes only by 0, which leaves the scales."""
        target = step.target
        packed, gone = bool(target.scale_ranges), not step.factor
        for start, ranges, dtype, times in (
            (step.start, target.ranges, target.dtype, gone or not packed),
            (step.scale_start, target.scale_ranges, target.scale_dtype, not gone),
        ):
            at = self._data_start + start
            for one in ranges if start >= 0 else ():
                if times:
                    write = self._writer(at)
                    for values, offset in scaled(self._files, step.name, one, dtype, step.factor):
                        write(values, offset)
                    self._digest.done(at, one.nbytes)
                else:
                    self._copy(one, at)
                at += one.nbytes

    def _take_over(self, lone: Source, starts: list[int]) -> None:
        for start, ranges in zip(starts, (lone.ranges, lone.scale_ranges), strict=True):
            at = start
            for one in ranges if start >= 0 else ():
                self._copy(one, at)
                at += one.nbytes

    def _writer(self, start: int) -> Callable[[torch.Tensor, int], None]:
        def write(values: torch.Tensor, at: int) -> None:
            if start >= 0:
                data: Any = values.contiguous().view(-1).view(torch.uint8).numpy()
                _put(self._out, memoryview(data), start + at)

        return write


def copy_range(source: int, start: int, out: int, at: int, nbytes: int) -> None:
    """Copy bytes between open files, within the kernel where it can."""
    while nbytes:
        got = _copy_some(source, start, out, at, min(nbytes, _CHUNK * 8))
        if not got:
            raise MoteError("a parent's file became shorter while it was read.")
        start, at, nbytes = start + got, at + got, nbytes - got


def _copy_some(source: int, start: int, out: int, at: int, nbytes: int) -> int:
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, out, nbytes, start, at)
        except OSError:
            pass  # other file systems, and older kernels between two of them
    data = os.pread(source, min(nbytes, _CHUNK), start)
    _put(out, memoryview(data), at)
    return len(data)


def _put(out: int, data: memoryview, at: int) -> None:
    while data:
        done = os.pwrite(out, data, at)
        data, at = data[done:], at + done


class _Follower(Thread):
    """The sha256 of a file that is being written: follows as far as it is whole from the beginning."""

    def __init__(self, file: int, size: int) -> None:
        super().__init__(daemon=True, name="sha256")
        self._file = file
        self._size = size
        self._changed = Condition()
        self._ends: dict[int, int] = {}
        self._whole = 0
        self._stopped = False
        self._digest = hashlib.sha256()
        self._error: OSError | None = None

    def done(self, start: int, nbytes: int) -> None:
        """Say that bytes are written."""
        with self._changed:
            if nbytes:
                self._ends[start] = start + nbytes
            while self._whole in self._ends:
                self._whole = self._ends.pop(self._whole)
            self._changed.notify()

    def stop(self) -> None:
        """End the thread, whatever is left."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self.join()

    def result(self) -> str:
        """Wait for the rest and return the sha256 (hex)."""
        with self._changed:
            whole = self._whole
        if whole != self._size:
            raise AssertionError(f"of {self._size} bytes {whole} were written")
        self.join()
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def run(self) -> None:
        """Hash what is there until all is."""
        at = 0
        buffer = bytearray(1 << 20)
        try:
            while at < self._size:
                with self._changed:
                    while not (self._stopped or self._whole > at):
                        self._changed.wait()
                    if self._stopped and self._whole <= at:
                        return
                    whole = self._whole
                while at < whole and not (self._stopped and whole < self._size):
                    got = os.preadv(self._file, [memoryview(buffer)[: min(len(buffer), whole - at)]], at)
                    self._digest.update(memoryview(buffer)[:got])
                    at += got
        except OSError as error:
            self._error = error


class _Flusher(Thread):
    """Sends to the disk what is written while the rest is being made, so that the last fsync finds little left."""

    def __init__(self, file: int) -> None:
        super().__init__(daemon=True, name="flush")
        self._file = file
        self._stopped = Event()
        self._error: OSError | None = None

    def stop(self) -> None:
        """End the thread after its present sync."""
        self._stopped.set()
        self.join()

    def check(self) -> None:
        """Raise what a sync met: the system tells a lost page once, and the last fsync would no longer hear of it."""
        if self._error is not None:
            raise self._error

    def run(self) -> None:
        """Sync a quarter of a second after each sync."""
        try:
            while not self._stopped.wait(_FLUSH_EVERY):
                os.fsync(self._file)
        except OSError as error:
            self._error = error
