"""Every ranking of a run's experts, side by side: those by when experts are seen, and the causal scan's.

All are computed on the prompts that choose experts (part ``select``), from what the store has: the detectors of
``science/detectors.py`` on the maps of the study's role, resonance on the maps of every other captured role, on
router weights and on the prompt's last token (``maps.py``), the causal scan where one was made. They set the sides
against each other that the study's own ranking does: the class and the other answers, or the two sets of prompts of a
contrast. What experts do is a matter of answers either way: a scan and a pruning ask prompts whose answer is of the
class, in a study by contrast those of its first set. ``frequency``
is no detector: it ranks the busiest experts, whatever the class, and stands beside the others because busy experts are
said to matter whatever they carry.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.errors import MoteError, nearest
from mote.harness.experts.maps import read_maps
from mote.harness.preconditions import STATES, DataError
from mote.harness.recipe.label_sets import LabelSet, label_set
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.roles import MAPPED
from mote.harness.recipe.sides import Sides, sides_of
from mote.harness.recipe.study_part import StudyPart
from mote.harness.science.causal import scan_effects, scan_margins, scan_ranking
from mote.harness.science.controls import BASELINE, Expert
from mote.harness.science.detectors import rankings, signs_within_pairs
from mote.harness.science.maps import per_token
from mote.harness.science.removed import target_mass
from mote.harness.science.resonance import distinctive_experts, ranks_of, resonance
from mote.harness.science.splits import name_of_unit, units_of
from mote.harness.store.run import PromptRow, RunStore
from mote.harness.store.scans import Scans, StoredScan

CAUSAL: Final = "causal"
FREQUENCY: Final = "frequency"
PAIR_SIGNS: Final = "pair_signs"
_EFFECTS: Final = ["layer", "expert", "prompts", "complete", "effect", "low", "high", "p", "p_holm", "selected"]


@dataclass(frozen=True)
class Halves:
    """What a run's baseline says, on the prompts that choose experts and on those that measure.

    ``labels`` are those of all prompts with a class (states left out), by the judge of ``label_set``. ``ids``, ``maps``
    [prompts, layers, experts] and ``tokens`` (counted by each map) are of the choosing half's prompts on one of the
    ``sides`` of the study's ranking; ``pairs`` says of each its pair, and is empty where nothing pairs them.
    ``other_maps`` are the maps of further roles and ``weights`` the router weights, for the same prompts. ``mass`` are
    the mean activations a prompt of the choosing half's prompts of the class, [layers, experts]. ``chosen`` and
    ``measured`` are the prompts of the class under study in the two halves, in the run's order, of a contrast only
    those of its first set among the ``chosen``; ``raws`` the baseline's text of all prompts; ``unit`` names the
    attribute of ``units`` (prompt -> place, subject), which share what happens to them, empty where the task has none.
    """

    target: str
    label_set: LabelSet
    layers: tuple[int, ...]
    experts: int
    prompts: Mapping[str, PromptRow]
    labels: Mapping[str, str]
    ids: list[str]
    maps: NDArray[np.int32]
    tokens: list[int]
    sides: Sides
    mass: NDArray[np.float64]
    other_maps: Mapping[str, NDArray[np.int32]]
    chosen: list[str]
    measured: list[str]
    raws: Mapping[str, str]
    pairs: Sequence[Hashable] = ()
    weights: NDArray[np.float32] | None = None
    unit: str = ""
    units: Mapping[str, Hashable] = field(default_factory=dict)

    @property
    def marks(self) -> list[str]:
        """The side of each choosing prompt, in the order of ``ids``."""
        return [self.sides.marks[key] for key in self.ids]

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Mean activations a prompt of the choosing half, [layers, experts]."""
        return np.asarray(self.maps.mean(axis=0, dtype=np.float64))

    def check_chosen(self, what: str, least: int) -> None:
        """Raise MoteError where fewer prompts than ``least`` are of the class and of a contrast's first set."""
        if len(self.chosen) < least:
            of = f" of {self.sides.name}" if self.sides.contrast else ""
            more = " or study a class that this set is answered with (study.target)" if self.sides.contrast else ""
            raise MoteError(
                f"the half that chooses experts has {len(self.chosen)} prompts{of} that are answered {self.target}, and"
                f" {what} needs {least}: ask more prompts{more}."
            )


