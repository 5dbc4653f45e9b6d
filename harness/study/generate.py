"""Generating what is missing: requests in, stored rows out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mote.harness.engine.vllm import Request, request_seed
from mote.harness.progress import step
from mote.harness.recipe.roles import SPOKEN, capture_of
from mote.harness.science.controls import BASELINE
from mote.harness.store.generations import DECIDED
from mote.harness.store.run import GenerationRow, ProfileRow, PromptRow
from mote.harness.study.openings import Ending
from mote.harness.study.plan import profile_of
from mote.harness.study.session import Session
from mote.patches.edits import BEFORE, WITH_FACTOR

Wanted = tuple[ProfileRow, Request]
"""An answer to generate: under which profile, and the request."""


def request_of(row: ProfileRow, prompt: PromptRow, capture: str | Mapping[str, Any] | None = None) -> Request:
    """Return the request of a prompt under a profile of the run; ``capture`` says which maps it takes along."""
    seed = request_seed(row.seed, prompt.prompt_id)
    return Request(prompt.prompt_id, prompt.messages, profile_of(row), seed, capture)


def wanted_of(session: Session, profiles: Sequence[ProfileRow]) -> list[Wanted]:
    """Return every answer that profiles ask for by their part: all prompts, or those that measure."""
    prompts, split = session.store.prompts(), session.store.split()
    return [
        (row, request_of(row, prompt, _capture(session) if row.name == BASELINE else None))
        for row in profiles
        for prompt in prompts
        if row.part == "all" or split[prompt.prompt_id] == row.part
    ]


def _capture(session: Session) -> str | Mapping[str, Any]:
    role = session.recipe.study.role
    # How the prompt ends only the engine knows, and a baseline that is there is not worth a start of it.
    opens = role in SPOKEN and session.engine.prompt_opens
    return capture_of(role, session.markers, opens)


def generate(session: Session, title: str, wanted: Sequence[Wanted], ending: Ending | None = None) -> int:
    """Generate and store what of ``wanted`` is missing, and return how many answers that were.

    With ``ending`` an answer that opens as it says is ended there; what opens otherwise is asked for again, whole: its
    seed makes it the answer that it would have been.
    """
    stored = session.store.stored()
    missing = [(profile, request) for profile, request in wanted if (request.prompt_id, profile.name) not in stored]
    if not missing:
        return 0
    with step(session.console, title, len(wanted), len(wanted) - len(missing)) as advance:
        whole = missing if ending is None else _end(session, missing, ending, advance)
        for some in session.engine.generate([request for _, request in whole]) if whole else ():
            rows = [_brief(session.row_of(answer, whole[index][0].name)) for index, answer in some]
            session.store.add_generations(rows)
            advance(len(some))
    return len(missing)


def _end(session: Session, missing: Sequence[Wanted], ending: Ending, advance: Callable[[int], None]) -> list[Wanted]:
    """Store the answers that their first tokens decide, and those that end with them; return the others."""
    whole = []
    for some in session.engine.generate([request._replace(most=ending.tokens) for _, request in missing]):
        rows = []
        for index, answer in some:
            if ending.opens(session.engine.pieces(answer.raw)):
                answer = answer._replace(finish_reason=DECIDED)
            if answer.finish_reason == "length":
                whole.append(missing[index])
            else:
                rows.append(_brief(session.row_of(answer, missing[index][0].name)))
        session.store.add_generations(rows)
        advance(len(rows))
    return whole


def _brief(row: GenerationRow) -> GenerationRow:
    return row._replace(mechanism=[_effect(entry) for entry in row.mechanism])


_ONLY: Final = {"factor": WITH_FACTOR, "entered": ("stimulate", *BEFORE), "left": BEFORE}
"""What of a mechanism check only some actions can have."""


def _effect(entry: Mapping[str, Any]) -> dict[str, Any]:
    # Ten of these a row are most of a store's size: what an action can't have is left out, sums keep six digits.
    effect = dict(entry)
    for key, actions in _ONLY.items():
        if effect["action"] not in actions:
            del effect[key]
    for key in ("weight_before", "weight_after"):
        effect[key] = float(f"{effect[key]:.6g}")
    return effect
