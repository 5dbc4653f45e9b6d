"""The 1,360 sensitive prompts of the paper's section 3.2: promptfoo's CCP-sensitive-prompts (68 subjects x 20).

Licence CC BY-NC 4.0, so it is fetched by the user and never part of the package: by ``fetch`` through the ``datasets``
library, or put by hand as a CSV, JSONL or Parquet file into the data folder. The set has no harmless half; the task
``sensitive`` is ours and has one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mote.tasks.data import data_home, offline, write_whole
from mote.tasks.prompt import Prompt, TaskError, slug, user

if TYPE_CHECKING:
    import pandas as pd

TASK = "ccp_sensitive"
SIZE = 1360
SUBJECTS = 68
COLUMNS = ("subject", "prompt")
SOURCE = "promptfoo/CCP-sensitive-prompts"
REVISION = "f6fc9a004916913a84883591a96a6709feb02992"
URL = f"https://huggingface.co/datasets/{SOURCE}/resolve/{REVISION}/ccp-sensitive-prompts.csv"
LICENCE = "CC BY-NC 4.0"
SUFFIXES = (".csv", ".jsonl", ".parquet")
_STEM = "ccp-sensitive-prompts"


def local_file() -> Path | None:
    """Return the set's file in the data folder, or None."""
    found = (data_home() / f"{_STEM}{suffix}" for suffix in SUFFIXES)
    return next((path for path in found if path.is_file()), None)


def prompts(path: Path | None = None) -> list[Prompt]:
    """Return the 1,360 prompts of ``path``, else of the data folder's file.

    Raises TaskError naming what to fetch where nothing is there, and what is wrong where columns or counts are.
    """
    path = path or local_file()
    if path is None:
        raise TaskError(
            f"task '{TASK}' is not fetched. Run `mote data --fetch {TASK}`, or download {URL} to "
            f"{data_home() / (_STEM + '.csv')}, or use the task 'sensitive', which needs no network."
        )
    return from_rows(read_rows(path), str(path))


def read_rows(path: Path) -> pd.DataFrame:
    """Return the table of a CSV, JSONL or Parquet file, every value as text."""
    # Four fifths of the time that `mote --help` took.
    import pandas as pd

    if not path.is_file():
        raise TaskError(f"{path} is not a file.")
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False)
        if path.suffix == ".jsonl":
            return pd.read_json(path, lines=True, dtype=False, encoding="utf-8")
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TaskError(f"{path} cannot be read as {path.suffix[1:]}: {first}") from None
    raise TaskError(f"{path}: its ending '{path.suffix}' is unknown. Known: {', '.join(SUFFIXES)}.")


def from_rows(rows: pd.DataFrame, where: str, size: int = SIZE, subjects: int = SUBJECTS) -> list[Prompt]:
    """Return the prompts of a table with the columns ``subject`` and ``prompt``; check columns, counts and blanks."""
    if missing := [name for name in COLUMNS if name not in rows.columns]:
        have = ", ".join(map(str, rows.columns))
        raise TaskError(
            f"{where}: column '{missing[0]}' is missing. It has {have}; needed are {' and '.join(COLUMNS)}."
        )
    blank = [number for number, row in enumerate(rows[list(COLUMNS)].to_numpy()) if not all(_is_text(v) for v in row)]
    if blank:
        raise TaskError(f"{where}: row {blank[0] + 1} has no text in 'subject' or 'prompt'.")
    if len(rows) != size:
        raise TaskError(f"{where}: it has {len(rows)} rows, but the set has {size}.")
    if (found := rows["subject"].nunique()) != subjects:
        raise TaskError(f"{where}: it has {found} subjects, but the set has {subjects}.")
    return list(_prompts(rows))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _prompts(rows: pd.DataFrame) -> Iterator[Prompt]:
    numbers: Counter[str] = Counter()
    for subject, text in zip(rows["subject"].tolist(), rows["prompt"].tolist(), strict=True):
        name = slug(subject)
        numbers[name] += 1
        yield Prompt(
            id=f"{TASK}/{name}/{numbers[name]}",
            task=TASK,
            messages=user(text.strip()),
            attributes={"subject": subject, "sensitive": True, "number": numbers[name]},
        )


def fetch() -> Path:
    """Fetch the set at its pinned revision with ``datasets``, check it, and store it as JSONL; return the path."""
    if path := local_file():
        prompts(path)
        return path
    target = data_home() / f"{_STEM}.jsonl"
    if variable := offline():
        raise TaskError(
            f"{SOURCE} is not here and {variable} forbids the network. Download {URL} to {target.with_suffix('.csv')}."
        )
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError:
        raise TaskError(
            f"the library 'datasets' is missing. Install it, or download {URL} to {target.with_suffix('.csv')}."
        ) from None
    try:
        found = datasets.load_dataset(SOURCE, revision=REVISION, split="train")
    except Exception as error:  # the library raises a dozen kinds for an unreachable hub
        raise TaskError(
            f"{SOURCE} cannot be fetched ({type(error).__name__}). Download {URL} to {target.with_suffix('.csv')}."
        ) from None
    rows = found.to_pandas()
    from_rows(rows, SOURCE)
    lines = rows[list(COLUMNS)].to_json(orient="records", lines=True, force_ascii=False)
    write_whole(target, lines.encode("utf-8"))
    return target
