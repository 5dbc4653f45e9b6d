"""The plan of a study: from labelled baseline answers and their activation maps to the profiles that are generated.

Experts are chosen on one half of the prompts ("select") and measured on the other ("measure"), so that an effect can't
come from having been looked for in the very prompts that show it. Controls are drawn from the recipe's seed. The same
rows and the same recipe give the same plan, which is what lets a killed run go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mote.harness.errors import MoteError
from mote.harness.recipe.contrast import ContrastPart
from mote.harness.recipe.study_part import StudyPart
from mote.harness.science.controls import BASELINE, KINDS, RANDOM, RETEST, Expert, random_experts
from mote.harness.science.dose import THIRDS, layer_thirds
from mote.harness.science.maps import ranked_maps
from mote.harness.science.removed import target_mass
from mote.harness.science.resonance import distinctive_experts, resonance
from mote.harness.science.splits import Split, grouped_half, stratified_half
from mote.harness.store.run import ProfileRow
from mote.patches import EMPTY_PROFILE, Action, Edit, ModelLayout, Profile, ProfileError

PAPER: Final = "paper"
"""The kind of the profiles of the paper's own protocol, and what their names begin with."""
PAPER_EXPERTS: Final = 10


class Plan(NamedTuple):
    """Which prompts choose and which measure (empty without a split), and the profiles beside the baseline."""

    split: dict[str, str]
    profiles: list[ProfileRow]


class Seen(NamedTuple):
    """What experts are chosen by: maps [prompts, layers, experts], a label each, and a side each of a contrast.

    ``ranked`` are the maps in the unit of the ranking.
    """

    maps: NDArray[np.int32]
    labels: Sequence[str]
    ranked: NDArray[Any]
    sides: Sequence[str | None] | None = None


def baseline_row(seed: int) -> ProfileRow:
    """Return the row of the untouched model."""
    return ProfileRow(BASELINE, EMPTY_PROFILE.digest, BASELINE, "all", seed, EMPTY_PROFILE.to_dict())


def check_study(study: StudyPart, layout: ModelLayout) -> None:
    """Raise MoteError for numbers and experts that a model doesn't have: before anything is loaded or written."""
    total = layout.experts * len(layout.layers)
    for place, k in [("top_k", study.top_k), *((f"doses.{i}", k) for i, k in enumerate(study.doses))]:
        if k > total:
            raise MoteError(f"study.{place}: {k} experts, but {layout.architecture} has {total} routed experts here.")
    if study.thirds and len(layout.layers) < len(THIRDS):
        raise MoteError(
            f"study.thirds: {layout.architecture} has {len(layout.layers)} layers with experts here, not 3."
        )
    if study.experts is not None:
        if not study.experts:
            raise MoteError(
                "study.experts is empty: name (layer, expert) pairs, or leave it out to take the ranking's."
            )
        for pair, times in Counter(study.experts).items():
            if times > 1:
                raise MoteError(f"study.experts: the expert {pair} is listed twice.")
        try:
            _profile("study.experts", study.experts, "suppress", layout)
        except ProfileError as error:
            raise MoteError(str(error)) from None


def make_plan(
    study: StudyPart,
    layout: ModelLayout,
    labels: Mapping[str, str],
    maps: NDArray[np.int32],
    sampling_seed: int,
    units: Mapping[str, Hashable] | None = None,
    marks: Mapping[str, str] | None = None,
    tokens: Sequence[int] | None = None,
    mapped: Sequence[str] | None = None,
) -> Plan:
    """Choose the experts and write down the profiles.

    ``labels`` are prompt id -> class of the baseline's answer; ``mapped`` the prompts of ``maps`` [prompts, layers,
    experts] in their order, left out all of them: an answer without a token of the study's role has none;
    ``units`` prompt id -> what its prompt shares with others (a place), which a split by units keeps on one side;
    ``marks`` prompt id -> its value in the study's contrast, for the prompts of the two sets; ``tokens`` how many each
    map counts, which a ranking a token needs. Raises MoteError where the class under study did not occur, is of one
    unit alone, or does not leave enough experts.
    """
    ids, classes = list(labels), list(labels.values())
    if study.target not in classes:
        found = ", ".join(f"{name} {count}" for name, count in sorted(Counter(classes).items()))
        raise MoteError(f"the baseline gave no {study.target} answer (it gave {found}): there is nothing to study.")
    split = split_of(study, labels, units or {}, marks)
    # Without a split all prompts choose and measure; the report marks every figure of such a run as in-sample.
    mapped = ids if mapped is None else mapped
    picked = np.array([not split or split[prompt] == "select" for prompt in mapped])
    chosen = [prompt for prompt, take in zip(mapped, picked, strict=True) if take]
    if len(mapped) < len(ids) and study.target not in {labels[prompt] for prompt in chosen}:
        raise MoteError(
            f"no {study.target} answer of those that choose experts has a token of study.role: {study.role}."
        )
    sides = None if study.contrast is None else _sides(study.contrast, chosen, marks or {})
    counted = np.asarray(tokens or (), dtype=np.int64)
    ranked = ranked_maps(study.ranking, maps[picked], counted[picked] if tokens else counted)
    seen = Seen(maps[picked], [labels[prompt] for prompt in chosen], ranked, sides)
    return Plan(split, list(_profiles(study, layout, seen, sampling_seed)))