def read_halves(store: RunStore, manifest: Mapping[str, Any]) -> Halves:
    """Read what rankings and scans need of a run.

    Raises MoteError for a run without a split (``study.split: none``: no prompt is unseen), and for one whose baseline
    is not labelled or has not chosen experts yet.
    """
    study = manifest["recipe"]["study"]
    target, role = str(study["target"]), str(study["role"])
    if study["split"] == "none":
        raise MoteError(
            f"{store.folder} was made with study.split=none: every prompt chose its experts, and none is unseen."
            " Make a run with study.split=half."
        )
    classed = label_set(manifest["recipe"])
    frame = store.generations_frame(classed.judge)
    baseline = frame[frame["profile"] == BASELINE].set_index("prompt_id")
    split = store.split()
    if baseline["label"].isna().any() or not split:
        raise MoteError(f"{store.folder} has no labelled baseline with chosen experts yet: finish it with mote run.")
    labels = {str(key): str(label) for key, label in baseline["label"].items() if label not in STATES}
    prompts = {row.prompt_id: row for row in store.prompts()}
    attributes = {key: row.attributes for key, row in prompts.items()}
    sides = sides_of(labels, attributes, StudyPart.model_validate(study))
    found, maps, counted = store.maps(BASELINE, role)
    choosing = [i for i, key in enumerate(found) if split[key] == "select"]
    at = [i for i in choosing if found[i] in sides.marks]
    ids = [found[i] for i in at]
    ours = [key for key, label in labels.items() if label == target]
    more = read_maps(store, ids)
    unit, units = units_of(attributes)
    layout = manifest["model"]["layout"]
    return Halves(
        target=target,
        label_set=classed,
        layers=tuple(int(layer) for layer in layout["layers"]),
        experts=int(layout["experts"]),
        prompts=prompts,
        labels=labels,
        ids=ids,
        maps=maps[at],
        tokens=[counted[i][0] for i in at],
        sides=sides,
        # As the study's own controls are matched: whatever ranks experts, answers of the class are what they change.
        mass=target_mass(maps[choosing], [labels.get(found[i], "") for i in choosing], target),
        pairs=[sides.pairs[key] for key in ids] if sides.pairs else (),
        other_maps=_other_maps(store, role, ids) | ({} if more is None else {"last_token": more.last}),
        weights=None if more is None else more.weights,
        chosen=[
            key
            for key in ours
            if split[key] == "select" and (not sides.contrast or sides.marks.get(key) == sides.target)
        ],
        measured=[key for key in ours if split[key] == "measure"],
        raws={str(key): str(raw) for key, raw in baseline["raw"].items()},
        unit=unit,
        units=units,
    )


def seen_rankings(halves: Halves) -> dict[str, NDArray[np.float64]]:
    """Return every ranking by when experts are seen, by name, each [layers, experts]."""
    marks, side = halves.marks, halves.sides.target
    found = rankings(halves.maps, marks, side, halves.tokens, weights=halves.weights)
    for role, maps in halves.other_maps.items():
        found[f"resonance_{role}"] = resonance(maps, marks, side)
    if len(halves.pairs):
        ours = [mark == side for mark in marks]
        found[PAIR_SIGNS] = signs_within_pairs(per_token(halves.maps, halves.tokens), ours, halves.pairs)
    found[FREQUENCY] = halves.frequency
    return found


def causal_scan(scans: list[StoredScan], number: int | None = None) -> StoredScan | None:
    """Return the scan of that number, or the one with the most forward passes, of equal ones the first.

    Raises MoteError that names the scans there are for another number.
    """
    if number is None:
        return max(scans, key=lambda scan: (scan.passes, -scan.scan_id), default=None)
    for scan in scans:
        if scan.scan_id == number:
            return scan
    there = "; ".join(f"{scan.scan_id}: {scan.title}" for scan in scans) or "none"
    raise MoteError(f"There is no scan {number} in this run. Scans: {there}.")


def causal_effects(scans: Scans, scan: StoredScan) -> pd.DataFrame:
    """Return what ``causal.scan_effects`` makes of a stored scan, and how often tokens chose the edited expert.

    The further column ``selected`` counts over all passes of the expert; where it is 0 the edit did nothing, and the
    effect is rounding. Empty where no expert was measured yet.
    """
    scores = scans.scores(scan.scan_id)
    found = scan_margins(scores, scan.openings)
    if found.scan.empty:
        return pd.DataFrame(columns=_EFFECTS)
    selected = scores.dropna(subset=["layer"]).groupby(["layer", "expert"])["selected"].sum()
    return scan_effects(found.untouched, found.scan).join(selected, on=["layer", "expert"])


