"""The folder of results: tables as CSV, figures, and a README whose every figure is one of the tables'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd
from jinja2 import Environment, StrictUndefined

from mote.harness.compare.real_answers import tables
from mote.harness.compare.real_answers.data import (
    CHIMERA,
    COMPLETE,
    EVASIVE,
    MODELS,
    OURS,
    R1,
    TWO_JUDGES,
    Data,
    read,
)
from mote.harness.compare.real_answers.figures import draw
from mote.harness.compare.real_answers.tables import PAIRS, SHORT, pair
from mote.harness.errors import MoteError
from mote.harness.files import write_atomic
from mote.harness.recipe.label_sets import LABEL_SETS
from mote.harness.science.inference import Rate, rate

_TEMPLATE: Final = Path(__file__).with_name("page.md.j2")
_SETS: Final = {
    "china_criticism": "China, in English",
    "zh_china_criticism": "China, in Chinese",
    "fi_china_criticism": "China, in Finnish",
    "us_criticism": "the US",
    "eu_criticism": "the EU",
    "russia_criticism": "Russia",
}


def write(folder: Path, out: Path) -> list[Path]:
    """Make tables, figures and README.md in ``out`` from the published answers in ``folder``; return their paths.

    Raises MoteError where the material is missing or ``out`` is a file. No text of a reply is written.
    """
    if out.is_file():
        raise MoteError(f"--out {out} is a file; name a folder.")
    data = read(folder)
    frames = {
        "transitions": tables.transitions(data),
        "between-parents": tables.between_parents(data),
        "providers": tables.providers(data),
        "audit": tables.audit(data),
        "judges-by-hand": tables.judges_by_hand(data),
    }
    files: dict[str, str | bytes] = {f"tables/{name}.csv": _csv(frame) for name, frame in frames.items()}
    files["tables/between-judges.csv"] = tables.between_judges(data).to_csv()
    files |= {f"tables/{name}.csv": text for name, text in _matrices(data)}
    files |= {f"figures/{name}": content for name, content in draw(data, frames["transitions"]).items()}
    files["README.md"] = page(data, frames)
    written = []
    for name, content in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
        written.append(path)
    return written


def page(data: Data, frames: Mapping[str, pd.DataFrame]) -> str:
    """Return the README of the results, all of its figures from the tables."""
    found, audit, both = frames["transitions"], frames["audit"], frames["between-parents"]
    both = both[(both["R1"] == EVASIVE) & (both["V3-0324"] == EVASIVE)]
    child, other, parents = (_row(found, *one, "all") for one in PAIRS)
    missing = [name for name in OURS if name not in data.ours]
    values: dict[str, Any] = {
        "child": child,
        "other": other,
        "parents": parents,
        "china": _row(found, R1, CHIMERA, "china_criticism"),
        "both": int(both["requests"].sum()),
        "both_answered": int(both.loc[both["R1T-Chimera"] == COMPLETE, "requests"].sum()),
        "shares": found[(found["part"] == "all") & (found["total"] > 0)].to_dict("records"),
        "by_set": [(title, [_row(found, *one, name) for one in PAIRS]) for name, title in _SETS.items()],
        "judges": data.judges,
        "agreed": _agreement(data),
        "hand": frames["judges-by-hand"].to_dict("records"),
        "audit": audit[audit["language"].isin(("all", "en", "zh"))].to_dict("records"),
        "ours": data.ours,
        "sets": ", ".join(f"`{name}` (judge `{LABEL_SETS[name].judge}`)" for name in data.ours),
        "missing": f" The set `{missing[0]}` was not there when this was made." if missing else "",
        "models": ", ".join(f"{SHORT[one]} = {one}" for one in MODELS),
        "digests": list(data.digests.items()),
    }
    # Markdown, not HTML: nothing is to be escaped, and a value that is missing is our own fault.
    reader = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    template = reader.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(**values, share=_share, percent=_percent, points=_points)


def _matrices(data: Data) -> Iterable[tuple[str, str]]:
    for before, after, labels in tables.sources(data):
        name = f"matrix {SHORT[before]} to {SHORT[after]} by {labels}".replace(" ", "-")
        yield name, tables.matrix(pair(data, before, after, labels), labels).to_csv()


def _agreement(data: Data) -> Rate:
    first, second = (data.replies[judge] for judge in data.judges)
    return rate(int((first.notna() & (first == second)).sum()), len(data.replies))


def _row(found: pd.DataFrame, before: str, after: str, part: str) -> dict[str, Any]:
    """What became of a model's evasive replies, by both LLM judges; zeros where it evaded none."""
    rows = found[(found["before"] == SHORT[before]) & (found["after"] == SHORT[after]) & (found["part"] == part)]
    rows = rows[(rows["labels"] == TWO_JUDGES) & (rows["source"] == EVASIVE)]
    return {str(key): value for key, value in rows.iloc[0].to_dict().items()} if len(rows) else {"hits": 0, "total": 0}


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.4f")


def _share(row: Mapping[str, Any]) -> str:
    return f"{_percent(row['share'])}, 95% {_percent(row['low_by_request'])} to {_percent(row['high_by_request'])}"


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.0f}%"


def _points(share: float) -> str:
    return f"{100 * share:+.0f}"
