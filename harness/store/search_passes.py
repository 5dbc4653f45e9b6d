"""The passes of a search in a run's store: how likely a baseline's own answer, or its beginning, is under a profile.

One row a prompt, profile and length, written once; whoever searches next finds it there. The untouched model's rows are
those without edits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import closing
from typing import NamedTuple

from mote.harness.errors import MoteError
from mote.harness.files import canonical_json
from mote.harness.store.generations import text_id
from mote.harness.store.run import RunStore
from mote.patches import Profile


class PassKey(NamedTuple):
    """A prompt, the digest of a profile, and of how many tokens of the prompt's own answer at most."""

    prompt_id: str
    digest: str
    length: int


class PassRow(NamedTuple):
    """One forward pass: tokens scored, their log-probability in sum (nats, temperature 1), tokens that were edited."""

    key: PassKey
    profile: Profile
    tokens: int
    logprob: float
    tokens_edited: int


def add_passes(store: RunStore, rows: Iterable[PassRow]) -> None:
    """Store forward passes, all or none."""
    with closing(store.db.cursor()) as cursor, store.transaction():
        for row in rows:
            edits = canonical_json(row.profile.to_dict()["edits"])
            cursor.execute(
                "insert into search_pass_rows (prompt, profile_digest, length, edits, tokens, logprob, tokens_edited)"
                " values ((select position from prompts where prompt_id = ?), ?, ?, ?, ?, ?, ?)",
                (
                    row.key.prompt_id,
                    text_id(cursor, row.key.digest),
                    row.key.length,
                    text_id(cursor, edits),
                    row.tokens,
                    float(f"{row.logprob:.7g}"),
                    row.tokens_edited,
                ),
            )


def read_passes(store: RunStore) -> dict[PassKey, tuple[int, float]]:
    """Return (tokens, log-probability) of every pass that is there. Raises MoteError for one that can't be."""
    rows = store.db.execute("select prompt_id, profile_digest, length, tokens, logprob from search_passes").fetchall()
    for prompt, _, _, tokens, logprob in rows:
        if not (tokens > 0 and math.isfinite(logprob) and logprob <= 0):
            raise MoteError(f"{store.path}: the search's pass over '{prompt}' has {tokens} tokens and {logprob} nats.")
    return {PassKey(prompt, digest, length): (tokens, logprob) for prompt, digest, length, tokens, logprob in rows}
