"""The question of a run: the class under study, the judge, the tuned profile, and the prompts that its result is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from mote.harness.preconditions import STATES
from mote.harness.recipe.label_sets import LabelSet, label_set
from mote.judges import CLASSES

View = Literal["measured", "in-sample", "all"]


@dataclass(frozen=True)
class Asked:
    """The question of a run, for the section "What was asked" and for the words of all others.

    ``judge`` gave the labels; ``target`` is the class under study, ``classes`` all that are shown. ``tuned`` is the
    profile that the study is about, None before experts are chosen; ``given``: its experts come from the recipe, not
    from a ranking. ``view`` is that of the result. ``layers`` numbers the rows of a map as the model does. ``unit`` is
    the attribute that groups prompts ("place"), empty where a task has none.
    """

    judge: str
    target: str
    classes: tuple[str, ...]
    tuned: str | None
    given: bool
    view: View
    layers: tuple[int, ...]
    unit: str


def asked_of(
    manifest: Mapping[str, Any], judge: str, found: set[str], profiles: pd.DataFrame, *, split: bool, unit: str
) -> Asked:
    """Return what a run asks; ``found`` are the labels of its rows, ``profiles`` has the columns profile and kind."""
    study = manifest["recipe"]["study"]
    target = str(study["target"])
    return Asked(
        judge=judge,
        target=target,
        classes=_classes(label_set(manifest["recipe"]), found, target),
        tuned=_tuned(profiles, study),
        given=bool(study.get("experts")),
        view="measured" if split else "all",
        layers=tuple(int(layer) for layer in manifest["model"]["layout"]["layers"]),
        unit=unit,
    )


def _classes(labelled_by: LabelSet, found: set[str], target: str) -> tuple[str, ...]:
    """The paper's three classes always; of languages the two asked for, and others where there is one."""
    if labelled_by.classes == CLASSES and found <= {*CLASSES, *STATES}:
        return CLASSES
    known = [name for name in labelled_by.classes if name in found or name in labelled_by.classes[:2]]
    return tuple(
        dict.fromkeys([*known, *([target] if target not in known else []), *sorted(found - {*known, *STATES})])
    )


def _tuned(profiles: pd.DataFrame, study: Mapping[str, Any]) -> str | None:
    """The profile that the study is about: suppression of its top k (or given) experts, not one of the other doses."""
    names = [str(name) for name in profiles.loc[profiles["kind"] == "suppress", "profile"]]
    wanted = f"suppress-{len(study.get('experts') or ()) or study['top_k']}"
    return wanted if wanted in names else (names[0] if names else None)
