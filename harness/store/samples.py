"""Which answers of a run were drawn for people's sheets, and from which strata."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from mote.harness.store.run import RunStore


class SampleRow(NamedTuple):
    """An answer on a sheet: its code there, and the stratum that it was drawn from."""

    sample: str
    item: str
    generation_id: int
    kind: str
    stratum: str
    stratum_size: int


def add_samples(store: RunStore, rows: Iterable[SampleRow]) -> None:
    """Store the rows of a sheet; one that was drawn again in the same way is there already."""
    with store.transaction():
        store.db.executemany(
            "insert or ignore into samples (sample, item, generation_id, kind, stratum, stratum_size)"
            " values (?, ?, ?, ?, ?, ?)",
            list(rows),
        )


def sampled_items(store: RunStore) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Return by the codes of all sheets the ids of the answers, and the kind of judgment that is asked for."""
    items: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}
    for item, generation, kind in store.db.execute("select item, generation_id, kind from samples"):
        items.setdefault(item, []).append(generation)
        kinds[item] = kind
    return items, kinds


def strata(store: RunStore) -> pd.DataFrame:
    """Return which stratum, of what size, each answer that was ever on a sheet was drawn from; one row an answer."""
    query = "select generation_id, stratum, stratum_size, sample from samples order by sample"
    found = pd.read_sql(query, store.db).drop_duplicates("generation_id")
    return found[["generation_id", "stratum", "stratum_size"]]
