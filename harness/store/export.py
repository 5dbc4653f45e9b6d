"""A run's rows in the formats that other tools read: Parquet for every table, JSONL for the labelled generations."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd

from mote.harness.errors import MoteError
from mote.harness.files import write_atomic
from mote.harness.store.run import STORE_NAME, RunStore

TABLES = ("prompts", "splits", "profiles", "generations", "labels", "activation_maps")
"""Tables and views of a run, as ``store.schema`` has them."""
OPTIONAL = (
    "token_rows",
    "surprises",
    "judgments",
    "samples",
    "scans",
    "scan_scores",
    "ranking_profiles",
    "ranking_answers",
    "prunings",
)
"""Tables that a run has where it was asked for them."""
_JSON_COLUMNS = ("messages", "attributes", "spec", "sampling", "receipt", "mechanism", "evidence")


def export_run(folder: Path, out: Path) -> list[Path]:
    """Write ``<table>.parquet`` for each table and ``generations.jsonl``; return the files.

    In the JSONL each line is a generation with its prompt and all its labels, JSON columns as JSON. Columns of
    activation maps stay bytes in Parquet: int32 little-endian, [layers, experts].
    """
    with RunStore(folder, read_only=True):
        # Only to say in one line that this is no run, or one of another version.
        pass
    if out.exists() and not out.is_dir():
        raise MoteError(f"{out} is a file; name a folder with --out.")
    out.mkdir(parents=True, exist_ok=True)
    uri = f"{(folder / STORE_NAME).absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as db:
        there = {name for (name,) in db.execute("select name from sqlite_master")}
        names = (*TABLES, *(name for name in OPTIONAL if name in there))
        frames = {table: pd.read_sql(f"select * from {table}", db) for table in names}  # noqa: S608 - our own names
    written = []
    for table, frame in frames.items():
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        write_atomic(out / f"{table}.parquet", buffer.getvalue())
        written.append(out / f"{table}.parquet")
    write_atomic(out / "generations.jsonl", _lines(frames))
    return [*written, out / "generations.jsonl"]


def _lines(frames: dict[str, pd.DataFrame]) -> str:
    labels: dict[int, dict[str, str]] = {}
    for row in frames["labels"].itertuples(index=False):
        labels.setdefault(int(str(row.generation_id)), {})[str(row.judge)] = str(row.label)
    merged = frames["generations"].merge(frames["prompts"], on="prompt_id", validate="many_to_one")
    lines = []
    for record in merged.to_dict(orient="records"):
        line = {str(key): json.loads(value) if key in _JSON_COLUMNS else value for key, value in record.items()}
        line["labels"] = labels.get(int(line["generation_id"]), {})
        lines.append(json.dumps(line, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)
