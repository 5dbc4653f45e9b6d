"""Answers under the top experts of rankings and under their controls: tables of their own in a run's store.

They are apart from the run's own generations because they are another thing: only prompts of the class under study on
the measuring half are asked, and the profiles do not belong to the run's plan, so that its report stays what it was.
Rankings that have the same top experts share the answers: a profile is known by its digest. Texts are kept
once, in the run's ``texts``. Every row is written once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mote.harness.files import canonical_json
from mote.harness.store.scans import check_texts
from mote.harness.store.schema import text_id
from mote.harness.store.sqlite import Tables, Transaction
from mote.patches import Profile

_TABLES = """
create table if not exists ranking_profiles (
    digest text primary key,
    spec text not null                 -- JSON: the profile
) without rowid;
create table if not exists ranking_answer_rows (
    profile_digest text not null references ranking_profiles,
    prompt integer not null references prompts (position),
    seed integer not null,             -- of this request
    sampling integer not null references texts,   -- JSON
    prompt_opens integer not null,     -- 1 where the chat template had opened the reasoning before the text
    raw integer not null references texts,
    prompt_tokens integer not null,
    generated_tokens integer not null,
    finish_reason text,
    tokens_edited integer not null,    -- of the receipt, whose digest is the profile's
    selected integer not null,         -- times that a token chose one of the edited experts
    weight_after real not null,        -- their summed router weight after the edit: 0 where suppressed
    primary key (profile_digest, prompt)
) without rowid;
create view if not exists ranking_answers as select
    a.profile_digest, p.prompt_id, a.seed, sampling.text as sampling, a.prompt_opens, raw.text as raw, a.prompt_tokens,
    a.generated_tokens, a.finish_reason, a.tokens_edited, a.selected, a.weight_after
from ranking_answer_rows a
    join prompts p on p.position = a.prompt
    join texts sampling on sampling.text_id = a.sampling
    join texts raw on raw.text_id = a.raw;
"""
_ANSWER = (
    "insert into ranking_answer_rows (profile_digest, prompt, seed, sampling, prompt_opens, raw, prompt_tokens,"
    " generated_tokens, finish_reason, tokens_edited, selected, weight_after)"
    " values (?, (select position from prompts where prompt_id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class AnswerRow(NamedTuple):
    """One answer, with what the patch says of the profile that was truly applied."""

    profile_digest: str
    prompt_id: str
    seed: int
    sampling: Mapping[str, Any]
    prompt_opens: bool
    raw: str
    prompt_tokens: int
    generated_tokens: int
    finish_reason: str | None
    tokens_edited: int
    selected: int
    weight_after: float


class RankingAnswers(Tables):
    """Profiles and answers of a comparison of rankings; for writing, the run's lock must be held elsewhere."""

    schema = _TABLES

    def _check(self, store: Path) -> None:
        check_texts(self._db, store)

    def add_profiles(self, profiles: Iterable[Profile]) -> None:
        """Store the profiles that are not there yet."""
        with Transaction(self._db):
            self._db.executemany(
                "insert or ignore into ranking_profiles (digest, spec) values (?, ?)",
                [(profile.digest, canonical_json(profile.to_dict())) for profile in profiles],
            )

    def add(self, rows: Iterable[AnswerRow]) -> None:
        """Store answers, all or none."""
        with closing(self._db.cursor()) as cursor, Transaction(self._db):
            for row in rows:
                sampling = text_id(cursor, canonical_json(dict(row.sampling)))
                values = {"sampling": sampling, "prompt_opens": int(row.prompt_opens), "raw": text_id(cursor, row.raw)}
                cursor.execute(_ANSWER, tuple((row._asdict() | values).values()))

    def done(self) -> set[tuple[str, str]]:
        """Return (profile digest, prompt id) of every answer that is there."""
        return set(self._db.execute("select profile_digest, prompt_id from ranking_answers"))

    def answers(self) -> pd.DataFrame:
        """Return all answers: profile_digest, prompt_id, raw, prompt_opens (bool), finish_reason."""
        query = "select profile_digest, prompt_id, raw, prompt_opens, finish_reason from ranking_answers"
        return pd.read_sql(query, self._db).astype({"prompt_opens": bool})

    def profiles(self) -> dict[str, Profile]:
        """Return the profiles by digest."""
        cursor = self._db.execute("select digest, spec from ranking_profiles")
        return {digest: Profile.from_dict(json.loads(spec)) for digest, spec in cursor}