def run_rankings(folder: str | os.PathLike[str], scan: int | None = None) -> dict[str, NDArray[np.float64]]:
    """Return every ranking that a run has, by name, each [layers, experts]; ``causal`` where it was scanned.

    nan marks an expert that the scan has not measured on all its prompts.
    """
    folder = Path(folder)
    with RunStore(folder, read_only=True) as store:
        halves = read_halves(store, read_manifest(folder))
        return {**seen_rankings(halves), **causal_ranking(halves, Scans(store), scan)}


def causal_ranking(halves: Halves, scans: Scans, number: int | None = None) -> dict[str, NDArray[np.float64]]:
    """Return the ranking by effect under its name, or nothing where no expert was scanned on all prompts."""
    scan = causal_scan(scans.scans(), number)
    effects = None if scan is None else causal_effects(scans, scan)
    if effects is None or not effects["complete"].any():
        return {}
    return {CAUSAL: scan_ranking(effects, halves.layers, halves.experts)}


def rankings_frame(folder: str | os.PathLike[str], scan: int | None = None) -> pd.DataFrame:
    """Return one row an expert: layer, expert, and for each ranking its score and its rank (column ``NAME_rank``).

    For a report's table of experts. Ranks are from 1, equal scores share one; of experts that the causal scan has not
    measured both are missing.
    """
    folder = Path(folder)
    with RunStore(folder, read_only=True) as store:
        layers = read_halves(store, read_manifest(folder)).layers
    return frame_of(run_rankings(folder, scan), layers)


def frame_of(found: Mapping[str, NDArray[np.float64]], layers: tuple[int, ...]) -> pd.DataFrame:
    """Return rankings as ``rankings_frame`` does."""
    experts = next(iter(found.values())).shape[1]
    table = pd.DataFrame({"layer": np.repeat(layers, experts), "expert": np.tile(np.arange(experts), len(layers))})
    for name, ranking in found.items():
        flat = ranking.ravel()
        known = np.isfinite(flat)
        table[name] = flat
        table[f"{name}_rank"] = pd.array([pd.NA] * flat.size, dtype="Int64")
        table.loc[known, f"{name}_rank"] = ranks_of(flat[known][None])[0]
    return table


def pick_rankings(
    found: Mapping[str, NDArray[np.float64]], names: Sequence[str] | None
) -> dict[str, NDArray[np.float64]]:
    """Return the rankings of these names, all where none is given; raise MoteError with the nearest for another."""
    for name in names or []:
        if name not in found:
            if name == CAUSAL:
                raise MoteError("This run has no causal scan of enough experts yet: make one with mote scan RUN.")
            raise MoteError(f"There is no ranking '{name}'.{nearest(name, found)}")
    return {name: found[name] for name in (names or found)}


def top_experts(name: str, ranking: NDArray[np.float64], k: int, layers: tuple[int, ...]) -> list[Expert]:
    """Return the top ``k`` of a ranking as (layer, expert), best first; experts without a score never come in.

    Raises DataError that names the ranking where it has fewer than ``k`` experts above 0.
    """
    try:
        best = distinctive_experts(np.nan_to_num(ranking, nan=0.0), k, layers)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return [(score.layer, score.expert) for score in best]


def unit_names(halves: Halves) -> dict[str, str]:
    """Return the name of each prompt's unit (``name_of_unit``), where the question has it."""
    found = {}
    for key, unit in halves.units.items():
        name = name_of_unit(unit)
        if name and any(name in str(message["content"]).casefold() for message in halves.prompts[key].messages):
            found[key] = name
    return found


def _other_maps(store: RunStore, role: str, ids: list[str]) -> dict[str, NDArray[np.int32]]:
    """The maps of further roles, where every prompt has one."""
    found = {}
    for name in MAPPED:
        if name != role:
            there, maps, _ = store.maps(BASELINE, name, empty=True)
            place = {key: i for i, key in enumerate(there)}
            if ids and all(key in place for key in ids):
                found[name] = maps[[place[key] for key in ids]]
    return found
