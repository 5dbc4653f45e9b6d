"""Splits of prompts: experts are selected on some prompts and their effect is measured on others.

Selecting and measuring on the same prompts shows an effect where there is none. A split here depends on the seed and
on the prompt ids alone, neither on the order of the prompts nor on a random generator's version: a prompt's place is
decided by the sha256 of seed and id.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mote.harness.preconditions import DataError, check_unique

T = TypeVar("T")

UNITS: Final = ("unit", "place", "subject", "topic")
"""Attributes whose prompts are not independent of each other."""


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Return ``count`` of the items, evenly spread over their order, or all if they are fewer."""
    count = min(count, len(items))
    return [items[at * len(items) // count] for at in range(count)]


class Split(NamedTuple):
    """Prompt ids to select experts on, and others to measure their effect on; both in the order given."""

    select: list[str]
    measure: list[str]


def stratified_half(prompt_ids: Sequence[str], labels: Sequence[str], seed: int) -> Split:
    """Split the prompts into two halves with the same share of each label.

    Each label's prompts are halved; an odd one goes to the two sides in turn, so that the halves differ by at most
    one prompt for each label and by at most one in all.
    """
    return stratified_folds(prompt_ids, labels, 2, seed)[0]


def stratified_folds(prompt_ids: Sequence[str], labels: Sequence[str], folds: int, seed: int) -> list[Split]:
    """Return `folds` splits whose `measure` parts share out the prompts, each label evenly (to one prompt).

    Raises `DataError` for fewer than 2 folds, more folds than prompts, labels of another length, or a repeated id.
    """
    _check(prompt_ids, labels, "label")
    if not 2 <= folds <= len(prompt_ids):
        raise DataError(f"The folds must number 2 to {len(prompt_ids)} (the prompts there are), not {folds}.")
    by_label: dict[str, list[str]] = defaultdict(list)
    for prompt_id, label in zip(prompt_ids, labels, strict=True):
        by_label[label].append(prompt_id)
    # Dealt out like cards, label after label without starting anew: that keeps both each label and the whole even.
    dealt = [prompt_id for label in sorted(by_label) for prompt_id in _shuffled(by_label[label], seed)]
    fold_of = {prompt_id: i % folds for i, prompt_id in enumerate(dealt)}
    return [_split(prompt_ids, {name for name, at in fold_of.items() if at == fold}) for fold in range(folds)]


def grouped_half(prompt_ids: Sequence[str], groups: Sequence[Hashable], labels: Sequence[str], seed: int) -> Split:
    """Split into halves that share no group (no place, no time) and are as even in each label as groups allow.

    Groups are taken from the largest to the smallest (the seed decides among equal ones), and each goes to the side
    that leaves the labels' shares more even. Raises `DataError` for fewer than two groups.
    """
    _check(prompt_ids, labels, "label")
    _check(prompt_ids, groups, "group")
    if len(set(groups)) < 2:
        raise DataError(f"A split by groups needs at least two groups; all prompts are of {set(groups)}.")
    totals: dict[str, int] = defaultdict(int)
    counts: dict[Hashable, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for group, label in zip(groups, labels, strict=True):
        totals[label] += 1
        counts[group][label] += 1
    # A label's prompts weigh the same in sum whether it is common or rare: else the rare one lands on one side.
    weight = {group: sum(n / totals[label] for label, n in had.items()) for group, had in counts.items()}
    order = sorted(counts, key=lambda group: (-round(weight[group], 9), _key(str(group), seed)))
    lead: dict[str, float] = defaultdict(float)  # by how much of each label the first side is ahead
    sides: tuple[set[Hashable], set[Hashable]] = (set(), set())
    sizes = [0, 0]
    for group in order:
        shares = {label: n / totals[label] for label, n in counts[group].items()}
        first = sum(abs(lead[label] + share) for label, share in shares.items())
        second = sum(abs(lead[label] - share) for label, share in shares.items())
        even = abs(first - second) <= 1e-12
        side = int(sizes[1] < sizes[0] if even else second < first)
        for label, share in shares.items():
            lead[label] += -share if side else share
        sides[side].add(group)
        sizes[side] += sum(counts[group].values())
    # The largest group opens the first side; the seed says which side is measured on.
    measured = sides[_key("side", seed) < "8"]
    return _split(prompt_ids, {name for name, group in zip(prompt_ids, groups, strict=True) if group in measured})


def units_of(attributes: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Hashable]]:
    """Return the attribute whose prompts are not independent of each other, and its value for each prompt.

    ``attributes`` are those of each prompt, by id. The first of ``UNITS`` that all prompts have; an empty name and no
    values where there is none.
    """
    for name in UNITS:
        if attributes and all(name in values for values in attributes.values()):
            return name, {key: values[name] for key, values in attributes.items()}
    return "", {}


def _check(prompt_ids: Sequence[str], values: Sequence[Hashable], what: str) -> None:
    if len(prompt_ids) != len(values):
        raise DataError(f"There are {len(prompt_ids)} prompts but {len(values)} {what}s; give one {what} a prompt.")
    if len(prompt_ids) < 2:
        raise DataError(f"A split needs at least two prompts, not {len(prompt_ids)}.")
    check_unique(prompt_ids, "prompt id")


def _key(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: (_key(name, seed), name))


def _split(prompt_ids: Sequence[str], measure: set[str]) -> Split:
    return Split(
        select=[name for name in prompt_ids if name not in measure],
        measure=[name for name in prompt_ids if name in measure],
    )


def name_of_unit(unit: Hashable) -> str:
    """Return the name of a unit as texts have it, in lower case.

    A place is written with its preposition ("in Manhattan"); the name is what begins with a capital, if anything does.
    """
    return re.sub(r"^(?:[a-z]+ )+(?=[A-Z])", "", str(unit)).casefold()


def number_units(units: Sequence[Hashable]) -> NDArray[np.int64]:
    """Return each row's unit as a number from 0, in the order of appearance."""
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(unit, len(index)) for unit in units], dtype=np.int64)
