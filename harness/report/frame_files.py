"""Frames of a run as files: CSV, Parquet or JSON lines."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mote.harness.errors import MoteError, nearest
from mote.harness.files import write_atomic
from mote.harness.report.frames import open_run


def write_frames(folder: Path, out: Path, names: Sequence[str], profiles: Sequence[str], suffix: str) -> list[Path]:
    """Write frames of a run as ``<name>.<suffix>`` and return the files; ``profiles`` picks rows where it names any.

    ``names`` are properties of ``frames.Run``, ``suffix`` is csv, parquet or jsonl. Everything is made before anything
    is written. Raises MoteError for a frame without profiles whose rows are to be picked, for a profile that it has no
    row of, and where ``out`` is a file.
    """
    run = open_run(folder)
    if out.exists() and not out.is_dir():
        raise MoteError(f"{out} is a file; name a folder with --out.")
    made = {name: _picked(name, _flat(getattr(run, name)), profiles) for name in names}
    out.mkdir(parents=True, exist_ok=True)
    for name, frame in made.items():
        write_atomic(out / f"{name}.{suffix}", _content(frame, suffix))
    return [out / f"{name}.{suffix}" for name in made]


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose index is a column, and whose columns have names, as Parquet asks."""
    named = frame.reset_index() if frame.index.name else frame
    return named.rename(columns=str).rename_axis(columns=None)


def _picked(name: str, frame: pd.DataFrame, profiles: Sequence[str]) -> pd.DataFrame:
    if not profiles:
        return frame
    if "profile" not in frame:
        raise MoteError(f"--profile: the frame '{name}' has no profiles; leave it out.")
    known = set(frame["profile"].astype(str))
    for profile in profiles:
        if profile not in known:
            raise MoteError(f"--profile: the frame '{name}' has no row of '{profile}'.{nearest(profile, known)}")
    return frame[frame["profile"].isin(profiles)]


def _content(frame: pd.DataFrame, suffix: str) -> str | bytes:
    if suffix == "csv":
        return frame.to_csv(index=False)
    if suffix == "jsonl":
        return frame.to_json(orient="records", lines=True, force_ascii=False)
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
