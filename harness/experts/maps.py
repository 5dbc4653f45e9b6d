"""Maps that rankings want beside a run's own: router weights, and the experts of the prompt's last token.

The first generated token is drawn after the prompt's last one, so what the router does there is nearest to what the
model says first. A run keeps counts over whole prompts; these two are captured when rankings are first compared, by
asking the untouched model the prompts of the choosing half once more, and kept in a table of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mote.harness.engine.vllm import Answer
from mote.harness.errors import MoteError
from mote.harness.store.sqlite import Transaction, connect

CAPTURE: Final = {"what": "prompt", "weights": True, "last": 1}
"""What is asked of the patch: counts and weights of the prompt, and counts of its last token."""
CAPTURED: Final = ("router_weight_resonance", "resonance_last_token")
"""The rankings that come of it."""

_TABLE = """
create table if not exists ranking_maps (
    prompt integer primary key references prompts (position),
    layers integer not null,
    experts integer not null,
    weights blob not null,             -- float32, little-endian, [layers, experts]: router weights, whole prompt
    last blob not null                 -- int32, little-endian, [layers, experts]: choices of the last token
) without rowid;
"""


class MoreMaps(NamedTuple):
    """Router weights float32 and choices of the last token int32, both [prompts, layers, experts]."""

    weights: NDArray[np.float32]
    last: NDArray[np.int32]


def captured(path: Path) -> set[str]:
    """Return the prompts of which the maps are there."""
    with closing(connect(path, read_only=True)) as db:
        if not _there(db):
            return set()
        return {
            key for (key,) in db.execute("select prompt_id from ranking_maps m join prompts p on p.position = prompt")
        }


def read_maps(path: Path, prompts: list[str]) -> MoreMaps | None:
    """Return the maps of these prompts in their order, None unless all of them are there."""
    with closing(connect(path, read_only=True)) as db:
        if not prompts or not _there(db):
            return None
        query = (
            "select prompt_id, layers, experts, weights, last from ranking_maps m join prompts p on p.position = prompt"
        )
        rows = {row[0]: row[1:] for row in db.execute(query)}
    if not all(key in rows for key in prompts):
        return None
    shape = (len(prompts), *rows[prompts[0]][:2])
    weights = np.stack([np.frombuffer(rows[key][2], "<f4") for key in prompts]).reshape(shape)
    last = np.stack([np.frombuffer(rows[key][3], "<i4") for key in prompts]).reshape(shape)
    return MoreMaps(weights, last)


def add_maps(path: Path, answers: Iterable[Answer]) -> None:
    """Store the maps of answers that were asked for with ``CAPTURE``, all or none.

    Raises MoteError where a prompt was not captured whole.
    """
    rows = []
    for answer in answers:
        found = answer.observation.maps
        whole, last = found.get("prompt"), found.get("prompt_last")
        key = answer.request.prompt_id
        if whole is None or last is None or whole.weights is None or whole.counted != whole.total or last.counted != 1:
            raise MoteError(f"prompt '{key}' was not captured whole: its router weights can't be ranked.")
        blobs = np.ascontiguousarray(whole.weights, "<f4").tobytes(), np.ascontiguousarray(last.counts, "<i4").tobytes()
        rows.append((key, *whole.counts.shape, *blobs))
    with closing(connect(path, read_only=False)) as db:
        db.executescript(f"begin immediate;{_TABLE}commit;")
        with Transaction(db):
            db.executemany(
                "insert into ranking_maps (prompt, layers, experts, weights, last)"
                " values ((select position from prompts where prompt_id = ?), ?, ?, ?, ?)",
                rows,
            )


def _there(db: Any) -> bool:
    return db.execute("select 1 from sqlite_master where name = 'ranking_maps'").fetchone() is not None
