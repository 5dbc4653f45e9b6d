"""Generating what is missing: requests in, stored rows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mote.harness.engine.vllm import Request, request_seed
from mote.harness.progress import step
from mote.harness.science.controls import BASELINE
from mote.harness.store.run import GenerationRow, ProfileRow, PromptRow
from mote.harness.study.plan import profile_of
from mote.harness.study.session import Session

Wanted = tuple[ProfileRow, Request]
"""An answer to generate: under which profile, and the request."""


def request_of(row: ProfileRow, prompt: PromptRow) -> Request:
    """Return the request of a prompt under a profile of the run; the baseline's takes the prompt's map along."""
    capture = "prompt" if row.name == BASELINE else None
    seed = request_seed(row.seed, prompt.prompt_id)
    return Request(prompt.prompt_id, prompt.messages, profile_of(row), seed, capture)


def wanted_of(session: Session, profiles: Sequence[ProfileRow]) -> list[Wanted]:
    """Return every answer that profiles ask for by their part: all prompts, or those that measure."""
    prompts, split = session.store.prompts(), session.store.split()
    return [
        (row, request_of(row, prompt))
        for row in profiles
        for prompt in prompts
        if row.part == "all" or split[prompt.prompt_id] == row.part
    ]


def generate(session: Session, title: str, wanted: Sequence[Wanted]) -> int:
    """Generate and store what of ``wanted`` is missing, and return how many answers that were."""
    store = session.store
    stored = store.stored()
    missing = [(profile, request) for profile, request in wanted if (request.prompt_id, profile.name) not in stored]
    if not missing:
        return 0
    names = [profile.name for profile, _ in missing]
    answers = session.engine.generate([request for _, request in missing])
    with step(session.console, title, len(wanted), len(wanted) - len(missing)) as advance:
        for some in answers:
            store.add_generations([_brief(session.row_of(answer, names[index])) for index, answer in some])
            advance(len(some))
    return len(missing)


def _brief(row: GenerationRow) -> GenerationRow:
    return row._replace(mechanism=[_effect(entry) for entry in row.mechanism])


def _effect(entry: Mapping[str, Any]) -> dict[str, Any]:
    # Ten of these a row are most of a store's size: what an action can't have is left out, sums keep six digits.
    effect = dict(entry)
    for key, action in (("factor", "scale"), ("entered", "stimulate")):
        if effect["action"] != action:
            del effect[key]
    for key in ("weight_before", "weight_after"):
        effect[key] = float(f"{effect[key]:.6g}")
    return effect
