"""Digests of weights too large to hash: what they tell apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mote.harness.tensors import digest_weights, read_tensor_file
from tests.harness.merge.checkpoints import DeepSeek, write_sparse

SIZE = DeepSeek(layers=2, dense=1, experts=32, hidden=1024, width=1024, dense_width=1024, vocabulary=16384, heads=8)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = write_sparse(tmp_path_factory.mktemp("large"), SIZE, shard_bytes=1 << 40)
    assert path.stat().st_size > 1 << 28
    return path


def write(path: Path, at: int, data: bytes) -> None:
    handle = os.open(path, os.O_RDWR)
    os.pwrite(handle, data, at)
    os.close(handle)


def test_every_tensor_s_ends_are_seen_and_the_header(large: Path) -> None:
    before = digest_weights(large)
    assert before == digest_weights(large)
    assert before.startswith(f"size:{large.stat().st_size},")
    entries = read_tensor_file(large).tensors.values()
    for entry in list(entries)[::17]:
        for at in (entry.start, entry.start + entry.nbytes - 1):
            write(large, at, b"\x01")
            assert digest_weights(large) != before
            write(large, at, b"\x00")
    assert digest_weights(large) == before
    header = large.read_bytes()[8:40]
    write(large, 8, header.replace(b"pt", b"tp"))
    assert digest_weights(large) != before
    write(large, 8, header)


def test_every_four_mebibytes_are_seen(large: Path) -> None:
    before = digest_weights(large)
    longest = max(read_tensor_file(large).tensors.values(), key=lambda entry: entry.nbytes)
    for at in range(longest.start, longest.start + longest.nbytes, 1 << 22):
        write(large, at + 1000, b"\x01")
        assert digest_weights(large) != before
        write(large, at + 1000, b"\x00")


def test_small_files_are_hashed_whole(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x" * 1000)
    assert digest_weights(file).startswith("sha256:")
