"""The control answers of a run: asked of the design in batches, labelled, and asked again until all is decided.

The design is built anew from the rows of each moment, so a killed run is asked what an undisturbed one would be. How
many answers are asked for at once changes which of them turn out to have been needless, so the batch is fixed by the
recipe, and a start goes through all batches from the first: what is stored is not asked again, and the rows of a
killed run are those of one that was not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.console import Console

from mote.harness.errors import MoteError
from mote.harness.progress import step
from mote.harness.recipe.study_part import StudyPart
from mote.harness.science.controls import RANDOM
from mote.harness.science.sequential import Answers, Design, ask
from mote.harness.store.run import ProfileRow, PromptRow
from mote.harness.study.controls import (
    answers_of,
    design_of,
    further_sets,
    other_prompts,
    target_prompts,
    tuned_row,
)
from mote.harness.study.generate import Wanted, generate, request_of
from mote.harness.study.openings import Ending, closed_openings
from mote.harness.study.session import Session

_ENGINE_SEATS = 256
"""vLLM's own default of max_num_seqs, where a recipe says none."""


def answer_controls(session: Session, label: Callable[[Session], None]) -> None:
    """Generate and label the control answers that the study's design asks for, then those beside the verdict.

    ``label`` labels all that is unlabelled. The tuned profile's answers have to be there and labelled.
    """
    rows = {row.name: row for row in session.store.profiles() if row.kind.startswith(RANDOM)}
    prompts = {row.prompt_id: row for row in session.store.prompts()}
    if not rows:
        return
    design, targets = design_now(session)
    first = [name for sets in design.families.values() for name in sets[: design.whole]]
    # Read whole in any case; what they say is the evidence for ending others.
    _generate(session, "Controls, the first", [(name, p) for name in first for p in design.prompts], rows, prompts)
    label(session)
    ending = closed_openings(session, first)
    if ending is not None:
        design = replace(design, curtailed=False)
    room = batch_of(session.recipe.model.options)
    # What a killed run has stored counts only as the replay reaches it: batches are those of an undisturbed run.
    seen: dict[tuple[str, str], bool] = {}
    # Batches are many and short: one line for all of them, not six for each.
    quietly = replace(session, console=Console(quiet=True))
    most = len(design.prompts) * sum(map(len, design.families.values()))
    with step(session.console, "Controls, until all is decided, at most", most) as advance:
        while asked := ask(design, seen, room):
            wanted = [(one.set, one.prompt) for one in asked]
            _generate(quietly, "Controls", wanted, rows, prompts, ending)
            label(quietly)
            seen |= _labelled(session, wanted)
            advance(len(wanted))
    study = session.recipe.study
    split = session.store.split()
    measured = [prompt for prompt in prompts if not split or split[prompt] == "measure"]
    others = other_prompts(study, measured, targets)
    beside = [(name, prompt) for name in further_sets(study, design) for prompt in others]
    _generate(session, "Controls beside the class", beside, rows, prompts)
    label(session)


def design_now(session: Session) -> tuple[Design, list[str]]:
    """Return the design of the run's control answers by the rows of this moment, and its target prompts."""
    study: StudyPart = session.recipe.study
    frame = session.store.labels_frame(session.labels.judge)
    targets = target_prompts(frame, session.store.split(), study.target)
    profiles = session.store.profiles()
    name = tuned_row(profiles).name
    flips = {prompt: flip for (profile, prompt), flip in answers_of(frame, study.target).items() if profile == name}
    return design_of(study, flips, targets, profiles), targets


def batch_of(options: dict[str, Any]) -> int:
    """Return how many control answers are asked for at once: enough to keep the engine full."""
    return 2 * int(options.get("max_num_seqs") or _ENGINE_SEATS)


def _labelled(session: Session, wanted: list[tuple[str, str]]) -> Answers:
    """Return the flips among answers that were just labelled; without a label the design can't go on."""
    known = answers_of(session.store.labels_frame(session.labels.judge), session.recipe.study.target)
    missing = sum(key not in known for key in wanted)
    if missing:
        raise MoteError(
            f"{missing} control answers have no label by '{session.labels.judge}', which decides what is asked next:"
            " the same command goes on once it can label them."
        )
    return {key: known[key] for key in wanted}


def _generate(
    session: Session,
    title: str,
    pairs: list[tuple[str, str]],
    rows: dict[str, ProfileRow],
    prompts: dict[str, PromptRow],
    ending: Ending | None = None,
) -> None:
    wanted: list[Wanted] = [(rows[name], request_of(rows[name], prompts[prompt])) for name, prompt in pairs]
    generate(session, title, wanted, ending)