def split_of(
    study: StudyPart,
    labels: Mapping[str, str],
    units: Mapping[str, Hashable],
    marks: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return prompt id -> 'select' or 'measure' for the baseline's labels; empty where the study has no split.

    The halves are even in the labels, and with ``marks`` in these as well. Raises MoteError where a split by units
    leaves a side without the class under study.
    """
    if study.split == "none":
        return {}
    halves = _halves(study, labels, units, marks)
    chosen = set(halves.select if study.fold == 1 else halves.measure)
    return {prompt: "select" if prompt in chosen else "measure" for prompt in labels}


def check_split(study: StudyPart, units: Mapping[str, Hashable]) -> None:
    """Raise MoteError for a split by units of prompts that share nothing: before anything is generated."""
    if study.split == "units" and len(set(units.values())) < 2:
        raise MoteError(
            "study.split: units needs prompts of at least two places, subjects or topics; these name none: use half."
        )


def _halves(
    study: StudyPart, labels: Mapping[str, str], units: Mapping[str, Hashable], marks: Mapping[str, str] | None
) -> Split:
    ids = list(labels)
    strata = [label if marks is None else f"{label}/{marks.get(prompt, '')}" for prompt, label in labels.items()]
    if study.split == "half":
        return stratified_half(ids, strata, study.seed)
    split = grouped_half(ids, [units[prompt] for prompt in ids], strata, study.seed)
    found = {prompt for prompt, label in labels.items() if label == study.target}
    for side, prompts in split._asdict().items():
        if not found.intersection(prompts):
            raise MoteError(
                f"study.split: units leaves no {study.target} prompt to {side} on, too few places (subjects, topics) "
                "have any: use half."
            )
    return split


def _sides(contrast: ContrastPart, chosen: Sequence[str], marks: Mapping[str, str]) -> list[str | None]:
    """Return the value of each choosing prompt, None outside of the two sets; both sets must have prompts there."""
    sides = [marks.get(prompt) for prompt in chosen]
    found = set(sides) - {None}
    if contrast.value not in found or found == {contrast.value}:
        missing = f"of {contrast.words}" if contrast.value not in found else f"other than {contrast.words}"
        raise MoteError(f"the half that chooses experts has no prompt {missing}: ask more prompts, or set study.split.")
    return sides


def paper_rows(
    study: StudyPart, layout: ModelLayout, labels: Sequence[str], maps: NDArray[np.int32], seed: int
) -> list[ProfileRow]:
    """Return the profiles of the paper's own protocol: the top ten of all prompts, and ten experts drawn at random.

    ``labels`` and ``maps`` are those of all prompts. Raises MoteError as ``make_plan``.
    """
    if study.target not in labels:
        raise MoteError(f"the baseline gave no {study.target} answer: there is nothing to study.")
    top = _ranked(study, layout, Seen(maps, labels, maps), PAPER_EXPERTS)
    drawn = random_experts("uniform", top, target_mass(maps, labels, study.target), layout.layers, 1, study.seed)[0]
    named: list[tuple[str, Action, list[Expert]]] = [
        ("suppress", "suppress", top),
        ("stimulate", "stimulate", top),
        ("random", "suppress", drawn),
    ]
    rows = []
    for what, action, experts in named:
        name = f"{PAPER}-{what}-{PAPER_EXPERTS}"
        profile = _profile(name, experts, action, layout)
        rows.append(ProfileRow(name, profile.digest, PAPER, "all", seed, profile.to_dict()))
    return rows


def part_that_measures(study: StudyPart) -> str:
    """Return the part of the prompts that effects are measured on: all of them without a split."""
    return "all" if study.split == "none" else "measure"


def parts_of_retests(study: StudyPart) -> list[str]:
    """Return the part that each retest answers.

    The first says how much another seed changes where the experts were chosen too; the noise floor is of what measures.
    """
    return ["all" if number == 0 else part_that_measures(study) for number in range(study.controls.retest)]


def profile_of(row: ProfileRow) -> Profile:
    """Return the profile that a row holds."""
    return Profile.from_dict(row.spec)


def _profiles(study: StudyPart, layout: ModelLayout, seen: Seen, seed: int) -> Iterator[ProfileRow]:
    part = part_that_measures(study)
    for number, where in enumerate(parts_of_retests(study), start=1):
        spec = EMPTY_PROFILE.to_dict()
        yield ProfileRow(f"{RETEST}-{number}", EMPTY_PROFILE.digest, RETEST, where, seed + number, spec)
    experts = study.experts or _ranked(study, layout, seen, study.top_k)
    top = len(experts)
    yield _row(f"suppress-{top}", "suppress", experts, "all", layout, seed)
    if study.experts is None:
        for k in sorted(set(study.doses) - {top}):
            yield _row(f"suppress-{k}", "suppress", _ranked(study, layout, seen, k), "all", layout, seed)
    if study.stimulate:
        yield _row(f"stimulate-{top}", "stimulate", experts, "all", layout, seed)
    for factor in sorted(set(study.factors)):
        yield _row(f"scale-{top}-{factor:g}", "scale", experts, part, layout, seed, factor)
    if study.thirds:
        for name, some in layer_thirds(experts, layout.layers).items():
            # All in one third is the whole profile again.
            if 0 < len(some) < top:
                yield _row(f"{name}-{len(some)}", "third", some, part, layout, seed)
    # Those of the class under study: over all prompts, experts chosen for it look as busy as any other.
    busy = target_mass(seen.maps, seen.labels, study.target)
    asked = "targets" if study.economy.targets_only else part
    for kind in KINDS:
        count: int = getattr(study.controls, kind)
        # Each kind has its own stream: asking for more of one leaves the others as they were.
        rng = np.random.default_rng([study.seed, KINDS.index(kind)])
        drawn = random_experts(kind, experts, busy, layout.layers, count, rng) if count else []
        digits = 3 if count > 99 else 2
        for number, one in enumerate(drawn, start=1):
            yield _row(f"{RANDOM}{kind}-{number:0{digits}d}", f"{RANDOM}{kind}", one, asked, layout, seed)


def _ranked(study: StudyPart, layout: ModelLayout, seen: Seen, k: int) -> list[Expert]:
    of = study.target if study.contrast is None else study.contrast.value
    sides = seen.sides or [label if study.chooses(label) else None for label in seen.labels]
    at = [i for i, side in enumerate(sides) if side is not None]
    ranking = resonance(seen.ranked[at], [str(sides[i]) for i in at], of)
    positive = int(np.count_nonzero(ranking > 0))
    if k > positive:
        place = "study.top_k" if k == study.top_k else f"study.doses ({k})"
        named = of if study.contrast is None else study.contrast.words
        raise MoteError(
            f"{place}: {k} experts, but only {positive} are chosen more for {named} than otherwise; set"
            f" study.top_k and study.doses to {positive} or less. The baseline is kept: go on in the same folder."
        )
    return [(score.layer, score.expert) for score in distinctive_experts(ranking, k, layout.layers)]


def _row(
    name: str,
    kind: str,
    experts: Sequence[Expert],
    part: str,
    layout: ModelLayout,
    seed: int,
    factor: float | None = None,
) -> ProfileRow:
    action: Action = "stimulate" if kind == "stimulate" else "suppress" if factor is None else "scale"
    profile = _profile(name, experts, action, layout, factor or 0.0)
    spec: dict[str, Any] = profile.to_dict()
    return ProfileRow(name, profile.digest, kind, part, seed, spec)


def _profile(name: str, experts: Sequence[Expert], action: Action, layout: ModelLayout, factor: float = 0.0) -> Profile:
    return Profile(name, tuple(Edit(layer, expert, action, factor) for layer, expert in experts), model=layout)
