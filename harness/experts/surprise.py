"""The second judge over answers under rankings' experts: the surprise of the untouched model, as in the run itself.

Where a run goes by the labels of its text's judge and surprise (``study.surprise``), an answer whose text reads well
and that the untouched model finds impossible is DEGENERATE, and no flip; so it has to be here. Each distinct answer to
a prompt is scored once under the empty profile; the threshold is the run's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from mote.harness.engine.vllm import Engine, Scoring
from mote.harness.store.run import PromptRow
from mote.harness.store.schema import text_id
from mote.harness.store.sqlite import Transaction, connect
from mote.harness.study.surprise import from_columns, measure_texts, to_columns, untouched_surprises
from mote.judges import Measured
from mote.judges.surprise import threshold
from mote.patches import EMPTY_PROFILE

Key = tuple[str, str]
"""A prompt's id and the raw text of an answer to it."""

_TABLE: Final = """
create table if not exists ranking_surprises (
    prompt integer not null references prompts (position),
    raw integer not null references texts,
    tokens integer not null,           -- of the text, tokenised apart from its prompt
    surprise real,                     -- nats, of the k-th least likely token; null where the text did not fit
    lowest text not null,              -- JSON: [[nats, start, end], ...], those k tokens and their places in raw
    primary key (prompt, raw)
) without rowid;
"""


def surprises(
    path: Path,
    wanted: Iterable[Key],
    prompts: Mapping[str, PromptRow],
    engine: Callable[[], Engine],
    console: Console,
) -> dict[Key, Measured | None]:
    """Return the surprise of each answer, measuring those that are not in the store yet; None where one did not fit.

    Raises MoteError for whatever the engine refuses; what was measured is stored as it comes.
    """
    with closing(connect(path, read_only=False)) as db:
        db.executescript(f"begin immediate;{_TABLE}commit;")
        missing = sorted(set(wanted) - _known(db).keys())
        if missing:
            asked = [Scoring(key, prompts[key].messages, EMPTY_PROFILE, raw) for key, raw in missing]
            for some in measure_texts(asked, engine(), console):
                _add(db, [(missing[at], found) for at, found in some])
        return _known(db)


def run_threshold(path: Path, judge: str) -> float:
    """Return the surprise below which an answer of a run is broken; ``judge`` is that of its texts."""
    return threshold(list(untouched_surprises(path, judge)))


def _add(db: Any, rows: Iterable[tuple[Key, Measured | None]]) -> None:
    with closing(db.cursor()) as cursor, Transaction(db):
        for (key, raw), found in rows:
            cursor.execute(
                "insert into ranking_surprises (prompt, raw, tokens, surprise, lowest)"
                " values ((select position from prompts where prompt_id = ?), ?, ?, ?, ?)",
                (key, text_id(cursor, raw), *to_columns(found)),
            )


def _known(db: Any) -> dict[Key, Measured | None]:
    rows = db.execute(
        "select p.prompt_id, t.text, s.tokens, s.surprise, s.lowest from ranking_surprises s"
        " join prompts p on p.position = s.prompt join texts t on t.text_id = s.raw"
    )
    return {(key, raw): from_columns(*columns) for key, raw, *columns in rows}
