"""Answers that a comparison of rankings or a pruning asks for, whoever asked for them first.

An answer is known by its profile's digest, its prompt and its seed: what the study, a ranking or a pruning has asked,
another need not ask again. What is asked anew lies under a profile of its own, beside the study's, so that the study's
plan and its report stay what they were.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing

import pandas as pd

from mote.harness.files import canonical_json
from mote.harness.science.controls import RETEST
from mote.harness.store.generations import DECIDED, GenerationRow, insert_generation
from mote.harness.store.run import Purpose, RunStore
from mote.patches import Profile


class Answers:
    """What a store has of the answers to prompts, asked for with the seeds given (prompt id -> request's seed).

    ``seed`` is the profiles' own, of which those of the requests are made.
    """

    def __init__(self, store: RunStore, purpose: Purpose, seed: int, seeds: Mapping[str, int]) -> None:
        self._store, self._purpose, self._seed, self._seeds = store, purpose, seed, seeds

    def add_profiles(self, profiles: Iterable[Profile]) -> None:
        """Store the profiles that neither a ranking nor a pruning has asked for yet."""
        rows = [
            (
                self._purpose,
                one.name,
                one.digest,
                _kind(one),
                self._seed,
                canonical_json(one.to_dict()),
            )
            for one in profiles
        ]
        with self._store.transaction():
            self._store.db.executemany(
                "insert or ignore into profiles (purpose, name, digest, kind, part, seed, spec)"
                " values (?, ?, ?, ?, 'asked', ?, ?)",
                rows,
            )

    def add(self, rows: Iterable[GenerationRow]) -> None:
        """Store answers, all or none, under profiles that ``add_profiles`` was given."""
        positions = dict(
            self._store.db.execute(
                "select digest, position from profiles where purpose <> 'study' and seed = ?", (self._seed,)
            )
        )
        with closing(self._store.db.cursor()) as cursor, self._store.transaction():
            for row in rows:
                insert_generation(cursor, row, positions[row.profile_digest])

    def done(self, digests: Collection[str]) -> set[tuple[str, str]]:
        """Return (profile digest, prompt id) of every answer that is there, of the profiles of these digests."""
        query = f"select profile_digest, prompt_id, seed from answers {_OF_DIGESTS}"  # noqa: S608 - ours
        found = self._store.db.execute(query, (json.dumps(list(digests)),))
        return {(digest, prompt) for digest, prompt, seed in found if self._seeds.get(prompt) == seed}

    def answers(self, digests: Collection[str], prompts: Collection[str]) -> pd.DataFrame:
        """Return the answers to some prompts: profile_digest, prompt_id, raw, prompt_opens (bool), finish_reason.

        Of an answer that is there twice the first stands.
        """
        query = (
            "select profile_digest, prompt_id, seed, raw, prompt_opens, finish_reason from answers"  # noqa: S608 - ours
            f" {_OF_DIGESTS} and prompt_id in (select value from json_each(?)) order by generation_id"
        )
        given = (json.dumps(list(digests)), json.dumps(list(prompts)))
        frame = pd.read_sql(query, self._store.db, params=given).astype({"prompt_opens": bool})
        frame = frame[frame["seed"] == frame["prompt_id"].map(self._seeds)].drop(columns="seed")
        return frame.drop_duplicates(["profile_digest", "prompt_id"]).reset_index(drop=True)


def _kind(profile: Profile) -> str:
    """What a profile does, in the words of the study's kinds; without an edit it is the untouched model again."""
    if profile.before_choice:
        return "deactivate"
    return "+".join(sorted({edit.action for edit in profile.edits})) or RETEST


# An answer that was ended at its opening is none that another could read.
_OF_DIGESTS = f"where finish_reason is not '{DECIDED}' and profile_digest in (select value from json_each(?))"  # noqa: S608
