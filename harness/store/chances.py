"""Writing exact probabilities and divergences: tables of a run's store, a row a prompt and profile of the study."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mote.harness.store.run import RunStore


class ChanceRow(NamedTuple):
    """How likely the target class is as the answer to a prompt under a profile; ``stems`` digests the openings.

    ``chance`` is None where it could not be bounded, or where an opening does not fit the context.
    """

    prompt_id: str
    profile: str
    stems: str
    chance: float | None


class DivergenceRow(NamedTuple):
    """The log-probabilities (nats, whole answer) of the baseline's own answer, untouched and under a profile.

    ``tokens`` is 0 where the answer does not fit the context again.
    """

    prompt_id: str
    profile: str
    tokens: int
    logp_untouched: float
    logp_tuned: float


def add_chances(store: RunStore, rows: Iterable[ChanceRow]) -> None:
    """Store chances, all or none."""
    _add(store, "insert into chance_rows (prompt, profile, stems, chance)", rows)


def add_divergences(store: RunStore, rows: Iterable[DivergenceRow]) -> None:
    """Store log-probabilities, all or none."""
    _add(store, "insert into divergence_rows (prompt, profile, tokens, logp_untouched, logp_tuned)", rows)


def chances_there(store: RunStore, stems: str) -> set[tuple[str, str]]:
    """Return (prompt id, profile) of each chance of those openings that was measured, or found not to be there."""
    return _there(store, "chance_rows where stems = ?", (stems,))


def divergences_there(store: RunStore) -> set[tuple[str, str]]:
    """Return (prompt id, profile) of each divergence that was measured, or found not to be there."""
    return _there(store, "divergence_rows where 1 = ?", (1,))


def _there(store: RunStore, rows: str, values: tuple[str | int, ...]) -> set[tuple[str, str]]:
    statement = (
        f"select p.prompt_id, f.name from (select prompt, profile from {rows}) r"  # noqa: S608 - ours
        " join prompts p on p.position = r.prompt join profiles f on f.position = r.profile"
    )
    return set(store.db.execute(statement, values))


def _add(store: RunStore, into: str, rows: Iterable[ChanceRow | DivergenceRow]) -> None:
    places = {str(prompt): number for prompt, number in store.db.execute("select prompt_id, position from prompts")}
    own = store.db.execute("select name, position from profiles where purpose = 'study'")
    profiles = {str(name): number for name, number in own}
    made = [(places[prompt], profiles[profile], *rest) for prompt, profile, *rest in rows]
    with store.transaction():
        for one in made:
            store.db.execute(f"{into} values ({', '.join('?' * len(one))})", one)
