"""A run's rows in the formats that other tools read: Parquet for every table, JSONL for the labelled generations."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd

from mote.harness.errors import MoteError
from mote.harness.files import write_atomic
from mote.harness.store.run import RunStore
from mote.harness.store.schema import names_of_tables

_JSON_COLUMNS = ("messages", "attributes", "spec", "sampling", "receipt", "mechanism", "evidence")


def export_run(folder: Path, out: Path) -> list[Path]:
    """Write ``<name>.parquet`` for each table and view of the schema and ``generations.jsonl``; return the files.

    In the JSONL each line is a generation with its prompt and all its labels, JSON columns as JSON. Activation maps
    stay bytes in Parquet: int32 or, of weights, float32, little-endian, [layers, experts].
    """
    with RunStore(folder, read_only=True) as store:
        if out.exists() and not out.is_dir():
            raise MoteError(f"{out} is a file; name a folder with --out.")
        out.mkdir(parents=True, exist_ok=True)
        there = {name for (name,) in store.db.execute("select name from sqlite_master")}
        written = [_write(store, name, out) for name in names_of_tables() if name in there]
        write_atomic(out / "generations.jsonl", _lines(store))
    return [*written, out / "generations.jsonl"]


def _write(store: RunStore, name: str, out: Path) -> Path:
    buffer = io.BytesIO()
    _read(store, name).to_parquet(buffer, index=False)
    write_atomic(out / f"{name}.parquet", buffer.getvalue())
    return out / f"{name}.parquet"


def _read(store: RunStore, name: str) -> pd.DataFrame:
    return pd.read_sql(f"select * from {name}", store.db)  # noqa: S608 - the schema's own names


def _lines(store: RunStore) -> str:
    labels: dict[int, dict[str, str]] = {}
    for row in _read(store, "labels").itertuples(index=False):
        labels.setdefault(int(str(row.generation_id)), {})[str(row.judge)] = str(row.label)
    merged = _read(store, "generations").merge(_read(store, "prompts"), on="prompt_id", validate="many_to_one")
    lines = []
    for record in merged.to_dict(orient="records"):
        line = {str(key): json.loads(value) if key in _JSON_COLUMNS else value for key, value in record.items()}
        line["labels"] = labels.get(int(line["generation_id"]), {})
        lines.append(json.dumps(line, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)
