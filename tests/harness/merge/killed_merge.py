"""Merges that are killed at random moments, in processes forked from one that has torch loaded.

``python -m tests.harness.merge.killed_merge FOLDER KILLS SEED``: makes two parents and an undisturbed child, then
KILLS more, each killed twice with SIGKILL and gone on with. Prints when kills came and what they left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from mote.harness.files import digest_file
from mote.harness.merge.child import make_child
from mote.harness.merge.plan import make_plan
from mote.harness.merge.schema import MergeRecipe
from tests.harness.merge.checkpoints import DeepSeek, random_deepseek, write_checkpoint

SIZE = DeepSeek(
    layers=3,
    dense=1,
    experts=8,
    hidden=384,
    width=128,
    dense_width=384,
    vocabulary=384,
    heads=3,
    q_rank=128,
    kv_rank=64,
)


def main(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Return the moments of the kills (seconds), what the folder held then, and both children's digests."""
    for number, name in enumerate("ab"):
        write_checkpoint(folder / name, random_deepseek(SIZE, number), SIZE.config(), shards=8)
    began = monotonic()
    _wait(_forked(folder, folder / "whole"))
    took = monotonic() - began
    drawn = random.Random(seed)  # noqa: S311 - moments, not secrets
    moments: list[float] = []
    found: list[list[str]] = []
    while len(moments) < kills:
        out = folder / f"killed-{len(moments)}"
        moment = drawn.uniform(0, took)
        process = _forked(folder, out)
        sleep(moment)
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if os.WIFEXITED(status):
            # Done before the kill came: no kill, so it does not count.
            took = moment
            _remove(out)
            continue
        moments.append(moment)
        found.append(sorted(path.name for path in out.iterdir()) if out.is_dir() else [])
        # Killed again on the way, so that going on is itself gone on with.
        process = _forked(folder, out)
        sleep(drawn.uniform(0, took))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        _wait(_forked(folder, out))
    children = [digests(folder / f"killed-{number}") for number in range(kills)]
    return {"took": took, "moments": moments, "found": found, "whole": digests(folder / "whole"), "children": children}


def digests(folder: Path) -> dict[str, str]:
    """Return every file's sha256; of merge.json without its times."""
    found = {path.name: digest_file(path) for path in sorted(folder.iterdir())}
    record = json.loads((folder / "merge.json").read_text())
    del record["times"]
    return found | {"merge.json": json.dumps(record, sort_keys=True)}


def _forked(folder: Path, out: Path) -> int:
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        recipe = {
            "name": "killed",
            "parents": {name: str(folder / name) for name in "ab"},
            "base": "a",
            "rules": [{"groups": ["routed_experts"], "weights": {"b": 1}}, {"groups": ["all"], "weights": {"b": 0.5}}],
            "threshold": {"distance": "relative", "above": 0.1},
        }
        make_child(make_plan(MergeRecipe.model_validate(recipe)), out, threads=2)
        status = 0
    finally:
        os._exit(status)


def _wait(process: int) -> None:
    _, status = os.waitpid(process, 0)
    if status:
        raise RuntimeError(f"a merge ended with {status}")


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
