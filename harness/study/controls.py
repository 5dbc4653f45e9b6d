"""Which control answers a study needs, from its recipe and the rows at hand: pure, for the run and its report alike.

Random sets are held against the tuned profile on the measuring part's target prompts, in the order of a
`science.sequential.Design`. The run asks the design for the next answers; the report builds the same design from the
same rows. Further answers are for rates beside the verdict: each family's first sets answer some other prompts too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from mote.harness.preconditions import STATES, DataError
from mote.harness.recipe.study_part import StudyPart
from mote.harness.science.controls import BASELINE, RANDOM, RETEST, Expert
from mote.harness.science.sequential import Answers, Design, shares_at_hand
from mote.harness.science.splits import evenly
from mote.harness.science.verdict import ALPHA
from mote.harness.store.run import ProfileRow

ORDER = ("mass", "layers", "uniform", "frequency")
"""The families in the order in which a design asks them: those that decide come first."""


def answers_of(frame: pd.DataFrame, target: str) -> Answers:
    """Return (profile, prompt) -> whether that answer is a flip, for each labelled row of `RunStore.generations_frame`.

    A flip is an answer of another class than `target`; broken, truncated and unscored ones are none (`transitions`).
    Only prompts that have the target in the baseline can flip: `target_prompts` names them.
    """
    known = frame[frame["label"].notna()]
    return {
        (str(profile), str(prompt)): label != target and label not in STATES
        for profile, prompt, label in zip(known["profile"], known["prompt_id"], known["label"], strict=True)
    }


def target_prompts(frame: pd.DataFrame, split: Mapping[str, str], target: str) -> list[str]:
    """Return the measuring part's prompts whose baseline answer has the target, in the prompts' order.

    Without a split (``none``) all prompts measure.
    """
    baseline = frame[(frame["profile"] == BASELINE) & (frame["label"] == target)]
    ids = [str(prompt) for prompt in baseline["prompt_id"]]
    return [prompt for prompt in ids if not split or split[prompt] == "measure"]


def other_prompts(study: StudyPart, measured: Sequence[str], targets: Iterable[str]) -> list[str]:
    """Return the prompts outside the target class that control sets answer: some, evenly spread, or all measured."""
    apart = set(targets)
    others = [prompt for prompt in measured if prompt not in apart]
    return evenly(others, study.economy.others) if study.economy.targets_only else others


def design_of(
    study: StudyPart,
    tuned_flips: Mapping[str, bool],
    targets: Sequence[str],
    control_rows: Iterable[ProfileRow],
    *,
    ended: bool = False,
) -> Design:
    """Return the design of a study's control answers on the target prompts.

    `tuned_flips` holds for each target prompt whether the tuned profile flips it (`answers_of`), `control_rows` the
    run's profiles (others than random sets are passed over). Prompts stand in an order drawn from the study's seed, so
    that a set is not decided by one place alone; sets in the order in which they were drawn. ``ended``: answers end
    where their opening decides them (`openings.closed_openings`), and no set is curtailed.
    """
    missing = [prompt for prompt in targets if prompt not in tuned_flips]
    if missing:
        raise DataError(f"The tuned profile has no labelled answer to {len(missing)} target prompts ({missing[0]}).")
    drawn: dict[str, list[str]] = {}
    for row in control_rows:
        if row.kind.startswith(RANDOM):
            drawn.setdefault(row.kind.removeprefix(RANDOM), []).append(row.name)
    economy = study.economy
    return Design(
        observed=sum(tuned_flips[prompt] for prompt in targets),
        prompts=tuple(sorted(targets, key=lambda prompt: _key(study.seed, prompt))),
        families={kind: tuple(drawn[kind]) for kind in ORDER if kind in drawn},
        alpha=ALPHA,
        sequential=economy.sequential,
        together=economy.sequential,
        curtailed=economy.curtailed and not ended,
        whole=economy.whole,
    )


def flips_of_sets(design: Design, answers: Answers) -> dict[str, dict[str, int]]:
    """Return kind -> set -> flips, of the random sets that answered every target prompt."""
    total = len(design.prompts)
    return {
        kind: {name: round(share * total) for name, share in shares_at_hand(design, answers, names).items()}
        for kind, names in design.families.items()
    }


def stays_of_retests(answers: Answers, targets: Sequence[str], profiles: Iterable[ProfileRow]) -> list[list[bool]]:
    """Return whether each target prompt stayed in the class, for each retest that answered all of them."""
    names = [row.name for row in profiles if row.kind == RETEST]
    whole = [name for name in names if all((name, prompt) in answers for prompt in targets)]
    return [[not answers[name, prompt] for prompt in targets] for name in whole]


def answers_end(manifest: Mapping[str, Any]) -> bool:
    """Return whether a run ends control answers at their opening."""
    noted = manifest.get("ended_at")
    return isinstance(noted, Mapping) and bool(noted.get("openings"))


def further_sets(study: StudyPart, design: Design) -> list[str]:
    """Return the sets that answer `other_prompts`: the first ones of each family, or all without that economy."""
    most = study.economy.whole if study.economy.targets_only else None
    return [name for sets in design.families.values() for name in sets[:most]]


def tuned_row(profiles: Iterable[ProfileRow]) -> ProfileRow:
    """Return the tuned profile that the verdict is about: the first suppressed one. Raises `DataError` without one."""
    for row in profiles:
        if row.kind == "suppress":
            return row
    raise DataError("The run has no tuned profile yet.")


def tuned_experts(profiles: Iterable[ProfileRow]) -> list[Expert]:
    """Return the experts of the tuned profile, as (layer, expert). Raises `DataError` without one."""
    edits = tuned_row(profiles).spec["edits"]
    return [(int(edit["layer"]), int(edit["expert"])) for edit in edits]


def _key(seed: int, prompt: str) -> str:
    return hashlib.sha256(f"{seed}/{prompt}".encode()).hexdigest()
